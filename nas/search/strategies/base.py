"""Define what a search strategy is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from nas.arch.encoding import Encoding
from nas.search.history import History
from nas.search.problem import Problem

Propose = Callable[[History, random.Random], Encoding]


class Strategy(NamedTuple):
    """A way to search, and the number of its trials by default. The registry holds instances.

    `proposer(problem)` returns a function `propose(history, rng)`. That returns the next encoding: one integer a
    decision of `problem.space`, the index of a choice, or -1 for a decision that does not exist. It need not keep the
    limits, nor be new: the loop repairs it, and replaces what was seen. Higher `history.scores` are better. The history
    is empty at first, for some proposals where networks are evaluated together. It lags behind then: count proposals by
    `len(history.seen)`, and finished trials by `len(history)`. A proposal must depend on nothing but `history` and
    `rng`, or a resumed run would continue differently. `problem.sampler` samples, mutates and repairs.
    """

    proposer: Callable[[Problem], Propose]
    trials: int
