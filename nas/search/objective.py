"""What a strategy is given: score, prices and limits of a request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nas.accuracy.estimator import Estimator
from nas.arch.additive import AdditiveModel
from nas.search.limits import Limit
from nas.search.problem import Problem, fastest_ms
from nas.search.request import Request
from nas.search.strategies.exact import SWEEPS


def quick(estimator: Estimator) -> Estimator:
    """Return what answers at once: the estimator, or its proxy where it trains networks."""
    return estimator.proxy or estimator


def make_problem(
    request: Request,
    estimator: Estimator,
    prices: AdditiveModel,
    limit_ms: float,
    others: tuple[Limit, ...],
    target_ms: float,
) -> Problem:
    """What a strategy is given: limits on latency and on `others`, and the target of a reward that weighs latency."""
    space = prices.space
    score, terms = estimator.compile(space), quick(estimator).additive_model(space)
    same = quick(estimator) is estimator
    problem = Problem(space, prices, score, limit_ms, terms if same else None, others, start=None if same else terms)
    if request.objective == "top1":
        return problem
    # What is exact for a budget sweeps budgets from the target outwards: the best reward of a front.
    fastest = fastest_ms(prices, problem.others)
    factors = sorted(np.geomspace(1 / 4, 4, SWEEPS + 1), key=lambda factor: abs(np.log(factor)))
    return replace(
        problem,
        score=lambda codes: mnasnet_reward(score(codes), prices(codes), target_ms, request.reward_w),
        sweep=tuple(max(fastest, target_ms * float(factor)) for factor in factors),
    )


def mnasnet_reward(top1: Any, latency_ms: Any, target_ms: float, w: float) -> Any:
    """ACC * (LAT / TARGET)^w (arXiv 1807.11626, equation 2); numbers or arrays."""
    return top1 * (latency_ms / target_ms) ** w
