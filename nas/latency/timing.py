"""Time programs: single iterations in randomly interleaved rounds, each compared with what ran around it.

The speed of a shared machine drifts by 20-50 % within milliseconds; a neighbour on the core's other hardware thread is
enough. So no time here rests on a clock alone. Each round runs every program in a new random order, and among them
the reference network (published MobileNetV3-Large). A fit (`nas.latency.drift`) then tells apart how long a program
takes and how slow the machine was. The result is the ratio of each program to the reference network. The reference
network's own time, which a latency table stores, turns a ratio into milliseconds.

A program's turn in a round is some iterations that warm up and some that are timed: a program is timed as it runs
again and again, like in benchmark tools. A last-level cache takes in what is too large for a core's own caches only
after several iterations. The iterations that warm up, too, say how slow the machine is.

A runtime that works in the calling thread is timed by that thread's processor time. This leaves out what the system
gave to other processes in the middle of an iteration.

This module needs nothing but numpy, so that a device without the rest of the package takes times in the same way.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from nas.console import Progress
from nas.latency.device import allowed_cores, hold, pinned
from nas.latency.drift import fit_levels, weighted_quantiles
from nas.latency.throttling import Throttling
from nas.latency.topology import spread

TimedRun = Callable[[], None]  # one iteration of a program

# Long rounds hold several copies of the reference network, each once: a copy that ran more often than other programs
# would find its weights nearer than they do.
REFERENCE_COPIES = 3
REFERENCE_SHARE = 0.1  # of the programs


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """The end of timing: at a relative standard error, or after a number of rounds or seconds.

    `min_rounds` are run however long they take.
    """

    relative_error: float
    min_rounds: int
    max_rounds: int
    seconds: float = 3600.0


# A network is a sum of some 17 rows; its error is a quarter of a row's.
ROW_RULE = StoppingRule(0.04, 5, 16, seconds=8)
FEW_ROWS_RULE = StoppingRule(0.04, 5, 8, seconds=1.5)  # without networks: those that a step of trimming asks for
ANCHOR_RULE = StoppingRule(0.05, 2, 2)  # anchor networks need only be roughly right
LEARNING_RULE = StoppingRule(0.015, 4, 8)  # more networks teach more than longer looks at each
FINALIST_RULE = StoppingRule(0.01, 4, 24, seconds=3)  # a search learns from them, and measures what it ends with again
NETWORK_RULE = StoppingRule(0.006, 5, 48, seconds=6)


class Iterations(NamedTuple):
    """The runs of a program in its turn: before it is timed, and while it is timed."""

    warm_up: int
    timed: int


BLOCK_ITERATIONS = Iterations(1, 2)  # a block's weights are in the core's own cache after one iteration
NETWORK_ITERATIONS = Iterations(3, 3)  # for a whole network, or a head


class Program(NamedTuple):
    """A program to be timed."""

    run: TimedRun
    iterations: Iterations


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of a program as a ratio to the reference network's."""

    ratio: float  # median
    quartiles: tuple[float, float]
    count: int  # turns, each counted by how steady the machine was
    error: float  # standard error of `ratio`, relative
    median_ms: float  # raw, by the wall clock, whatever the machine did


@dataclass(frozen=True, slots=True)
class Session:
    """Timings of programs in the order given, and the reference network's own time while they were taken."""

    timings: tuple[Timing, ...]
    co_run: tuple[Timing, ...]
    reference_ms: float  # lower quartile over turns: the speed of the machine where little else slows it
    rounds: int


