"""Fit an additive model of accuracy to evaluated networks, starting from a model that is known before.

    surrogate = Surrogate(prior.additive_model(space))
    surrogate.fit(encodings, top1)          # what was evaluated so far
    surrogate.additive_model                # a sum over blocks: an integer program can find its optimum
    mean, std = surrogate.predict(encodings)

This is Bayesian ridge regression. Accuracy is `level + slope * known(encoding)` plus a correction for each choice of
each decision and for each variant. Corrections are small a priori: without data the surrogate is the known model. The
size of the corrections and the noise of an evaluation maximise the evidence (MacKay 1992, Neural Computation 4, 415),
so data overrule a known model that is poor. The uncertainty is computed with large corrections and noise, since
accuracy is not quite a sum, which the evidence for a sum does not show.
"""

from __future__ import annotations

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.space import SearchSpace

# Standard deviations, in that of the evaluated accuracies.
CORRECTIONS = (0.03, 0.1, 0.3, 1.0)
NOISES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of an evaluation that is repeated
CAUTIOUS = 0.3
SLOPE_STD, LEVEL_STD = 0.5, 3.0


class Surrogate:
    """A Bayesian ridge regression that starts from `known`, a score that rises with accuracy."""

    def __init__(self, known: AdditiveModel) -> None:
        self._known = known
        self._space = known.space
        self._prior = np.concatenate([[LEVEL_STD, SLOPE_STD], np.full(_columns(self._space), CAUTIOUS)])
        self._centre, self._spread = 0.0, 1.0
        self._known_mean, self._known_std = 0.0, 1.0
        self._mean = np.zeros(len(self._prior))
        self._mean[1] = 1.0
        self._covariance = np.diag(self._prior**2)

    def fit(self, encodings: np.ndarray, top1: np.ndarray) -> None:
        """Fit to networks, shape (n, decisions), and their accuracies, shape (n,). An earlier fit is forgotten."""
        top1, known = np.asarray(top1, float), self._known(encodings)
        self._centre, self._spread = float(top1.mean()), float(top1.std()) or 1.0
        self._known_mean, self._known_std = float(known.mean()), float(known.std()) or 1.0
        features = self._features(encodings)
        start = np.zeros(len(self._prior))
        start[1] = 1.0  # one standard deviation of the known model for one of the accuracies
        residuals = (top1 - self._centre) / self._spread - features @ start
        correction, noise = self._likeliest(features, residuals)
        self._mean = start + self._posterior(features, correction, noise) @ (features.T @ residuals) / noise**2
        self._covariance = self._posterior(features, CAUTIOUS, CAUTIOUS)

    def _posterior(self, features: np.ndarray, correction: float, noise: float) -> np.ndarray:
        """Return the covariance of the coefficients."""
        stds = np.concatenate([self._prior[:2], np.full(features.shape[1] - 2, correction)])
        covariance = np.linalg.inv(features.T @ features / noise**2 + np.diag(stds**-2.0))
        return (covariance + covariance.T) / 2  # symmetric to the last bit

    def _likeliest(self, features: np.ndarray, residuals: np.ndarray) -> tuple[float, float]:
        """Return the sizes of correction and noise that make the residuals, shape (n,), most likely."""
        given = (features[:, :2] * self._prior[:2] ** 2) @ features[:, :2].T
        corrected = features[:, 2:] @ features[:, 2:].T
        found = []
        for correction in CORRECTIONS:
            variances, axes = np.linalg.eigh(given + correction**2 * corrected)
            along = (axes.T @ residuals) ** 2
            for noise in NOISES:
                total = variances.clip(0) + noise**2
                found.append((-float((along / total + np.log(total)).sum()), correction, noise))
        return max(found)[1:]

    def predict(self, encodings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return accuracies and their standard deviations, without an evaluation's noise: arrays of shape (n,)."""
        features = self._features(encodings)
        variance = np.einsum("ij,jk,ik->i", features, self._covariance, features)
        return self._centre + self._spread * (features @ self._mean), self._spread * np.sqrt(variance)

    @property
    def additive_model(self) -> AdditiveModel:
        """Return the accuracy of `predict` as a sum over blocks."""
        return self._sums(self._mean)

    def sampled_model(self, generator: np.random.Generator) -> AdditiveModel:
        """Return a model sampled from the posterior, for Thompson sampling."""
        return self._sums(generator.multivariate_normal(self._mean, self._covariance, method="cholesky"))

    def _sums(self, coefficients: np.ndarray) -> AdditiveModel:
        level, slope, *corrections = coefficients
        slope = self._spread * slope / self._known_std
        own = self._spread * np.array(corrections)
        variants = len(self._space.variants)
        constants = (
            self._centre + self._spread * level + slope * (self._known.constants - self._known_mean) + own[:variants]
        )
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

    def _features(self, encodings: np.ndarray) -> np.ndarray:
        encodings = np.asarray(encodings)
        features = np.zeros((len(encodings), len(self._prior)))
        features[:, 0] = 1.0
        features[:, 1] = (self._known(encodings) - self._known_mean) / self._known_std
        rows = np.arange(len(encodings))
        features[rows, 2 + encodings[:, 0]] = 1.0
        at = 2 + len(self._space.variants)
        for slot in self._space.slots:
            first = self._space.slot_column(slot)
            for decision in range(first, first + 4):
                there = encodings[:, decision] >= 0
                features[rows[there], at + encodings[there, decision]] = 1.0
                at += len(self._space.decisions[decision].choices)
        return features


def _columns(space: SearchSpace) -> int:
    """Return the number of corrections: one a variant, and one a choice of each decision of each slot."""
    decisions = [
        decision
        for slot in space.slots
        for decision in space.decisions[space.slot_column(slot) : space.slot_column(slot) + 4]
    ]
    return len(space.variants) + sum(len(decision.choices) for decision in decisions)
