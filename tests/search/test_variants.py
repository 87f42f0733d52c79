"""The variants that are measured: coarse latencies between anchors, and the variants that can still win."""

import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from support import synthetic
from support.problems import TINY, additive_model, estimates_of, latency, score
from support.synthetic import network_ms

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.additive import AdditiveModel
from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.fidelity import covered_variants
from nas.latency.measuring import new_table
from nas.latency.predictor import LatencyPredictor
from nas.search import variants
from nas.search.problem import Problem
from nas.search.variants import (
    MAX_NEW,
    MAX_VARIANTS,
    TOP1_MARGIN,
    Anchors,
    anchor_networks,
    anchor_variants,
    best_of_variants,
    coarse_latency_model,
    interpolated,
    latency_model,
    measure_anchors,
    pick_variants,
)

LARGE = load_space("mobilenet_v3_large")
BUDGETS_MS = (0.8, 1.2, 1.6)  # for the space of few choices


def anchors_of(space: SearchSpace, time: Callable[[ArchSpec], float] = network_ms) -> dict[Variant, Anchors]:
    variants = anchor_variants(space)
    times = [time(spec) for spec in anchor_networks(space, variants)]
    return {variant: Anchors(*times[2 * i : 2 * i + 2]) for i, variant in enumerate(variants)}


# Anchors ----------------------------------------------------------------------------------------------


def test_anchors_are_every_width_at_three_resolutions() -> None:
    variants = anchor_variants(LARGE)
    assert variants == [Variant(w, r) for w, r in itertools.product(LARGE.widths, (96, 192, 288))]
    assert len(anchor_networks(LARGE, variants)) == 2 * len(variants)


@pytest.mark.parametrize("variants", [[(1.0, 224)], [(1.0, 160), (1.0, 224)], [(0.5, 128), (1.0, 96), (1.0, 224)]])
def test_few_variants_are_all_anchors(variants: list[tuple[float, int]]) -> None:
    """Every width has anchors, also where widths differ in their resolutions."""
    space = LARGE.at(variants)
    assert anchor_variants(space) == list(space.variants)
    assert all(interpolated(anchors_of(space), variant) for variant in space.variants)


def test_a_width_with_other_resolutions_than_the_rest_has_anchors() -> None:
    space = LARGE.at([(1.0, 96), (1.0, 128), (1.0, 160), (1.0, 288), (0.5, 128)])
    assert Variant(0.5, 128) in anchor_variants(space)


def test_between_anchors_times_are_a_power_of_the_resolution() -> None:
    known = {Variant(1.0, r): Anchors((r / 96) ** 2, 5 * (r / 96) ** 1.5) for r in (96, 192, 288)}
    for resolution in (96, 112, 160, 192, 224, 288):
        found = interpolated(known, Variant(1.0, resolution))
        assert found.smallest_ms == pytest.approx((resolution / 96) ** 2)
        assert found.largest_ms == pytest.approx(5 * (resolution / 96) ** 1.5)


def test_a_width_is_interpolated_from_its_own_anchors() -> None:
    known = {Variant(w, r): Anchors(w * r, 2 * w * r) for w in (0.5, 1.0) for r in (96, 288)}
    assert interpolated(known, Variant(0.5, 192)) == pytest.approx((96, 192))
    assert interpolated(known, Variant(1.0, 192)) == pytest.approx((192, 384))


def test_interpolated_times_are_near_the_measured_ones() -> None:
    known = anchors_of(LARGE)
    for variant in LARGE.variants:
        wanted = [network_ms(spec) for spec in (LARGE.smallest(variant), LARGE.largest(variant))]
        assert interpolated(known, variant) == pytest.approx(wanted, rel=0.1)


# The coarse latency model -----------------------------------------------------------------------------


def ends(space: SearchSpace) -> tuple[list[ArchSpec], list[ArchSpec]]:
    return [space.smallest(s) for s in space.variants], [space.largest(s) for s in space.variants]