@dataclass(frozen=True, slots=True)
class Bench:
    """The means of timing: a clock (seconds), copies of the reference network, the cores to stay on."""

    clock: Callable[[], float]
    references: Sequence[TimedRun]
    cores: list[int]  # empty where the system cannot pin
    threads: int = 1
    throttling: Throttling = field(default_factory=Throttling, compare=False)

    @classmethod
    def of(cls, clock: Callable[[], float], threads: int, reference: Callable[[], TimedRun]) -> Bench:
        """Choose the cores, and compile the reference network; `reference` makes a copy with memory of its own.

        One thread takes the core on which the reference network runs fastest. More threads take those on which plain
        arithmetic does, of one kind and apart: before they are chosen there must be no pool of threads.
        """
        if threads == 1:
            references = [reference() for _ in range(REFERENCE_COPIES)]
            return cls(clock, references, fastest_cores(clock, threads, references[0]))
        bench = cls(clock, [], fastest_cores(clock, threads, _arithmetic), threads)
        with bench.compiling():
            return replace(bench, references=[reference() for _ in range(REFERENCE_COPIES)])

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Compile programs of several threads on the cores, so that the threads that they start stay there.

        Some runtimes remember the cores of this moment, and move their threads back to these now and then.
        """
        with pinned(self.cores if self.threads > 1 else []):
            yield


def time_interleaved(
    programs: Sequence[Program],
    bench: Bench,
    stopping_rule: StoppingRule = ROW_RULE,
    *,
    rng: random.Random,
    co_run: Sequence[Program] = (),
    on_progress: Progress = lambda share, note: None,
) -> Session:
    """Time programs, and the reference network with them, in rounds of random order until each ratio is known.

    A program is left out of further rounds once the relative standard error of its ratio is small enough. The
    programs of `co_run` are timed in every round. They are whole networks among blocks, so that blocks find the
    caches as they are when networks run.
    """
    samples = _Samples(bench, [*programs, *co_run])
    active, always = list(range(len(programs))), list(range(len(programs), len(programs) + len(co_run)))
    # The bench's clock can leave out what other processes get: then a busy machine gets no fewer rounds.
    done, begun = 0, bench.clock()
    with pinned(bench.cores), _no_collection(), bench.throttling.watched(bench.cores) as look:
        while active and done < stopping_rule.max_rounds:
            order = active + always
            rng.shuffle(order)
            for program in _with_references(order, samples.references):
                samples.take_turn(program)
            look()
            done += 1
            if done >= stopping_rule.min_rounds and (done - stopping_rule.min_rounds) % 2 == 0:
                errors = [timing.error for timing in samples.timings()]
                active = [program for program in active if errors[program] > stopping_rule.relative_error]
            known = 1 - len(active) / max(1, len(programs)) if done >= stopping_rule.min_rounds else 0.0
            late = done >= stopping_rule.min_rounds and bench.clock() - begun > stopping_rule.seconds
            on_progress(1.0 if late else max(done / stopping_rule.max_rounds, known), "")
            if late:
                break
        samples.take_turn(samples.references[-1])  # so that the last program, too, has neighbours on both sides
    timings = tuple(samples.timings()) if done else ()
    return Session(timings[: len(programs)], timings[len(programs) :], samples.reference_ms(), done)


def _with_references(order: Sequence[int], references: Sequence[int]) -> Iterator[int]:
    """Yield the programs of a round in their order, and the references at even distances among them, one first."""
    places = {len(order) * number // len(references): reference for number, reference in enumerate(references)}
    for place, program in enumerate(order):
        if place in places:
            yield places[place]
        yield program


class _Sample(NamedTuple):
    """One iteration of a program; all in seconds."""

    end: float  # by the wall clock
    wall: float  # by the wall clock, its time
    seconds: float  # by the bench's clock, its time


class _Samples:
    """All iterations of a session."""

    def __init__(self, bench: Bench, programs: Sequence[Program]) -> None:
        self._clock = bench.clock
        self._pool_cores = bench.cores if bench.threads > 1 else []
        number = min(len(bench.references), 1 + int(REFERENCE_SHARE * len(programs)))
        self.programs = [*programs, *(Program(run, NETWORK_ITERATIONS) for run in bench.references[:number])]
        self.references = range(len(programs), len(self.programs))
        self._turns: list[int] = []  # the program of each turn
        self._samples: list[_Sample] = []

    def take_turn(self, program: int) -> None:
        """Run a program's iterations of one turn, and bring a pool's threads back before those that are timed."""
        (run, iterations), clock = self.programs[program], self._clock
        for number in range(sum(iterations)):
            if number == iterations.warm_up:
                hold(self._pool_cores)
            wall, start = time.perf_counter(), clock()
            run()
            seconds, now = clock() - start, time.perf_counter()
            self._samples.append(_Sample(now, now - wall, seconds))
        self._turns.append(program)

    def reference_ms(self) -> float:
        """Return the lower quartile of the reference network's turns, each by its median timed iteration.

        A single fast iteration does not say how fast the machine is.
        """
        program, timed = self._labels()
        times = np.array([sample.seconds for sample in self._samples])[timed & (program >= self.references[0])]
        turns = np.median(times.reshape(-1, NETWORK_ITERATIONS.timed), axis=1)
        return 1000 * float(np.quantile(turns, 0.25))

    def _labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the program of each iteration, and whether it is timed: arrays of shape (iterations,)."""
        lengths = np.array([sum(program.iterations) for program in self.programs])[self._turns]
        place = np.arange(len(self._samples)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        program = np.repeat(self._turns, lengths)
        return program, place >= np.array([program.iterations.warm_up for program in self.programs])[program]

    def timings(self) -> list[Timing]:
        """Return the current estimate for each program but the references. Each had at least one turn."""
        samples = np.array(self._samples)
        walls, logs = samples[:, 1], np.log(np.maximum(samples[:, 2], 1e-9))
        program, timed = self._labels()
        turn = np.repeat(np.arange(len(self._turns)), [sum(self.programs[p].iterations) for p in self._turns])
        # Iterations that warm up have levels of their own, one for each place in a turn.
        first = np.searchsorted(turn, np.arange(len(self._turns)))
        place = np.arange(len(samples)) - first[turn]
        kind = np.where(timed, program, (1 + place) * len(self.programs) + program)
        levels, slowness, weights = fit_levels(kind, turn, samples[:, 0] - walls, samples[:, 0], logs)
        ratios = np.exp(logs - slowness[turn] - levels[self.references].mean())
        timings = []
        for number in range(self.references[0]):
            own = timed & (program == number)
            weight = weights[turn[own]]
            q1, ratio, q3 = weighted_quantiles(ratios[own], weight, (0.25, 0.5, 0.75))
            # The iterations of one turn share what the fit left in them, so that a turn counts once.
            of_turns = weights[np.unique(turn[own])]
            count = of_turns.sum() ** 2 / (of_turns**2).sum()
            error = error_of_median((q1, q3), count) / ratio
            timings.append(Timing(ratio, (q1, q3), round(count), float(error), 1000 * float(np.median(walls[own]))))
        return timings


def error_of_median(quartiles: tuple[float, float], count: float) -> float:
    """Return the standard error of the median of `count` values, as a normal distribution of these quartiles has it."""
    return 1.25 * (quartiles[1] - quartiles[0]) / 1.35 / count**0.5


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running in the middle of an iteration."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def fastest_cores(clock: Callable[[], float], number: int, run: TimedRun) -> list[int]:
    """Return the cores on which a program of one thread runs fastest, so many of those that are allowed.

    A laptop's cores differ, and a core that another process keeps busy is a slow one. Several cores are of one kind,
    and no two are hardware threads of one core, as far as there are enough (`nas.latency.topology`). Returns no core
    where the system cannot pin.
    """
    cores = allowed_cores()
    if len(cores) <= number:
        return cores
    times: dict[int, list[float]] = {core: [] for core in cores}
    for _ in range(5):
        for core in cores:
            with pinned([core]):
                run()
                start = clock()
                run()
                times[core].append(clock() - start)
    ranked = sorted(cores, key=lambda core: float(np.median(times[core])))
    return sorted(ranked[:1] if number == 1 else spread(ranked, number))


def _arithmetic() -> None:
    """Keep one core busy for a millisecond or two."""
    values = np.linspace(0, 1, 1 << 15, dtype=np.float32)
    for _ in range(200):
        values *= 0.5
        values += 0.5
