"""The exact solver as a strategy."""

from __future__ import annotations

import random

from nas.arch.encoding import Encoding
from nas.search.history import History
from nas.search.limits import Limit
from nas.search.problem import Problem
from nas.search.solver import solve
from nas.search.strategies.base import Propose, Strategy

SWEEP_STEP, SWEEPS = 0.96, 16  # between the limits that are swept, and how many of these there are
NEIGHBOUR_RATE = 0.05  # of decisions that are made anew in neighbours of the optima


def exact(problem: Problem) -> Propose:
    """Propose the proven optimum of each variant at the limit, then at ever smaller ones, then neighbours of these.

    Raises NasError unless the accuracy is a sum over blocks.
    """
    additive = problem.needed_additive
    variants = problem.feasible_variants
    limits_ms = problem.sweep or [problem.limit_ms * SWEEP_STEP**step for step in range(SWEEPS)]

    def propose(history: History, rng: random.Random) -> Encoding:
        sweep, index = divmod(len(history.seen), len(variants))
        if sweep >= len(limits_ms) and len(history):
            return problem.sampler.mutate(rng.choice(history.best(len(variants))), rng, NEIGHBOUR_RATE)
        latency, *others = problem.limits
        tighter = Limit(latency.name, limits_ms[min(sweep, len(limits_ms) - 1)], latency.sums)
        optimum = solve(additive, [tighter, *others], variants[index])
        return optimum.encoding if optimum else problem.sampler.sample(rng)

    return propose


EXACT = Strategy(exact, trials=24)
