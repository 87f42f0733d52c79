"""The MACs that fvcore counts on the built network against those by arithmetic on the spec."""

import warnings

import pytest

from nas.arch.cost import count_cost
from nas.arch.loading import load_spec
from nas.models.macs import fvcore_macs
from nas.models.mobilenet import build_model


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2"])
def test_fvcore_counts_the_macs_of_the_cost(
    name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    spec = load_spec(name)
    model = build_model(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fvcore_macs(model, spec.resolution) == count_cost(spec).macs
    assert fvcore_macs(model, 96) == count_cost(spec.replace(resolution=96)).macs
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_counting_leaves_the_network_as_it_was() -> None:
    model = build_model(load_spec("mobilenet_v3_small"), 10).train()
    model.classifier.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fvcore_macs(model, 64)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model.classifier.training
