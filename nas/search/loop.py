"""Run a strategy: propose, evaluate, remember, until there are enough trials.

The loop keeps the finished trials in memory. Asking and telling through an Optuna study takes longer than the
evaluations of a search do.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from nas.arch.encoding import Encoding
from nas.runs.record import Trial
from nas.search.history import History
from nas.search.problem import Problem
from nas.search.strategies.base import Propose, Strategy


def run_trials(
    problem: Problem, strategy: Strategy, *, trials: int, seed: int, finished: Iterable[Trial] = ()
) -> Iterator[Trial]:
    """Evaluate networks until there are `trials`, and yield each when it is known, without the `finished` ones.

    It ends early when the space has no other network that fits. The randomness of a proposal comes from the seed and
    the number of finished trials, so that a search that resumes continues like an uninterrupted one.
    """
    history = History(problem)
    for trial in finished:
        history.add(trial)
    propose = strategy.proposer(problem)
    while len(history) < trials:
        encoding = next_encoding(history, propose, seed)
        if encoding in history.seen:
            return
        history.add(problem.evaluate(encoding))
        yield history.trials[-1]


def next_encoding(history: History, propose: Propose, seed: int | str, number: int | None = None) -> Encoding:
    """Return a network that fits, and that is new if there is one.

    `number` replaces the length of the history in the random seed, where several workers propose.
    """
    rng = random.Random(f"{seed}/{len(history) if number is None else number}")
    sampler = history.problem.sampler
    return sampler.unseen(sampler.repair(propose(history, rng), rng), history.seen, rng)
