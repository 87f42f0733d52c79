"""Networks near the optimum of random budgets, on a machine that is known."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from support import synthetic
from support.synthetic import Machine

from nas.accuracy import load_estimator
from nas.accuracy.estimator import Estimator
from nas.arch.loading import load_space
from nas.arch.parts import NetworkPart
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.fidelity import covered
from nas.latency.landmarks import landmarks
from nas.latency.measuring import CO_RUN_NETWORKS, measure_missing, new_table
from nas.latency.predictor import LatencyPredictor
from nas.latency.table import LatencyTable, space_parts
from nas.search import near_optimum
from nas.search.limits import Limit
from nas.search.near_optimum import EDGES, GAP, PER_VARIANT, fill_and_learn, near_optimal_draw
from nas.search.solver import solve

VARIANTS = [(0.75, 96), (1.0, 128)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    synthetic.empty_folder(monkeypatch, tmp_path)
    return synthetic.install(monkeypatch)


@pytest.fixture
def space(machine: Machine) -> SearchSpace:
    return load_space("few.py").at(VARIANTS)


@pytest.fixture
def table(space: SearchSpace) -> LatencyTable:
    table = new_table(synthetic.made_runtime())
    measure_missing(table, space_parts(space))
    return table


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    return load_estimator("imagenet-prior")


def drawn(table: LatencyTable, estimator: Estimator, space: SearchSpace, number: int, seed: int = 0) -> list[ArchSpec]:
    draw = near_optimal_draw(table, estimator, random.Random(seed))
    return [draw(space) for _ in range(number)]


def test_draws_are_the_most_accurate_within_their_own_time(
    table: LatencyTable, estimator: Estimator, space: SearchSpace
) -> None:
    for spec in drawn(table, estimator, space, 12):
        (variant,) = [variant for variant in space.variants if space.at([variant]).contains(spec)]
        at = space.at([variant])
        accuracy, latency = estimator.additive_model(at), table.compile(at)
        assert accuracy is not None
        encodings = at.encode([spec])
        own_ms, own = float(latency(encodings)[0]), float(accuracy(encodings)[0])
        best = solve(accuracy, [Limit("latency", own_ms * (1 + 1e-9), latency)], 0)
        assert best is not None
        assert own == pytest.approx(best.score, rel=2 * GAP)
        rng = random.Random(spec.id)
        others = at.encode([at.sample(rng) for _ in range(300)])
        as_fast = latency(others) <= own_ms
        assert (accuracy(others)[as_fast] <= own + 2 * GAP * abs(own)).all()


def test_budgets_reach_from_fast_to_slow(table: LatencyTable, estimator: Estimator, space: SearchSpace) -> None:
    at = space.at(VARIANTS[:1])
    times = table.predict_ms(drawn(table, estimator, at, 40))
    every = table.predict_ms([at.smallest(at.variants[0]), at.largest(at.variants[0])])
    assert times.min() < every.min() * 1.3
    assert times.max() > every.max() * 0.8
    assert times.max() <= EDGES[1] * every.max()
    assert len(set(times)) > 15


def test_draws_are_the_same_each_time(table: LatencyTable, estimator: Estimator, space: SearchSpace) -> None:
    specs = drawn(table, estimator, space, 10)
    assert drawn(table, estimator, space, 10) == specs
    assert drawn(table, estimator, space, 10, seed=1) != specs


def test_draws_are_of_the_covered_variants(table: LatencyTable, estimator: Estimator) -> None:
    whole = load_space("few.py")
    (view,) = covered(table, [whole])
    specs = drawn(table, estimator, view, 20)
    assert all(view.contains(spec) for spec in specs)
    for variant in VARIANTS:
        assert any(whole.at([variant]).contains(spec) for spec in specs)
    with pytest.raises(NasError, match=r"lacks \d+ of the rows of few"):
        drawn(table, estimator, whole.at([(0.75, 128)]), 1)


def test_corrected_times_are_those_that_budgets_limit(
    table: LatencyTable, estimator: Estimator, space: SearchSpace, machine: Machine
) -> None:
    """What the table learned about kernels of 5 makes near-optimal networks avoid them."""
    at = space.at(VARIANTS[:1])

    def fives(specs: list[ArchSpec]) -> float:
        return float(np.mean([block.kernel == 5 for spec in specs for block in spec.blocks[1:]]))

    before = fives(drawn(table, estimator, at, 20))

    def slow(spec: ArchSpec) -> float:
        return 1.0 if spec.name == "mobilenet_v3_large" else 1 + 0.25 * fives([spec])

    machine.whole = slow
    rng = random.Random(0)
    LatencyPredictor(table).measure([at.sample(rng) for _ in range(150)], "networks")
    assert fives(drawn(table, estimator, at, 20)) < before


def test_without_a_model_of_accuracy_networks_are_random(
    table: LatencyTable, estimator: Estimator, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(estimator), "additive_model", lambda self, space: None)
    specs = drawn(table, estimator, space, 10)
    assert len({spec.id for spec in specs}) == 10
    assert all(space.contains(spec) for spec in specs)


def test_new_variants_are_measured_with_networks_near_their_optima(
    machine: Machine, space: SearchSpace, estimator: Estimator
) -> None:
    predictor = LatencyPredictor(new_table(synthetic.made_runtime()))
    first = space.at(VARIANTS[:1])
    fill_and_learn(predictor, first, estimator, "few")
    table = predictor.table
    assert not table.missing(space_parts(first))
    known = {spec.id for spec in landmarks()}
    near = [one for one in table.networks.values() if ArchSpec.from_dict(one.spec).id not in known][CO_RUN_NETWORKS:]
    assert len(near) == PER_VARIANT
    assert all(first.contains(ArchSpec.from_dict(one.spec)) for one in near)
    assert LatencyTable.load(table.path).networks == table.networks
    machine.ran.clear()
    fill_and_learn(predictor, first, estimator, "few")
    assert not machine.ran
    known = set(table.networks)
    fill_and_learn(predictor, space, estimator, "few")
    new = [ArchSpec.from_dict(one.spec) for key, one in table.networks.items() if key not in known]
    second = space.at(VARIANTS[1:])
    assert len(new) > CO_RUN_NETWORKS
    assert all(second.contains(spec) for spec in new)


@pytest.mark.parametrize(("count", "measured"), [(4, 3), (2, 2), (1, 1)])
def test_networks_near_the_optima_differ_where_draws_repeat(
    machine: Machine,
    space: SearchSpace,
    estimator: Estimator,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    measured: int,
) -> None:
    """Budgets of small images lie so close together that several have one optimum."""
    at = space.at(VARIANTS[:1])
    few = [at.sample(random.Random(seed)) for seed in range(count)]
    draws = itertools.cycle([spec for spec in few for _ in range(3)])
    monkeypatch.setattr(near_optimum, "PER_VARIANT", 3)
    monkeypatch.setattr(near_optimum, "near_optimal_draw", lambda *_, **__: lambda space: next(draws))
    predictor = LatencyPredictor(new_table(synthetic.made_runtime()))
    fill_and_learn(predictor, at, estimator, "few")
    ids = {ArchSpec.from_dict(one.spec).id for one in predictor.table.networks.values()}
    assert len(ids & {spec.id for spec in few}) == measured


def test_networks_near_the_optima_are_the_same_each_time(
    machine: Machine, space: SearchSpace, estimator: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_optimum, "PER_VARIANT", 3)
    at, measured = space.at(VARIANTS[:1]), []
    for path in ("one.json", "other.json"):
        predictor = LatencyPredictor(new_table(synthetic.made_runtime(), path=path))
        fill_and_learn(predictor, at, estimator, "few")
        measured.append(set(predictor.table.networks))
    assert measured[0] == measured[1]
    assert NetworkPart(at.largest(at.variants[0])).key not in measured[0]
