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
    the number of trials before it. It rests on the results of these trials, but for the last `problem.together` - 1,
    which may be on their way. So a search that resumes continues like an uninterrupted one.
    """
    known = list(finished)
    proposed = [trial.encoding for trial in known if trial.encoding is not None]
    history = History(problem)
    history.seen.update(proposed)
    propose = strategy.proposer(problem)
    while True:
        while len(proposed) < trials and len(proposed) - len(history) < problem.together:
            encoding = next_encoding(history, propose, seed, len(proposed))
            if encoding in history.seen:
                trials = len(proposed)  # there is no other network
                break
            problem.announce(encoding)
            history.seen.add(encoding)
            proposed.append(encoding)
        at = len(history)
        if at == len(proposed):
            return
        if at < len(known):
            history.add(known[at])
        else:
            history.add(problem.evaluate(proposed[at]))
            yield history.trials[-1]


def next_encoding(history: History, propose: Propose, seed: int | str, number: int) -> Encoding:
    """Return a network that fits, and that is new if there is one.

    The randomness comes from `seed` and `number`, that of the trials before.
    """
    rng = random.Random(f"{seed}/{number}")
    sampler = history.problem.sampler
    return sampler.unseen(sampler.repair(propose(history, rng), rng), history.seen, rng)
