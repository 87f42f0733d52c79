"""Draw networks near the optimum of random budgets: those that searches end with.

A table that agrees with random networks can be off by several percent where a search ends, since a search picks the
networks that the table takes for faster than they are. So such networks are measured when a table is made, and its
check shows both populations.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from nas.accuracy.estimator import Estimator
from nas.arch.additive import AdditiveModel
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.fidelity import NEAR_OPTIMAL, of_population
from nas.latency.predictor import LatencyPredictor
from nas.latency.table import LatencyTable
from nas.latency.timing import LEARNING_RULE
from nas.search.extremes import fastest_ms, slowest_ms
from nas.search.limits import Limit
from nas.search.solver import solve

PER_VARIANT = 6  # networks that are measured when the rows of a variant are
DRAWS = 4 * PER_VARIANT  # at most, until so many differ: budgets of small images lie close together
GAP = 5e-3  # relative, to the proven optimum: near it is near enough
EDGES = 1.05, 0.95  # budgets lie between these shares of the fastest and of the slowest network's time


def near_optimal_draw(
    table: LatencyTable, estimator: Estimator, rng: random.Random, *, learned: bool = True
) -> Callable[[SearchSpace], ArchSpec]:
    """Return a function that draws from a space the most accurate network within a random predicted latency.

    The latency is uniform in its logarithm over what the drawn variant can reach. The table needs every row of it.
    Without `learned` it is the sum of rows, so that no draw depends on what the table has learned.
    """
    models: dict[str, tuple[AdditiveModel, AdditiveModel, float, float]] = {}

    def draw(space: SearchSpace) -> ArchSpec:
        at = space.at([rng.choice(space.variants)])
        key = f"{space.name} {at.variants[0]}"
        if key not in models:
            latency, accuracy = table.compile(at, learned=learned), additive_model(estimator, at)
            if accuracy is None:
                return at.sample(rng)  # nothing says which network is the most accurate
            models[key] = latency, accuracy, EDGES[0] * fastest_ms(latency), EDGES[1] * slowest_ms(latency)
        latency, accuracy, low, high = models[key]
        limit_ms = float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))
        optimum = solve(accuracy, [Limit("latency", limit_ms, latency)], 0, gap=GAP)
        assert optimum is not None  # the fastest network is within the limit
        (spec,) = at.decode(np.array([optimum.encoding]))
        return spec

    return draw


def additive_model(estimator: Estimator, space: SearchSpace) -> AdditiveModel | None:
    """Return the estimator's sum over blocks for a space; None where it has none, or none for such a space."""
    try:
        return estimator.additive_model(space)
    except NasError:
        return None


def fill_and_learn(predictor: LatencyPredictor, space: SearchSpace, estimator: Estimator, title: str) -> None:
    """Measure what the table lacks for a space: its rows, and some networks near the optima of each variant.

    Nothing is measured where the table is complete, or of another device.
    """
    predictor.fill_space(space, title)
    if not predictor.fills:
        return
    drawn: dict[str, ArchSpec] = {}
    for variant in space.variants:
        at, rng = space.at([variant]), random.Random(f"near optima of {space.name} at {variant}")
        if additive_model(estimator, at) is None:
            return
        draw = near_optimal_draw(predictor.table, estimator, rng, learned=False)
        drawn |= _different(draw, at)
    new = [spec for spec in drawn.values() if not predictor.table.knows(predictor.network(spec))]
    if new:
        named = [of_population(spec, NEAR_OPTIMAL) for spec in new]
        predictor.measure(named, f"networks near the optima of {space.name}", LEARNING_RULE)


def _different(draw: Callable[[SearchSpace], ArchSpec], space: SearchSpace) -> dict[str, ArchSpec]:
    """Return networks that differ, by id: `PER_VARIANT` of them, or what `DRAWS` draws give."""
    found: dict[str, ArchSpec] = {}
    for _ in range(DRAWS):
        spec = draw(space)
        found.setdefault(spec.id, spec)
        if len(found) == PER_VARIANT:
            break
    return found
