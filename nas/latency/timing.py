"""How a time is taken: single runs in randomly interleaved rounds, each compared with what ran around it.

On a shared machine absolute times drift by 20-50 % within milliseconds (a neighbour on the same core's other thread
is enough). So nothing here rests on a clock alone. All programs run in a new random order each round, and a
reference network (published MobileNetV3-Large) among them as one more program. Every run then tells two things: how
long its program takes, and how slow the machine was just then. The two are told apart by a fit: the logarithm of a
run's time is its program's level plus the machine's slowness at that moment, and the slowness is taken from the
runs of *other* programs just before and just after. Where these disagree, the machine was changing speed, and the
run hardly counts; further rounds make up for it. What comes out is the ratio of each program to the reference, and
it becomes milliseconds by the reference's own time, which the table stores.

Each visit to a program is a few runs that warm up and a few that count: what is timed is a program that runs again
and again, as benchmark tools time it. A last-level cache takes in what is too large for a core's own only after
several runs. The runs that warm up tell, too, how slow the machine is.

Where a runtime works in the calling thread, its time is that thread's processor time: what the system gave to other
processes in the middle of a run is not the network's.

Needs nothing but numpy, so that a device without the rest of the package can take times in the same way.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nas.latency.device import allowed_cores, pinned

Run = Callable[[], None]

# Around a visit, the slowness is the mean over this much time before and after it (at least one visit): the time
# over which a shared machine's speed keeps. Chosen with `UNSTEADY` by how well halves of a session agree.
NEIGHBOURHOOD_SECONDS = 0.01
UNSTEADY = 0.1  # a visit counts exp(-1/2) where the slowness before and after differs by this much, relative
INTERRUPTED = 3.0  # times what is usual: a run that took as long was stopped in the middle, and tells no speed
ITERATIONS = 5  # of the fit; the levels have settled to 0.1 % by then
# Several copies of the reference in long rounds, each once a round: one that ran more often than the other programs
# would find its weights nearer than they do.
REFERENCE_COPIES = 3
REFERENCE_SHARE = 0.1  # of the programs


@dataclass(frozen=True, slots=True)
class Effort:
    """Until when programs are timed: a relative standard error, within a number of rounds and seconds.

    At least `min_rounds`, however long they take.
    """

    relative_error: float
    min_rounds: int
    max_rounds: int
    seconds: float = 3600.0


ROW = Effort(0.04, 5, 16, seconds=8)  # the error of a network, a sum of some 17 rows, is a quarter of a row's
# Some rows more, as trimming asks for in each of its steps.
FEW_ROWS = Effort(0.04, 5, 8, seconds=1.5)
ANCHOR = Effort(0.05, 2, 2)  # whole networks that show where things stand
NETWORK = Effort(0.006, 8, 48, seconds=6)


class Visit(NamedTuple):
    """How often a program runs before and while its time is taken."""

    warm_ups: int
    counted: int


SHORT = Visit(1, 2)  # a block: its weights are in the core's own cache after one run
LONG = Visit(3, 3)  # a network or a head


class Program(NamedTuple):
    run: Run
    visit: Visit


@dataclass(frozen=True, slots=True)
class Timing:
    """Ratios of a program's times to the reference's: median, quartiles, how well the median is known."""

    ratio: float
    quartiles: tuple[float, float]
    count: int  # visits, counted by how steady the machine was
    error: float  # standard error of `ratio`, relative
    median_ms: float  # raw, by the wall clock, whatever the machine did


@dataclass(frozen=True, slots=True)
class Session:
    """Timings of programs in the order given, and the reference's own time while they were taken."""

    timings: tuple[Timing, ...]
    co_runs: tuple[Timing, ...]
    reference_ms: float  # lower quartile of visits: the speed of the machine where little else slows it
    rounds: int


@dataclass(frozen=True, slots=True)
class Bench:
    """What programs are timed with: a clock (seconds), copies of the reference, the cores to stay on."""

    clock: Callable[[], float]
    references: Sequence[Run]
    cores: list[int]

    @classmethod
    def of(cls, clock: Callable[[], float], threads: int, reference: Callable[[], Run]) -> Bench:
        """`reference` makes a copy of its program, with memory of its own."""
        references = [reference() for _ in range(REFERENCE_COPIES)]
        return cls(clock, references, fastest_cores(clock, threads, references[0]))


