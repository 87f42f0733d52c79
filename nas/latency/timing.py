"""How a time is taken: single runs in randomly interleaved rounds, each compared with a sentinel nearby.

On a shared machine absolute times drift by 20-50 % within a second (a neighbour on the same core's other
thread is enough); ratios to a reference network that runs in between do not. So everything here is a ratio to the
sentinel (published MobileNetV3-Large), and becomes milliseconds by the sentinel's undisturbed time, which the table
stores. And because a disturbance slows different work by different shares, only those runs count that stand
between two sentinel runs at nearly full speed; what was disturbed is run again.

Every timed run follows an untimed one of the same program and then a walk over a buffer larger than the cache of
the core: its weights are where a network that runs again and again has them, in the last cache, and not nearer.
Timed in a loop a block looks several percent faster than in a network; timed among hundreds of other programs,
whose weights drive its own out to memory, slower, and the sentinel with it.

Where a runtime works in the calling thread, its time is that thread's processor time: what the system gave to
other processes in the middle of a run is not the network's.
"""

from __future__ import annotations

import bisect
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nas.latency.device import allowed_cores, pinned
from nas.latency.runtimes import Run, Runtime
from nas.parts import NetworkPart
from nas.spec import ArchSpec

if TYPE_CHECKING:
    from nas.latency.table import LatencyTable

SENTINEL_EVERY_MS = 25.0  # of other work
# Full speed is the fastest tenth of the sentinel's runs; a sentinel this much slower is disturbed. Chosen by how
# well two halves of a session agree: at 3 % too few runs are left, at 20 % disturbed ones get in.
FULL_SPEED_QUANTILE = 0.1
DISTURBED = 1.08
BUFFER_BYTES = 4 << 20  # twice the second cache of today's server cores
PATIENCE = 1  # sentinel runs that a disturbance is waited for before work goes on all the same
GOOD_RUNS = 4  # undisturbed runs that a program gets at least
MIN_GOOD = 3  # below it, disturbed runs count too
MAX_ROUNDS = 8
RELATIVE_ERROR = 0.03  # of a row; that of a network, a sum of some 17 rows, is a quarter of it


@dataclass(frozen=True, slots=True)
class Timing:
    """Ratios of a program's undisturbed times to the sentinel's: median, quartiles, how well it is known."""

    ratio: float
    quartiles: tuple[float, float]
    count: int  # undisturbed runs
    error: float  # standard error of `ratio`, relative
    median_ms: float  # raw, by the wall clock, disturbed or not


@dataclass(frozen=True, slots=True)
class Session:
    """Timings of programs in the order given, and the sentinel's undisturbed time while they were taken."""

    timings: tuple[Timing, ...]
    sentinel_ms: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Bench:
    """What programs are timed with: a runtime, the sentinel compiled for it, the cores to stay on."""

    runtime: Runtime
    sentinel: Run
    cores: list[int]

    @classmethod
    def of(cls, runtime: Runtime, sentinel: Run) -> Bench:
        return cls(runtime, sentinel, fastest_cores(runtime, sentinel))


