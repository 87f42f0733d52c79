"""Prove on the device that found networks keep their budgets: every result was measured within its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nas.arch.published import PublishedResult
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.networks import Measured
from nas.runs.record import TargetResult
from nas.runs.target import Target
from nas.search.comparison import COMPARED, measured_beside
from nas.search.context import SearchContext
from nas.search.extremes import fastest_ms, slowest_ms
from nas.search.limits import Limit
from nas.search.objective import reward_of
from nas.search.optimum import proven_optimum
from nas.search.problem import Problem
from nas.search.trials import candidates, explore, stages_of, trim_and_log

FINALISTS = 3
SLACK = 0.03  # unused share of the limit that justifies another attempt
ATTEMPTS, ROUNDS = 3, 6
OUT_OF_REACH = 1.1  # times the limit: a prediction that far above it is not measured within it


class Proof(NamedTuple):
    """The found networks by the names of their targets, and what was measured in the same rounds, by spec id."""

    found: dict[str, ArchSpec]
    compared: Sequence[PublishedResult]
    measured: dict[str, Measured]


def find(context: SearchContext, result: TargetResult, space: SearchSpace) -> ArchSpec:
    """Return the best network of a target, measured within its limit wherever the device can be measured."""
    if context.request.objective == "mnasnet":
        return _find_rewarded(context, result, space)
    if context.table.other_device:
        return _find_predicted(context, result, space)
    return _find_measured(context, result, space)


def _find_measured(context: SearchContext, result: TargetResult, space: SearchSpace) -> ArchSpec:
    """Return the most accurate network that, measured whole on the device, keeps the limit.

    Predictions are a percent or two off, more on a disturbed machine. After the first finalists were measured, the
    search is repeated with the limit divided by the ratio of measured to predicted latency. Raises NasError if nothing
    fits.
    """
    target, latency, limits = result.target, context.table.compile(space), context.limits(space)
    fastest, slowest = fastest_ms(latency, limits), slowest_ms(latency, limits)
    if fastest > OUT_OF_REACH * target.limit_ms:
        raise NasError(
            f"no network of {space.name} that keeps the other limits is as fast as {target.limit_ms:.3g} ms, the "
            f"fastest takes some {fastest:.3g} ms; raise the budget, --max-params or --max-memory-mb"
        )
    corrections = list(result.corrections)
    fitting: dict[str, tuple[float, ArchSpec, Measured]] = {}  # by spec id, with top-1
    for attempt in range(ATTEMPTS):
        # At least the fastest: a network that is predicted a little over the limit may be measured within it.
        predicted_limit = max(target.limit_ms / (corrections[attempt - 1] if attempt else 1.0), fastest)
        problem = explore(context, result, latency, predicted_limit, attempt)
        finalists = [logged.trial for logged in candidates(context, target, predicted_limit, attempt)[:FINALISTS]]
        measured = measure_finalists(context, target, [trial.spec for trial in finalists])
        for trial, measurement in zip(finalists, measured, strict=True):
            if measurement.normalised_ms <= target.limit_ms:
                fitting[trial.spec.id] = trial.top1, trial.spec, measurement
        if attempt == len(corrections):
            predicted = context.predictor.predict_ms([trial.spec for trial in finalists])
            ratios = np.array([measurement.normalised_ms for measurement in measured]) / predicted
            corrections.append(round(float(np.median(ratios)), 5))
            context.folder.update_target(target.name, corrections=tuple(corrections))
        # A network that leaves less unused than the corrections are wrong by cannot be beaten. Neither can one where
        # the other limits leave nothing slower than the limit.
        used = max((measurement.normalised_ms for _, _, measurement in fitting.values()), default=0.0)
        if slowest <= predicted_limit or not result.binds or used > (1 - SLACK) * target.limit_ms:
            break
    _record_optimum(context, result, problem, attempt)
    if not fitting:
        return trim_to_limit(context, target, finalists[0].spec, measured[0])
    return max(fitting.values(), key=lambda entry: entry[0])[1]


def _find_rewarded(context: SearchContext, result: TargetResult, space: SearchSpace) -> ArchSpec:
    """Return the network with the highest reward; the best few are measured. It can be over the budget."""
    target, request, latency = result.target, context.request, context.table.compile(space)
    reward = reward_of(request, target)
    assert reward is not None
    explore(context, result, latency, float(Limit("latency", np.inf, latency).largest().max()))
    logged = context.folder.trials(target.name, stages_of(request.strategy, 0).proposed)
    trials = {one.trial.spec.id: one.trial for one in logged}
    kept = [trial for trial in trials.values() if context.keeps_limits(trial.spec)]
    finalists = sorted(kept, key=lambda trial: -trial.score)[:FINALISTS]
    if context.table.other_device:
        return finalists[0].spec
    measured = measure_finalists(context, target, [trial.spec for trial in finalists])
    rewards = [reward(trial.top1, m.normalised_ms) for trial, m in zip(finalists, measured, strict=True)]
    return finalists[int(np.argmax(rewards))].spec


def _find_predicted(context: SearchContext, result: TargetResult, space: SearchSpace) -> ArchSpec:
    """Return the most accurate network that is predicted within the budget, where nothing can be measured."""
    target, latency = result.target, context.table.compile(space)
    limit_ms = max(target.limit_ms, fastest_ms(latency, context.limits(space)))
    if limit_ms > target.budget_ms:
        raise NasError(f"no network of {space.name} that keeps the other limits is predicted within the budget")
    problem = explore(context, result, latency, limit_ms)
    _record_optimum(context, result, problem, 0)
    return candidates(context, target, limit_ms, 0)[0].trial.spec


def _record_optimum(context: SearchContext, result: TargetResult, problem: Problem, attempt: int) -> None:
    """Record the proven optimum of the last attempt, once a run."""
    if result.optimum is None:
        stage = stages_of(context.request.strategy, attempt).proposed
        trials = [logged.trial for logged in context.folder.trials(result.target.name, stage)]
        context.folder.update_target(result.target.name, optimum=proven_optimum(context.request, problem, trials))


def measure_finalists(context: SearchContext, target: Target, specs: Sequence[ArchSpec]) -> list[Measured]:
    """Measure whole networks. The record holds what a run has measured, so that it decides alike when it resumes."""
    known = context.folder.result_of(target.name).measured
    new = [spec for spec in specs if spec.id not in known]
    if new:
        measured = context.predictor.measure(new, f"measuring finalists of {target.name}")
        known = known | {spec.id: measurement for spec, measurement in zip(new, measured, strict=True)}
        context.folder.update_target(target.name, measured=known)
    return [known[spec.id] for spec in specs]


def trim_to_limit(context: SearchContext, target: Target, spec: ArchSpec, measured: Measured) -> ArchSpec:
    """Trim a network until its measured latency keeps the target's limit. Raises NasError if none does."""

    def measure_ms(smaller: ArchSpec) -> float:
        (measurement,) = measure_finalists(context, target, [smaller])
        return measurement.normalised_ms

    before_ms = measured.normalised_ms
    trimmed = trim_and_log(
        context, target, spec, target.limit_ms, "finalist", measured_ms=before_ms, measure_ms=measure_ms
    )
    if trimmed is None:
        raise NasError(
            f"no network of {target.name} was measured within {target.limit_ms:.4g} ms; raise the budget a little"
        )
    return trimmed


