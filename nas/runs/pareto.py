"""Find the Pareto front of two goals, latency down and accuracy up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def front_indices(latency_ms: ArrayLike, top1: ArrayLike) -> np.ndarray:
    """Return the indices of the points that no other point beats, fastest first.

    The result has shape (front,), for arrays of shape (n,). One point beats another if it is no slower and no less
    accurate, and better in one of the two. Of points that are equal in both the first is kept. A point with a NaN is
    never on the front. Takes O(n log n).
    """
    latency, accuracy = np.asarray(latency_ms, float), np.asarray(top1, float)
    assert latency.ndim == 1
    assert latency.shape == accuracy.shape
    order = np.lexsort((-accuracy, latency))  # stable: equal points stay in the order they came in
    order = order[~np.isnan(latency[order] + accuracy[order])]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], accuracy[order]]))[:-1]
    return order[accuracy[order] > best_before]
