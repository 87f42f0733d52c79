"""Prove on the device that found networks keep their budgets: every result was measured within its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nas.arch.published import PublishedResult
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.fidelity import FINALIST, of_population
from nas.latency.learning import Prediction
from nas.latency.networks import Measured
from nas.latency.timing import FINALIST_RULE
from nas.runs.record import Attempt, TargetResult, Trial
from nas.runs.target import Target
from nas.search.comparison import COMPARED, measured_beside
from nas.search.context import SearchContext
from nas.search.extremes import fastest_ms, slowest_ms
from nas.search.finalists import choose_finalist, rivals
from nas.search.limits import Limit
from nas.search.objective import make_problem, reward_of
from nas.search.optimum import proven_optimum
from nas.search.problem import Problem
from nas.search.trials import candidates, current_ms, explore, stages_of, trim_and_log

# Shares of the limit within which the finalists of an attempt are the best that are predicted. A network predicted just
# within the limit is measured above it half of the time.
DEPTHS = (1.0, 0.994, 0.988)
FINALISTS = len(DEPTHS)
RIVAL_DEPTHS = (0.985, 0.94)  # the same for rivals, which are measured once: one of a variant must fit
SLACK = 0.02  # unused share of the limit that justifies another attempt
UNTRIMMED, TRIMMED = 2, 2  # attempts at most
AGREEMENT = 0.015  # relative difference of predicted and measured latency up to which a prediction holds
ROUNDS = 6
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

    Each attempt solves, and measures the finalists together. The table learns from them, and the next attempt solves
    with what it learned. Trimming asks for many rows, and waits until predictions hold where the search ends. The
    attempts end when a trimmed finalist uses the limit up to `SLACK`, or when nothing new is found. Raises NasError
    if nothing fits.
    """
    target, limits = result.target, context.limits(space)
    latency = context.table.compile(space)
    fastest, slowest = fastest_ms(latency, limits), slowest_ms(latency, limits)
    if fastest > OUT_OF_REACH * target.limit_ms:
        raise NasError(
            f"no network of {space.name} that keeps the other limits is as fast as {target.limit_ms:.3g} ms, the "
            f"fastest takes some {fastest:.3g} ms; raise the budget, --max-params or --max-memory-mb"
        )
    problem = None
    while not _settled(context, target.name, slowest):
        attempt = len(context.folder.result_of(target.name).attempts)
        latency = context.table.compile(space)
        # At least the fastest: a network that is predicted a little over the limit may be measured within it.
        limit_ms = max(target.limit_ms, fastest_ms(latency, limits))
        trims = _trims(context.folder.result_of(target.name), slowest)
        problem = explore(context, result, latency, limit_ms, attempt, trims=trims)
        finalists = _finalists(context, target, limit_ms, attempt)
        predicted = context.table.predict_held_out(finalists[0])
        measured = measure_finalists(context, target, finalists)
        _record_attempt(context, target, limit_ms, trims, finalists[0], predicted, measured[0])
    attempts = context.folder.result_of(target.name).attempts
    if problem is None and context.folder.result_of(target.name).optimum is None:
        latency = context.table.compile(space)
        limit_ms = max(attempts[-1].limit_ms, fastest_ms(latency, limits))
        problem = make_problem(context.request, target, context.estimator, latency, limit_ms, limits)
    if problem is not None:
        _record_optimum(context, result, problem, len(attempts) - 1)
    if _fitting(context, target):
        _measure_rivals(context, target, len(attempts) - 1)
        return choose_finalist(context, target, _fitting(context, target))
    known = context.folder.result_of(target.name).measured
    best = next(trial.spec for trial in _trials(context, target) if trial.spec.id == attempts[-1].spec_id)
    return trim_to_limit(context, target, best, known[best.id])


def _finalists(context: SearchContext, target: Target, limit_ms: float, attempt: int) -> list[ArchSpec]:
    """Return the most accurate network within the limit, and the most accurate others somewhat further below it."""
    specs = [logged.trial.spec for logged in candidates(context, target, limit_ms, attempt)]
    times_ms = current_ms(context, target, specs)
    finalists = specs[:1]
    for depth in DEPTHS[1:]:
        others = [spec for spec in specs if spec not in finalists]
        below = [spec for spec in others if times_ms[spec.id] <= depth * limit_ms]
        finalists += (below or others)[:1]
    return finalists


def _measure_rivals(context: SearchContext, target: Target, attempt: int) -> None:
    """Measure the best networks of variants of which none was measured, as many as finalists are still wanted."""
    known = context.folder.result_of(target.name).measured
    measured = [trial for trial in _trials(context, target) if trial.spec.id in known]
    new: dict[str, ArchSpec] = {}
    for depth in RIVAL_DEPTHS:
        others = [logged.trial for logged in candidates(context, target, depth * target.limit_ms, attempt)]
        new |= {spec.id: spec for spec in rivals(context, measured, others)}
    measure_finalists(context, target, list(new.values()))


