"""Evaluate the trials of one Optuna study by many processes, each of which can come and go at any time.

A proposal is put into the study whole, as a waiting trial, and whoever is free takes it. So a worker that dies leaves
a trial that another can do again. On a data base (PostgreSQL) Optuna's heartbeats find such trials. On a journal file
the parent process finds them, for it knows its children.

A worker announces an encoding before it puts the proposal into the study. Of two workers that thought of the same
network at the same moment, at least one sees the announcement of the other, and proposes another network.

Workers that propose at the same moment can together propose more than they were asked for. The storage numbers the
trials, so all agree on which are too many; these are taken and left undone.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.arch.encoding import Encoding
from nas.quiet import quiet_optuna
from nas.runs.parameters import distributions, encoding_of, params_of
from nas.runs.record import Trial
from nas.search.history import History
from nas.search.loop import next_encoding
from nas.search.problem import Problem
from nas.search.storage import open_study
from nas.search.strategies.base import Strategy

WORKER = "worker"  # user attribute of a trial: the worker that evaluates it
ASKED = "asked"  # user attribute of a trial: how many networks the worker that proposed it was asked for
PROPOSED = "proposed by "  # user attributes of a study, one a worker: the encoding that it is about to propose
_COUNTED = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
_PAUSE = 0.2  # seconds, while others finish
_UNCLAIMED = 5.0  # seconds within which a worker that took a trial claims it

Evaluate = Callable[[Encoding], Trial]


def agree(storage: str | Path | BaseStorage, name: str, proposal: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the first process proposed under `name`: the same for all, however many come at once.

    It is kept as a trial of a study of its own, whose numbers the storage gives out one after the other.
    """
    study = open_study(storage, name)
    if not study.get_trials(deepcopy=False):
        study.add_trial(optuna.create_trial(state=TrialState.FAIL, user_attrs=dict(proposal)))
    return study.get_trials(deepcopy=False)[0].user_attrs


def work(
    study: Study,
    problem: Problem,
    strategy: Strategy,
    *,
    trials: int,
    seed: int,
    worker: str,
    evaluate: Evaluate | None = None,
) -> None:
    """Work on a study until it has `trials` networks finished, and none that is waiting or running.

    `evaluate` is the problem's own by default. A network that another worker evaluated meanwhile takes the stored
    values. A worker that counts as dead while it evaluates goes on with its next trial; the trial is done again.
    """
    with quiet_optuna():
        _work(study, problem, strategy, trials, seed, worker, evaluate or problem.evaluate)


def _work(
    study: Study, problem: Problem, strategy: Strategy, trials: int, seed: int, worker: str, evaluate: Evaluate
) -> None:
    space, parameters = problem.space, distributions(problem.space)
    propose, watched = strategy.proposer(problem), _Watched(problem)
    evaluated: list[int] = []  # trials whose values are not stored yet

    def objective(trial: optuna.Trial) -> Sequence[float]:
        known = study.get_trials(deepcopy=False)
        taken = known[trial.number]
        if not parameters.keys() <= {*taken.params, *taken.system_attrs.get("fixed_params", {})}:
            raise TrialPruned  # another worker took the waiting trial, and Optuna made a new one of its own
        earlier = {_network(other) for other in known[: trial.number] if other.state in _COUNTED}
        if len(earlier - {_network(taken)}) >= taken.user_attrs.get(ASKED, math.inf):
            raise TrialPruned  # workers that proposed at the same moment have proposed enough without it
        params = {name: trial.suggest_categorical(name, choices.choices) for name, choices in parameters.items()}  # type: ignore[attr-defined]
        # Optuna's first heartbeat comes from another thread, which may be late. A claim must not precede it: nobody
        # would find the trial of a worker that dies in between.
        if (beating := _beating(study)) is not None:
            beating.record_heartbeat(trial._trial_id)
        try:
            trial.set_user_attr(WORKER, worker)
        except UpdateFinishedTrialError:
            evaluated.append(trial.number)
            raise
        complete = (other for other in known if other.state == TrialState.COMPLETE)
        stored = next((other for other in complete if other.params == params), None)
        result = evaluate(encoding_of(space, params)) if stored is None else _read(problem, stored)
        evaluated.append(trial.number)
        for name in ("top1", "std", "diverged"):
            trial.set_user_attr(name, getattr(result, name))
        return result.score, result.latency_ms

    unclaimed: dict[int, float] = {}  # running trials that no worker claimed, and since when that is seen
    while True:
        known = study.get_trials(deepcopy=False)
        states = Counter(trial.state for trial in known)
        running, waiting = states[TrialState.RUNNING], states[TrialState.WAITING]
        # Networks count, not trials: two workers that raced for one network have done one.
        done = len({_network(trial) for trial in known if trial.state == TrialState.COMPLETE})
        if not waiting and done + running < trials:
            history = watched.update(known)
            # Two workers that propose at the same moment must differ. One alone proposes as a search by itself does.
            encoding = next_encoding(history, propose, f"{seed}/{worker}" if running else seed, len(known))
            while encoding not in history.seen and encoding in (taken := _announce(study, watched, worker, encoding)):
                history.seen |= taken
                encoding = next_encoding(history, propose, f"{seed}/{worker}", len(known))
            if encoding in history.seen and not running:
                return  # there is no other network
            if encoding not in history.seen:
                params = params_of(space, encoding)
                study.add_trial(
                    optuna.create_trial(
                        state=TrialState.WAITING,
                        params=params,
                        distributions=parameters,
                        user_attrs={ASKED: trials},
                    )
                )
                waiting = 1
        if waiting:
            evaluated.clear()
            try:
                study.optimize(objective, n_trials=1)
            except Exception:  # Optuna's, of several kinds, if others took this worker for dead
                known = study.get_trials(deepcopy=False)  # raises NasError where the storage is lost
                # COMPLETE where the data base went away after it stored the values, and before it said so.
                if not any(known[number].state.is_finished() for number in evaluated):
                    raise
        elif running:
            time.sleep(_PAUSE)
            fail_stale_trials(study)
            _retry_unclaimed(study, unclaimed)
        elif done >= trials:
            return


