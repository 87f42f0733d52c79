"""Learn from whole networks by how much the rows of a table are off.

A block that is timed by itself finds its weights and activations nearer than it would inside a network, and by how
much depends on what it is. Every whole network that was measured says something about it. The correction is a Bayesian
linear regression: the time of a network is the sum over its rows `r`, each times `1 + sum of the coefficients of its
features`, plus addends: a coefficient each times its blocks, its squeeze-and-excitations, and the megabytes of its
weights and of its blocks' activations. Features are the session that timed the row, the size of its map, kernel,
squeeze-and-excitation, activation, stride, channels, products of these, and the row itself. Each coefficient has a
normal prior around zero, whose deviation `PRIOR` states. So a feature that no network speaks of changes nothing, and
one that many networks agree on is followed.

The correction of a row is a factor and an addend of the row alone: corrected tables stay sums over blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nas.arch.parts import BlockPart, HeadPart, StemPart

PlacedPart = StemPart | BlockPart | HeadPart
Feature = tuple[str, str]  # its kind, and which of the kind

# Prior standard deviations of the coefficients, by the kind of feature: shares of a row's time; for addends, shares of
# the reference network's time for as much as `ADDENDS` says. Chosen by the error for networks left out.
PRIOR: Mapping[str, float] = {
    "common": 0.15,
    "session": 0.08,
    "part": 0.05,
    "size": 0.03,
    "kernel": 0.03,
    "se": 0.03,
    "activation": 0.03,
    "stride": 0.03,
    "residual": 0.02,
    "size and kernel": 0.02,
    "size and se": 0.02,
    "output channels": 0.02,
    "expanded channels": 0.02,
    "row": 0.08,
    "weights": 0.15,
    "blocks": 0.03,
    "squeezes": 0.01,
    "activations": 0.04,
}
# The reference network's own: megabytes in float32, numbers of blocks and of squeeze-and-excitations.
ADDENDS: Mapping[str, float] = {"weights": 21.9, "activations": 15.1, "blocks": 15.0, "squeezes": 8.0}
# Relative deviations that no feature explains, of which learning chooses: measurements of a restless machine disagree.
MISFITS = (0.01, 0.02, 0.04, 0.08)
CONTRADICTION = 0.25  # relative difference from which a measurement is not learned from
LEAST = 0.5  # of a row's time, whatever the networks say
MIN_LEFT = 4  # networks without which nothing is called a contradiction


class Term(NamedTuple):
    """A part of a network: its row's time without the context (a ratio to the reference network), and the session."""

    part: PlacedPart
    ratio: float
    session: int


@dataclass(frozen=True)
class Evidence:
    """A whole network as the regression sees it: its parts, its measured ratio and the relative error of that."""

    key: str
    terms: Sequence[Term]
    ratio: float
    error: float


class Prediction(NamedTuple):
    """A predicted time, and its standard deviation, in the same unit: ratios to the reference network, or ms."""

    time: float
    std: float


class Correction:
    """The corrections of rows that whole networks give. `contradicting` are keys of networks it did not learn from.

    `misfit` is the relative deviation that no feature explains.
    """

    misfit = MISFITS[0]

    def __init__(self, evidence: Sequence[Evidence], contradicting: Sequence[str] = ()) -> None:
        self.evidence = tuple(evidence)
        self.contradicting = tuple(contradicting)
        self._columns: dict[Feature, int] = {}
        rows = [features_of(one.terms) for one in self.evidence]
        for row in rows:
            for feature in row:
                self._columns.setdefault(feature, len(self._columns))
        # Each column times its prior deviation: coefficients with a standard normal prior.
        self._design = np.zeros((len(rows), len(self._columns)))
        for number, row in enumerate(rows):
            for feature, value in row.items():
                self._design[number, self._columns[feature]] = value * PRIOR[feature[0]]
        self._measured = np.array([one.ratio for one in self.evidence])
        self._residuals = self._measured - [sum(term.ratio for term in one.terms) for one in self.evidence]
        self._explained = self._design @ self._design.T

    def with_misfit(self, misfit: float) -> Correction:
        """Return the correction by the same networks with another misfit."""
        other = copy(self)
        other.misfit = misfit
        for derived in ("_inverse", "_weights", "_coefficients"):
            other.__dict__.pop(derived, None)
        return other

    @cached_property
    def _inverse(self) -> np.ndarray:
        """Return the inverse of the covariance of the networks' times, shape (networks, networks)."""
        noise = self._measured * np.hypot(self.misfit, [one.error for one in self.evidence])
        inverse: np.ndarray = np.linalg.inv(self._explained + np.diag(noise**2))
        return inverse

    @cached_property
    def _weights(self) -> np.ndarray:
        """Return the weight of each network in the coefficients, shape (networks,)."""
        weights: np.ndarray = self._inverse @ self._residuals
        return weights

    @cached_property
    def _coefficients(self) -> dict[Feature, float]:
        return self._coefficients_by(self._weights) if self.evidence else {}

    def _coefficients_by(self, weights: np.ndarray) -> dict[Feature, float]:
        values = self._design.T @ weights
        return {feature: float(PRIOR[feature[0]] * values[column]) for feature, column in self._columns.items()}

    def ratio(self, term: Term) -> float:
        """Return the corrected time of a part, as a ratio to the reference network: at least `LEAST` of its row.

        Addends are as large as whole rows of small images. Without a least time a search would find networks of blocks
        that seem to take none.
        """
        return _corrected(term, self._coefficients)

    def predict(self, terms: Sequence[Term]) -> Prediction:
        """Return the time of a network by the regression, without a least time of its rows, and its std."""
        row, column = features_of(terms), np.zeros(len(self._columns))
        prior_variance = 0.0
        for feature, value in row.items():
            scaled = value * PRIOR[feature[0]]
            prior_variance += scaled**2
            if feature in self._columns:
                column[self._columns[feature]] = scaled
        ratio = sum(term.ratio for term in terms)
        if not self.evidence:
            return Prediction(ratio, math.sqrt(prior_variance + (self.misfit * ratio) ** 2))
        shared = self._design @ column
        ratio += float(shared @ self._weights)
        variance = max(0.0, prior_variance - float(shared @ self._inverse @ shared))
        return Prediction(ratio, math.sqrt(variance + (self.misfit * ratio) ** 2))

    def likelihood(self) -> float:
        """Return the logarithm of the density of each network's time as predicted by all others, summed.

        A misfit is chosen by it.
        """
        if not self.evidence:
            return 0.0
        precisions, left = np.diag(self._inverse), self._weights
        return float((np.log(precisions) - left**2 / precisions).sum() / 2)

    def held_out(self, number: int) -> Prediction:
        """Return the prediction for the network `evidence[number]` by all others, as `predict` makes it."""
        precision = float(self._inverse[number, number])
        one = self.evidence[number]
        ratio = one.ratio - float(self._weights[number]) / precision
        variance = max(0.0, 1 / precision - (one.error * one.ratio) ** 2)
        return Prediction(ratio, math.sqrt(variance))

    def rows_held_out(self, number: int) -> float:
        """Return the sum of the rows of `evidence[number]`, each as `ratio` would correct it by all other networks."""
        # The regression without a network has these weights, and none for the network: its inverse needs no new one.
        column = self._inverse[:, number]
        coefficients = self._coefficients_by(self._weights - column * self._weights[number] / column[number])
        return sum(_corrected(term, coefficients) for term in self.evidence[number].terms)


