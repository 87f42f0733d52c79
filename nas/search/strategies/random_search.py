"""Random search."""

from __future__ import annotations

from nas.search.problem import Problem
from nas.search.strategies.base import Propose, Strategy


def random_search(problem: Problem) -> Propose:
    """Uniform over each choice, then made to fit."""
    return lambda history, rng: problem.random_row(rng)


RANDOM = Strategy(random_search, trials=500)
