"""Which few pairs of width and resolution can hold the optimum of a budget, before they are measured.

Measuring the rows of all 42 pairs of a space would take minutes. Whole anchor networks, the smallest and the
largest of some pairs, say what a multiply-accumulate and a block cost there; on these rough prices the exact
solver finds the best estimate within the budget for each pair. Only where to measure is decided so: no result
rests on a rough price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from nas.additive import BlockSums
from nas.cost import block_layers, count_cost
from nas.space import Scale, SearchSpace
from nas.spec import ArchSpec
from nas.strategies.exact import solve
from nas.strategies.problem import Problem

# The rows of a pair take 10 to 20 s, and those of two spaces are measured before a first search can begin.
MAX_SCALES = 4
# Points of top-1 within which a pair may still win once it is measured: the rough prices are that rough.
MARGIN = 0.4


class Anchors(NamedTuple):
    """Measured times (ms) of the smallest and the largest network of a scale."""

    smallest_ms: float
    largest_ms: float


def anchor_scales(space: SearchSpace) -> list[Scale]:
    """The scales whose anchors are measured: every width at up to three resolutions."""
    by_width: dict[float, list[int]] = {}
    for scale in space.scales:
        by_width.setdefault(scale.width, []).append(scale.resolution)
    ends_and_middle = {}
    for width, resolutions in by_width.items():
        resolutions.sort()
        ends_and_middle[width] = {resolutions[0], resolutions[len(resolutions) // 2], resolutions[-1]}
    return [scale for scale in space.scales if scale.resolution in ends_and_middle[scale.width]]


def anchor_networks(space: SearchSpace, scales: Iterable[Scale]) -> list[ArchSpec]:
    return [spec for scale in scales for spec in (space.smallest(scale), space.largest(scale))]


def interpolated(anchors: Mapping[Scale, Anchors], scale: Scale) -> Anchors:
    """Anchors of a scale from those of other resolutions of its width, as a power of the resolution."""
    known = sorted(known for known in anchors if known.width == scale.width)
    logs = np.log([known.resolution for known in known])
    times = [
        float(np.exp(np.interp(np.log(scale.resolution), logs, np.log([anchors[k][which] for k in known]))))
        for which in (0, 1)
    ]
    return Anchors(*times)


class Candidate(NamedTuple):
    """A pair and the best estimate on rough prices within the budget."""

    scale: Scale
    top1: float


def choose_scales(problem: Problem) -> list[Candidate]:
    """At most `MAX_SCALES` pairs that can hold the optimum, the best first; the problem's prices are rough ones."""
    assert problem.additive is not None
    candidates = []
    for code in problem.fitting_scales:
        optimum = solve(problem.additive, problem.limits, code, gap=1e-3)
        if optimum is not None:
            top1 = float(problem.score(np.array([optimum.row]))[0])
            candidates.append(Candidate(problem.space.scales[code], top1))
    candidates.sort(key=lambda candidate: -candidate.top1)
    return [c for c in candidates if c.top1 >= candidates[0].top1 - MARGIN][:MAX_SCALES]


def rough_prices(space: SearchSpace, anchors: Mapping[Scale, Anchors]) -> BlockSums:
    """Latency (ms) as `base + a * MACs + b * blocks`, with coefficients of each scale that fit its anchors."""
    constants, rates = [], []
    for scale in space.scales:
        small, large = space.smallest(scale), space.largest(scale)
        macs = np.array([count_cost(small).macs, count_cost(large).macs], float)
        blocks = np.array([len(small.blocks), len(large.blocks)], float)
        base, per_mac, per_block = _rates(macs, blocks, interpolated(anchors, scale))
        rates.append((per_mac, per_block))
        inside = sum(sum(layer.macs for layer in block_layers(placed)) for placed in list(small.walk())[1:])
        constants.append(base + per_mac * (macs[0] - inside) + per_block)
    options = [
        np.array(
            [
                [
                    per_mac * sum(layer.macs for layer in block_layers(placed)) + per_block
                    for placed in space.options(scale, slot)
                ]
                for scale, (per_mac, per_block) in zip(space.scales, rates, strict=True)
            ]
        )
        for slot in space.slots
    ]
    return BlockSums(space, np.array(constants), options)


def _rates(macs: np.ndarray, blocks: np.ndarray, times: Anchors) -> tuple[float, float, float]:
    """Constant, price of a multiply-accumulate, price of a block, from those of the smallest and largest network."""
    if macs[0] * blocks[1] != macs[1] * blocks[0]:
        per_mac, per_block = np.linalg.solve(np.stack([macs, blocks], axis=1), np.array(times))
        if per_mac >= 0 and per_block >= 0:
            return 0.0, float(per_mac), float(per_block)
    # The largest is slower a multiply-accumulate than the smallest, or they do not differ.
    per_mac = max(0.0, times.largest_ms - times.smallest_ms) / max(1.0, macs[1] - macs[0])
    return times.smallest_ms - float(per_mac) * float(macs[0]), float(per_mac), 0.0
