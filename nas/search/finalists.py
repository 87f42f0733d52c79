"""Train the best networks of a target a little before one is chosen, where the estimator has weights for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas.accuracy.estimator import HandedOver, WeightsEstimator
from nas.arch.spec import ArchSpec
from nas.runs.record import Trial
from nas.runs.target import Target
from nas.search.context import SearchContext

FINALISTS = 3  # trained, by default
FOLDER = "finalists"  # in that of the run


def choose_finalist(context: SearchContext, target: Target, fitting: Sequence[Trial]) -> ArchSpec:
    """Return the best of networks that keep the limit: by the estimate, or by training the best few of them."""
    ranked = sorted(fitting, key=lambda trial: -trial.top1)
    estimator, number = context.estimator, finalists_of(context)
    if not isinstance(estimator, WeightsEstimator) or number < 2 or len(ranked) < 2:
        return ranked[0].spec
    specs = [trial.spec for trial in ranked[:number]]
    top1 = estimator.train_finalists(specs, folder_of(context))
    for trial, reached in zip(ranked, top1, strict=False):
        context.console.say(
            f"{target.name}: a finalist estimated at {trial.top1:.1f} % reaches {reached:.1f} % on held-out images "
            "after a short training"
        )
    return specs[int(np.argmax(top1))]


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
