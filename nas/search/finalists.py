"""Train the best networks of a target a little before one is chosen, where the estimator has weights for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas.accuracy.estimator import HandedOver, WeightsEstimator
from nas.arch.skeleton import Variant
from nas.arch.spec import ArchSpec
from nas.runs.record import Trial
from nas.runs.target import Target
from nas.search.context import SearchContext

FINALISTS = 3  # trained, by default
FOLDER = "finalists"  # in that of the run
# Points by which estimates of two widths can be wrong beside each other. On the included images networks of widths .75,
# 1, 1.25 and 1.4 that are as fast were estimated at 87.0, 88.6, 90.3 and 90.6 %. 20 epochs of each, single trainings
# that no script repeats, reached 90.2, 90.6, 90.8 and 90.3.
VARIANT_DOUBT = 2.0


def choose_finalist(context: SearchContext, target: Target, fitting: Sequence[Trial]) -> ArchSpec:
    """Return the best of networks that keep the limit: by the estimate, or by training the best few of them.

    Those are the best of each variant first.
    """
    ranked = sorted(fitting, key=lambda trial: -trial.top1)
    estimator = estimator_of_finalists(context)
    if estimator is None or len(ranked) < 2:
        return ranked[0].spec
    best = _best_of_variants(estimator, ranked)
    finalists = [*best, *(trial for trial in ranked if trial not in best)][: finalists_of(context)]
    top1 = estimator.train_finalists([trial.spec for trial in finalists], folder_of(context))
    for trial, reached in zip(finalists, top1, strict=True):
        context.console.say(
            f"{target.name}: a finalist of width {estimator.variant_of(trial.spec).width:g}, estimated at "
            f"{trial.top1:.1f} %, reaches {reached:.1f} % on held-out images after a short training"
        )
    return finalists[int(np.argmax(top1))].spec


def estimator_of_finalists(context: SearchContext) -> WeightsEstimator | None:
    """Return the estimator that trains several finalists; None where the choice is left to the estimate."""
    estimator = context.estimator
    return estimator if isinstance(estimator, WeightsEstimator) and finalists_of(context) > 1 else None


def doubt_of_variants(context: SearchContext) -> float:
    """Return by how many points a variant may be estimated below the best one and still have a finalist.

    It is 0 where no finalists are trained: the estimate decides alone.
    """
    return VARIANT_DOUBT if estimator_of_finalists(context) else 0.0


def rivals(context: SearchContext, measured: Sequence[Trial], others: Sequence[Trial]) -> list[ArchSpec]:
    """Return the best networks of `others`, one a variant, of variants that none of `measured` is of.

    The estimate compares widths by the prior alone, which knows nothing of the images: a short training of the best of
    several widths decides between them. There are none where finalists are not trained.
    """
    estimator = estimator_of_finalists(context)
    if estimator is None:
        return []
    known = {estimator.variant_of(trial.spec) for trial in measured}
    best = _best_of_variants(estimator, sorted(others, key=lambda trial: -trial.top1))
    new = [trial.spec for trial in best if estimator.variant_of(trial.spec) not in known]
    return new[: max(0, finalists_of(context) - len(known))]


def _best_of_variants(estimator: WeightsEstimator, ranked: Sequence[Trial]) -> list[Trial]:
    """Return the first network of each variant, in the order of `ranked`."""
    best: dict[Variant, Trial] = {}
    for trial in ranked:
        best.setdefault(estimator.variant_of(trial.spec), trial)
    return list(best.values())


def finalists_of(context: SearchContext) -> int:
    """Return how many networks are trained before one is chosen."""
    return FINALISTS if context.request.finalists is None else context.request.finalists


def folder_of(context: SearchContext) -> Path:
    """Return the folder of the finalists' checkpoints."""
    return context.folder.path / FOLDER


def hand_over_weights(context: SearchContext, target: Target, spec: ArchSpec) -> HandedOver | None:
    """Write the weights of a found network beside its spec, and return what they reach; None where there are none."""
    estimator = context.estimator
    if not isinstance(estimator, WeightsEstimator) or finalists_of(context) < 1:
        return None
    path = context.folder.path / f"{target.name}.pt"
    handed_over = estimator.hand_over(spec, folder_of(context), path)
    top1, resolution = handed_over
    context.console.say(
        f"{target.name}: {top1:.2f} % on the validation images at {resolution} px; its weights are in {path}"
    )
    if resolution != spec.resolution:
        context.console.say(
            f"note: {target.name} was timed at {spec.resolution} px, and its weights are for {resolution} px: train it "
            "on, as the last line below says, before it is exported"
        )
    return handed_over
