"""Choose the few variants that can hold the optimum of a budget, before their rows are measured.

To measure the rows of all 42 variants of a space would take minutes. Whole anchor networks, the smallest and the
largest of some variants, say what a multiply-accumulate and a block cost there. On this coarse latency model the exact
solver finds the best estimate within the budget for each variant. It decides only where to measure: no result rests on
the coarse model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from nas.accuracy.estimator import Estimator
from nas.arch.additive import AdditiveModel
from nas.arch.cost import block_layers, count_cost
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.predictor import LatencyPredictor
from nas.search.extremes import fastest_ms
from nas.search.limits import Limit
from nas.search.problem import Problem
from nas.search.solver import solve

# The rows of a variant take 10 to 20 s, and those of two spaces are measured before a first search can begin.
MAX_VARIANTS = 4
# Points of top-1 within which a variant may still win once it is measured: the coarse model is that coarse.
TOP1_MARGIN = 0.4


class Anchors(NamedTuple):
    """Measured latencies (ms) of the smallest and the largest network of a variant."""

    smallest_ms: float
    largest_ms: float


class Candidate(NamedTuple):
    """A variant and its best estimate (percent) within the budget, by the coarse latency model."""

    variant: Variant
    top1: float


def pick_variants(
    predictor: LatencyPredictor,
    space: SearchSpace,
    estimator: Estimator,
    limit_ms: float,
    limits: tuple[Limit, ...] = (),
) -> list[Variant]:
    """Return the few variants of a space that can hold the optimum within a latency and other limits."""
    coarse = coarse_latency_model(space, measure_anchors(predictor, space))
    limit_ms = max(limit_ms, fastest_ms(coarse, limits))
    problem = Problem(space, coarse, estimator.estimate, limit_ms, estimator.additive_model(space), limits)
    return [candidate.variant for candidate in choose_variants(problem)]


def choose_variants(problem: Problem) -> list[Candidate]:
    """Return at most `MAX_VARIANTS` variants that can hold the optimum, the best first."""
    candidates = []
    for variant in problem.feasible_variants:
        optimum = solve(problem.needed_additive, problem.limits, variant, gap=1e-3)
        if optimum is not None:
            candidates.append(Candidate(problem.space.variants[variant], problem.evaluate(optimum.encoding).top1))
    candidates.sort(key=lambda candidate: -candidate.top1)
    return [c for c in candidates if c.top1 >= candidates[0].top1 - TOP1_MARGIN][:MAX_VARIANTS]


def anchor_variants(space: SearchSpace) -> list[Variant]:
    """Return the variants whose anchor networks are measured: every width at up to three resolutions."""
    by_width: dict[float, list[int]] = {}
    for variant in space.variants:
        by_width.setdefault(variant.width, []).append(variant.resolution)
    ends_and_middle = {}
    for width, resolutions in by_width.items():
        resolutions.sort()
        ends_and_middle[width] = {resolutions[0], resolutions[len(resolutions) // 2], resolutions[-1]}
    return [variant for variant in space.variants if variant.resolution in ends_and_middle[variant.width]]


def anchor_networks(space: SearchSpace, variants: Iterable[Variant]) -> list[ArchSpec]:
    """Return the smallest and the largest network of each variant, in turn."""
    return [spec for variant in variants for spec in (space.smallest(variant), space.largest(variant))]


def measure_anchors(predictor: LatencyPredictor, space: SearchSpace) -> dict[Variant, Anchors]:
    """Measure the anchor networks of a space; the table remembers them."""
    variants = anchor_variants(space)
    times = predictor.measured_ms(anchor_networks(space, variants), f"smallest and largest networks of {space.name}")
    return {variant: Anchors(*map(float, times[2 * i : 2 * i + 2])) for i, variant in enumerate(variants)}


def feasible_range_ms(anchors: Mapping[Variant, Anchors]) -> tuple[float, float]:
    """Return the latencies (ms) of the fastest and of the slowest network of a space."""
    return min(a.smallest_ms for a in anchors.values()), max(a.largest_ms for a in anchors.values())


def interpolated(anchors: Mapping[Variant, Anchors], variant: Variant) -> Anchors:
    """Return the anchors of a variant from those of other resolutions of its width, as a power of the resolution."""
    known = sorted(known for known in anchors if known.width == variant.width)
    logs = np.log([known.resolution for known in known])
    times = [
        float(np.exp(np.interp(np.log(variant.resolution), logs, np.log([anchors[k][end] for k in known]))))
        for end in (0, 1)
    ]
    return Anchors(*times)


def coarse_latency_model(space: SearchSpace, anchors: Mapping[Variant, Anchors]) -> AdditiveModel:
    """Return the latency (ms) as `base + a * MACs + b * blocks`, with coefficients a variant that fit its anchors."""
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


def _rates(macs: np.ndarray, blocks: np.ndarray, anchors: Anchors) -> tuple[float, float, float]:
    """Return a constant, the latency of a multiply-accumulate, and that of a block, which fit both anchors."""
    if macs[0] * blocks[1] != macs[1] * blocks[0]:
        per_mac, per_block = np.linalg.solve(np.stack([macs, blocks], axis=1), np.array(anchors))
        if per_mac >= 0 and per_block >= 0:
            return 0.0, float(per_mac), float(per_block)
    # The largest network is slower a multiply-accumulate than the smallest, or they do not differ.
    per_mac = max(0.0, anchors.largest_ms - anchors.smallest_ms) / max(1.0, macs[1] - macs[0])
    return anchors.smallest_ms - float(per_mac) * float(macs[0]), float(per_mac), 0.0
