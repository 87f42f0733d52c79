"""What every accuracy estimator answers with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Estimates(NamedTuple):
    """Estimated accuracies of n networks, arrays of shape (n,)."""

    top1: np.ndarray  # percent
    std: np.ndarray  # standard deviation of `top1`, percentage points
    extrapolated: np.ndarray  # bool: outside what the estimator was fitted to
