"""How a time is taken: single runs in randomly interleaved rounds, each compared with a sentinel nearby.

On a shared machine absolute times drift by 20-30 % from minute to minute; ratios to a reference network that
runs in between do not. So everything here is a ratio to the sentinel (published MobileNetV3-Large), and
becomes milliseconds by the sentinel's undisturbed time, which the table stores.

Every run is the first after many others, because in a network a block's weights are not in the first caches
either: timed in a loop, a block looks several percent faster than it is.

Where a runtime works in the calling thread, its time is that thread's processor time: what the system gave to
other processes in the middle of a run is not the network's.
"""

from __future__ import annotations

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
SENTINEL_WINDOW = 9  # sentinel runs around a moment whose median is the machine's speed at that moment
COLD_AFTER = 16  # different programs between two runs of one, so that the caches are as cold as in a network
# Disturbances only ever add time, so the level lies below the median; lower quantiles are noisier.
LEVEL_QUANTILE = 0.35
MIN_ROUNDS, MAX_ROUNDS = 8, 32
RELATIVE_ERROR = 0.02  # of a row; that of a network, a sum of some 17 rows, is a quarter of it
WARM_UP_RUNS = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Ratios of a program's time to the sentinel's: level, quartiles, and how well the level is known."""

    ratio: float
    quartiles: tuple[float, float]
    count: int
    error: float  # standard error of the level, relative
    median_ms: float  # raw, by the wall clock, undisturbed or not


@dataclass(frozen=True, slots=True)
class Session:
    """Timings of programs in the order given, and the sentinel's undisturbed time while they were taken."""

    timings: tuple[Timing, ...]
    sentinel_ms: float  # lower quartile
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
    relative_error: float = RELATIVE_ERROR,
    rounds: tuple[int, int] = (MIN_ROUNDS, MAX_ROUNDS),
    on_progress: Callable[[float], None] = lambda share: None,
) -> Session:
    """Times each program once a round, in a new random order each round, until its level is known.

    A program is dropped from further rounds once the relative standard error of its level is at most
    `relative_error` or the second of `rounds` is reached. `on_progress` gets the share of work done.
    """
    samples: list[list[_Sample]] = [[] for _ in programs]
    beats: list[_Sample] = []
    active = list(range(len(programs)))

    def sample(program: Run) -> _Sample:
        moment, start = time.perf_counter(), bench.runtime.clock()
        program()
        return _Sample(moment, bench.runtime.clock() - start, time.perf_counter() - moment)

    with pinned(bench.cores), _no_collection():
        for _ in range(WARM_UP_RUNS):
            for program in (bench.sentinel, *programs):
                program()
        done = 0
        while active and done < rounds[1]:
            rng.shuffle(active)
            beats.append(sample(bench.sentinel))
            since = 0.0
            for index in active:
                if len(active) < COLD_AFTER or since > SENTINEL_EVERY_MS / 1000:
                    beats.append(sample(bench.sentinel))
                    since = 0.0
                samples[index].append(sample(programs[index]))
                since += samples[index][-1].seconds
            done += 1
            if done >= rounds[0]:
                speed = _Speed(beats)
                active = [i for i in active if _timing(samples[i], speed).error > relative_error]
            on_progress(max(done / rounds[1], 1 - len(active) / max(1, len(programs)) if done >= rounds[0] else 0.0))
    speed = _Speed(beats)
    timings = tuple(_timing(rows, speed) for rows in samples)
    return Session(timings, 1000 * float(np.quantile([beat.seconds for beat in beats], 0.25)), done)


class _Sample(NamedTuple):
    moment: float
    seconds: float  # by the runtime's clock
    wall: float


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


class _Speed:
    """The sentinel's time around a moment: the median of the runs next to it."""

    def __init__(self, beats: Sequence[_Sample]) -> None:
        self._moments, seconds, _ = np.array(beats).T
        window = min(SENTINEL_WINDOW, len(seconds))
        padded = np.pad(seconds, (window // 2, (window - 1) // 2), mode="reflect" if len(seconds) > window else "edge")
        self._levels = np.median(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)

    def at(self, moments: np.ndarray) -> np.ndarray:
        return np.interp(moments, self._moments, self._levels)


def _timing(rows: Sequence[_Sample], speed: _Speed) -> Timing:
    moments, seconds, wall = np.array(rows).T
    ratios = seconds / speed.at(moments)
    level, q1, q3 = np.quantile(ratios, (LEVEL_QUANTILE, 0.25, 0.75))
    # The spread of the undisturbed half says how well the level is known: 1.35 sigma between quartiles.
    sigma = (np.median(ratios) - q1) / 0.674
    error = 1.25 * sigma / len(ratios) ** 0.5 / level
    return Timing(float(level), (float(q1), float(q3)), len(ratios), float(error), 1000 * float(np.median(wall)))


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
    count: int


def measure_latency(
    specs: Sequence[ArchSpec],
    *,
    table: LatencyTable,
    rng: random.Random | None = None,
    rounds: tuple[int, int] = (24, 60),
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[Measured]:
    """Measures whole networks on this machine, interleaved with the table's sentinel.

    Normalised milliseconds compare with the table's predictions and with budgets; raw ones are what a clock
    shows this minute. Raises NasError if the table is of another device or runtime.
    """
    bench = table.bench
    programs = [bench.runtime.compile(NetworkPart(spec, table.num_classes)) for spec in specs]
    session = time_interleaved(
        programs, bench, rng=rng or random.Random(0), rounds=rounds, relative_error=0.003, on_progress=on_progress
    )
    scale = table.sentinel_ms
    return [
        Measured(t.median_ms, t.ratio * scale, (t.quartiles[0] * scale, t.quartiles[1] * scale), t.count)
        for t in session.timings
    ]
