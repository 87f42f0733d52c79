"""Estimate the accuracy of networks without training them in full."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from nas.accuracy.estimator import Estimator
from nas.errors import NasError
from nas.names import resolve

# The estimators that look at images: at replacement blocks of a teacher, and at each network trained a little.
REPLACEMENT, TRAINING = "replacement", "short-training"
ON_IMAGES = (REPLACEMENT, TRAINING)
# A new estimator is a file of this folder and a line here.
ESTIMATORS = {
    "imagenet-prior": "nas.accuracy.imagenet_prior:ImageNetPrior",
    REPLACEMENT: "nas.accuracy.replacement:ReplacementBlocks",
    TRAINING: "nas.accuracy.short_training:ShortTraining",
}


def load_estimator(name: str, recipe_level: str | None = None) -> Estimator:
    """Return an accuracy estimator by name, for a recipe level or for the estimator's own by default.

    Raises NasError for an unknown name or recipe level, with the known ones, and for an estimator without levels.
    """
    make: Callable[..., Estimator] = resolve("estimator", name, ESTIMATORS)
    if recipe_level is None:
        return make()
    if not inspect.signature(make).parameters:
        raise NasError(f"the estimator {name} has no recipe levels; leave --recipe-level out")
    return make(recipe_level)
