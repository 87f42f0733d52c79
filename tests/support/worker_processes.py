"""Functions for processes that tests start: spawned processes import them by name."""

import multiprocessing
import os
import signal
import sys
import time
from typing import Any


def run_worker_that_starts_a_process(shared: Any, name: str) -> None:
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


class WaitingRequest:
    """The request of a search whose worker never has anything to do."""

    workers = 1

    def load_estimator(self, folder: object, threads: int) -> None:
        print("waiting", flush=True)
        time.sleep(600)