def _network(trial: FrozenTrial) -> frozenset[tuple[str, Any]]:
    """Return the decisions of a trial, also of one that is enqueued."""
    return frozenset({**trial.system_attrs.get("fixed_params", {}), **trial.params}.items())


class _Watched:
    """A study as one worker sees it: a history to which trials are only ever added.

    A strategy may count on positions in the history. So a trial that finishes late comes last, whatever its number.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._parameters = distributions(problem.space).keys()
        self._history = History(problem)
        self._read: set[int] = set()  # numbers of trials in the history
        self._finished: set[Encoding] = set()

    def update(self, known: Sequence[FrozenTrial]) -> History:
        """Add the trials that finished since; return the history, in which pending ones count as seen."""
        pending = set()
        for frozen in known:
            if frozen.state in (TrialState.FAIL, TrialState.PRUNED) or not self._parameters <= frozen.params.keys():
                continue
            if frozen.state != TrialState.COMPLETE:
                pending.add(encoding_of(self._problem.space, frozen.params))
            elif frozen.number not in self._read:
                self._read.add(frozen.number)
                trial = _read(self._problem, frozen)
                if trial.encoding not in self._finished:
                    self._history.add(trial)
                    self._finished.add(trial.encoding)  # type: ignore[arg-type]
        self._history.seen = self._finished | pending
        return self._history


def _read(problem: Problem, frozen: FrozenTrial) -> Trial:
    """Return a finished trial of a study."""
    encoding = encoding_of(problem.space, frozen.params)
    (spec,) = problem.space.decode([np.array(encoding)])
    score, latency_ms = frozen.values
    attributes = frozen.user_attrs
    top1, std = attributes.get("top1", score), attributes.get("std", 0.0)
    return Trial(encoding, spec, top1, std, latency_ms, score, attributes.get("diverged", False))


def _announce(study: Study, watched: _Watched, worker: str, encoding: Encoding) -> set[Encoding]:
    """Announce a proposal; return the encodings that others announced or that are in the study by now.

    Of two workers that announce the same encoding at once, the later one finds the announcement of the other.
    """
    study.set_user_attr(PROPOSED + worker, [int(choice) for choice in encoding])
    announced = {
        tuple(choices)
        for key, choices in study.user_attrs.items()
        if key.startswith(PROPOSED) and key != PROPOSED + worker
    }
    # Read after that: it holds the trial of an announcement that its worker has replaced by its next one meanwhile.
    return announced | watched.update(study.get_trials(deepcopy=False)).seen


def _retry_unclaimed(study: Study, since: dict[int, float]) -> None:
    """Enqueue again the trials whose worker died before its first heartbeat: Optuna never finds these.

    `since` says when each was first seen, by the clock of this process: those of machines differ.
    """
    if (beating := _beating(study)) is None:
        return  # on a journal file the parent does it
    interval, now = beating.get_heartbeat_interval() or 0, time.monotonic()
    silent = [trial for trial in _running(study) if WORKER not in trial.user_attrs]
    for trial in silent:
        if now - since.setdefault(trial.number, now) > 2 * interval:
            _retry(study, trial)


def _beating(study: Study) -> BaseHeartbeat | None:
    """Return a study's storage if that takes heartbeats: a data base does."""
    storage = study._storage
    return storage if isinstance(storage, BaseHeartbeat) and storage.get_heartbeat_interval() is not None else None


def _retry(study: Study, trial: FrozenTrial) -> None:
    """Fail a running trial and enqueue it again; do nothing where another process was faster."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return
    with quiet_optuna():
        RetryHeartbeatStaleTrialCallback()(study, trial)


def finished_trials(study: Study, problem: Problem) -> list[Trial]:
    """Return the trials that were evaluated, each network once, in the order of their numbers."""
    return _Watched(problem).update(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))).trials


def retry_trials_of(study: Study, worker: str) -> int:
    """Enqueue again the running trials of a worker that died, and those that no worker claims; return their number."""
    unclaimed = {trial.number for trial in _running(study) if WORKER not in trial.user_attrs}
    if unclaimed:
        time.sleep(_UNCLAIMED)
    lost = [
        trial
        for trial in _running(study)
        if trial.user_attrs.get(WORKER) == worker or (WORKER not in trial.user_attrs and trial.number in unclaimed)
    ]
    for trial in lost:
        _retry(study, trial)
    return len(lost)


def retry_running(study: Study) -> None:
    """Enqueue again all running trials: no process works on them any more."""
    for trial in _running(study):
        _retry(study, trial)


def _running(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
