"""What is told of found networks: their MACs, counted on the built network, other trainings, their neighbours."""

import sys
from typing import cast

import pytest

from nas.accuracy.estimator import Estimator
from nas.accuracy.imagenet_prior import RECIPE_LEVELS, ImageNetPrior
from nas.arch.cost import count_cost
from nas.arch.loading import load_spec
from nas.search.results import fvcore_macs_of, levels_of, nearest_of


def test_fvcore_counts_the_macs_of_the_spec() -> None:
    spec = load_spec("mobilenet_v3_small@0.5")
    assert fvcore_macs_of(spec, 10) == count_cost(spec, 10).macs


def test_without_torch_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nas.models.macs", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert fvcore_macs_of(load_spec("mobilenet_v3_small"), 10) is None


def test_levels_and_neighbours_are_those_of_the_prior() -> None:
    spec, prior = load_spec("mobilenet_v3_small@0.5"), ImageNetPrior("timm-ra")
    levels = levels_of(prior, spec)
    assert {level.recipe_level for level in levels} == set(RECIPE_LEVELS)
    (own,) = (level for level in levels if level.of_run)
    estimates = prior.estimate([spec])
    assert (own.recipe_level, own.top1, own.std) == ("timm-ra", *(round(float(e[0]), 3) for e in estimates[:2]))
    first, *others = nearest_of(prior, spec)
    assert (first.name, first.difference_std, len(others)) == (spec.name, 0, 2)
    assert first.residual == pytest.approx(first.published_top1 - first.estimated_top1)
    assert abs(first.left_out_residual) > abs(first.residual)


def test_another_estimator_has_neither() -> None:
    other = cast(Estimator, object())
    spec = load_spec("mobilenet_v3_small")
    assert levels_of(other, spec) == nearest_of(other, spec) == ()
