"""Fit an additive model of accuracy to evaluated networks, starting from a model that is known before.

    surrogate = Surrogate(prior.additive_model(space))
    surrogate.fit(encodings, top1)          # what was evaluated so far
    surrogate.additive_model                # a sum over blocks: an integer program can find its optimum
    mean, std = surrogate.predict(encodings)

The regression is `nas.accuracy.ridge`: accuracy is `level + slope * known(encoding)` plus a correction for each choice
of each decision and for each variant.
"""

from __future__ import annotations

import numpy as np

from nas.accuracy.ridge import Coefficients, Ridge
from nas.arch.additive import AdditiveModel
from nas.arch.space import SearchSpace


class Surrogate:
    """A Bayesian ridge regression that starts from `known`, a score that rises with accuracy."""

    def __init__(self, known: AdditiveModel) -> None:
        self._known = known
        self._space = known.space
        self._ridge = Ridge(_columns(self._space))

    def fit(self, encodings: np.ndarray, top1: np.ndarray) -> None:
        """Fit to networks, shape (n, decisions), and their accuracies, shape (n,). An earlier fit is forgotten."""
        self._ridge.fit(self._known(encodings), self._indicators(encodings), np.asarray(top1, float))

    def predict(self, encodings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return accuracies and their standard deviations, without an evaluation's noise: arrays of shape (n,)."""
        return self._ridge.predict(self._known(encodings), self._indicators(encodings))

    @property
    def additive_model(self) -> AdditiveModel:
        """Return the accuracy of `predict` as a sum over blocks."""
        return self._sums(self._ridge.coefficients)

    def sampled_model(self, generator: np.random.Generator) -> AdditiveModel:
        """Return a model sampled from the posterior, for Thompson sampling."""
        return self._sums(self._ridge.sampled_coefficients(generator))

    def _sums(self, coefficients: Coefficients) -> AdditiveModel:
        level, slope, known_mean, own = coefficients
        variants = len(self._space.variants)
        constants = level + slope * (self._known.constants - known_mean) + own[:variants]
        options, at = [], variants
        for slot, values in zip(self._space.slots, self._known.options, strict=True):
            first = self._space.slot_column(slot)
            sizes = [len(decision.choices) for decision in self._space.decisions[first : first + 4]]
            added = np.zeros(1)
            for size in sizes:
                added = (added[:, None] + own[at : at + size]).ravel()
                at += size
            options.append(slope * values + added)
        return AdditiveModel(
            self._space, constants, options, [p._replace(values=slope * p.values) for p in self._known.pairs]
        )

    def _indicators(self, encodings: np.ndarray) -> np.ndarray:
        encodings = np.asarray(encodings)
        indicators = np.zeros((len(encodings), _columns(self._space)))
        rows = np.arange(len(encodings))
        indicators[rows, encodings[:, 0]] = 1.0
        at = len(self._space.variants)
        for slot in self._space.slots:
            first = self._space.slot_column(slot)
            for decision in range(first, first + 4):
                there = encodings[:, decision] >= 0
                indicators[rows[there], at + encodings[there, decision]] = 1.0
                at += len(self._space.decisions[decision].choices)
        return indicators


def _columns(space: SearchSpace) -> int:
    """Return the number of corrections: one a variant, and one a choice of each decision of each slot."""
    decisions = [
        decision
        for slot in space.slots
        for decision in space.decisions[space.slot_column(slot) : space.slot_column(slot) + 4]
    ]
    return len(space.variants) + sum(len(decision.choices) for decision in decisions)
