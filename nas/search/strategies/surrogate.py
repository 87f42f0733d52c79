"""A loop for estimators that take long: fit an additive surrogate to the evaluated networks, and solve it exactly."""

from __future__ import annotations

import random

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.encoding import Encoding
from nas.search.history import History
from nas.search.problem import Problem
from nas.search.solver import solve
from nas.search.strategies.base import Propose, Strategy
from nas.search.surrogate import Surrogate

NEIGHBOUR_RATE = 0.05
YOUNGEST, BEST = 400, 100  # of the evaluated networks: those that the surrogate is fitted to


def surrogate_search(problem: Problem) -> Propose:
    """Propose in turn the surrogate's optimum, that of a model sampled from its posterior, a neighbour of the best.

    The surrogate starts from the known additive model. Raises NasError unless there is one.
    """
    known = problem.known

    def propose(history: History, rng: random.Random) -> Encoding:
        turn = len(history.seen) % 3
        if turn == 2 and len(history):
            return problem.sampler.mutate(history.best(1)[0], rng, NEIGHBOUR_RATE)
        surrogate = fitted_surrogate(known, history)
        if turn == 0:
            return _optimum(problem, surrogate.additive_model, rng)
        return _optimum(problem, surrogate.sampled_model(np.random.default_rng(rng.getrandbits(64))), rng)

    return propose


def fitted_surrogate(known: AdditiveModel, history: History) -> Surrogate:
    """Return a surrogate fitted to the best and the youngest networks.

    Diverged trainings are left out: their score is not the accuracy of their networks.
    """
    surrogate = Surrogate(known)
    usable = np.flatnonzero(~history.diverged)
    if len(usable) > 1:
        order = usable[np.argsort(-history.scores[usable], kind="stable")]
        kept = sorted({*order[:BEST].tolist(), *usable[-YOUNGEST:].tolist()})
        surrogate.fit(history.encodings[kept], history.scores[kept])
    return surrogate


def _optimum(problem: Problem, model: AdditiveModel, rng: random.Random) -> Encoding:
    optima = [solve(model, problem.limits, variant, gap=1e-4) for variant in problem.feasible_variants]
    found = [optimum for optimum in optima if optimum is not None]
    return max(found, key=lambda optimum: optimum.score).encoding if found else problem.sampler.sample(rng)


SURROGATE = Strategy(surrogate_search, trials=60)
