"""Compute the factor that makes the rows of a session add up to whole networks.

Blocks are timed among a few whole networks, the co-run networks. A block that runs again and again finds its weights
and activations nearer than it would inside a network, by a percent or two on average. The co-run networks, timed in
the same rounds, show by how much. This factor is the only correction of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MIN_NETWORKS = 4
MIN_SHARE = 0.5  # of a co-run network that new rows must make up for it to say something about them


def calibration_factor(new: Sequence[float], known: Sequence[float], measured: Sequence[float]) -> float:
    """Return the factor for new rows: least relative squares of `known + factor * new` against `measured`.

    Each argument has one entry for each co-run network, as a ratio to the reference network: the sum over those of
    its rows that the session measured, the sum over rows from before, and the time of the whole network. Returns 1
    for fewer than `MIN_NETWORKS` networks, or where new rows make up too little of them.
    """
    share = np.array(new, float) / measured
    rest = np.array(known, float) / measured
    if len(share) < MIN_NETWORKS or share.mean() < MIN_SHARE:
        return 1.0
    return float((share * (1 - rest)).sum() / (share**2).sum())
