"""Define what a search strategy is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from nas.arch.encoding import Encoding
from nas.search.history import History
from nas.search.problem import Problem

# Proposes the next encoding from the finished trials. It need not fit, nor be new: the loop repairs and exchanges it.
Propose = Callable[[History, random.Random], Encoding]


class Strategy(NamedTuple):
    """A way to search, and how many trials it gets by default."""

    proposer: Callable[[Problem], Propose]
    trials: int
