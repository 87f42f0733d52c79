"""Train several networks at the same time, each by one thread in a process of its own.

    pool = SideBySide(data)
    numbers = [pool.begin(job, spec) for spec in specs]
    number, value = pool.next_value()

Two networks by a thread each take half the time that one after the other takes, and two threads for one network do not
(`benchmarks/side_by_side.py`). On a CPU every network gets the same number of threads, one unless `threads` says more.
Its result so depends neither on the number of cores, nor on what is trained beside it.
"""

from __future__ import annotations

import pickle
import shutil
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import torch

from nas.cpu import usable_cores
from nas.errors import NasError
from nas.interrupts import children_without_ctrl_c, live_with_parent
from nas.training.disk_images import DiskImages, with_share_of_loaders
from nas.training.images import Data, Images
from nas.training.loaders import SHARED_MEMORY, manner_of_death
from nas.training.tensor_images import TensorImages
from nas.training.threads import torch_alike

# Called as `job(data, stopped, *arguments)`: a function of a module, which a process can import. What it yields goes to
# `next_value`. Where `stopped()` is true nobody wants more, and it may return.
Job = Callable[..., Iterator[Any]]

_POLL_SECONDS = 1.0  # between two looks at processes that are silent
_SHARED_RESERVE = 2  # times the images' bytes that must be free in shared memory


class Ended(NamedTuple):
    """The last value of a job."""


class WorkerDiedError(NasError):
    """A process that trained a network died."""


def networks_at_a_time() -> int:
    """Return how many networks this machine trains at a time by default: one a core, or one on a GPU."""
    return 1 if torch.cuda.is_available() else usable_cores()


class SideBySide:
    """Run jobs on a source's images, as many at a time as there are cores, in processes that stay.

    Processes start when there are jobs for them, and share images in memory. Of images on disk each has its share of
    the loaders. Where one job is to be done at a time, or only one is there, this process does it. On a GPU `at_a_time`
    is one unless it is given, and torch keeps its threads; else a job has `threads` of them. The processes end with
    `close`, with this object, and with this process, however that comes about.
    """

    def __init__(self, data: Data, at_a_time: int | None = None, *, threads: int = 1) -> None:
        self.at_a_time = at_a_time or networks_at_a_time()
        self._data, self._threads = data, None if torch.cuda.is_available() else threads
        self._begun = 0
        self._waiting: deque[tuple[int, Job, tuple[Any, ...]]] = deque()
        self._here: tuple[int, Iterator[Any]] | None = None  # the job that this process does
        self._workers: list[_Worker] = []
        # Before multiprocessing waits for its children at the end of this process: these would wait for jobs.
        self._finalize = Finalize(self, _end, (self._workers,), exitpriority=10)

    def begin(self, job: Job, *arguments: Any) -> int:
        """Let a job be done when its turn comes; return its number."""
        self._begun += 1
        self._waiting.append((self._begun, job, arguments))
        return self._begun

    def stop(self, number: int) -> None:
        """Let a job end soon: it may still yield values, and its `Ended` comes in any case."""
        if self._here and self._here[0] == number:
            self._here[1].close()  # type: ignore[attr-defined]
        for worker in self._workers:
            if worker.number == number:
                with suppress(WorkerDiedError):  # `next_value` says so
                    worker.send(None)

    def next_value(self) -> tuple[int, Any]:
        """Return the number of a job and what it yielded, or `Ended`; wait for it where that takes a while.

        Raises what a job raises, and WorkerDiedError where a process died. All jobs are dropped then.
        """
        try:
            alone = self.at_a_time == 1 or (not self._workers and len(self._waiting) == 1)
            if self._here is None and self._waiting and alone:
                number, job, arguments = self._waiting.popleft()
                self._here = number, job(self._data, lambda: False, *arguments)
            self._hand_out()
            return self._value_here(*self._here) if self._here else self._value_there()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes, whatever they do, and drop the jobs."""
        self._waiting.clear()
        self._here = None
        _end(self._workers)

    def _hand_out(self) -> None:
        """Give waiting jobs to idle processes, and to new ones while there are fewer than may be."""
        busy = (self._here is not None) + sum(worker.number is not None for worker in self._workers)
        wanted = min(self.at_a_time - busy, len(self._waiting))
        # All start before the first gets its job: to send one that is large takes until the process has started.
        while sum(worker.number is None for worker in self._workers) < wanted:
            worker = _Worker(_divided(self._data, len(self._workers), self.at_a_time), self._threads)
            self._workers.append(worker)  # before it starts, so that Ctrl-C in that moment does not lose it
            worker.start()
        for worker in [worker for worker in self._workers if worker.number is None][:wanted]:
            worker.number, *request = self._waiting.popleft()
            worker.send(request)

    def _value_here(self, number: int, values: Iterator[Any]) -> tuple[int, Any]:
        with torch_alike(self._threads):
            value = next(values, Ended())
        if isinstance(value, Ended):
            self._here = None
        return number, value

    def _value_there(self) -> tuple[int, Any]:
        busy = [worker for worker in self._workers if worker.number is not None]
        assert busy, "there is no job"
        while True:
            wait([worker.connection for worker in busy], timeout=_POLL_SECONDS)
            for worker in busy:
                if worker.connection.poll() or worker.process.exitcode is not None:
                    return worker.value()


class _Worker:
    """A process that does one job after another. `number` is that of its job, or None."""

    def __init__(self, data: Data | bytes, threads: int | None) -> None:
        spawn = get_context("spawn")
        self.number: int | None = None
        self.connection, self._theirs = spawn.Pipe()
        # Not a daemon, which could not start the processes that load images.
        self.process = spawn.Process(target=_work, args=(self._theirs, data, threads))

    def start(self) -> None:
        """Start the process."""
        with children_without_ctrl_c():
            self.process.start()
        self._theirs.close()

    def send(self, request: Any) -> None:
        """Send a job, or None to stop it. Raises WorkerDiedError."""
        try:
            # Not by `send`, which would put the weights of a network into shared memory.
            self.connection.send_bytes(pickle.dumps(request))
        except OSError:
            raise self._death() from None

    def value(self) -> tuple[int, Any]:
        """Return the job's number and its next value. Raises what the job raised, and WorkerDiedError."""
        # A loader of a dead process can hold the connection open for a while.
        if self.process.exitcode is not None and not self.connection.poll():
            raise self._death()
        try:
            value, error = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._death() from None
        if error is not None:
            raise error
        number = self.number
        assert number is not None
        if isinstance(value, Ended):
            self.number = None
        return number, value

    def _death(self) -> WorkerDiedError:
        self.process.join()
        how = manner_of_death(self.process.exitcode or 0)
        return WorkerDiedError(
            f"a process that trains a network died ({how}); continue the run with --resume; where memory is "
            "short, on fewer cores"
        )


