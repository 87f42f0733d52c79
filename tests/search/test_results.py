"""The figures of networks: MACs, counted a second time on what is built, and estimates where there are any."""

import sys
from collections.abc import Sequence

import pytest

from nas.accuracy.estimator import Estimates, NoEstimateError
from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.cost import count_cost
from nas.arch.loading import load_spec
from nas.arch.spec import ArchSpec
from nas.search.comparison import published_networks
from nas.search.results import _estimates_of, fvcore_macs_of


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
