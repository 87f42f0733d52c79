"""The threads that torch computes with in a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nas.training.memory import keep_freed_memory


@contextmanager
def threads_used(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads in a `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def torch_alike(threads: int | None = 1) -> Iterator[None]:
    """Run torch in a `with` block so that every process computes the same. `threads` None leaves their number.

    Denormals are flushed to zero, here and from now on: onnxruntime does so in a process that has run it. Memory that
    is freed stays with the process.
    """
    keep_freed_memory()
    with threads_used(threads or torch.get_num_threads()):
        torch.set_flush_denormal(True)
        yield