def time_interleaved(
    programs: Sequence[Run],
    bench: Bench,
    *,
    rng: random.Random,
    undisturbed_ms: float | None = None,
    relative_error: float = RELATIVE_ERROR,
    good_runs: int = GOOD_RUNS,
    max_rounds: int = MAX_ROUNDS,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Session:
    """Times each program once a round, in a new random order each round, until its ratio is known.

    A program is left out of further rounds once it has `good_runs` undisturbed runs and the relative standard
    error of their median is at most `relative_error`, or after `max_rounds`. `undisturbed_ms` is the sentinel's
    time at full speed, where it is known from before. `on_progress` gets the share done.
    """
    record = _Record(bench, np.inf if undisturbed_ms is None else undisturbed_ms / 1000)
    samples: list[list[_Sample]] = [[] for _ in programs]
    active = list(range(len(programs)))
    done = 0
    with pinned(bench.cores), _no_collection():
        for program in programs:
            program()
        while active and done < max_rounds:
            rng.shuffle(active)
            since = 2 * SENTINEL_EVERY_MS
            for index in active:
                if since > SENTINEL_EVERY_MS:
                    record.beat()
                    since = 0.0
                samples[index].append(record.sample(programs[index]))
                since += 1000 * samples[index][-1].seconds
            done += 1
            record.beat(patience=0)
            if done >= good_runs:
                timings = [record.timing(samples[index]) for index in active]
                pairs = zip(active, timings, strict=True)
                active = [i for i, t in pairs if t.count < good_runs or t.error > relative_error]
            finished = 1 - len(active) / max(1, len(programs)) if done >= good_runs else 0.0
            on_progress(max(done / max_rounds, finished))
    return Session(tuple(map(record.timing, samples)), 1000 * record.undisturbed_seconds(), done)


class _Sample(NamedTuple):
    before: int  # index of the sentinel run before it; the next one is after it
    seconds: float  # by the runtime's clock
    wall: float


class _Record:
    """The sentinel's runs of a session, and what other runs are worth beside them."""

    def __init__(self, bench: Bench, known_seconds: float) -> None:
        self._bench = bench
        self._known_seconds = known_seconds
        self._buffer = np.ones(BUFFER_BYTES // 4, np.float32)
        self._beats: list[float] = []
        self._sorted: list[float] = []

    def sample(self, program: Run) -> _Sample:
        program()
        self._buffer.sum()
        wall, start = time.perf_counter(), self._bench.runtime.clock()
        program()
        seconds = self._bench.runtime.clock() - start
        return _Sample(len(self._beats) - 1, seconds, time.perf_counter() - wall)

    def beat(self, patience: int = PATIENCE) -> None:
        """Runs the sentinel, again while it is disturbed."""
        for _ in range(1 + patience):
            seconds = self.sample(self._bench.sentinel).seconds
            self._beats.append(seconds)
            bisect.insort(self._sorted, seconds)
            if seconds <= DISTURBED * self._full_speed():
                return

    def _full_speed(self) -> float:
        return min(self._sorted[int(FULL_SPEED_QUANTILE * len(self._sorted))], self._known_seconds)

    def undisturbed_seconds(self) -> float:
        """The sentinel's time: the median of its undisturbed runs."""
        return self._sorted[bisect.bisect_right(self._sorted, DISTURBED * self._full_speed()) // 2]

    def timing(self, samples: Sequence[_Sample]) -> Timing:
        before, seconds, wall = np.array(samples).T
        beats = np.array(self._beats)
        around = np.stack([beats[before.astype(int)], beats[before.astype(int) + 1]])
        ratios = seconds / around.mean(axis=0)
        good = around.max(axis=0) <= DISTURBED * self._full_speed()
        count = int(good.sum())
        if count < MIN_GOOD:
            # Nothing but disturbed runs: the least disturbed are the best there is, and the count says so.
            good = np.argsort(around.max(axis=0)).argsort() < GOOD_RUNS
        q1, level, q3 = np.quantile(ratios[good], (0.25, 0.5, 0.75))
        sigma = (q3 - q1) / 1.35  # of a normal distribution
        error = 1.25 * sigma / good.sum() ** 0.5 / level
        return Timing(float(level), (float(q1), float(q3)), count, float(error), 1000 * float(np.median(wall)))


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection in the middle of a run."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def fastest_cores(runtime: Runtime, sentinel: Run) -> list[int]:
    """The cores to stay on: as many as the runtime has threads, the quickest of those allowed.

    A laptop's cores differ, and a core that another process keeps busy is a slow one. Empty where the system
    cannot pin.
    """
    cores = allowed_cores()
    if len(cores) <= runtime.threads:
        return cores
    times = {core: [] for core in cores}  # type: dict[int, list[float]]
    for _ in range(5):
        for core in cores:
            with pinned([core]):
                sentinel()
                start = runtime.clock()
                sentinel()
                times[core].append(runtime.clock() - start)
    return sorted(sorted(cores, key=lambda core: float(np.median(times[core])))[: runtime.threads])


@dataclass(frozen=True, slots=True)
class Measured:
    """Latency of one whole network: raw, and normalised to the speed that the table was measured at."""

    median_ms: float
    normalised_ms: float
    quartiles_ms: tuple[float, float]  # normalised
    count: int  # undisturbed runs

    @property
    def disturbed(self) -> bool:
        """Whether the machine never ran at the speed of its table: the figure can be a tenth off."""
        return self.count < MIN_GOOD


def measure_latency(
    specs: Sequence[ArchSpec],
    *,
    table: LatencyTable,
    rng: random.Random | None = None,
    good_runs: int = 12,
    max_rounds: int = 30,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[Measured]:
    """Measures whole networks on this machine, interleaved with the table's sentinel.

    Normalised milliseconds compare with the table's predictions and with budgets; raw ones are what a clock
    shows this minute. Raises NasError if the table is of another device or runtime.
    """
    bench = table.bench
    programs = [bench.runtime.compile(NetworkPart(spec, table.num_classes)) for spec in specs]
    session = time_interleaved(
        programs,
        bench,
        rng=rng or random.Random(0),
        undisturbed_ms=table.sentinel_ms,
        relative_error=0.005,
        good_runs=good_runs,
        max_rounds=max_rounds,
        on_progress=on_progress,
    )
    scale = table.sentinel_ms
    return [
        Measured(t.median_ms, t.ratio * scale, (t.quartiles[0] * scale, t.quartiles[1] * scale), t.count)
        for t in session.timings
    ]