def _trims(result: TargetResult, slowest_ms: float) -> bool:
    """Return whether the next attempt trims: where the last one's prediction held, and not in the first one."""
    attempts = result.attempts
    if not attempts or not result.binds or slowest_ms <= result.target.limit_ms:
        return False
    return attempts[-1].trims or len(attempts) >= UNTRIMMED or abs(attempts[-1].difference) <= AGREEMENT


def _settled(context: SearchContext, target_name: str, slowest_ms: float) -> bool:
    """Return whether no further attempt can find a better network.

    A network that leaves less of the limit unused than predictions are wrong by cannot be beaten. Neither can one
    where the limits leave nothing slower, nor one that an earlier attempt ended with, too.
    """
    result = context.folder.result_of(target_name)
    attempts, limit_ms = result.attempts, result.target.limit_ms
    if not attempts:
        return False
    if not result.binds or slowest_ms <= limit_ms:
        return True
    trimmed = [attempt for attempt in attempts if attempt.trims]
    if not trimmed:
        return False
    if len(trimmed) >= TRIMMED or trimmed[-1].spec_id in [attempt.spec_id for attempt in attempts[:-1]]:
        return True
    used = max((m.normalised_ms for m in result.measured.values() if m.normalised_ms <= limit_ms), default=0.0)
    return used > (1 - SLACK) * limit_ms


def _record_attempt(
    context: SearchContext,
    target: Target,
    limit_ms: float,
    trims: bool,
    spec: ArchSpec,
    predicted: Prediction,
    measured: Measured,
) -> None:
    """Record what an attempt came to, and say it."""
    attempt = Attempt(
        limit_ms=round(limit_ms, 4),
        trims=trims,
        spec_id=spec.id,
        predicted_ms=round(predicted.time, 4),
        predicted_std=round(predicted.std, 4),
        measured_ms=round(measured.normalised_ms, 4),
        measured_error=round(measured.error, 4),
    )
    before = context.folder.result_of(target.name).attempts
    context.folder.update_target(target.name, attempts=(*before, attempt))
    context.console.say(
        f"{target.name}: the best of attempt {len(before) + 1} is predicted at {attempt.predicted_ms:.2f} ms, measured "
        f"at {attempt.measured_ms:.2f} ms ({attempt.difference:+.1%})"
    )


def _trials(context: SearchContext, target: Target) -> Iterator[Trial]:
    return (logged.trial for logged in context.folder.trials(target.name))


def _fitting(context: SearchContext, target: Target) -> list[Trial]:
    """Return the finalists that were measured within the limit, each once."""
    known = context.folder.result_of(target.name).measured
    within = {spec_id for spec_id, measured in known.items() if measured.normalised_ms <= target.limit_ms}
    return list({trial.spec.id: trial for trial in _trials(context, target) if trial.spec.id in within}.values())


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
    return choose_finalist(context, target, [logged.trial for logged in candidates(context, target, limit_ms, 0)])


def _record_optimum(context: SearchContext, result: TargetResult, problem: Problem, attempt: int) -> None:
    """Record the proven optimum of the last attempt, once a run, beside the trials of all attempts."""
    if result.optimum is None:
        stages = {stages_of(context.request.strategy, earlier).proposed for earlier in range(attempt + 1)}
        trials = [logged.trial for logged in context.folder.trials(result.target.name) if logged.stage in stages]
        context.folder.update_target(result.target.name, optimum=proven_optimum(context.request, problem, trials))


def measure_finalists(context: SearchContext, target: Target, specs: Sequence[ArchSpec]) -> list[Measured]:
    """Measure whole networks. The record holds what a run has measured, so that it decides alike when it resumes."""
    known = context.folder.result_of(target.name).measured
    new = [spec for spec in specs if spec.id not in known]
    if new:
        named = [of_population(spec, FINALIST) for spec in new]
        measured = context.predictor.measure(named, f"measuring finalists of {target.name}", FINALIST_RULE)
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
        by_id = _compared(context, [*found.values(), *(result.spec for result in compared)])
        if any(measurement.disturbed for measurement in by_id.values()):
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


def _compared(context: SearchContext, specs: Sequence[ArchSpec]) -> dict[str, Measured]:
    """Measure networks in the same rounds, by spec id. The record holds them, so that a run that resumes ends alike."""
    known = context.folder.record.compared
    if any(spec.id not in known for spec in specs):
        measured = context.predictor.measure(specs, "measuring the comparison")
        known = known | dict(zip([spec.id for spec in specs], measured, strict=True))
        context.folder.update(compared=known)
    return {spec.id: known[spec.id] for spec in specs}
