"""Evolution: the regularised one, and that of Once-for-All."""

from __future__ import annotations

import random

import numpy as np

from nas.arch.space import Decision
from nas.search.history import History
from nas.search.problem import Problem, Row
from nas.search.strategies.base import Propose, Strategy


def regularised(problem: Problem) -> Propose:
    """Regularised evolution (arXiv 1802.01548, algorithm 1): a tournament's winner among the youngest mutates."""
    population, tournament, rate = 100, 25, 0.05

    def propose(history: History, rng: random.Random) -> Row:
        if len(history) < population:
            return problem.random_row(rng)
        drawn = rng.sample(range(len(history) - population, len(history)), tournament)
        winner = max(drawn, key=lambda index: history.scores[index])
        return problem.mutated(history.rows[winner], rng, rate)

    return propose


def once_for_all(problem: Problem) -> Propose:
    """Once-for-All's search (arXiv 1908.09791; `EvolutionFinder` of its code, with its settings).

    The best quarter of a population lives on; half of its children are mutated, each decision with probability 0.1,
    half are crossed, each decision from one of two parents. So the parents are the best of all that came before.
    """
    population, parents, rate = 100, 25, 0.1

    def propose(history: History, rng: random.Random) -> Row:
        generation, child = divmod(len(history), population)
        if generation == 0:
            return problem.random_row(rng)
        best = history.best(parents, among=generation * population)
        if child < population // 2:
            return problem.mutated(rng.choice(best), rng, rate)
        return crossed(problem, rng.choice(best), rng.choice(best), rng)

    return propose


def crossed(problem: Problem, one: Row, other: Row, rng: random.Random) -> Row:
    """A network that fits, each decision from one of two; from the one that has it, where a block is in one alone."""
    columns = {decision.name: column for column, decision in enumerate(problem.space.decisions)}

    def choose(decision: Decision) -> int:
        codes = [row[columns[decision.name]] for row in (one, other) if row[columns[decision.name]] >= 0]
        return rng.choice(codes) if codes else rng.randrange(len(decision.choices))

    return problem.fitted(tuple(int(code) for code in np.asarray(problem.space.draw(choose))), rng)


EVOLUTION = Strategy(regularised, trials=500)
ONCE_FOR_ALL = Strategy(once_for_all, trials=500)
