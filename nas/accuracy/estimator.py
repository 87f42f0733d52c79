"""Define the contract of accuracy estimators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError


class NoEstimateError(NasError):
    """An estimator was asked for a network that it cannot judge: a number would be a guess."""


class Estimates(NamedTuple):
    """The estimated accuracies of n networks, arrays of shape (n,)."""

    top1: np.ndarray  # percent; 0 where the training diverged
    std: np.ndarray  # standard deviation of `top1`, percentage points
    extrapolated: np.ndarray  # bool: the estimator was fitted to no such network
    diverged: np.ndarray  # bool: the training diverged, so that `top1` says nothing of the architecture


class Estimator(Protocol):
    """Predict the accuracy of networks without training them in full.

    A class of the registry is called without arguments, or with the recipe level that the user names. It raises
    NasError for a level that it does not have. A search needs `additive_model`, of the estimator or of its `proxy`.
    """

    name: str
    training_recipe: str  # the training that the estimates speak for

    @property
    def proxy(self) -> Estimator | None:
        """Return an estimator that ranks alike and answers at once, for one that trains networks; else None.

        An estimator with a proxy counts as one whose every estimate takes a training.
        """

    def estimate(self, specs: Sequence[ArchSpec]) -> Estimates:
        """Return top-1 (percent) and its standard deviation, one per spec.

        Raises NoEstimateError for a network that the estimator cannot judge.
        """

    def compile(self, space: SearchSpace) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from encodings, shape (n, decisions), to top-1 (percent), shape (n,): for many networks."""

    def additive_model(self, space: SearchSpace) -> AdditiveModel | None:
        """Return a score that is a sum over blocks and orders networks as top-1 does; None if there is none."""


@runtime_checkable
class SharedEstimator(Estimator, Protocol):
    """An estimator that trains networks, so that processes share its estimates.

    A search begins up to `together` networks before it knows the result of the first of them.
    """

    together: int

    def begin(self, specs: Sequence[ArchSpec]) -> None:
        """Let networks be trained, in this order, while others are waited for. `estimate` returns their results."""

    def close(self) -> None:
        """End all processes that train networks."""

    def add_estimates(self, specs: Sequence[ArchSpec], estimates: Estimates) -> None:
        """Add the estimates of other processes, so that these networks are not trained again."""


class HandedOver(NamedTuple):
    """The top-1 (percent) of handed over weights on the validation images, at a resolution (pixels)."""

    top1: float
    resolution: int


@runtime_checkable
class WeightsEstimator(Estimator, Protocol):
    """An estimator that has weights for the networks that it estimates, so that a search hands over trained ones."""

    def variant_of(self, spec: ArchSpec) -> Variant:
        """Return the variant that a network is of, or is closest to.

        Finalists are of different ones: only the prior compares these.
        """

    def teacher_variant(self, space: SearchSpace) -> Variant:
        """Return the variant of a space whose networks have most in common with the teacher that they learn from."""

    def train_finalists(self, specs: Sequence[ArchSpec], folder: Path) -> np.ndarray:
        """Return top-1 (percent) on held-out images of networks after a short training, shape (n,).

        Their checkpoints are kept in the folder, and a network that has one there is not trained again.
        """

    def hand_over(self, spec: ArchSpec, folder: Path, path: Path) -> HandedOver:
        """Write the checkpoint of a finalist, or of a network that is trained now, to `path`.

        Returns what it reaches on the validation images, which nothing was decided on.
        """
