"""Freed memory stays with the process."""

import platform
import resource
import sys

import pytest
import torch

from nas.training.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_tensor_takes_the_pages_of_the_one_before() -> None:
    assert keep_freed_memory()
    torch.ones(2**24).sum()
    before, pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, 2**24 * 4 // resource.getpagesize()
    for _ in range(5):
        torch.ones(2**24).sum()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2 * pages, "the heap grows once at most"


def test_other_systems_keep_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory.__wrapped__()
