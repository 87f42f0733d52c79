"""Make the problem that a strategy solves from a request, an estimator and a latency table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from nas.accuracy.estimator import Estimator, SharedEstimator
from nas.arch.additive import AdditiveModel
from nas.runs.target import Target
from nas.search.extremes import fastest_ms
from nas.search.limits import Limit
from nas.search.problem import Problem, Reward
from nas.search.request import SearchRequest
from nas.search.strategies.exact import SWEEPS


def make_problem(
    request: SearchRequest,
    target: Target,
    estimator: Estimator,
    latency: AdditiveModel,
    limit_ms: float,
    others: tuple[Limit, ...],
) -> Problem:
    """Return the problem of a target: limits on latency and on `others`, and MnasNet's reward where it is asked for."""
    space = latency.space
    additive = estimator.additive_model(space)
    proxy = estimator.proxy.additive_model(space) if additive is None and estimator.proxy else None
    problem = Problem(space, latency, estimator.estimate, limit_ms, additive, others, proxy)
    if isinstance(estimator, SharedEstimator):
        problem = replace(problem, together=estimator.together, begin=estimator.begin)
    reward = reward_of(request, target)
    if reward is None:
        return problem
    # The exact strategy sweeps limits from the budget outwards: the best reward lies on the front of all limits.
    fastest = fastest_ms(latency, others)
    factors = sorted(np.geomspace(1 / 4, 4, SWEEPS + 1), key=lambda factor: abs(np.log(factor)))
    return replace(
        problem,
        reward=reward,
        sweep=tuple(max(fastest, target.budget_ms * float(factor)) for factor in factors),
    )


def reward_of(request: SearchRequest, target: Target) -> Reward | None:
    """Return the reward that the request asks for; None where the score is top-1."""
    if request.objective == "top1":
        return None
    return partial(mnasnet_reward, budget_ms=target.budget_ms, w=request.reward_w)


def mnasnet_reward(top1: float, latency_ms: float, budget_ms: float, w: float) -> float:
    """Return ACC * (LAT / TARGET)^w (arXiv 1807.11626, equation 2)."""
    return float(top1 * (latency_ms / budget_ms) ** w)
