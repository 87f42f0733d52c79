"""A loop for estimators that take long: fit an additive surrogate to what was evaluated, and solve it exactly."""

from __future__ import annotations

import random

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.search.history import History
from nas.search.problem import Problem, Row
from nas.search.solver import solve
from nas.search.strategies.base import Propose, Strategy
from nas.search.surrogate import Surrogate

NEIGHBOUR_RATE = 0.05
YOUNGEST, BEST = 400, 100  # of the evaluated networks, that the surrogate is fitted to


def fitted(problem: Problem) -> Propose:
    """In turn the optimum of the surrogate, that of a draw from what the data allow, and a neighbour of the best.

    The surrogate starts from the known terms. Raises NasError unless there are some.
    """
    known = problem.known

    def propose(history: History, rng: random.Random) -> Row:
        turn = len(history) % 3
        if turn == 2:
            return problem.mutated(history.best(1)[0], rng, NEIGHBOUR_RATE)
        surrogate = Surrogate(known)
        if len(history) > 1:
            order = np.argsort(-history.scores, kind="stable")
            kept = sorted({*order[:BEST].tolist(), *range(len(history))[-YOUNGEST:]})
            surrogate.fit(history.codes[kept], history.scores[kept])
        if turn == 0:
            return _optimum(problem, surrogate.terms, rng)
        return _optimum(problem, surrogate.drawn(np.random.default_rng(rng.getrandbits(64))), rng)

    return propose


def _optimum(problem: Problem, terms: AdditiveModel, rng: random.Random) -> Row:
    optima = [solve(terms, problem.limits, variant, gap=1e-4) for variant in problem.fitting_variants]
    found = [optimum for optimum in optima if optimum is not None]
    return max(found, key=lambda optimum: optimum.score).row if found else problem.random_row(rng)


FITTED = Strategy(fitted, trials=60)
