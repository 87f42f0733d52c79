"""The loop that runs a strategy.

A strategy proposes the next row from what was finished before; what it proposes is made to fit, and exchanged if
it is there already. The loop keeps what was finished in memory: asking and telling through a study takes longer
than a search's evaluations do.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from nas.search.history import History
from nas.search.problem import Problem, Row
from nas.search.strategies.base import Propose, Strategy


def optimise(
    problem: Problem, strategy: Strategy, *, trials: int, seed: int, finished: Iterable[Row] = ()
) -> Iterator[Row]:
    """Evaluates networks until there are `trials`, each given out when it is known; `finished` come first, unsaid.

    Ends early when the space has no other network that fits. A proposal's randomness comes from the seed and the
    number of finished trials, so that a resumed search goes on as an uninterrupted one would.
    """
    history = History(problem)
    history.price(finished)
    propose = strategy.proposer(problem)
    while len(history) < trials:
        row = next_row(history, propose, seed)
        if row in history.seen:
            return
        history.price([row])
        yield row


def next_row(history: History, propose: Propose, seed: int | str, number: int | None = None) -> Row:
    """A network that fits, and that is new if there is one; `number` is how many trials there are, if not these."""
    rng = random.Random(f"{seed}/{len(history) if number is None else number}")
    problem = history.problem
    return problem.unseen(problem.fitted(propose(history, rng), rng), history.seen, rng)
