"""Accuracy estimators: predict what a network would score without training it in full."""

from __future__ import annotations

from typing import Any

from nas.accuracy.estimator import Estimator
from nas.names import resolve

TRAINING = "short-training"  # the estimator that trains networks on images
# A new estimator is a file of this folder and a line here.
ESTIMATORS = {
    "imagenet-prior": "nas.accuracy.imagenet_prior:ImageNetPrior",
    TRAINING: "nas.accuracy.short_training:ShortTraining",
}


def load_estimator(name: str, recipe_level: str | None = None) -> Estimator:
    """Return an accuracy estimator by name, for a recipe level (by default the estimator's own).

    Raises NasError listing the known names or levels.
    """
    make: type[Any] = resolve("estimator", name, ESTIMATORS)
    estimator: Estimator = make() if recipe_level is None else make(recipe_level)
    return estimator
