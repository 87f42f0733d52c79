"""Many workers on one study: each proposes, evaluates and tells, and can come and go at any time.

A proposal is put into the study whole, as a waiting trial, and then taken by whoever is free: a worker that dies
leaves a trial that another can do again. On a data base (PostgreSQL) Optuna's heartbeats find such trials; on a
journal file the parent process does, which knows its children.

Before a proposal is put there its row is announced, so that of two workers who thought of the same one at the same
moment at least one sees it of the other, and takes another.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, TrialPruned, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.errors import NasError, hide_passwords
from nas.search.history import History
from nas.search.loop import next_row
from nas.search.parameters import distributions, params_of, row_of
from nas.search.problem import Problem, Row
from nas.search.strategies.base import Strategy

HEARTBEAT = 15  # seconds between two signs of life; a worker without one for twice as long is taken for dead
WORKER = "worker"  # user attribute of a trial: who evaluates it
PROPOSED = "proposed by "  # user attributes of a study, one a worker: the row that it is about to propose
_PAUSE = 0.2  # seconds, while others finish
_UNCLAIMED = 5.0  # seconds within which a worker that took a trial says so

Evaluate = Callable[[Row], tuple[float, float]]


def open_storage(storage: str | Path, heartbeat: int = HEARTBEAT) -> BaseStorage:
    """A data base (an URL) or a journal file (a path). Raises NasError if it cannot be reached."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    with _reaching(storage):
        if isinstance(storage, Path):
            return JournalStorage(JournalFileBackend(str(storage), lock_obj=JournalFileOpenLock(str(storage))))
        return RDBStorage(
            _with_driver(storage),
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )


def open_study(storage: str | Path | BaseStorage, name: str, heartbeat: int = HEARTBEAT) -> Study:
    """The study of that name on a storage, which is opened unless it is; made if it is not there.

    Its values are score and latency (ms). Raises NasError for a storage that cannot be reached.
    """
    opened = storage if isinstance(storage, BaseStorage) else open_storage(storage, heartbeat)
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    with _reaching(storage):
        return optuna.create_study(storage=opened, study_name=name, directions=directions, load_if_exists=True)


@contextmanager
def _reaching(storage: str | Path | BaseStorage) -> Iterator[None]:
    """Makes what a storage or its driver raises a NasError."""
    named = "" if isinstance(storage, BaseStorage) else f" {storage}"
    try:
        yield
    except ImportError as error:
        raise NasError(f"the storage{named}: {error}; install the driver with: uv sync --extra distributed") from None
    except Exception as error:  # the driver's own, of which there are many
        if type(error).__module__.split(".")[0] not in ("sqlalchemy", "psycopg", "optuna"):
            raise
        line = " ".join(str(error).split("\n")[0].split())
        raise NasError(hide_passwords(f"the storage{named} cannot be used ({line})")) from None


