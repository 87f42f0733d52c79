"""The front of a skeleton holds the proven optimum of each of many budgets."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from support.problems import TINY, every_encoding, latency, score
from support.searching import request, rows
from support.synthetic import FRONT_BUDGETS, Machine

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.additive import AdditiveModel, Pair
from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.latency.fidelity import covered_variants
from nas.latency.table import LatencyTable
from nas.runs.optima import load_optima
from nas.runs.record import MEASURED_COLUMNS, OPTIMA, POPULATIONS, load_record
from nas.search.bounds import upper_bounds
from nas.search.extremes import fastest_ms, slowest_ms
from nas.search.limits import Limit, cost_limits
from nas.search.run import search
from nas.search.solver import SolverError, solve
from nas.search.whole_front import BUDGETS, GAP, budgets_ms, front_steps

# Steps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("params", "memory_mb"), [(None, None), (100_000, None), (None, 0.45)])
def test_each_step_is_the_best_of_all_networks_within_its_limit(params: int | None, memory_mb: float | None) -> None:
    times, accuracy, encodings = latency(TINY, noise=0.2), score(TINY), every_encoding(TINY)
    others = cost_limits(TINY, params, memory_mb)
    kept = np.all([limit(encodings) <= limit.most for limit in others], axis=0) if others else slice(None)
    all_times, all_scores = times(encodings[kept]), accuracy(encodings[kept])
    assert len(all_times) > 100
    limits_ms = budgets_ms(accuracy, times, others)
    assert len(limits_ms) == BUDGETS
    assert limits_ms[0] == pytest.approx(all_times.min())
    assert limits_ms[-1] == pytest.approx(all_times[all_scores.argmax()])
    steps = list(front_steps(accuracy, times, limits_ms, others))
    for step in steps:
        found = accuracy(np.array([step.encoding]))[0]
        best = all_scores[all_times <= step.limit_ms].max()
        assert found == pytest.approx(best, rel=2 * GAP)
        assert times(np.array([step.encoding]))[0] <= step.limit_ms
    found_scores = accuracy(np.array([step.encoding for step in steps]))
    assert np.all(np.diff(found_scores) > 0)
    assert found_scores[-1] == pytest.approx(all_scores.max(), rel=GAP)


def test_limits_of_targets_are_among_the_budgets() -> None:
    times, accuracy = latency(TINY), score(TINY)
    plain = budgets_ms(accuracy, times)
    between = (plain[3] + plain[4]) / 2
    assert budgets_ms(accuracy, times, more=[between, 0.5 * plain[0], 2 * plain[-1]]) == sorted([*plain, between])


def test_there_are_no_budgets_where_no_network_keeps_the_other_limits() -> None:
    assert budgets_ms(score(TINY), latency(TINY), cost_limits(TINY, 100)) == []


def test_a_limit_without_a_proof_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()

    def stubborn(*arguments: object, **named: object) -> object:
        if next(calls) == 0:
            raise SolverError("no proof")
        return solve(*arguments, **named)  # type: ignore[arg-type]

    times, accuracy = latency(TINY), score(TINY)
    limits_ms = budgets_ms(accuracy, times)[:3]
    monkeypatch.setattr("nas.search.whole_front.solve", stubborn)
    assert next(front_steps(accuracy, times, limits_ms)).limit_ms == limits_ms[1]


# Bounds -----------------------------------------------------------------------------------------------


def test_no_network_exceeds_the_bound_of_its_variant() -> None:
    times, accuracy, encodings = latency(TINY, noise=0.2), score(TINY), every_encoding(TINY)
    all_times, all_scores = times(encodings), accuracy(encodings)
    limits = np.geomspace(all_times.min(), all_times.max(), 9)
    bounds = upper_bounds(accuracy, times, limits)
    gaps = []
    for variant, (number, limit_ms) in itertools.product(range(len(TINY.variants)), enumerate(limits)):
        within = (encodings[:, 0] == variant) & (all_times <= limit_ms)
        if within.any():
            gaps.append(bounds[variant, number] - all_scores[within].max())
    assert min(gaps) > -1e-9
    assert np.median(gaps) < 0.05 * np.ptp(all_scores)  # a bound that is far off would spare no program


def test_sums_with_pairs_are_not_bounded() -> None:
    plain = score(TINY)
    pair = Pair(0, 1, np.ones((3, plain.options[0].shape[1], plain.options[1].shape[1])))
    paired = AdditiveModel(TINY, plain.constants, plain.options, [pair])
    assert np.isinf(upper_bounds(paired, latency(TINY), [1.0])).all()


# In a search ------------------------------------------------------------------------------------------


def test_a_search_leaves_the_front_of_its_skeleton(machine: Machine) -> None:
    run = search(request(only="large", max_params=1_100_000), Path("run"))
    optima = load_optima(Path("run") / OPTIMA)
    table, space = LatencyTable.load(run.record.table.file), load_space("few.py")
    space = space.at(covered_variants(table, space))
    times, accuracy = table.compile(space), ImageNetPrior().additive_model(space)
    others = cost_limits(space, 1_100_000)
    assert {one.skeleton for one in optima} == {"large"}  # Small's space is the same one
    assert len(optima) >= FRONT_BUDGETS - 1
    assert [one.latency_ms for one in optima] == sorted(one.latency_ms for one in optima)
    assert [one.top1 for one in optima] == sorted(one.top1 for one in optima)
    assert len({one.spec.id for one in optima}) == len(optima)
    assert optima[0].latency_ms >= fastest_ms(times, others) - 1e-5
    assert optima[-1].latency_ms <= slowest_ms(times, others) + 1e-5
    for one in random.Random(0).sample(optima, 3):
        assert one.params == count_cost(one.spec).params <= 1_100_000
        assert space.encode([one.spec])[0][0] == space.variants.index(one.variant)
        prediction = table.predict(one.spec)
        assert (one.latency_ms, one.latency_std) == pytest.approx((prediction.time, prediction.std), abs=1e-4)
        limits = [Limit("latency", one.limit_ms + 1e-5, times), *others]
        found = [solve(accuracy, limits, variant) for variant in range(len(space.variants))]
        best = max(solution.score for solution in found if solution)
        assert one.top1 == pytest.approx(ImageNetPrior().link(best), abs=0.02)
    _check_measured(table, Path("run"))


def _check_measured(table: LatencyTable, out: Path) -> None:
    """Check the networks that the table knows as measured whole."""
    measured = rows(out / "measured.csv")
    assert list(measured[0]) == list(MEASURED_COLUMNS)
    populations = {row["spec_id"]: row["population"] for row in measured}
    assert len(populations) == len(measured)
    assert set(populations.values()) <= set(POPULATIONS)
    assert {"found", "published", "random", "near-optimal", "anchor"} <= set(populations.values())
    assert "other" not in populations.values()
    (found,) = (network for network in load_record(out).networks if network.found)
    (row,) = (row for row in measured if row["spec_id"] == found.spec.id)
    assert row["name"] == "found large"
    times = [float(row[name]) for name in ("measured_ms", "predicted_ms", "predicted_std")]
    assert times == pytest.approx([found.measured_ms, found.predicted_ms, found.predicted_std], abs=1e-3)
    held_out = table.predict_held_out(found.spec)
    assert held_out.time == pytest.approx(found.predicted_ms, abs=1e-3)


def test_an_estimator_without_sums_leaves_no_front(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.search.whole_front.additive_model", lambda estimator, space: None)
    search(request(only="large"), Path("run"))
    assert not (Path("run") / OPTIMA).exists()
    assert rows(Path("run/measured.csv"))


def test_a_skeleton_that_was_not_searched_has_its_front_where_the_rows_are_known(machine: Machine) -> None:
    content = Path("few.py").read_text(encoding="utf-8")
    Path("other.py").write_text(content.replace('name="few"', 'name="other"'), encoding="utf-8")
    spaces = {"large_space": "other.py", "small_space": "few.py"}
    search(request(only="small", **spaces), Path("run"))
    optima = load_optima(Path("run") / OPTIMA)
    assert {one.skeleton for one in optima} == {"large", "small"}


def test_a_space_that_does_not_load_is_left_out(machine: Machine) -> None:
    search(request(only="small", large_space="missing.py"), Path("run"))
    assert {one.skeleton for one in load_optima(Path("run") / OPTIMA)} == {"small"}