def prove_together(
    context: SearchContext, found: Mapping[str, ArchSpec], published: Sequence[PublishedResult]
) -> Proof:
    """Measure the found networks and the published ones beside them in the same rounds.

    A found network that breaks its limit there is trimmed on, and all are measured again. Where nothing can be
    measured, nothing is. Raises NasError if measurements do not repeat.
    """
    found, predictor = dict(found), context.predictor
    if context.table.other_device:
        return Proof(found, [result for result in published if result.spec.name in COMPARED], {})
    shown = [result.spec for result in published if result.spec.name in COMPARED]
    predictor.fill(predictor.parts(shown), "published networks")
    compared = measured_beside(predictor, found.values(), published)
    targets = {result.target.name: result.target for result in context.folder.record.targets}
    for _ in range(ROUNDS):
        specs = [*found.values(), *(result.spec for result in compared)]
        measured = predictor.measure(specs, "measuring the comparison")
        by_id = dict(zip([spec.id for spec in specs], measured, strict=True))
        if any(measurement.disturbed for measurement in measured):
            context.console.say(
                "warning: other work slowed this machine all the while; times can be a tenth off, and the networks "
                "smaller than need be. Search again when it is quiet"
            )
        over = [name for name in found if by_id[found[name].id].normalised_ms > targets[name].repeated_limit_ms]
        if not over or context.request.objective == "mnasnet":
            return Proof(found, compared, by_id)
        for name in over:
            found[name] = trim_to_limit(context, targets[name], found[name], by_id[found[name].id])
    raise NasError("measurements on this machine do not repeat; close what else runs on it and --resume")