def test_coarse_latencies_are_right_where_they_were_measured() -> None:
    space = LARGE.at([(w, r) for w in (0.5, 1.0) for r in (96, 192, 288)])
    coarse = coarse_latency_model(space, anchors_of(space))
    for specs in ends(space):
        assert coarse(space.encode(specs)) == pytest.approx([network_ms(spec) for spec in specs])


def test_coarse_latencies_order_networks_and_are_nearly_right() -> None:
    space = LARGE.at([(1.0, 192)])
    coarse, rng = coarse_latency_model(space, anchors_of(space)), random.Random(0)
    specs = [space.sample(rng) for _ in range(50)]
    wanted = np.array([network_ms(spec) for spec in specs])
    found = coarse(space.encode(specs))
    assert np.abs(found / wanted - 1).mean() < 0.15
    assert np.corrcoef(found, wanted)[0, 1] > 0.9


@pytest.mark.parametrize("power", [0.7, 1.0, 1.3])
def test_large_networks_may_take_longer_per_mac_than_small_ones(power: float) -> None:
    """No block has a negative latency then, and the smallest and largest networks are predicted as measured."""

    def time(spec: ArchSpec) -> float:
        return (count_cost(spec).macs / 1e6) ** power

    space = LARGE.at([(1.0, 192), (1.4, 96)])
    coarse = coarse_latency_model(space, anchors_of(space, time))
    for specs in ends(space):
        assert coarse(space.encode(specs)) == pytest.approx([time(spec) for spec in specs])
    assert all((values >= 0).all() for values in coarse.options)


def test_coarse_latencies_of_a_space_of_one_network() -> None:
    """The smallest network is the largest one, so nothing separates a block's own latency from that of its MACs."""
    stages = tuple(
        dataclasses.replace(stage, depths=stage.depths[:1], kernels=(3,), expansions=(3,), se=(False,))
        for stage in TINY.stages
    )
    space = dataclasses.replace(TINY, stages=stages).at([(1.0, 32), (1.0, 64)])
    small, large = ends(space)
    assert small == large
    for factor in (1.0, 0.9):  # measured twice, a little differently
        anchors = {s: Anchors(a.smallest_ms, factor * a.largest_ms) for s, a in anchors_of(space).items()}
        found = coarse_latency_model(space, anchors)(space.encode(small))
        assert found == pytest.approx([network_ms(spec) for spec in small], rel=0.11)


# Choosing ---------------------------------------------------------------------------------------------


def problem_of(space: SearchSpace, budget_ms: float, best_top1: list[float]) -> Problem:
    """Return a problem in which `best_top1` holds the best accuracy of each variant."""
    found = score(space)
    top = [float(sum(values[i].max() for values in found.options)) for i in range(len(space.variants))]
    constants = np.array(best_top1) - np.array(top)
    additive = AdditiveModel(space, constants, found.options)
    latencies = additive_model(
        space, lambda placed: 0.0, [variant.resolution * variant.width for variant in space.variants]
    )
    return Problem(space, latencies, estimates_of(additive), budget_ms, additive)


def test_the_best_variants_come_first() -> None:
    space = TINY.at([(1.0, 32), (1.0, 64), (2.0, 32), (2.0, 64)])
    chosen = best_of_variants(problem_of(space, 200.0, [70.0, 70.9, 70.6, 69.0]), space.variants)
    assert [candidate.variant for candidate in chosen] == [space.variants[index] for index in (1, 2, 0, 3)]
    assert [candidate.top1 for candidate in chosen] == pytest.approx([70.9, 70.6, 70.0, 69.0])


def test_what_no_network_fits_is_not_among_them() -> None:
    space = TINY.at([(1.0, 32), (1.0, 64), (2.0, 64)])
    problem = problem_of(space, 64.0, [70.0, 70.1, 99.0])
    found = best_of_variants(problem, space.variants)
    assert {candidate.variant for candidate in found} == {Variant(1.0, 32), Variant(1.0, 64)}


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LatencyPredictor:
    synthetic.empty_folder(monkeypatch, tmp_path)
    synthetic.install(monkeypatch)
    return LatencyPredictor(new_table(synthetic.made_runtime()))


