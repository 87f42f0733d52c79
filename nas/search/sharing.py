"""Share the trials of a search among processes of this machine, or among all who have the same storage."""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from optuna.study import Study

from nas.accuracy.estimator import Estimates, SharedEstimator
from nas.arch.additive import AdditiveModel
from nas.errors import NasError
from nas.interrupts import children_without_ctrl_c, live_with_parent
from nas.quiet import quiet_optuna
from nas.runs.folder import WORKERS_LOG
from nas.runs.record import Trial
from nas.runs.target import Target
from nas.search.context import SearchContext
from nas.search.limits import Limit
from nas.search.objective import make_problem
from nas.search.problem import Problem
from nas.search.request import SearchRequest
from nas.search.storage import open_storage, open_study
from nas.search.workers import agree, finished_trials, retry_running, retry_trials_of, work

# Arguments in which all who share a study must agree.
SHARED_ARGUMENTS = (
    *("runtime", "threads", "precision", "strategy", "estimator", "recipe_level", "objective", "reward_w"),
    *("max_params", "max_memory_mb"),
)


@dataclass(frozen=True)
class SharedWork:
    """Everything that a worker in a process of its own needs; it can be sent there."""

    request: SearchRequest
    folder: Path
    target: Target
    latency: AdditiveModel
    limit_ms: float
    others: tuple[Limit, ...]
    study: str
    trials: int


def meeting_place(request: SearchRequest, folder: Path) -> str | Path:
    """Return where the workers of a search meet: the URL of a data base, or a journal file in the folder of the run."""
    return request.storage or folder / WORKERS_LOG


@quiet_optuna()
def shared_trials(context: SearchContext, target: Target, problem: Problem, stage: str, trials: int) -> list[Trial]:
    """Return the trials that workers evaluated together, in the order of their numbers.

    All keep the first one's limit, for the measurements of each machine say something a little different. The
    estimator takes over what others trained. Raises NasError for a study of another search.
    """
    request, storage = context.request, context.storage
    assert storage is not None
    name = "/".join(filter(None, (request.study, target.name, stage)))
    search = {
        "budget_ms": target.budget_ms,
        "space": problem.space.name,
        "variants": [list(variant) for variant in problem.space.variants],
        **{key: getattr(request, key) for key in SHARED_ARGUMENTS},
        "data": request.images_content,
    }
    agreed = agree(storage, f"{name}/agreed", {"limit_ms": problem.limit_ms, "search": search})
    if agreed["search"] != search:
        keys = [key for key, value in search.items() if agreed["search"].get(key) != value]
        raise NasError(f"the study {request.study} belongs to another search ({', '.join(keys)}); name another --study")
    problem, study = problem.with_limit(agreed["limit_ms"]), open_study(storage, name)
    if not request.storage:
        retry_running(study)  # of a run that was killed: none but the processes of this run work on a journal
    shared = SharedWork(
        request, context.folder.path, target, problem.latency, problem.limit_ms, problem.others, name, trials
    )
    here = f"{platform.node()}-{os.getpid()}"
    if request.processes > 1:
        _run_workers(context, shared, study, here)
    # The trials that are left, where all workers died; all trials, where there are no workers.
    work(study, problem, request.load_strategy(), trials=trials, seed=request.seed, worker=here)
    found = finished_trials(study, problem)
    if isinstance(context.estimator, SharedEstimator):
        top1, std = np.array([trial.top1 for trial in found]), np.array([trial.std for trial in found])
        diverged = np.array([trial.diverged for trial in found], bool)
        estimates = Estimates(top1, std, np.zeros(len(found), bool), diverged)
        context.estimator.add_estimates([trial.spec for trial in found], estimates)
    return found


def _run_workers(context: SearchContext, shared: SharedWork, study: Study, here: str) -> None:
    """Start the workers and wait until all have ended; enqueue again what a dead one was evaluating, and say so."""
    spawn = multiprocessing.get_context("spawn")
    children: dict[str, BaseProcess] = {}
    heard: dict[str, Connection] = {}
    try:
        with children_without_ctrl_c():
            for number in range(1, shared.request.processes + 1):
                name = f"{here}-{number}"
                # A pipe each: a worker that is killed while it writes leaves those of the others alone.
                heard[name], told = spawn.Pipe(duplex=False)
                # Not daemons: these could not start the processes that load images.
                children[name] = spawn.Process(target=run_worker, args=(shared, name, told))
                children[name].start()
                told.close()
        while children:
            for name, child in list(children.items()):
                child.join(0.2)
                ended = child.exitcode is not None
                _listen(heard[name], context.say_once)
                if not ended:
                    continue
                del children[name]
                if child.exitcode:
                    lost = retry_trials_of(study, name)
                    again = "; its trial is done again" if lost else ""
                    rest = "" if children else "; no worker is left, this process evaluates the other trials"
                    context.console.say(f"warning: worker {name} died{again}{rest}")
    finally:
        for child in children.values():
            if child.pid is not None:  # it was started
                child.terminate()
                child.join()


def _listen(heard: Connection, say: Callable[[str], None]) -> None:
    """Say what a worker has sent by now. Raises the NasError that ended it: every worker will meet the same."""
    try:
        while heard.poll():
            message = heard.recv()
            if isinstance(message, NasError):
                raise message
            say(message)
    except EOFError:  # it has ended
        pass


def run_worker(shared: SharedWork, worker: str, told: Connection) -> None:
    """Work on a study in a process of its own.

    `told` gets the lines that its user must see, and the NasError that ends it.
    """
    live_with_parent()
    request = shared.request
    try:
        estimator = request.load_estimator(shared.folder, told.send)
        problem = make_problem(request, shared.target, estimator, shared.latency, shared.limit_ms, shared.others)
        storage = open_storage(meeting_place(request, shared.folder), patient=True, say=told.send)
        study = open_study(storage, shared.study)
        work(study, problem, request.load_strategy(), trials=shared.trials, seed=request.seed, worker=worker)
    except NasError as error:
        told.send(error)
        sys.exit(1)