def _corrected(term: Term, coefficients: Mapping[Feature, float]) -> float:
    added = sum(value * coefficients.get(feature, 0.0) for feature, value in features_of([term]).items())
    return max(LEAST * term.ratio, term.ratio + added)


def learn(evidence: Sequence[Evidence]) -> Correction:
    """Return the correction that networks give, without those that contradict all others.

    A network whose time differs from the prediction of the others by more than `CONTRADICTION` was measured wrongly,
    or its rows were. The one that differs most is left out first.
    """
    kept, contradicting = list(evidence), list[str]()
    while True:
        first = Correction(kept, contradicting)
        correction = max((first.with_misfit(misfit) for misfit in MISFITS), key=Correction.likelihood)
        if len(kept) <= MIN_LEFT:
            return correction
        held_out = np.array([correction.held_out(number).time for number in range(len(kept))])
        quotient = np.maximum(held_out / np.array([one.ratio for one in kept]), 1e-9)
        difference = np.maximum(quotient, 1 / quotient) - 1  # of twice the time as of half of it
        worst = int(np.argmax(difference))
        if difference[worst] <= CONTRADICTION:
            return correction
        contradicting.append(kept.pop(worst).key)


def features_of(terms: Sequence[Term]) -> dict[Feature, float]:
    """Return the features of a network or of a part: the sum of the times that each speaks of, and the weights."""
    sums: dict[Feature, float] = {}
    for part, ratio, session in terms:
        for feature in _features(part, session):
            sums[feature] = sums.get(feature, 0.0) + ratio
        for kind, amount in _amounts(part).items():
            sums[kind, ""] = sums.get((kind, ""), 0.0) + amount / ADDENDS[kind]
    return sums


def _amounts(part: PlacedPart) -> dict[str, float]:
    """Return what a part has of each addend."""
    amounts = {"weights": 4e-6 * sum(layer.parameters for layer in part.layers())}
    if isinstance(part, BlockPart):
        block, sizes = part.block, [part.in_size, part.in_size // part.block.stride]
        if block.op == "fused" or not block.kernel:  # the expanded channels stand on one map only
            del sizes[0]
        amounts |= {"blocks": 1.0, "squeezes": float(bool(block.se))}
        amounts["activations"] = 4e-6 * block.expanded * sum(size**2 for size in sizes)
    return amounts


def _features(part: PlacedPart, session: int) -> Iterator[Feature]:
    yield "common", ""
    yield "session", str(session)
    yield "row", part.key
    if not isinstance(part, BlockPart):
        yield "part", type(part).__name__
        return
    block = part.block
    size, se = _octaves(part.in_size / block.stride, 2), str(bool(block.se))
    kernel = str(block.kernel)
    if block.op in ("uib", "fused"):  # other work than that of one depthwise convolution
        kernel = f"{block.op} {block.start_kernel} {kernel}"
    yield "size", size
    yield "kernel", kernel
    yield "se", se
    yield "activation", block.activation
    yield "stride", str(block.stride)
    yield "residual", str(part.placed.has_residual)
    yield "size and kernel", f"{size} {kernel}"
    yield "size and se", f"{size} {se}"
    yield "output channels", _octaves(block.out, 2)
    yield "expanded channels", _octaves(block.expanded, 1)


def _octaves(value: float, steps: int) -> str:
    """Return the logarithm of a value in steps of an octave: values that are alike share one."""
    return str(round(math.log2(value) * steps))
