"""Bound the score of a sum over blocks within latencies, by Lagrangian relaxation: for all variants at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from nas.arch.additive import AdditiveModel

PRICES = 256  # of a millisecond, each of which gives a bound
# The dearest and the cheapest price, as shares of the score's whole range a whole range of latency.
STEEPEST, FLATTEST = 1e3, 1e-3


def upper_bounds(score: AdditiveModel, latency: AdditiveModel, limits_ms: Sequence[float]) -> np.ndarray:
    """Return a score that no network of a variant exceeds within a latency: shape (variants, limits).

    For every price of a millisecond the best network less its price is found slot by slot. With the price of the limit
    added it is a bound, and the lowest over all prices is taken. Sums with pairs are not bounded: then all is infinite.
    """
    limits = np.asarray(limits_ms, float)
    if score.pairs or latency.pairs:
        return np.full((len(score.constants), len(limits)), np.inf)
    unit = _range(score) / _range(latency)
    prices = np.concatenate([[0.0], unit * np.geomspace(FLATTEST, STEEPEST, PRICES)])
    least = _best_less_price(score, latency, prices)
    return np.asarray((least[:, :, None] + prices[None, :, None] * limits).min(axis=1))


def _range(model: AdditiveModel) -> float:
    """Return about how far apart the values of networks lie."""
    spans = (float(np.ptp(values, axis=1).max()) for values in model.options)
    return sum(spans) + float(np.ptp(model.constants)) or 1.0


def _best_less_price(score: AdditiveModel, latency: AdditiveModel, prices: np.ndarray) -> np.ndarray:
    """Return the highest score less the price of the latency: shape (variants, prices)."""
    space = score.space
    total = score.constants[:, None] - latency.constants[:, None] * prices
    best_of_slots = [
        (scores[:, :, None] - times[:, :, None] * prices).max(axis=1)
        for scores, times in zip(score.options, latency.options, strict=True)
    ]
    number = 0
    for stage in space.stages:
        depth = max(stage.depths)
        sums = list(itertools.accumulate(best_of_slots[number : number + depth]))
        total = total + np.max([sums[depth - 1] for depth in stage.depths], axis=0)
        number += depth
    return total