def time_interleaved(
    programs: Sequence[Program],
    bench: Bench,
    effort: Effort = ROW,
    *,
    rng: random.Random,
    co_runs: Sequence[Program] = (),
    on_progress: Callable[[float], None] = lambda share: None,
) -> Session:
    """Times programs, and the reference with them, in random order each round until each ratio is known.

    A program is left out of further rounds once the relative standard error of its ratio is small enough.
    `co_runs` are timed in every round: whole networks among blocks, so that blocks find the caches as they are
    when networks run. `on_progress` gets the share done.
    """
    record = _Record(bench, [*programs, *co_runs])
    active, always = list(range(len(programs))), list(range(len(programs), len(programs) + len(co_runs)))
    done, begun = 0, bench.clock()  # where it leaves out what other processes get, a busy machine gets no fewer rounds
    with pinned(bench.cores), _no_collection():
        while active and done < effort.max_rounds:
            order = active + always
            rng.shuffle(order)
            for program in _with_sentinels(order, record.references):
                record.visit(program)
            done += 1
            if done >= effort.min_rounds and (done - effort.min_rounds) % 2 == 0:
                errors = [timing.error for timing in record.timings()]
                active = [program for program in active if errors[program] > effort.relative_error]
            known = 1 - len(active) / max(1, len(programs)) if done >= effort.min_rounds else 0.0
            late = done >= effort.min_rounds and bench.clock() - begun > effort.seconds
            on_progress(1.0 if late else max(done / effort.max_rounds, known))
            if late:
                break
        record.visit(record.references[-1])  # the last program, too, has neighbours on both sides
    timings = tuple(record.timings()) if done else ()
    return Session(timings[: len(programs)], timings[len(programs) :], record.reference_ms(), done)


