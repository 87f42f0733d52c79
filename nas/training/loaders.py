"""Loaders: processes that read batches of images from disk, as far as the machine allows."""

from __future__ import annotations

import shutil
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from nas.cpu import usable_cores
from nas.errors import NasError

MOST_LOADERS = 8
SHARED_MEMORY = Path("/dev/shm")  # Linux keeps there what processes share
SHARED_EACH = 256 * 2**20  # bytes for a loader: two batches of 128 images of 224 pixels are 154 MB
ADVICE = "take fewer loaders with --loaders N, or none with --loaders 0"


def automatic_loaders() -> int:
    """Return how many loaders there are where nobody says it."""
    return min(MOST_LOADERS, usable_cores())


def little_shared_memory(loaders: int) -> str:
    """Return how little memory this machine has for the batches of its loaders, as text; nothing if it has enough."""
    return lack_of_shared_memory(loaders * SHARED_EACH)


def lack_of_shared_memory(needed: int) -> str:
    """Return how little memory there is that processes can share, if not `needed` bytes; nothing if there is enough."""
    try:
        memory = shutil.disk_usage(SHARED_MEMORY)
    except OSError:  # not Linux, which keeps it elsewhere
        return ""
    if memory.free >= needed:
        return ""
    return f"{SHARED_MEMORY} has {memory.free / 2**20:,.0f} of {memory.total / 2**20:,.0f} MB free"


def manner_of_death(exitcode: int) -> str:
    """Return how a process ended, by the exit code that Python has of it: "signal SIGTERM"."""
    if exitcode >= 0:
        return f"exit status {exitcode}"
    why = ", perhaps for want of memory" if exitcode == -getattr(signal, "SIGKILL", 0) else ""
    return f"signal {signal.Signals(-exitcode).name}{why}"


class Loader:
    """Processes that stay, and are asked for other batches each time.

    A batch is what `reader` has at a request. Raises NasError where a process dies, or has no memory for a batch.
    """

    def __init__(self, reader: Dataset[Any], loaders: int) -> None:
        self.broken = False
        self._count = loaders
        self._requests: list[Any] = []  # torch reads this list anew at the beginning of each iteration
        self._processes: set[BaseProcess] = set()
        with _as_many_as_asked_for():
            self._loader: DataLoader[Any] = DataLoader(
                reader,
                batch_size=None,
                sampler=self._requests,
                num_workers=loaders,
                collate_fn=_unchanged,
                worker_init_fn=_die_silently,
                persistent_workers=True,
                generator=torch.Generator(),
            )

    def read(self, requests: Sequence[Any]) -> Iterator[Any]:
        """Yield the batches that are asked for, in their order."""
        self._requests[:] = requests
        others = set(active_children())
        with _deaths_are_noticed_here(), _as_many_as_asked_for():
            batches = iter(self._loader)
        self._processes |= set(active_children()) - others
        try:
            yield from batches
        except RuntimeError as error:
            self.broken = True
            fault = self._fault(str(error))
            for process in self._processes:  # torch would wait for them
                process.terminate()
            if fault:
                raise NasError(fault) from None
            raise

    def _fault(self, error: str) -> str | None:
        """Return what went wrong with the machine, if that is why `error` was raised."""
        died = next((process.exitcode for process in self._processes if process.exitcode), None)
        full = "shared memory" in error
        if died is None and not full:
            return None
        if full or died == -getattr(signal, "SIGBUS", 0):
            usage = little_shared_memory(self._count) or f"{SHARED_MEMORY} is probably too small"
            return f"a loader of images has no memory to share its batches ({usage}); enlarge it, or {ADVICE}"
        assert died is not None
        return f"a loader of images died ({manner_of_death(died)}); {ADVICE}"


def _as_many_as_asked_for() -> AbstractContextManager[None]:
    """Silence torch's warning of more processes than cores in a `with` block."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


@contextmanager
def _deaths_are_noticed_here() -> Iterator[None]:
    """Keep the handler of signals of dying children in a `with` block that starts loaders.

    That of torch raises an error wherever the main thread is just then. Without it the death is noticed where the next
    batch is waited for.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _die_silently(loader: int) -> None:
    """Replace torch's handler, which prints a line about shared memory: the fault is told where batches are read."""
    if hasattr(signal, "SIGBUS"):
        signal.signal(signal.SIGBUS, signal.SIG_DFL)


def _unchanged(batch: Any) -> Any:
    return batch
