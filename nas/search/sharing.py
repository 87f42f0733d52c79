"""Workers that search together: processes of this machine, or whoever has the same storage."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
from pathlib import Path
from typing import Any

import numpy as np
from optuna.storages import BaseStorage

from nas.arch.additive import AdditiveModel
from nas.console import Console
from nas.errors import NasError
from nas.names import resolve
from nas.search.limits import Limit, Row
from nas.search.objective import make_problem, mnasnet_reward, quick
from nas.search.problem import Problem
from nas.search.request import Request
from nas.search.strategies import STRATEGIES
from nas.search.strategies.base import Strategy
from nas.search.workers import finished, first_said, open_study, retry_running, retry_trials_of, work

SHARED_LOG = "workers.log"  # in a run's folder: where the workers of one machine meet
SHARED_ARGUMENTS = (
    *("runtime", "threads", "precision", "strategy", "estimator", "data", "recipe_level", "objective", "reward_w"),
    *("max_params", "max_memory_mb"),
)


def shared_rows(
    request: Request,
    folder: Path,
    storage: BaseStorage,
    problem: Problem,
    *,
    stage: str,
    target_ms: float,
    trials: int,
    estimator: Any,
    console: Console,
) -> list[Row]:
    """The rows that workers evaluated together: processes of this machine, or whoever has the same storage.

    All keep the first one's limit, for each machine's own measurements say a little else. What the others trained
    `estimator` takes over. `storage` is the request's, open.
    """
    name = "/".join(filter(None, (request.study, stage)))
    wanted = {
        "budget_ms": target_ms,
        "space": problem.space.name,
        "variants": [list(variant) for variant in problem.space.variants],
        **{key: getattr(request, key) for key in SHARED_ARGUMENTS},
    }
    agreed = first_said(storage, f"{name}/agreed", {"limit_ms": problem.budget_ms, "search": wanted})
    if agreed["search"] != wanted:
        keys = [key for key, value in wanted.items() if agreed["search"].get(key) != value]
        raise NasError(f"the study {request.study} is of another search ({', '.join(keys)}); name another --study")
    problem, study = problem.with_budget(agreed["limit_ms"]), open_study(storage, name)
    if not request.storage:
        retry_running(study)  # of a run that was killed: on a journal none but this run's processes work
    here = f"{platform.node()}-{os.getpid()}"
    if request.workers > 1:
        spawn = multiprocessing.get_context("spawn")
        shared = (request, folder, problem.latency, problem.budget_ms, problem.others, target_ms, name, trials)
        names = [f"{here}-{number}" for number in range(1, request.workers + 1)]
        children = {worker: spawn.Process(target=share, args=(*shared, worker), daemon=True) for worker in names}
        for child in children.values():
            child.start()
        while children:
            for worker, child in list(children.items()):
                child.join(0.2)
                if child.exitcode is not None:
                    del children[worker]
                    if child.exitcode and retry_trials_of(study, worker):
                        console.say(f"warning: worker {worker} died; its trial is done again")
    # What is left, where all died; the whole, where there are no children.
    work(study, problem, _strategy(request), trials=trials, seed=request.seed, worker=here)
    rows, scores, latencies = finished(study, problem)
    if quick(estimator) is not estimator:
        if request.objective == "mnasnet":
            scores = scores / mnasnet_reward(1.0, latencies, target_ms, request.reward_w)
        estimator.take(problem.space.decode([np.array(row) for row in rows]), scores.tolist())
    return rows


def share(
    request: Request,
    folder: Path,
    prices: AdditiveModel,
    limit_ms: float,
    others: tuple[Limit, ...],
    target_ms: float,
    name: str,
    trials: int,
    worker: str,
) -> None:
    """What a worker in a process of its own does; all it needs can be sent there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is that of its children
    estimator = request.load_estimator(folder, max(1, (os.cpu_count() or 1) // request.workers))
    problem = make_problem(request, estimator, prices, limit_ms, others, target_ms)
    study = open_study(meeting_place(request, folder), name)
    work(study, problem, _strategy(request), trials=trials, seed=request.seed, worker=worker)


def meeting_place(request: Request, folder: Path) -> str | Path:
    """Where the workers of a search meet: a data base's URL, or a journal file in the run's folder."""
    return request.storage or folder / SHARED_LOG


def _strategy(request: Request) -> Strategy:
    strategy: Strategy = resolve("strategy", request.strategy, STRATEGIES)
    return strategy
