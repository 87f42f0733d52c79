"""Prove the optimum of the models, and compare a loop of trials with it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from nas.names import resolve
from nas.runs.record import LoopBest, Optimum, ProvenOptimum, Trial
from nas.search.loop import run_trials
from nas.search.problem import Problem
from nas.search.request import SearchRequest
from nas.search.solver import ranking
from nas.search.strategies import STRATEGIES

RUNNERS_UP = 4  # networks behind the proven optimum
LOOP, LOOP_TRIALS = "tpe", 100  # the loop that is compared where a search is exact itself


def proven_optimum(request: SearchRequest, problem: Problem, trials: Sequence[Trial]) -> ProvenOptimum | None:
    """Return the models' proven optimum, its runners-up, and the best that a loop found; None where there is no proof.

    `trials` are those of the request's strategy. For `exact` a loop that sees no sums over blocks runs beside it.
    """
    if problem.additive is None:
        return None
    name = request.strategy
    if name == "exact":
        name = LOOP
        trials = list(run_trials(problem, resolve("strategy", LOOP, STRATEGIES), trials=LOOP_TRIALS, seed=request.seed))
    ranked = itertools.islice(ranking(problem.additive, problem.limits, problem.feasible_variants), 1 + RUNNERS_UP)
    best, *runners_up = (_as_recorded(problem.evaluate(optimum.encoding)) for optimum in ranked)
    # What a trial was predicted at when it was proposed can be wrong by now.
    fitting = [trial for trial in trials if trial.encoding is not None and problem.fits(trial.encoding)] or trials
    loop = LoopBest(name, len(trials), round(max(trial.score for trial in fitting), 4))
    return ProvenOptimum(round(problem.limit_ms, 4), best, tuple(runners_up), loop)


def _as_recorded(trial: Trial) -> Optimum:
    return Optimum(trial.spec.id, round(trial.top1, 4), round(trial.latency_ms, 4))
