"""Pareto fronts of two goals, latency down and accuracy up::

front = front_indices(latency_ms, top1)
area = hypervolume(latency_ms, top1, reference=(20.0, 60.0))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def front_indices(latency_ms: ArrayLike, top1: ArrayLike) -> np.ndarray:
    """Indices of the points that no other point beats, fastest first; shape (front,), for arrays of shape (n,).

    One point beats another if it is no slower and no less accurate, and better in one of the two. Of points
    that are equal in both the first is kept; a point with a NaN is never on the front. Takes O(n log n).
    """
    latency, accuracy = _paired(latency_ms, top1)
    order = np.lexsort((-accuracy, latency))  # stable: equal points stay in the order they came in
    order = order[~np.isnan(latency[order] + accuracy[order])]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], accuracy[order]]))[:-1]
    return order[accuracy[order] > best_before]


def hypervolume(latency_ms: ArrayLike, top1: ArrayLike, reference: tuple[float, float]) -> float:
    """Area (ms times percent) that the points beat, down to a `reference` of latency (ms) and top-1 (percent).

    Points that do not beat the reference in both goals count nothing.
    """
    latency, accuracy = _paired(latency_ms, top1)
    better = (latency < reference[0]) & (accuracy > reference[1])
    latency, accuracy = latency[better], accuracy[better]
    front = front_indices(latency, accuracy)
    until = np.append(latency[front][1:], reference[0])
    return float(np.sum((until - latency[front]) * (accuracy[front] - reference[1])))


def _paired(latency_ms: ArrayLike, top1: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    latency, accuracy = np.asarray(latency_ms, float), np.asarray(top1, float)
    assert latency.ndim == 1
    assert latency.shape == accuracy.shape
    return latency, accuracy
