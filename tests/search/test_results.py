"""The MACs of found networks, counted a second time on the networks that are built."""

import sys

import pytest

from nas.arch.cost import count_cost
from nas.arch.loading import load_spec
from nas.search.results import fvcore_macs_of


def test_fvcore_counts_the_macs_of_the_spec() -> None:
    spec = load_spec("mobilenet_v3_small@0.5")
    assert fvcore_macs_of(spec, 10) == count_cost(spec, 10).macs


def test_without_torch_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nas.models.macs", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert fvcore_macs_of(load_spec("mobilenet_v3_small"), 10) is None