def _with_sentinels(order: Sequence[int], references: Sequence[int]) -> Iterator[int]:
    """A round: the programs in their order, the references at even distances between them, the first one first."""
    places = {len(order) * number // len(references): reference for number, reference in enumerate(references)}
    for place, program in enumerate(order):
        if place in places:
            yield places[place]
        yield program


class _Run(NamedTuple):
    """One run of a program: when it ended and how long it took by the wall, how long by the clock (all seconds)."""

    end: float
    wall: float
    seconds: float


class _Record:
    """All runs of a session."""

    def __init__(self, bench: Bench, programs: Sequence[Program]) -> None:
        self._clock = bench.clock
        number = min(len(bench.references), 1 + int(REFERENCE_SHARE * len(programs)))
        self.programs = [*programs, *(Program(run, LONG) for run in bench.references[:number])]
        self.references = range(len(programs), len(self.programs))
        self._visited: list[int] = []  # the program of each visit
        self._runs: list[_Run] = []

    def visit(self, program: int) -> None:
        (run, visit), clock = self.programs[program], self._clock
        for _ in range(visit.warm_ups + visit.counted):
            wall, start = time.perf_counter(), clock()
            run()
            seconds, now = clock() - start, time.perf_counter()
            self._runs.append(_Run(now, now - wall, seconds))
        self._visited.append(program)

    def reference_ms(self) -> float:
        """The lower quartile of its visits, each by its median run: one quick run is no speed of the machine."""
        program, counts = self._tagged()
        times = np.array([run.seconds for run in self._runs])[counts & (program >= self.references[0])]
        return 1000 * float(np.quantile(np.median(times.reshape(-1, LONG.counted), axis=1), 0.25))

    def _tagged(self) -> tuple[np.ndarray, np.ndarray]:
        """The program of each run, and whether the run counts."""
        lengths = np.array([sum(program.visit) for program in self.programs])[self._visited]
        place = np.arange(len(self._runs)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        program = np.repeat(self._visited, lengths)
        return program, place >= np.array([program.visit.warm_ups for program in self.programs])[program]

    def timings(self) -> list[Timing]:
        """What is known by now of each program, the references left out. Each was visited at least once."""
        runs = np.array(self._runs)
        walls, logs = runs[:, 1], np.log(np.maximum(runs[:, 2], 1e-9))
        program, counts = self._tagged()
        visit = np.repeat(np.arange(len(self._visited)), [sum(self.programs[p].visit) for p in self._visited])
        # Runs that warm up have levels of their own, one for each place in a visit.
        first = np.searchsorted(visit, np.arange(len(self._visited)))
        place = np.arange(len(runs)) - first[visit]
        kind = np.where(counts, program, (1 + place) * len(self.programs) + program)
        levels, slowness, weights = _fit(kind, visit, runs[:, 0] - walls, runs[:, 0], logs)
        ratios = np.exp(logs - slowness[visit] - levels[self.references].mean())
        timings = []
        for number in range(self.references[0]):
            own = counts & (program == number)
            weight = weights[visit[own]]
            q1, ratio, q3 = _weighted_quantiles(ratios[own], weight, (0.25, 0.5, 0.75))
            # Runs of one visit share what was not told apart: a visit counts once.
            of_visits = weights[np.unique(visit[own])]
            counted = of_visits.sum() ** 2 / (of_visits**2).sum()
            error = 1.25 * (q3 - q1) / 1.35 / counted**0.5 / ratio  # of a normal distribution's median
            timings.append(Timing(ratio, (q1, q3), round(counted), float(error), 1000 * float(np.median(walls[own]))))
        return timings


def _fit(
    kind: np.ndarray, visit: np.ndarray, start: np.ndarray, end: np.ndarray, logs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The level of each kind of run (log seconds), the slowness (log) and the weight of each visit.

    All arrays are of shape (runs,), in the order of time: what runs, in which visit, when (s), for how long.
    """
    visits, kinds = visit[-1] + 1, kind.max() + 1
    first = np.searchsorted(visit, np.arange(visits))
    last = np.searchsorted(visit, np.arange(visits), "right")
    # Runs before and after each visit within the neighbourhood, at least those of the next visit.
    before = np.searchsorted(end, start[first] - NEIGHBOURHOOD_SECONDS)
    before = np.minimum(before, np.concatenate([[0], first[:-1]]))
    after = np.searchsorted(start, end[last - 1] + NEIGHBOURHOOD_SECONDS, "right")
    after = np.maximum(after, np.concatenate([last[1:], [len(kind)]]))
    levels = _medians(logs, np.ones(len(logs)), kind, kinds)
    for _ in range(ITERATIONS):
        slower = logs - levels[kind]
        telling = np.where(slower < np.log(INTERRUPTED), np.exp(logs), 0.0)
        sums = np.concatenate([[0.0], np.cumsum(telling)])
        left, right = sums[first] - sums[before], sums[after] - sums[last]
        both, either = (left > 0) & (right > 0), (left > 0) | (right > 0)
        sums = np.concatenate([[0.0], np.cumsum(telling * np.clip(slower, -0.5, 0.8))])
        earlier = (sums[first] - sums[before]) / np.where(left > 0, left, 1.0)
        later = (sums[after] - sums[last]) / np.where(right > 0, right, 1.0)
        slowness = np.where(both, (earlier + later) / 2, earlier + later)
        steady = np.exp(-0.5 * ((earlier - later) / UNSTEADY) ** 2)
        weights = np.where(both, steady, np.where(either, 0.1, 0.0)) + 1e-3
        levels = _medians(logs - slowness[visit], weights[visit], kind, kinds)
    return levels, slowness, weights


def _medians(values: np.ndarray, weights: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    """The weighted median of each group of values: shape (number,), 0 for a group that is empty."""
    order = np.lexsort((values, groups))
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    begin = np.searchsorted(groups[order], np.arange(number))
    end = np.searchsorted(groups[order], np.arange(number), "right")
    middle = np.searchsorted(sums, (sums[begin] + sums[end]) / 2) - 1
    medians = values[order][np.clip(middle, 0, len(values) - 1)]
    return np.where(end > begin, medians, 0.0)


def _weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: Sequence[float]) -> list[float]:
    """Interpolated between values, each of which stands at the middle of its weight."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    middles = (sums - weights[order] / 2) / sums[-1]
    return [float(quantile) for quantile in np.interp(shares, middles, values[order])]


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


def fastest_cores(clock: Callable[[], float], threads: int, reference: Run) -> list[int]:
    """The cores to stay on: as many as there are threads, the quickest of those allowed.

    A laptop's cores differ, and a core that another process keeps busy is a slow one. Empty where the system
    cannot pin.
    """
    cores = allowed_cores()
    if len(cores) <= threads:
        return cores
    times = {core: [] for core in cores}  # type: dict[int, list[float]]
    for _ in range(5):
        for core in cores:
            with pinned([core]):
                reference()
                start = clock()
                reference()
                times[core].append(clock() - start)
    return sorted(sorted(cores, key=lambda core: float(np.median(times[core])))[:threads])
