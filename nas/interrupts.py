"""Keep Ctrl-C from the processes that this one starts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def children_without_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach from their first moment on: it is for this one, which ends them.

    They inherit that the signal is blocked. Here it takes effect after the block. On Windows nothing changes.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