@pytest.fixture
def few(predictor: LatencyPredictor) -> SearchSpace:
    return dataclasses.replace(load_space("few.py"), widths=(0.75, 1.0, 1.25), resolutions=(96, 128), variants=())


def optima_of(space: SearchSpace, budget_ms: float) -> dict[Variant, float]:
    """Return the best estimate within a budget of each variant, on the true latencies of the synthetic machine."""
    prior = ImageNetPrior()
    problem = Problem(space, latency(space), prior.estimate, budget_ms, prior.additive_model(space))
    return dict(best_of_variants(problem, space.variants))


@pytest.mark.parametrize("budget_ms", BUDGETS_MS)
def test_the_variant_of_the_best_network_is_measured_and_returned_first(
    few: SearchSpace, predictor: LatencyPredictor, budget_ms: float
) -> None:
    chosen = pick_variants(predictor, few, ImageNetPrior(), budget_ms)
    measured = covered_variants(predictor.table, few)
    assert 1 <= len(measured) <= MAX_NEW
    assert set(chosen) <= set(measured)
    optima = optima_of(few, budget_ms)
    assert optima[chosen[0]] == max(optima.values())


def test_a_variant_whose_model_was_too_good_is_measured_and_another_one_returned_first(
    few: SearchSpace, predictor: LatencyPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows show that the coarse model flattered it, and the variant that is promising then is the best one."""
    wrong, best, budget_ms = Variant(1.25, 128), Variant(1.0, 128), 0.7
    optima = optima_of(few, budget_ms)
    assert optima[wrong] < max(optima.values()) - TOP1_MARGIN
    assert optima[best] == max(optima.values())

    def flattering(space: SearchSpace, anchors: Mapping[Variant, Anchors]) -> AdditiveModel:
        coarse = coarse_latency_model(space, anchors)
        factors = np.array([0.5 if variant == wrong else 1.0 for variant in space.variants])
        options = [values * factors[:, None] for values in coarse.options]
        return AdditiveModel(space, coarse.constants * factors, options)

    monkeypatch.setattr(variants, "coarse_latency_model", flattering)
    chosen = pick_variants(predictor, few, ImageNetPrior(), budget_ms)
    assert set(covered_variants(predictor.table, few)) == {wrong, best}
    assert chosen == [best]


@pytest.mark.parametrize(
    ("budget_ms", "most", "measured"),
    [
        (0.7, 2, [(1.0, 128), (1.25, 128)]),
        (0.7, 1, [(1.25, 128)]),
        (0.6, 1, [(1.0, 128), (1.25, 128)]),  # the first one has no network within that
    ],
)
def test_as_many_variants_are_measured_as_may_be_and_more_until_one_fits(
    few: SearchSpace,
    predictor: LatencyPredictor,
    monkeypatch: pytest.MonkeyPatch,
    budget_ms: float,
    most: int,
    measured: list[tuple[float, int]],
) -> None:
    """The largest variant is measured first, and all promise more than it has, where models are far too optimistic."""
    monkeypatch.setattr(variants, "OPTIMISM", 3.0)
    monkeypatch.setattr(variants, "MAX_NEW", most)
    assert pick_variants(predictor, few, ImageNetPrior(), budget_ms) == measured[:1]
    assert covered_variants(predictor.table, few) == measured


@pytest.mark.parametrize("budget_ms", [1.5, 3.0, 4.0])
def test_the_variant_of_the_best_network_of_a_large_space_is_among_the_chosen(
    predictor: LatencyPredictor, budget_ms: float
) -> None:
    space = LARGE.at([(w, r) for w in (0.75, 1.0, 1.25) for r in (128, 192, 256)])
    optima = optima_of(space, budget_ms)
    assert max(optima, key=optima.__getitem__) in pick_variants(predictor, space, ImageNetPrior(), budget_ms)


def test_at_most_four_variants_are_returned_and_none_beyond_the_margin(
    few: SearchSpace, predictor: LatencyPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor.fill_space(few, "rows")
    optima = sorted(optima_of(few, BUDGETS_MS[2]).items(), key=lambda item: -item[1])
    assert len(optima) > MAX_VARIANTS == 4
    within = [variant for variant, top1 in optima if top1 >= optima[0][1] - TOP1_MARGIN]
    assert len(within) < MAX_VARIANTS
    assert pick_variants(predictor, few, ImageNetPrior(), BUDGETS_MS[2]) == within
    monkeypatch.setattr(variants, "TOP1_MARGIN", 100.0)
    best = [variant for variant, _ in optima[:MAX_VARIANTS]]
    assert pick_variants(predictor, few, ImageNetPrior(), BUDGETS_MS[2]) == best


def test_variants_whose_estimates_are_in_doubt_are_measured_and_returned_too(
    few: SearchSpace, predictor: LatencyPredictor
) -> None:
    budget_ms, doubt = BUDGETS_MS[1], 3.0
    alone = pick_variants(predictor, few, ImageNetPrior(), budget_ms)
    doubted = pick_variants(predictor, few, ImageNetPrior(), budget_ms, doubt=doubt)
    assert doubted[: len(alone)] == alone
    assert len(doubted) > len(alone)
    optima = optima_of(few, budget_ms)
    assert all(optima[variant] >= optima[alone[0]] - doubt for variant in doubted)


def test_nothing_more_is_measured_where_no_other_variant_promises_more(
    few: SearchSpace, predictor: LatencyPredictor
) -> None:
    chosen = pick_variants(predictor, few, ImageNetPrior(), BUDGETS_MS[1])
    rows = len(predictor.table.rows)
    assert pick_variants(predictor, few, ImageNetPrior(), BUDGETS_MS[1]) == chosen
    assert pick_variants(predictor, few.at([chosen[0]]), ImageNetPrior(), BUDGETS_MS[1]) == [chosen[0]]
    assert len(predictor.table.rows) == rows


def test_of_a_table_that_cannot_be_filled_the_covered_variants_are_chosen(
    few: SearchSpace, predictor: LatencyPredictor
) -> None:
    """No variant is looked at whose anchors were never measured."""
    predictor.fill_space(few.at([(1.0, 128)]), "rows")
    predictor.on_missing = "infinite"
    rows = len(predictor.table.rows)
    assert pick_variants(predictor, few, ImageNetPrior(), BUDGETS_MS[1]) == [Variant(1.0, 128)]
    assert len(predictor.table.rows) == rows


def test_latencies_of_a_variant_are_stretched_from_a_near_one(few: SearchSpace, predictor: LatencyPredictor) -> None:
    """They are nearer to the true ones than those of the coarse model, which knows only the anchors."""
    space, near, rng = few, few.at([(1.0, 128)]), random.Random(0)
    predictor.fill_space(near, "rows")
    anchors, at = measure_anchors(predictor, space), space.at([(1.0, 96)])
    specs = [at.sample(rng) for _ in range(50)]
    wanted = np.array([network_ms(spec) for spec in specs])
    stretched = latency_model(predictor.table, space, anchors, {Variant(1.0, 128)})
    errors = [
        np.abs(model(space.encode(specs)) / wanted - 1).mean()
        for model in (stretched, coarse_latency_model(space, anchors))
    ]
    assert errors[0] < 0.7 * errors[1]
    measured = [near.sample(rng) for _ in range(5)]
    assert stretched(space.encode(measured)) == pytest.approx(predictor.table.predict_ms(measured))


def test_latencies_of_a_space_of_one_network_are_stretched(few: SearchSpace, predictor: LatencyPredictor) -> None:
    stages = tuple(
        dataclasses.replace(stage, depths=stage.depths[:1], kernels=(3,), expansions=(3,), se=(False,))
        for stage in TINY.stages
    )
    space = dataclasses.replace(TINY, stages=stages).at([(1.0, 32), (1.0, 64)])
    predictor.fill_space(space.at([(1.0, 64)]), "rows")
    model = latency_model(predictor.table, space, measure_anchors(predictor, space), {Variant(1.0, 64)})
    (spec,) = {space.smallest((1.0, 32))}
    assert model(space.encode([spec])) == pytest.approx([network_ms(spec)], rel=0.15)
