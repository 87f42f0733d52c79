"""Which few pairs of width and resolution can hold the optimum of a budget, before they are measured.

Measuring the rows of all 42 pairs of a space would take minutes. Whole anchor networks, the smallest and the
largest of some pairs, say what a multiply-accumulate and a block cost there; on these rough prices the exact
solver finds the best estimate within the budget for each pair. Only where to measure is decided so: no result
rests on a rough price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.cost import block_layers, count_cost
from nas.arch.space import SearchSpace, Variant
from nas.arch.spec import ArchSpec
from nas.latency.predictor import LatencyPredictor
from nas.search.limits import Limit
from nas.search.problem import Problem, fastest_ms
from nas.search.solver import solve

# The rows of a pair take 10 to 20 s, and those of two spaces are measured before a first search can begin.
MAX_VARIANTS = 4
# Points of top-1 within which a pair may still win once it is measured: the rough prices are that rough.
MARGIN = 0.4


class Anchors(NamedTuple):
    """Measured times (ms) of the smallest and the largest network of a variant."""

    smallest_ms: float
    largest_ms: float


def anchor_variants(space: SearchSpace) -> list[Variant]:
    """The variants whose anchors are measured: every width at up to three resolutions."""
    by_width: dict[float, list[int]] = {}
    for variant in space.variants:
        by_width.setdefault(variant.width, []).append(variant.resolution)
    ends_and_middle = {}
    for width, resolutions in by_width.items():
        resolutions.sort()
        ends_and_middle[width] = {resolutions[0], resolutions[len(resolutions) // 2], resolutions[-1]}
    return [variant for variant in space.variants if variant.resolution in ends_and_middle[variant.width]]


def anchor_networks(space: SearchSpace, variants: Iterable[Variant]) -> list[ArchSpec]:
    return [spec for variant in variants for spec in (space.smallest(variant), space.largest(variant))]


def interpolated(anchors: Mapping[Variant, Anchors], variant: Variant) -> Anchors:
    """Anchors of a variant from those of other resolutions of its width, as a power of the resolution."""
    known = sorted(known for known in anchors if known.width == variant.width)
    logs = np.log([known.resolution for known in known])
    times = [
        float(np.exp(np.interp(np.log(variant.resolution), logs, np.log([anchors[k][which] for k in known]))))
        for which in (0, 1)
    ]
    return Anchors(*times)


class Candidate(NamedTuple):
    """A pair and the best estimate on rough prices within the budget."""

    variant: Variant
    top1: float


def choose_variants(problem: Problem) -> list[Candidate]:
    """At most `MAX_VARIANTS` pairs that can hold the optimum, the best first; the problem's prices are rough ones."""
    assert problem.additive is not None
    candidates = []
    for code in problem.fitting_variants:
        optimum = solve(problem.additive, problem.limits, code, gap=1e-3)
        if optimum is not None:
            top1 = float(problem.score(np.array([optimum.row]))[0])
            candidates.append(Candidate(problem.space.variants[code], top1))
    candidates.sort(key=lambda candidate: -candidate.top1)
    return [c for c in candidates if c.top1 >= candidates[0].top1 - MARGIN][:MAX_VARIANTS]


def coarse_latency_model(space: SearchSpace, anchors: Mapping[Variant, Anchors]) -> AdditiveModel:
    """Latency (ms) as `base + a * MACs + b * blocks`, with coefficients of each variant that fit its anchors."""
    constants, rates = [], []
    for variant in space.variants:
        small, large = space.smallest(variant), space.largest(variant)
        macs = np.array([count_cost(small).macs, count_cost(large).macs], float)
        blocks = np.array([len(small.blocks), len(large.blocks)], float)
        base, per_mac, per_block = _rates(macs, blocks, interpolated(anchors, variant))
        rates.append((per_mac, per_block))
        inside = sum(sum(layer.macs for layer in block_layers(placed)) for placed in list(small.walk())[1:])
        constants.append(base + per_mac * (macs[0] - inside) + per_block)
    options = [
        np.array(
            [
                [
                    per_mac * sum(layer.macs for layer in block_layers(placed)) + per_block
                    for placed in space.options(variant, slot)
                ]
                for variant, (per_mac, per_block) in zip(space.variants, rates, strict=True)
            ]
        )
        for slot in space.slots
    ]
    return AdditiveModel(space, np.array(constants), options)


def _rates(macs: np.ndarray, blocks: np.ndarray, times: Anchors) -> tuple[float, float, float]:
    """Constant, price of a multiply-accumulate, price of a block, from those of the smallest and largest network."""
    if macs[0] * blocks[1] != macs[1] * blocks[0]:
        per_mac, per_block = np.linalg.solve(np.stack([macs, blocks], axis=1), np.array(times))
        if per_mac >= 0 and per_block >= 0:
            return 0.0, float(per_mac), float(per_block)
    # The largest is slower a multiply-accumulate than the smallest, or they do not differ.
    per_mac = max(0.0, times.largest_ms - times.smallest_ms) / max(1.0, macs[1] - macs[0])
    return times.smallest_ms - float(per_mac) * float(macs[0]), float(per_mac), 0.0


def measure_anchors(predictor: LatencyPredictor, space: SearchSpace) -> dict[Variant, Anchors]:
    """Measure the smallest and the largest network of some variants."""
    variants = anchor_variants(space)
    times = predictor.whole_ms(anchor_networks(space, variants), f"smallest and largest networks of {space.name}")
    return {variant: Anchors(*map(float, times[2 * i : 2 * i + 2])) for i, variant in enumerate(variants)}


def feasible_ms(anchors: Mapping[Variant, Anchors]) -> tuple[float, float]:
    """Return the latency of the fastest and of the slowest network of a space, measured."""
    return min(a.smallest_ms for a in anchors.values()), max(a.largest_ms for a in anchors.values())


def pick_variants(
    predictor: LatencyPredictor,
    space: SearchSpace,
    estimator: Any,
    budget_ms: float,
    limits: tuple[Limit, ...] = (),
) -> list[Variant]:
    """Return the few variants of a space that can hold the optimum of a budget and of other limits."""
    rough = coarse_latency_model(space, measure_anchors(predictor, space))
    budget_ms = max(budget_ms, fastest_ms(rough, limits) * 1.001)  # the coarse model's rounding
    problem = Problem(space, rough, estimator.compile(space), budget_ms, estimator.additive_model(space), limits)
    return [candidate.variant for candidate in choose_variants(problem)]
