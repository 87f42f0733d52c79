"""What a search strategy is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from nas.search.history import History
from nas.search.problem import Problem, Row

Propose = Callable[[History, random.Random], Row]


class Strategy(NamedTuple):
    """A way to search, and how many trials it is given; `latency_counts` if it is after fast networks too."""

    proposer: Callable[[Problem], Propose]
    trials: int
    latency_counts: bool = False
