"""The one correction on top of a session's rows: a factor that makes their sums agree with whole networks.

Blocks are timed among a few whole networks, the co_runs. A block that runs again and again finds its weights and
activations nearer than in a network, by a percent or two on average; the co_runs, timed in the same rounds, tell
by how much.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MIN_CO_RUNS = 4
MIN_SHARE = 0.5  # of a co_run that new rows must make up for it to tell something about them


def factor(new: Sequence[float], known: Sequence[float], measured: Sequence[float]) -> float:
    """What to multiply new rows by: least relative squares of `known + factor * new` against `measured`.

    One entry for each co_run: the sum over those of its rows that the session measured, the sum over rows from
    before, and what the whole network took, all as ratios to the reference. 1 where they tell too little.
    """
    share = np.array(new, float) / measured
    rest = np.array(known, float) / measured
    if len(share) < MIN_CO_RUNS or share.mean() < MIN_SHARE:
        return 1.0
    return float((share * (1 - rest)).sum() / (share**2).sum())
