"""Functions for processes that tests start: spawned processes import them by name."""

import multiprocessing
import sys
from typing import Any


def run_worker_that_starts_a_process(shared: Any, name: str) -> None:
    """Start a process, as a loader of images does; the second worker dies."""
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    child.join()
    sys.exit(1 if child.exitcode or name.endswith("-2") else 0)
