"""What a runtime is, and what all of them share."""

from __future__ import annotations

import importlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from nas.errors import NasError

if TYPE_CHECKING:
    from nas.arch.parts import Part

Run = Callable[[], None]
Profile = list[tuple[str, float]]  # operations of a runtime and their milliseconds, the dearest first
PROFILED_RUNS = 20


class Runtime(Protocol):
    """What a table is measured with. Made with `(threads=1, precision="float32")`, by name out of the registry.

    Raises NasError when it is made, if it is not installed or lacks the precision.
    """

    name: str
    version: str
    threads: int
    precision: str

    def clock(self) -> float:
        """Seconds, of the clock that a run's time is taken by."""
        ...

    def compile(self, part: Part) -> Run:
        """A call that runs the part once on data of its own, as short a way from Python as there is."""
        ...


@runtime_checkable
class Profiler(Protocol):
    """A runtime that can tell where a part's time goes."""

    def profile(self, part: Part) -> Profile:
        """Medians of a few runs, added up by kind of operation. What profiling itself costs is in them."""
        ...


def installed(package: str, install: str) -> Any:
    """The package, imported only now. Raises NasError saying how to `install` it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise NasError(f"the runtime {package} is not installed ({error}); install it with {install}") from None


def check_precision(runtime: str, precision: str, known: tuple[str, ...]) -> str:
    """The precision. Raises NasError, naming those that the runtime has, for another."""
    if precision not in known:
        raise NasError(f"{runtime} has no precision {precision!r}; it has {', '.join(known)}")
    return precision


def clock_of(threads: int) -> Callable[[], float]:
    """The clock for a runtime that works in the calling thread where it has one thread.

    That thread's processor time leaves out what other processes got meanwhile. Windows counts it in steps of 16 ms.
    """
    return time.thread_time if threads == 1 and sys.platform != "win32" else time.perf_counter


def sample_images(shape: Iterable[int]) -> np.ndarray:
    """The same float32 data every time."""
    return np.random.default_rng(0).standard_normal(tuple(shape), np.float32)


def by_operation(samples: Iterable[tuple[str, str, float]]) -> Profile:
    """Sums by kind of operation, of the medians of each place in the graph; samples are (kind, place, ms)."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kind, place, milliseconds in samples:
        times[kind, place].append(milliseconds)
    sums: dict[str, float] = defaultdict(float)
    for (kind, _), measured in times.items():
        sums[kind] += float(np.median(measured))
    return sorted(sums.items(), key=lambda row: -row[1])
