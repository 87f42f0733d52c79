"""Choose the few variants that can hold the optimum of a budget, and measure the rows of these alone.

To measure the rows of all 42 variants of a space would take minutes. Whole anchor networks, the smallest and the
largest of some variants, say what a multiply-accumulate and a block cost there. On this coarse latency model the exact
solver finds the best estimate within the budget for each variant. The rows of the best one are measured. Another
variant's latencies are then those of the nearest measured variant, stretched so that its anchors fit: variants that
differ in width and resolution differ little in what their blocks cost beside each other. Choosing and measuring go on
while a variant that is not measured may hold a better network. No result rests on the coarse models.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from nas.accuracy.estimator import Estimator
from nas.arch.additive import AdditiveModel
from nas.arch.cost import block_layers, count_cost
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.fidelity import covered_variants
from nas.latency.predictor import LatencyPredictor
from nas.latency.table import LatencyTable
from nas.search.extremes import fastest_ms
from nas.search.limits import Limit
from nas.search.problem import Problem
from nas.search.solver import solve

MAX_NEW = 3  # variants that are measured for one budget: the rows of each take 10 to 20 s
MAX_VARIANTS = 4  # variants that are searched
TOP1_MARGIN = 0.4  # points; a measured variant that is worse by more is not searched
# A variant that is not measured may be faster than its model by so much: stretched latencies are off by about that.
OPTIMISM = 1.06


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
    title: str = "latency table",
    doubt: float = 0.0,
) -> list[Variant]:
    """Return the few variants of a space that can hold the optimum within a latency and other limits, the best first.

    `doubt` says by how many points estimates of two variants can be wrong beside each other.
    The table has the rows of those returned. Where it can be filled, up to `MAX_NEW` variants are measured for that.
    If none of these has a network within the limits, more are measured, one after another until one has. Where the
    table cannot be filled, only variants that it covers are looked at. Raises NasError if it covers none, or if no
    network keeps the other limits.
    """
    if not predictor.fills:
        space = space.at(covered_variants(predictor.table, space))
    anchors, additive = measure_anchors(predictor, space), estimator.additive_model(space)
    new = 0
    while True:
        measured = set(covered_variants(predictor.table, space))
        latency = latency_model(predictor.table, space, anchors, measured)
        within_ms = max(limit_ms, fastest_ms(latency, limits))
        problem = Problem(space, latency, estimator.estimate, within_ms, additive, limits)
        known = best_of_variants(problem, measured)
        best = max((candidate.top1 for candidate in known), default=-math.inf)
        others = set(space.variants) - measured
        promising = [
            c for c in best_of_variants(problem.with_limit(OPTIMISM * within_ms), others) if c.top1 > best - doubt
        ]
        if not promising or (known and new >= MAX_NEW):
            return [c.variant for c in known if c.top1 >= best - max(TOP1_MARGIN, doubt)][:MAX_VARIANTS]
        new += 1
        predictor.fill_space(space.at([promising[0].variant]), title)


def best_of_variants(problem: Problem, among: Collection[Variant]) -> list[Candidate]:
    """Return those of the variants that have a network within the limits, with their best estimates, the best first."""
    candidates = []
    for index in problem.feasible_variants:
        variant = problem.space.variants[index]
        if variant in among and (optimum := solve(problem.needed_additive, problem.limits, index, gap=1e-3)):
            candidates.append(Candidate(variant, problem.evaluate(optimum.encoding).top1))
    return sorted(candidates, key=lambda candidate: -candidate.top1)


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


def latency_model(
    table: LatencyTable, space: SearchSpace, anchors: Mapping[Variant, Anchors], measured: Collection[Variant]
) -> AdditiveModel:
    """Return the latency (ms) of a space: the table's where rows were measured, else that of a near variant, stretched.

    Near is the variant whose largest network takes about as long. Without any measured variant it is the coarse model.
    """
    if not measured:
        return coarse_latency_model(space, anchors)
    at = space.at([variant for variant in space.variants if variant in measured])
    known = table.compile(at)
    ends = [
        np.array([known(at.encode([end(variant)]))[0] for end in (at.smallest, at.largest)]) for variant in at.variants
    ]
    constants, rows = [], []
    for variant in space.variants:
        if variant in measured:
            near = at.variants.index(variant)
            offset, slope = 0.0, 1.0
        else:
            own = interpolated(anchors, variant)
            distances = [abs(math.log(interpolated(anchors, v).largest_ms / own.largest_ms)) for v in at.variants]
            near = int(np.argmin(distances))
            # The anchors of the nearest variant are known twice, and what they are off by is common to both.
            wanted = np.array(own) * ends[near] / np.array(interpolated(anchors, at.variants[near]))
            offset, slope = _stretch(ends[near], wanted)
        constants.append(offset + slope * known.constants[near])
        rows.append((near, slope))
    options = [np.array([slope * values[near] for near, slope in rows]) for values in known.options]
    return AdditiveModel(space, np.array(constants), options)


def _stretch(ends: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Return offset and slope that take the latencies of two networks to those wanted; both arguments of shape (2,)."""
    (low, high), (wanted_low, wanted_high) = ends, wanted
    if high <= low or wanted_high <= wanted_low:  # there is but one network, or its times are all noise
        return 0.0, float(wanted_low / low)
    slope = (wanted_high - wanted_low) / (high - low)
    return float(wanted_low - slope * low), float(slope)


def _rates(macs: np.ndarray, blocks: np.ndarray, anchors: Anchors) -> tuple[float, float, float]:
    """Return a constant, the latency of a multiply-accumulate, and that of a block, which fit both anchors."""
    if macs[0] * blocks[1] != macs[1] * blocks[0]:
        per_mac, per_block = np.linalg.solve(np.stack([macs, blocks], axis=1), np.array(anchors))
        if per_mac >= 0 and per_block >= 0:
            return 0.0, float(per_mac), float(per_block)
    # The largest network is slower a multiply-accumulate than the smallest, or they do not differ.
    per_mac = max(0.0, anchors.largest_ms - anchors.smallest_ms) / max(1.0, macs[1] - macs[0])
    return anchors.smallest_ms - float(per_mac) * float(macs[0]), float(per_mac), 0.0
