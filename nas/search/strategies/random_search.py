"""Random search."""

from __future__ import annotations

from nas.search.problem import Problem
from nas.search.strategies.base import Propose, Strategy


def random_search(problem: Problem) -> Propose:
    """Propose networks that are uniform over each choice, then repaired."""
    return lambda history, rng: problem.sampler.sample(rng)


RANDOM = Strategy(random_search, trials=500)
