"""Run the trials of an attempt: the strategy's, seeds a little above the limit, and NetAdapt's steps from these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.spec import ArchSpec
from nas.netadapt.algorithm import NetAdaptStep, first_step, latency_of, trim_until_measured
from nas.runs.record import LoggedTrial, TargetResult, Trial
from nas.runs.target import Target
from nas.search.context import SearchContext
from nas.search.loop import run_trials
from nas.search.objective import make_problem, reward_of
from nas.search.problem import Problem, evaluated
from nas.search.sharing import shared_trials

SEED_LIMIT = 1.06  # times the limit: networks from which trimming starts
SEEDS = 2
ROUNDING = 1e-9
LATER_SHARE = 3  # later attempts see latencies that moved by a few percent: they get one part in so many of the trials


class Stages(NamedTuple):
    """Names under which the trials of one attempt are logged."""

    proposed: str  # by the strategy
    seeds: str  # for trimming
    trimmed: str  # by NetAdapt


def stages_of(strategy: str, attempt: int) -> Stages:
    """Return the names of an attempt's stages; attempts count from 0."""
    suffix = f" {attempt + 1}" if attempt else ""
    return Stages(strategy + suffix, "seed" + suffix, "netadapt" + suffix)


def explore(
    context: SearchContext,
    result: TargetResult,
    latency: AdditiveModel,
    limit_ms: float,
    attempt: int = 0,
    *,
    trims: bool = True,
) -> Problem:
    """Log networks predicted within the limit; with `trims` also some a little above it, trimmed down to it.

    A run that resumes does only what is not logged yet. Returns the problem within the limit.
    """
    target, request, space = result.target, context.request, latency.space
    problem = make_problem(request, target, context.estimator, latency, limit_ms, context.limits(space))
    trials = max(1, (request.trials or request.load_strategy().trials) // (LATER_SHARE if attempt else 1))
    stages = stages_of(request.strategy, attempt)
    parts = [(stages.proposed, problem, trials)]
    if trims and result.binds and request.objective == "top1":
        parts.append((stages.seeds, problem.with_limit(SEED_LIMIT * limit_ms), max(1, trials // 4)))
    with context.console.progress(f"searching {target.name}, attempt {attempt + 1}") as progress:
        for index, (stage, limited, number) in enumerate(parts):
            done = len(context.folder.trials(target.name, stage))
            try:
                for trial in _new_trials(context, target, limited, stage, number):
                    context.folder.log(target.name, stage, trial, space)
                    done += 1
                    progress((index + done / number) / len(parts), f"{done} trials")
            finally:
                context.folder.flush()
    seeds = {logged.trial.spec.id: logged.trial for logged in context.folder.trials(target.name, stages.seeds)}
    over = [trial for trial in seeds.values() if trial.latency_ms > limit_ms]
    for seed in sorted(over, key=lambda trial: -trial.top1)[:SEEDS]:
        trim_and_log(context, target, seed.spec, limit_ms, stages.trimmed)
    return problem


def _new_trials(context: SearchContext, target: Target, problem: Problem, stage: str, number: int) -> Iterator[Trial]:
    """Yield the trials of a stage that are not logged yet, each when it is known."""
    request = context.request
    finished = [logged.trial for logged in context.folder.trials(target.name, stage)]
    if request.shares_work:
        yield from shared_trials(context, target, problem, stage, number)[len(finished) :]
    else:
        strategy = request.load_strategy()
        yield from run_trials(problem, strategy, trials=number, seed=request.seed, finished=finished)


def trim_and_log(
    context: SearchContext,
    target: Target,
    seed: ArchSpec,
    limit_ms: float,
    stage: str,
    *,
    measured_ms: float | None = None,
    measure_ms: Callable[[ArchSpec], float] | None = None,
) -> ArchSpec | None:
    """Trim a network by NetAdapt until its latency keeps the limit, and log the steps; None if it cannot get there.

    With `measure_ms` the measured latency must keep the limit, else the predicted one. `measured_ms` is the seed's.
    """
    known = {logged.trial.spec.id for logged in context.folder.trials(target.name) if logged.trial.encoding is None}

    def log(step: NetAdaptStep) -> None:
        if step.cut and step.spec.id not in known:
            spec = step.spec.replace(name=f"{target.name}-trimmed")
            reward = reward_of(context.request, target)
            trial = evaluated(None, spec, step.predicted_ms, context.estimator.estimate, reward)
            context.folder.log(target.name, stage, trial)

    def predict_ms(specs: Sequence[ArchSpec]) -> np.ndarray:
        return allowed_ms(context, specs)

    def estimate(specs: Sequence[ArchSpec]) -> np.ndarray:
        return context.ranking_estimator.estimate(specs).top1

    steps = [first_step(seed, predict_ms, estimate, measured_ms)]
    for step in trim_until_measured(steps, limit_ms, predict_ms=predict_ms, measure_ms=measure_ms, estimate=estimate):
        steps.append(step)
        if not context.trains:
            log(step)
    if latency_of(steps) > limit_ms:
        return None
    if context.trains:  # only the last network: those before it are not results, and a training takes long
        log(steps[-1])
    return steps[-1].spec


def allowed_ms(context: SearchContext, specs: Sequence[ArchSpec]) -> np.ndarray:
    """Return predicted latencies (ms), infinite for networks that break another limit.

    Fewer channels can break one: two stages whose channels come to be equal are tied by a residual, which is held in
    memory.
    """
    keeps = np.array([context.keeps_limits(spec) for spec in specs])
    return np.where(keeps, context.predictor.predict_ms(specs), np.inf)


def candidates(context: SearchContext, target: Target, limit_ms: float, attempt: int) -> list[LoggedTrial]:
    """Return the logged networks within the limit, the most accurate first, each once.

    A finalist has its measured latency, another network the latency that is predicted for it by now. Where none is
    within the limit, the fastest is returned. Trials of later attempts do not count, so that a resumed run makes the
    same decisions.
    """
    stages = {stage for earlier in range(attempt + 1) for stage in stages_of(context.request.strategy, earlier)}
    kept = {
        logged.trial.spec.id: logged
        for logged in context.folder.trials(target.name)
        if logged.stage in stages and context.keeps_limits(logged.trial.spec)
    }
    now_ms = current_ms(context, target, [logged.trial.spec for logged in kept.values()])
    # A compiled sum and a sum over a network's parts differ in the last bits.
    fitting = [logged for spec_id, logged in kept.items() if now_ms[spec_id] <= limit_ms * (1 + ROUNDING)]
    if not fitting:  # what was to be the fastest was measured a little above the limit
        fitting = [kept[min(kept, key=lambda spec_id: now_ms[spec_id])]]
    return sorted(fitting, key=lambda logged: (-logged.trial.top1, now_ms[logged.trial.spec.id]))


def current_ms(context: SearchContext, target: Target, specs: Sequence[ArchSpec]) -> dict[str, float]:
    """Return the latency (ms) of networks by spec id: as measured for the target, else as predicted by now."""
    measured = context.folder.result_of(target.name).measured
    predicted = zip(specs, map(float, context.predictor.predict_ms(specs)), strict=True)
    return {
        spec.id: measured[spec.id].normalised_ms if spec.id in measured else predicted_ms
        for spec, predicted_ms in predicted
    }
