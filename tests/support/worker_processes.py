"""Functions for processes that tests start: spawned processes import them by name."""

import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nas.errors import NasError


def run_worker_that_starts_a_process(shared: Any, name: str, told: object) -> None:
    """Start a process, as a loader of images does; the second worker dies."""
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    child.join()
    sys.exit(1 if child.exitcode or name.endswith("-2") else 0)


def tune_or_die(died: str, lives: bool, *arguments: Any) -> Any:
    """Kill the process of a proposal, always or until the file `died` is there; return the number of its channels."""
    if not lives or not os.path.exists(died):
        with open(died, "w", encoding="utf-8"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    (_, _, _, _, _, spec) = arguments
    from nas.netadapt.fine_tuning import Tuned  # torch, which other processes of this module do not need
    from nas.training.evaluation import Evaluation

    return Tuned({}, Evaluation(0.0, spec.blocks[1].expanded / 100, 0, 1), {})


def run_impatient_worker(shared: Any, name: str, told: Any) -> None:
    """Work as a worker does that waits a second for a data base; each trial takes a little time."""
    from nas.search import sharing, storage
    from nas.search.problem import Problem

    evaluate = Problem.evaluate

    def slowly(problem: Problem, encoding: Any) -> Any:
        time.sleep(0.3)
        return evaluate(problem, encoding)

    Problem.evaluate = slowly  # type: ignore[method-assign]
    storage.PATIENCE = 1.0
    sharing.open_storage = functools.partial(storage.open_storage, heartbeat=1)  # type: ignore[attr-defined]
    sharing.run_worker(shared, name, told)


@dataclass
class TalkingRequest:
    """The request of a search whose workers name an image that they cannot read, and end."""

    line: str
    error: str | None
    workers: int = 2

    def load_estimator(self, folder: object, threads: int, say: Callable[[str], None]) -> None:
        say(self.line)
        if self.error:
            raise NasError(self.error)
        sys.exit(0)


class WaitingRequest:
    """The request of a search whose worker never has anything to do."""

    workers = 1

    def load_estimator(self, folder: object, threads: int, say: object) -> None:
        print("waiting", flush=True)
        time.sleep(600)
