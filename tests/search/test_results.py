"""What is told of networks: MACs, counted on what is built, estimates where there are any, and of found ones more."""

import sys
from collections.abc import Sequence
from typing import cast

import pytest

from nas.accuracy.estimator import Estimates, Estimator, NoEstimateError
from nas.accuracy.imagenet_prior import RECIPE_LEVELS, ImageNetPrior
from nas.arch.cost import count_cost
from nas.arch.loading import load_spec
from nas.arch.spec import ArchSpec
from nas.search.comparison import published_networks
from nas.search.results import _estimates_of, fvcore_macs_of, levels_of, nearest_of


def test_fvcore_counts_the_macs_of_the_spec() -> None:
    spec = load_spec("mobilenet_v3_small@0.5")
    assert fvcore_macs_of(spec, 10) == count_cost(spec, 10).macs


class _Judge:
    """An estimator that knows nothing."""

    def estimate(self, specs: Sequence[ArchSpec]) -> Estimates:
        raise NoEstimateError("unknown")


def test_only_a_published_network_may_have_no_estimate() -> None:
    spec = load_spec("mobilenetv4_conv_small")
    for judge in (_Judge(), ImageNetPrior()):
        assert _estimates_of(judge, spec, published=True) is None  # type: ignore[arg-type]
        with pytest.raises(NoEstimateError):
            _estimates_of(judge, spec, published=False)  # type: ignore[arg-type]
    estimates = _estimates_of(ImageNetPrior(), load_spec("mobilenet_v3_small"), published=True)
    assert estimates is not None
    assert 60 < estimates.top1[0] < 70


def test_mobilenet_v4_is_among_the_networks_of_every_run() -> None:
    published = {result.spec.name: result for result in published_networks()}
    figures = {name: (one.top1, one.spec.resolution) for name, one in published.items() if "mobilenetv4" in name}
    assert figures == {
        "mobilenetv4_conv_small": (73.756, 224),
        "mobilenetv4_conv_small_050": (64.778, 224),
        "mobilenetv4_conv_medium": (79.092, 224),
    }


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
