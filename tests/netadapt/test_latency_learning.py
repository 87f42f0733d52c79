"""A latency table learns how the rows of a seed's cuts add up, from networks that are measured once."""

import dataclasses
from pathlib import Path

import pytest
from support import synthetic
from support.netadapt import chain
from support.synthetic import Machine, SyntheticRuntime, network_ms

from nas.arch.spec import BlockSpec
from nas.latency.measuring import new_table
from nas.latency.predictor import LatencyPredictor
from nas.latency.table import LatencyTable
from nas.netadapt.latency_learning import NETWORKS, learn_latency

SEED = chain(
    24,
    BlockSpec(kernel=3, expanded=96, out=24, se=24),
    BlockSpec(kernel=5, expanded=96, out=48, se=24, stride=2),
    BlockSpec(kernel=5, expanded=192, out=48, activation="hswish"),
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return synthetic.install(monkeypatch, Machine(whole=synthetic.apart_from_landmarks(lambda spec: 1.3)))


@pytest.fixture
def predictor(machine: Machine, tmp_path: Path) -> LatencyPredictor:
    return LatencyPredictor(new_table(SyntheticRuntime(machine=machine), 1000, tmp_path / "table.json"))


def test_predictions_hold_afterwards(predictor: LatencyPredictor) -> None:
    before = predictor.predict_ms([SEED])[0]
    learn_latency(predictor, SEED, 0.5, ())
    after = predictor.predict_ms([SEED])[0]
    assert before == pytest.approx(network_ms(SEED), rel=0.02)
    assert after == pytest.approx(1.3 * network_ms(SEED), rel=0.02)
    assert len(predictor.table.networks) > NETWORKS


def test_a_network_is_the_sum_of_its_rows_where_none_may_be_shorter(
    predictor: LatencyPredictor, machine: Machine
) -> None:
    machine.whole = synthetic.apart_from_landmarks(lambda spec: 0.3)
    learn_latency(predictor, SEED, 0.5, ())
    predicted = predictor.predict_ms([SEED])[0]
    assert predictor.table.predict(SEED).time == pytest.approx(predicted)
    assert predicted > 1.3 * 0.3 * network_ms(SEED)


def test_nothing_is_measured_twice(predictor: LatencyPredictor, machine: Machine) -> None:
    """Nor in a run to about the same share, as a second measurement of the seed gives."""
    learn_latency(predictor, SEED, 0.47, ("se",))
    machine.ran.clear()
    learn_latency(predictor, SEED, 0.48, ("se",))
    assert machine.ran == []
    learn_latency(predictor, SEED, 0.7, ("se",))
    assert machine.ran


def test_what_was_measured_badly_is_measured_again(predictor: LatencyPredictor, machine: Machine) -> None:
    learn_latency(predictor, SEED, 0.5, ())
    networks, key = predictor.table.networks, predictor.network(SEED).key
    assert predictor.is_sure(SEED)
    networks[key] = dataclasses.replace(networks[key], error=0.2)
    assert not predictor.is_sure(SEED)
    machine.ran.clear()
    learn_latency(predictor, SEED, 0.5, ())
    assert key in machine.ran
    assert predictor.is_sure(SEED)


def test_nothing_is_measured_for_another_device(predictor: LatencyPredictor, machine: Machine) -> None:
    learn_latency(predictor, SEED, 0.5, ())
    path = predictor.table.save()
    other = LatencyTable.load(path)
    other.device = type(other.device).from_dict(other.device.to_dict() | {"cpu": "Another CPU"})
    machine.ran.clear()
    learn_latency(LatencyPredictor(other), SEED, 0.9, ("se",))
    assert machine.ran == []
