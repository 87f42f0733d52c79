"""The exact solver as a strategy."""

from __future__ import annotations

import random

from nas.search.history import History
from nas.search.limits import Limit
from nas.search.problem import Problem, Row
from nas.search.solver import solve
from nas.search.strategies.base import Propose, Strategy

SWEEP_STEP, SWEEPS = 0.96, 16  # between the budgets that the exact solver sweeps, and how many of these it does
NEIGHBOUR_RATE = 0.05  # at which the optima mutate after that


def exact(problem: Problem) -> Propose:
    """The proven optimum of each variant at the budget, then at ever smaller ones; then neighbours of these.

    Raises NasError unless the accuracy is a sum over blocks.
    """
    additive = problem.needed_additive
    variants = problem.fitting_variants
    budgets = problem.sweep or [problem.budget_ms * SWEEP_STEP**step for step in range(SWEEPS)]

    def propose(history: History, rng: random.Random) -> Row:
        sweep, index = divmod(len(history), len(variants))
        if sweep >= len(budgets):
            return problem.mutated(rng.choice(history.best(len(variants))), rng, NEIGHBOUR_RATE)
        latency, *others = problem.limits
        tighter = Limit(latency.name, budgets[sweep], latency.sums)
        optimum = solve(additive, [tighter, *others], variants[index])
        return optimum.row if optimum else problem.random_row(rng)

    return propose


EXACT = Strategy(exact, trials=24)