def first_said(storage: str | Path | BaseStorage, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the first one said who came with `name`: the same for all, however many come at once.

    A trial of a study of its own, whose numbers the storage gives out one after the other.
    """
    study = open_study(storage, name)
    if not study.get_trials(deepcopy=False):
        study.add_trial(optuna.create_trial(state=TrialState.FAIL, user_attrs=dict(said)))
    return study.get_trials(deepcopy=False)[0].user_attrs


def _with_driver(url: str) -> str:
    """SQLAlchemy's default driver for PostgreSQL is not the one that is installed."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


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
    """Works on a study until it has `trials` networks finished, and none that is waiting or running.

    `evaluate` maps a row to score and latency (ms), by default what the problem says. A row that was evaluated
    before, by another worker at the same time, takes the stored values. Who is taken for dead while it evaluates goes
    on with its next trial, and that one is done again.
    """
    space, decisions = problem.space, distributions(problem.space)
    propose = strategy.proposer(problem)
    through: list[int] = []  # trials of which nothing but telling was left to do

    def priced(row: Row) -> tuple[float, float]:
        codes = np.array([row])
        return float(problem.score(codes)[0]), float(problem.latency(codes)[0])

    def objective(trial: Trial) -> Sequence[float]:
        known = study.get_trials(deepcopy=False)
        waited = known[trial.number]
        if not decisions.keys() <= {*waited.params, *waited.system_attrs.get("fixed_params", {})}:
            raise TrialPruned  # what was waiting another took, and Optuna made a trial of its own
        params = {name: trial.suggest_categorical(name, decision.choices) for name, decision in decisions.items()}  # type: ignore[attr-defined]
        # Not sooner, so that Optuna's first heartbeat, from another thread, is there by then.
        try:
            trial.set_user_attr(WORKER, worker)
        except UpdateFinishedTrialError:
            through.append(trial.number)
            raise
        complete = (other for other in known if other.state == TrialState.COMPLETE)
        stored = next((other.values for other in complete if other.params == params), None)
        values = (evaluate or priced)(row_of(space, params)) if stored is None else stored
        through.append(trial.number)
        return values

    unclaimed: dict[int, float] = {}  # running trials that nobody said to have, and since when that is seen
    while True:
        known = study.get_trials(deepcopy=False)
        states = Counter(trial.state for trial in known)
        running, waiting = states[TrialState.RUNNING], states[TrialState.WAITING]
        # Networks, not trials: two that raced for the same one have done one.
        done = len({frozenset(trial.params.items()) for trial in known if trial.state == TrialState.COMPLETE})
        if not waiting and done + running < trials:
            history = _history(problem, known)
            # Two who propose at the same moment must not draw the same; who is alone draws as a search by itself.
            row = next_row(history, propose, f"{seed}/{worker}" if running else seed, len(known))
            while row not in history.seen and row in (taken := _announce(study, problem, worker, row)):
                history.seen |= taken
                row = next_row(history, propose, f"{seed}/{worker}", len(known))
            if row in history.seen and not running:
                return  # there is no other network
            if row not in history.seen:
                new = optuna.create_trial(
                    state=TrialState.WAITING, params=params_of(space, row), distributions=decisions
                )
                study.add_trial(new)
                waiting = 1
        if waiting:
            through.clear()
            try:
                study.optimize(objective, n_trials=1)
            except Exception:  # Optuna's, of several kinds, if others took this worker for dead
                if not any(study.trials[number].state == TrialState.FAIL for number in through):
                    raise
        elif running:
            time.sleep(_PAUSE)
            fail_stale_trials(study)
            _retry_unclaimed(study, unclaimed)
        elif done >= trials:
            return


def _announce(study: Study, problem: Problem, worker: str, row: Row) -> set[Row]:
    """Says that `row` is about to be proposed; the rows that others said so of, or that are in the study by now.

    Of two who announce the same row at once, the one who does so later finds the other's here.
    """
    study.set_user_attr(PROPOSED + worker, [int(code) for code in row])
    announced = {
        tuple(said) for key, said in study.user_attrs.items() if key.startswith(PROPOSED) and key != PROPOSED + worker
    }
    # After that: what an announcement became that its worker has meanwhile replaced by its next.
    return announced | _history(problem, study.get_trials(deepcopy=False)).seen


def _retry_unclaimed(study: Study, since: dict[int, float]) -> None:
    """Does again what a worker took and died over before its first heartbeat: Optuna never finds such trials.

    `since` is when they were first seen, by this process's clock: those of machines differ.
    """
    storage = study._storage
    interval = storage.get_heartbeat_interval() if isinstance(storage, BaseHeartbeat) else None
    if interval is None:
        return  # on a journal file the parent does it
    now = time.monotonic()
    silent = [trial for trial in _running(study) if WORKER not in trial.user_attrs]
    for trial in silent:
        if now - since.setdefault(trial.number, now) > 2 * interval:
            _retry(study, trial)


def _retry(study: Study, trial: FrozenTrial) -> None:
    """Fails a running trial and puts it up again; nothing where somebody was faster."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return
    RetryHeartbeatStaleTrialCallback()(study, trial)


def _history(problem: Problem, known: Sequence[FrozenTrial]) -> History:
    """What is finished, and what others are evaluating."""
    history = History(problem)
    decisions = distributions(problem.space).keys()
    for trial in known:
        if trial.state not in (TrialState.FAIL, TrialState.PRUNED) and decisions <= trial.params.keys():
            row = row_of(problem.space, trial.params)
            if trial.state == TrialState.COMPLETE and row not in history.seen:
                history.add(row, *trial.values)
            history.seen.add(row)
    return history


def finished(study: Study, problem: Problem) -> tuple[list[Row], np.ndarray, np.ndarray]:
    """The rows that were evaluated, each once, in order, with their scores and latencies (ms)."""
    history = _history(problem, study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    return history.rows, history.scores, history.latencies


def retry_trials_of(study: Study, worker: str) -> int:
    """Fails the running trials of a worker that died, and those that nobody claims, for others to do again.

    How many there were.
    """
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
    """Fails all running trials, for others to do again: nobody is left who works on them."""
    for trial in _running(study):
        _retry(study, trial)


def _running(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
