"""Define the interface of a runtime, and what all runtimes share."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from nas.errors import NasError
from nas.latency.timing import TimedRun

if TYPE_CHECKING:
    from nas.arch.parts import Part

Profile = list[tuple[str, float]]  # operations of a runtime and their milliseconds, the slowest first
PROFILED_ITERATIONS = 20


class Runtime(Protocol):
    """An engine that runs networks. A class of the registry is called with `threads` and `precision`.

    The call imports the engine (`installed`), so that listing runtimes loads none. It raises NasError if the engine is
    not installed or lacks the precision.
    """

    name: str
    version: str
    threads: int
    precision: str

    def clock(self) -> float:
        """Return the seconds of the clock by which an iteration is timed; `clock_of(threads)` is the usual one."""
        ...

    def compile(self, part: Part) -> TimedRun:
        """Return a call that runs the part once, with batch 1, and returns when the result is there.

        A block or head is compiled in its context (`nas.arch.parts.context_of`), whose own time is subtracted later:
        the operations that `nas.arch.operations.graph_of(part)` returns. No two calls share input or output
        buffers. The call does as little as possible in Python.
        """
        ...


@runtime_checkable
class Profiler(Protocol):
    """A runtime that can profile a part."""

    def profile(self, part: Part) -> Profile:
        """Return medians over a few iterations, added up by kind of operation. They include the cost of profiling."""
        ...


@runtime_checkable
class FileRuntime(Runtime, Protocol):
    """A runtime that runs models in files, without the rest of the package."""

    def load(self, model: bytes) -> TimedRun:
        """Return a call that runs a model of one input and one output once, as that of `compile` does."""
        ...


def check_precision(runtime: str, precision: str, known: tuple[str, ...]) -> str:
    """Return the precision. Raises NasError that names the known ones if it is none of them."""
    if precision not in known:
        raise NasError(f"{runtime} has no precision {precision!r}; it has {', '.join(known)}")
    return precision


def clock_of(threads: int) -> Callable[[], float]:
    """Return the clock for a runtime whose only thread is the calling one.

    The processor time of that thread leaves out what other processes got meanwhile. Windows counts it in steps of
    16 ms, so that the wall clock is used there, and for more threads.
    """
    return time.thread_time if threads == 1 and sys.platform != "win32" else time.perf_counter


def sample_images(shape: Iterable[int]) -> np.ndarray:
    """Return random float32 data of a shape, the same every time."""
    return np.random.default_rng(0).standard_normal(tuple(shape), np.float32)


def by_operation(samples: Iterable[tuple[str, str, float]]) -> Profile:
    """Return sums by kind of operation over the medians of each place in the graph.

    Each sample is a kind, a place and milliseconds.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kind, place, milliseconds in samples:
        times[kind, place].append(milliseconds)
    sums: dict[str, float] = defaultdict(float)
    for (kind, _), measured in times.items():
        sums[kind] += float(np.median(measured))
    return sorted(sums.items(), key=lambda row: -row[1])
