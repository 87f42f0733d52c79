"""Functions for processes that tests start: spawned processes import them by name."""

import functools
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nas.errors import NasError

GONE = "the data base is gone"


def run_worker_that_starts_a_process(shared: Any, name: str, told: object) -> None:
    """Start a process, as a loader of images does; the second worker dies."""
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    child.join()
    sys.exit(1 if child.exitcode or name.endswith("-2") else 0)


def run_impatient_worker(shared: Any, name: str, told: Any) -> None:
    """Work as a worker does that waits a second for a data base. Its third trial takes until that is gone.

    A file `GONE` beside the folder of the run says so.
    """
    from nas.search import sharing, storage
    from nas.search.problem import Problem

    evaluate, gone, begun = Problem.evaluate, shared.folder.absolute().with_name(GONE), itertools.count()

    def slowly(problem: Problem, encoding: Any) -> Any:
        while next(begun) >= 2 and not gone.exists():
            time.sleep(0.05)
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
    processes: int = 2

    def load_estimator(self, folder: object, say: Callable[[str], None]) -> None:
        say(self.line)
        if self.error:
            raise NasError(self.error)
        sys.exit(0)


class WaitingRequest:
    """The request of a search whose worker never has anything to do."""

    processes = 1

    def load_estimator(self, folder: object, say: object) -> None:
        print("waiting", flush=True)
        time.sleep(600)


# Jobs of `nas.training.side_by_side` ------------------------------------------------------------------


def look_around(data: Any, stopped: Callable[[], bool], name: str) -> Iterator[tuple[str, int, int, bool, int]]:
    """Yield the name, the process, its threads, whether the images are in shared memory, and the sum of their pixels.

    It takes a moment, so that other jobs go to other processes.
    """
    import torch

    time.sleep(0.1)
    images = data.train.images
    yield name, os.getpid(), torch.get_num_threads(), images.is_shared(), int(images.sum())


def count_until_stopped(data: Any, stopped: Callable[[], bool]) -> Iterator[int]:
    """Count, and take all the time that there is from 1 on."""
    yield 0
    while not stopped():
        time.sleep(0.01)
    yield 1


def fail(data: Any, stopped: Callable[[], bool], message: Any) -> Iterator[int]:
    """Raise an error of the user with a message, and a TypeError with a number."""
    yield 0
    raise NasError("" + message)


def die(data: Any, stopped: Callable[[], bool]) -> Iterator[int]:
    """Be killed, as by a system without memory."""
    yield 0
    os.kill(os.getpid(), signal.SIGKILL)


def train_into(out: Any, work: Any, processes: Any) -> Any:
    """Train what the processes of a training share, into another folder."""
    from dataclasses import replace

    from nas.training import cores

    return cores._train(replace(work, out=out), processes)