def _end(workers: list[_Worker]) -> None:
    started = [worker for worker in workers if worker.process.pid is not None]
    for worker in started:
        worker.process.terminate()
    for worker in started:
        worker.process.join()
        worker.connection.close()
    workers.clear()


def _work(connection: Connection, data: Data | bytes, threads: int | None) -> None:
    """Do the jobs that come through the connection, and send back what they yield, or their errors."""
    live_with_parent()
    images: Data = pickle.loads(data) if isinstance(data, bytes) else data
    with torch_alike(threads), suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has ended
        while True:
            request = pickle.loads(connection.recv_bytes())
            if request is None:  # to stop a job that had ended by itself
                continue
            job, arguments = request
            try:
                for value in job(images, connection.poll, *arguments):
                    connection.send_bytes(pickle.dumps((value, None)))
                    if connection.poll():
                        break
            except Exception as error:
                if not isinstance(error, NasError):
                    error.add_note(traceback.format_exc())
                connection.send_bytes(pickle.dumps((None, error)))
            else:
                connection.send_bytes(pickle.dumps((Ended(), None)))


def _divided(data: Data, index: int, at_a_time: int) -> Data | bytes:
    """Return a source's images for one of several processes, pickled where they find no room in shared memory."""
    train, val = (_share_of(images, index, at_a_time) for images in (data.train, data.val))
    data = replace(data, train=train, val=val)
    tensors = [
        tensor
        for images in (data.train, data.val)
        if isinstance(images, TensorImages)
        for tensor in (images.images, images.labels)
        if not tensor.is_shared()
    ]
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # not Linux, which keeps it elsewhere
        return data
    needed = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    return pickle.dumps(data) if free < _SHARED_RESERVE * needed else data


def _share_of(images: Images, index: int, at_a_time: int) -> Images:
    """Return images as one of several processes gets them: it tells what it cannot read itself."""
    images = with_share_of_loaders(images, index, at_a_time)
    return replace(images, unreadable={}) if isinstance(images, DiskImages) else images
