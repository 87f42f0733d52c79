"""Find out what the device can do, before anything is searched: the feasible range of each target."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nas.arch.published import published_spec
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.fidelity import covered_variants, fidelity_text
from nas.latency.table import space_parts
from nas.latency.timing import LEARNING_RULE
from nas.runs.record import TargetResult
from nas.runs.target import MARGIN, Target
from nas.search.comparison import COMPARED
from nas.search.context import SearchContext
from nas.search.finalists import doubt_of_variants, estimator_of_finalists
from nas.search.near_optimum import fill_and_learn
from nas.search.request import FrontRequest, rounded_up
from nas.search.variants import feasible_range_ms, measure_anchors, pick_variants

ROUGH = 0.02  # relative standard error of an anchor network; a time that is shown is known better
LEAST_OF_FRONT = 1.05  # times the fastest network: the smallest budget of a front


def searchable_space(context: SearchContext, skeleton: str) -> SearchSpace:
    """Return the space of a skeleton at the variants whose rows there are, or can be measured.

    Raises NasError that names a row where there is no such variant.
    """
    table, space = context.table, context.request.space(skeleton)
    if not table.other_device:
        return space
    variants = covered_variants(table, space)
    if not variants:
        raise context.predictor.refusal(table.missing(space_parts(space, table.num_classes)))
    if len(variants) < len(space.variants):
        context.console.say(
            f"{table.path} has all rows of {len(variants)} of the {len(space.variants)} variants of {space.name}"
        )
    return space.at(variants)


def survey(context: SearchContext, spaces: Mapping[str, SearchSpace]) -> None:
    """Report the feasible range of each target, and record its target. Raises NasError for a budget below it."""
    table, say = context.table, context.console.say
    say(f"device: {table.device.cpu}, {table.runtime}")
    for fidelity in table.fidelity:
        say(f"table: checked {fidelity.date} against {fidelity_text(fidelity)}")
    before = {result.target.name: result for result in context.folder.record.targets}
    results = [
        _surveyed(context, target, spaces[target.skeleton], recorded=target.name in before)
        for target in _targets(context, spaces)
    ]
    _say_published(context)
    # A run that resumes keeps what it has decided.
    context.folder.update(targets=tuple(before.get(result.target.name, result) for result in results))


def _say_published(context: SearchContext) -> None:
    """Report the latency of the published networks that results are compared with, with its standard error."""
    table, predictor = context.table, context.predictor
    specs = [spec for spec in map(published_spec, COMPARED) if predictor.knows(spec)]
    if not table.other_device:
        rough = [spec for spec in specs if _error_of(context, spec) > ROUGH]
        if rough:
            predictor.measure(rough, "published networks", LEARNING_RULE)
    for spec, ms in zip(specs, predictor.measured_ms(specs, "published networks"), strict=True):
        relative = _error_of(context, spec)  # 0 for the reference network, infinite for a prediction
        error = f" ± {ms * relative:.2f}" if 0 < relative < math.inf else ""
        context.console.say(f"published {spec.name}: {ms:.2f}{error} ms")


def _error_of(context: SearchContext, spec: ArchSpec) -> float:
    """Return the relative standard error of a measured network; infinite for one that was not measured."""
    network = context.predictor.network(spec)
    return context.table.measurement(network).error if context.table.knows(network) else math.inf


def choose_variants_of(context: SearchContext, result: TargetResult, space: SearchSpace) -> SearchSpace:
    """Return the space at the variants to search for a target, chosen once a run; their rows are measured."""
    variants = result.variants
    if not variants:
        limits, target = context.limits(space), result.target
        title = f"latency table of {target.name}"
        estimator, doubt = context.ranking_estimator, doubt_of_variants(context)
        offered, teachers = _parts_of_the_teacher(context, space, target.budget_ms)
        chosen = pick_variants(context.predictor, offered, estimator, target.budget_ms, limits, title, doubt)
        variants = tuple(dict.fromkeys([*chosen, *teachers]))
        context.folder.update_target(target.name, variants=variants)
    at = space.at(variants)
    fill_and_learn(context.predictor, at, context.ranking_estimator, f"latency table of {result.target.name}")
    return at


def _parts_of_the_teacher(
    context: SearchContext, space: SearchSpace, budget_ms: float
) -> tuple[SearchSpace, list[Variant]]:
    """Return the variants that are to be searched where finalists are trained, and the teacher's, which always is.

    Wider networks are no parts of the teacher, which says nothing of them and has fewer weights for them. They are left
    out unless the teacher's largest network is within all limits. Elsewhere nothing is left out.
    """
    estimator, predictor = estimator_of_finalists(context), context.predictor
    if estimator is None:
        return space, []
    teachers = estimator.teacher_variant(space)
    largest = space.largest(teachers)
    (largest_ms,) = predictor.measured_ms([largest], f"the largest network of {space.name} at the teacher's width")
    if largest_ms > budget_ms or not context.keeps_limits(largest):
        space = space.at([variant for variant in space.variants if variant.width <= teachers.width])
    return space, [teachers]


def _targets(context: SearchContext, spaces: Mapping[str, SearchSpace]) -> tuple[Target, ...]:
    """Return the targets of the request; those of a front are spread over the feasible range, evenly in logarithms."""
    request = context.request
    if not isinstance(request.targets, FrontRequest):
        return request.targets
    if recorded := context.folder.record.targets:
        return tuple(result.target for result in recorded)
    targets: dict[str, Target] = {}
    for skeleton in request.targets.skeletons:
        low, high = feasible_range_ms(measure_anchors(context.predictor, spaces[skeleton]))
        low *= LEAST_OF_FRONT / (1 - MARGIN)
        for budget_ms in np.geomspace(low, max(low, high), request.targets.budgets):
            target = Target(skeleton, round(float(budget_ms), 4), one_of_several=True)
            targets.setdefault(target.name, target)
    return tuple(targets.values())


def _surveyed(context: SearchContext, target: Target, space: SearchSpace, *, recorded: bool) -> TargetResult:
    """Return a target with its feasible range.

    Raises NasError if its budget lies below it. One that a run has `recorded` was found feasible then, whatever the
    networks of the range were measured at since.
    """
    both, say = len(context.request.skeletons) > 1, context.console.say
    device = "that device" if context.table.other_device else "this device"
    low, high = feasible_range_ms(measure_anchors(context.predictor, space))
    say(f"{target.name}: {space.name} spans {low:.2f} to {high:.2f} ms on {device}; budget {target.budget_ms:.3g} ms")
    if target.limit_ms < low and not recorded:
        hint = " (or search Large alone with --only large)" if target.skeleton == "small" and both else ""
        raise NasError(
            f"no network of {space.name} is as fast as {target.budget_ms:.3g} ms on {device}; the smallest feasible "
            f"budget is {target.flag} {rounded_up(low / (1 - MARGIN))}{hint}"
        )
    binds = target.budget_ms < high
    if not binds:
        say(f"{target.name}: the budget does not bind; the search looks for the most accurate network of the space")
    return TargetResult(target=target, space=space.name, feasible_ms=(low, high), binds=binds)
