"""Regress a score on indicators of choices, starting from a score that is known before.

This is Bayesian ridge regression. A value is `level + slope * known` plus a correction for each indicator. Corrections
are small a priori: without data the values are the known score. The size of the corrections and the noise of an
evaluation maximise the evidence (MacKay 1992, Neural Computation 4, 415), so data overrule a known score that is poor.
The uncertainty is computed with large corrections and noise, since real values are not quite a sum, which the evidence
for a sum does not show.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Standard deviations, in that of the evaluated values.
CORRECTIONS = (0.03, 0.1, 0.3, 1.0)
NOISES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of an evaluation that is repeated
CAUTIOUS = 0.3
SLOPE_STD, LEVEL_STD = 0.5, 3.0


class Coefficients(NamedTuple):
    """A value is `level + slope * (known - known_mean) + indicators @ corrections`."""

    level: float
    slope: float
    known_mean: float
    corrections: np.ndarray  # shape (indicators,)


class Ridge:
    """A Bayesian ridge regression on `indicators` columns, each 0 or 1 or a number of that size."""

    def __init__(self, indicators: int) -> None:
        self._prior = np.concatenate([[LEVEL_STD, SLOPE_STD], np.full(indicators, CAUTIOUS)])
        self._centre, self._spread = 0.0, 1.0
        self._known_mean, self._known_std = 0.0, 1.0
        self._mean = np.zeros(len(self._prior))
        self._mean[1] = 1.0
        self._covariance = np.diag(self._prior**2)

    def fit(self, known: np.ndarray, indicators: np.ndarray, values: np.ndarray) -> None:
        """Fit to known scores (n,), indicators (n, indicators) and values (n,). An earlier fit is forgotten."""
        self._centre, self._spread = float(values.mean()), float(values.std()) or 1.0
        self._known_mean, self._known_std = float(known.mean()), float(known.std()) or 1.0
        features = self._features(known, indicators)
        start = np.zeros(len(self._prior))
        start[1] = 1.0  # one standard deviation of the known score for one of the values
        residuals = (values - self._centre) / self._spread - features @ start
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

    def predict(self, known: np.ndarray, indicators: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values and their standard deviations, without an evaluation's noise: arrays of shape (n,)."""
        features = self._features(known, indicators)
        variance = np.einsum("ij,jk,ik->i", features, self._covariance, features)
        return self._centre + self._spread * (features @ self._mean), self._spread * np.sqrt(variance)

    @property
    def coefficients(self) -> Coefficients:
        """Return the coefficients of `predict`."""
        return self._scaled(self._mean)

    def sampled_coefficients(self, generator: np.random.Generator) -> Coefficients:
        """Return coefficients sampled from the posterior, for Thompson sampling."""
        return self._scaled(generator.multivariate_normal(self._mean, self._covariance, method="cholesky"))

    def _scaled(self, coefficients: np.ndarray) -> Coefficients:
        level, slope, *corrections = coefficients
        return Coefficients(
            self._centre + self._spread * level,
            self._spread * slope / self._known_std,
            self._known_mean,
            self._spread * np.array(corrections),
        )

    def _features(self, known: np.ndarray, indicators: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(known)), (known - self._known_mean) / self._known_std, indicators])
