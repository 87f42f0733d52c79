"""The variants that are measured: coarse latencies between anchors, and the variants that can still win."""

import dataclasses
import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
from support.problems import TINY, additive_model, estimates_of, latency, score, within
from support.synthetic import network_ms

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.additive import AdditiveModel
from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.search.problem import Problem
from nas.search.solver import solve
from nas.search.variants import (
    MAX_VARIANTS,
    TOP1_MARGIN,
    Anchors,
    anchor_networks,
    anchor_variants,
    choose_variants,
    coarse_latency_model,
    interpolated,
)

LARGE = load_space("mobilenet_v3_large")


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


def test_the_best_variants_come_first_and_those_beyond_the_margin_are_left_out() -> None:
    space = TINY.at([(1.0, 32), (1.0, 64), (2.0, 32), (2.0, 64)])
    problem = problem_of(space, 200.0, [70.0, 70.9, 70.6, 70.9 - TOP1_MARGIN - 0.01])
    chosen = choose_variants(problem)
    assert [candidate.variant for candidate in chosen] == [Variant(1.0, 64), Variant(2.0, 32)]
    assert [candidate.top1 for candidate in chosen] == pytest.approx([70.9, 70.6])
    problem = problem_of(space, 200.0, [70.0, 70.0, 70.0, 70.0])
    assert len(choose_variants(problem)) == 4


def test_what_no_network_fits_is_not_chosen() -> None:
    space = TINY.at([(1.0, 32), (1.0, 64), (2.0, 64)])
    problem = problem_of(space, 64.0, [70.0, 70.1, 99.0])
    assert {candidate.variant for candidate in choose_variants(problem)} == {Variant(1.0, 32), Variant(1.0, 64)}


def test_at_most_four() -> None:
    """Each further variant would cost a first search 10 to 20 s of measuring rows in each of two spaces."""
    space = LARGE.at([(w, r) for w in (0.75, 1.0, 1.25) for r in (192, 224, 256)])
    additive = additive_model(space, lambda placed: 0.0, [70 + 0.01 * i for i in range(9)])
    latencies = additive_model(space, lambda placed: 0.0, [1.0] * 9)
    chosen = choose_variants(Problem(space, latencies, estimates_of(additive), 2.0, additive))
    assert len(chosen) == MAX_VARIANTS == 4
    assert [candidate.variant for candidate in chosen] == list(space.variants)[: -MAX_VARIANTS - 1 : -1]


@pytest.mark.parametrize("budget_ms", [1.5, 3.0, 4.0])
def test_the_variant_of_the_best_network_is_among_the_chosen(budget_ms: float) -> None:
    """The choice by the coarse latency model includes the variant whose exact optimum on true latencies is best."""
    space, prior = LARGE.at([(w, r) for w in (0.75, 1.0, 1.25) for r in (128, 192, 256)]), ImageNetPrior()
    terms = prior.additive_model(space)
    coarse = Problem(space, coarse_latency_model(space, anchors_of(space)), prior.estimate, budget_ms, terms)
    chosen = [candidate.variant for candidate in choose_variants(coarse)]
    true = latency(space)
    optima = [solve(terms, within(true, budget_ms), variant) for variant in range(len(space.variants))]
    best = max((o for o in optima if o), key=lambda optimum: optimum.score)
    assert space.variants[best.encoding[0]] in chosen
