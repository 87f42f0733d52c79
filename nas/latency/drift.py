"""Tell apart how long programs take and how slow the machine was, from iterations that ran one after another.

The logarithm of an iteration's time is the level of its program plus the slowness of the machine at that moment.
The slowness is taken from the iterations of *other* programs just before and just after. Where these two disagree,
the machine was changing speed, and the iteration counts for little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# The slowness around a turn is the mean over this much time before and after it, and over at least one turn: a shared
# machine keeps its speed that long. Chosen with `UNSTEADY` by how well halves of a session agree.
NEIGHBOURHOOD_SECONDS = 0.01
UNSTEADY = 0.1  # a turn counts exp(-1/2) where the slowness before and after it differs by this much, relative
INTERRUPTED = 3.0  # times the usual time: such an iteration was stopped in the middle, and says no speed
STEPS = 5  # of the fit; the levels have settled to 0.1 % by then


def fit_levels(
    kind: np.ndarray, turn: np.ndarray, start: np.ndarray, end: np.ndarray, logs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the level of each kind of iteration (log seconds), the slowness (log) and the weight of each turn.

    All arguments are of shape (iterations,), in the order of time: kind, turn, start and end (seconds), and the
    logarithm of the time. A kind is what has a level of its own; each turn is of one program.
    """
    turns, kinds = turn[-1] + 1, kind.max() + 1
    first = np.searchsorted(turn, np.arange(turns))
    last = np.searchsorted(turn, np.arange(turns), "right")
    # The iterations before and after each turn within the neighbourhood, and at least those of the next turn.
    before = np.searchsorted(end, start[first] - NEIGHBOURHOOD_SECONDS)
    before = np.minimum(before, np.concatenate([[0], first[:-1]]))
    after = np.searchsorted(start, end[last - 1] + NEIGHBOURHOOD_SECONDS, "right")
    after = np.maximum(after, np.concatenate([last[1:], [len(kind)]]))
    levels = _medians(logs, np.ones(len(logs)), kind, kinds)
    for _ in range(STEPS):
        slower = logs - levels[kind]
        counted = np.where(slower < np.log(INTERRUPTED), np.exp(logs), 0.0)
        sums = np.concatenate([[0.0], np.cumsum(counted)])
        left, right = sums[first] - sums[before], sums[after] - sums[last]
        both, either = (left > 0) & (right > 0), (left > 0) | (right > 0)
        sums = np.concatenate([[0.0], np.cumsum(counted * np.clip(slower, -0.5, 0.8))])
        earlier = (sums[first] - sums[before]) / np.where(left > 0, left, 1.0)
        later = (sums[after] - sums[last]) / np.where(right > 0, right, 1.0)
        slowness = np.where(both, (earlier + later) / 2, earlier + later)
        steady = np.exp(-0.5 * ((earlier - later) / UNSTEADY) ** 2)
        weights = np.where(both, steady, np.where(either, 0.1, 0.0)) + 1e-3
        levels = _medians(logs - slowness[turn], weights[turn], kind, kinds)
    return levels, slowness, weights


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: Sequence[float]) -> list[float]:
    """Return quantiles, interpolated between values each of which stands at the middle of its weight."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    middles = (sums - weights[order] / 2) / sums[-1]
    return [float(quantile) for quantile in np.interp(shares, middles, values[order])]


def _medians(values: np.ndarray, weights: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    """Return the weighted median of each group of values: shape (number,), 0 for an empty group."""
    order = np.lexsort((values, groups))
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    begin = np.searchsorted(groups[order], np.arange(number))
    end = np.searchsorted(groups[order], np.arange(number), "right")
    middle = np.searchsorted(sums, (sums[begin] + sums[end]) / 2) - 1
    medians = values[order][np.clip(middle, 0, len(values) - 1)]
    return np.where(end > begin, medians, 0.0)
