"""Find the fastest and the slowest network of a space within limits beside latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.encoding import Encoding
from nas.search.limits import Limit
from nas.search.repair import OptionChoice
from nas.search.solver import Solution, solve


def fastest_networks(latency: AdditiveModel, others: Sequence[Limit] = ()) -> list[Solution | None]:
    """Return the fastest network of each variant within the other limits; `score` is minus its latency (ms)."""
    largest = [limit.largest() for limit in others]
    found: list[Solution | None] = []
    for variant in range(len(latency.constants)):
        binding = [limit for limit, most in zip(others, largest, strict=True) if most[variant] > limit.most]
        if binding or latency.pairs:
            found.append(solve(-latency, binding, variant))
        else:
            encoding = _fewest_fastest_blocks(latency, variant)
            found.append(Solution(encoding, -float(latency(np.array([encoding]))[0])))
    return found


def fastest_ms(latency: AdditiveModel, others: Sequence[Limit] = ()) -> float:
    """Return the latency (ms) of the fastest network within the other limits; infinite where there is none."""
    return min((-found.score for found in fastest_networks(latency, others) if found), default=np.inf)


def slowest_ms(latency: AdditiveModel, others: Sequence[Limit] = ()) -> float:
    """Return an upper bound of the latency (ms) of a space's networks within the other limits."""
    bounds = Limit("latency", np.inf, latency).largest()
    largest = [limit.largest() for limit in others]
    for variant in range(len(bounds)):
        binding = [limit for limit, most in zip(others, largest, strict=True) if most[variant] > limit.most]
        if binding:
            found = solve(latency, binding, variant)
            bounds[variant] = found.score if found else 0.0
    return float(bounds.max())


def _fewest_fastest_blocks(latency: AdditiveModel, variant: int) -> Encoding:
    """Return the network with the fastest option wherever a block must stand, and no block elsewhere."""
    space = latency.space
    options = [
        int(values[variant].argmin()) if slot.position < min(space.stages[slot.stage].depths) else -1
        for slot, values in zip(space.slots, latency.options, strict=True)
    ]
    depths = [stage.depths.index(min(stage.depths)) for stage in space.stages]
    return OptionChoice(space, depths, options).encoding(variant)
