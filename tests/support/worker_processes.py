"""Functions for processes that tests start: spawned processes import them by name."""

import multiprocessing
import sys
import time
from typing import Any


def run_worker_that_starts_a_process(shared: Any, name: str) -> None:
    """Start a process, as a loader of images does; the second worker dies."""
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    child.join()
    sys.exit(1 if child.exitcode or name.endswith("-2") else 0)


class WaitingRequest:
    """The request of a search whose worker never has anything to do."""

    workers = 1

    def load_estimator(self, folder: object, threads: int) -> None:
        print("waiting", flush=True)
        time.sleep(600)
