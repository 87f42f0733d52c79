"""Processes that this one starts: Ctrl-C is kept from them, and they end when this one has ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def children_without_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach from their first moment on: it is for this one, which ends them.

    They inherit that the signal is blocked. Here it takes effect after the block. On Windows nothing changes.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would come with the first process, and unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def live_with_parent() -> None:
    """Leave Ctrl-C to the parent of this process, and end this process when the parent has ended, however that was.

    Nobody would read what it finds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
