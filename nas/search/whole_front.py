"""Find the whole front of a skeleton: the proven optimum of each of many budgets.

A search answers for its budgets. The rows that it measured hold the answer for all others, too: each is one more
integer program. Most variants need none at a budget, for a bound tells that they cannot be better.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.cost import count_cost
from nas.arch.encoding import Encoding
from nas.arch.space import SearchSpace
from nas.console import Progress
from nas.errors import NasError
from nas.latency.fidelity import covered_variants
from nas.runs.pareto import front_indices
from nas.runs.record import OptimalNetwork
from nas.runs.target import SKELETONS, Target
from nas.search.bounds import upper_bounds
from nas.search.context import SearchContext
from nas.search.extremes import fastest_networks
from nas.search.limits import Limit
from nas.search.near_optimum import additive_model
from nas.search.solver import Solution, SolverError, solve

BUDGETS = 40
GAP = 1e-4  # relative, of the score; some .005 points of top-1
ROUNDING = 1e-9


class Step(NamedTuple):
    """The proven optimum within a limit (ms) that is better than all within smaller ones."""

    limit_ms: float
    encoding: Encoding


def whole_front(context: SearchContext) -> list[OptimalNetwork]:
    """Return the proven optima of many budgets, for every skeleton whose rows the table has.

    A skeleton that was not searched is among them where the table has all rows of a variant and the estimator knows it.
    There are none of a skeleton for which the estimator has no sum over blocks.
    """
    optima: list[OptimalNetwork] = []
    for skeleton, space in _spaces(context).items():
        score = additive_model(context.estimator, space)
        if score is None:
            continue
        with context.console.progress(f"proving the front of {skeleton.capitalize()}") as progress:
            optima += _front_of(context, skeleton, score, progress)
    return optima


def _spaces(context: SearchContext) -> dict[str, SearchSpace]:
    """Return the spaces whose front can be told, each at the variants of which the table has every row."""
    spaces = {}
    for skeleton in SKELETONS:
        space = _space_of(context, skeleton)
        variants = covered_variants(context.table, space) if space else []
        if context.looks_at_images:  # of variants that were not searched the teacher says nothing
            results = [result for result in context.folder.record.targets if result.target.skeleton == skeleton]
            variants = [one for one in variants if any(one in result.variants for result in results)]
        if space and variants:
            spaces[skeleton] = space.at(variants)
    return spaces


def _space_of(context: SearchContext, skeleton: str) -> SearchSpace | None:
    """Return the space of a skeleton as the request has it, whether or not it was searched.

    None where it was not and is no other one, lacks a width or a resolution that was asked for, or does not load.
    """
    request = context.request
    if skeleton in request.skeletons:
        return request.space(skeleton)
    if context.looks_at_images:  # a teacher would have to be trained for it first
        return None
    try:
        space = dataclasses.replace(request, targets=(Target(skeleton, 1.0),)).space(skeleton)
    except NasError:
        return None
    return None if any(space.name == request.space(one).name for one in request.skeletons) else space


def _front_of(context: SearchContext, skeleton: str, score: AdditiveModel, progress: Progress) -> list[OptimalNetwork]:
    """Return the proven optima of a skeleton, the fastest first."""
    latency, others = context.table.compile(score.space), context.limits(score.space)
    limits_of_targets = [result.target.limit_ms for result in context.folder.record.targets]
    limits_ms = budgets_ms(score, latency, others, limits_of_targets)
    steps = front_steps(score, latency, limits_ms, others, progress)
    optima = [_network(context, skeleton, score.space, step) for step in steps]
    kept = front_indices([one.latency_ms for one in optima], [one.top1 for one in optima])
    return [optima[index] for index in kept]


def budgets_ms(
    score: AdditiveModel, latency: AdditiveModel, others: Sequence[Limit] = (), more: Sequence[float] = ()
) -> list[float]:
    """Return limits (ms) from the fastest network to the most accurate one, evenly spaced in their logarithm.

    Those of `more` that lie between are added. Empty where no network keeps the other limits.
    """
    fastest = min((-found.score for found in fastest_networks(latency, others) if found), default=math.inf)
    best = _best(score, others, range(len(score.constants)))
    if best is None or math.isinf(fastest):
        return []
    slowest = max(fastest, float(latency(np.array([best.encoding]))[0]))
    limits = np.geomspace(fastest * (1 + ROUNDING), slowest * (1 + ROUNDING), BUDGETS)
    return sorted({*limits.tolist(), *(ms for ms in more if fastest < ms < slowest)})


def front_steps(
    score: AdditiveModel,
    latency: AdditiveModel,
    limits_ms: Sequence[float],
    others: Sequence[Limit] = (),
    on_progress: Progress = lambda share, note: None,
) -> Iterator[Step]:
    """Yield the best network within each limit (ms, rising), where it is better than within the limit before.

    A limit for which the solver proves nothing is passed over.
    """
    bounds = upper_bounds(score, latency, limits_ms)
    fastest = [-found.score if found else math.inf for found in fastest_networks(latency, others)]
    best: Solution | None = None
    for number, limit_ms in enumerate(limits_ms):
        variants = [variant for variant, ms in enumerate(fastest) if ms <= limit_ms]
        variants.sort(key=lambda variant: -bounds[variant, number])
        limits = [Limit("latency", limit_ms, latency), *others]
        with suppress(SolverError):
            found = _best(score, limits, variants, bounds[:, number], best)
            if found is not None and found is not best:
                best = found
                yield Step(limit_ms, found.encoding)
        on_progress((number + 1) / len(limits_ms), f"{limit_ms:.3g} ms")


def _best(
    score: AdditiveModel,
    limits: Sequence[Limit],
    variants: Sequence[int],
    bounds: np.ndarray | None = None,
    best: Solution | None = None,
) -> Solution | None:
    """Return the best network of the variants within the limits, or `best` where none is better.

    `bounds` holds a score that no network of a variant exceeds, shape (variants,): the variants stand in the order of
    it, the highest first.
    """
    for variant in variants:
        if best is not None and bounds is not None and bounds[variant] <= best.score + GAP * abs(best.score):
            return best
        found = solve(score, limits, variant, gap=GAP)
        if found is not None and (best is None or found.score > best.score):
            best = found
    return best


def _network(context: SearchContext, skeleton: str, space: SearchSpace, step: Step) -> OptimalNetwork:
    """Return the network of a step with all that is known of it."""
    (spec,) = space.decode([step.encoding])
    predicted, estimates = context.table.predict(spec), context.estimator.estimate([spec])
    cost = count_cost(spec, context.table.num_classes)
    return OptimalNetwork(
        skeleton=skeleton,  # type: ignore[arg-type]
        variant=space.variants[step.encoding[0]],
        limit_ms=round(step.limit_ms, 5),
        latency_ms=round(predicted.time, 5),
        latency_std=round(predicted.std, 5),
        top1=round(float(estimates.top1[0]), 4),
        top1_std=round(float(estimates.std[0]), 4),
        extrapolated=bool(estimates.extrapolated[0]),
        macs=cost.macs,
        params=cost.params,
        spec=spec.replace(name=f"{skeleton}_optimum_{predicted.time:.3g}ms"),
    )
