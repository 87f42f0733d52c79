"""Processes of this machine that train one network together on the cores of a CPU, with gradients in shared memory.

The process that starts them takes part, as the first. Each of the others, a *helper*, has a pipe to it. All messages go
through the first process, which so notices a helper that dies, as helpers notice that it has ended. Sums are taken in
the order of the processes, so that the results are the same every time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from nas.errors import NasError
from nas.interrupts import children_without_ctrl_c, live_with_parent
from nas.training.loaders import manner_of_death
from nas.training.processes import Processes
from nas.training.threads import threads_used

Task = Callable[[Any, Processes], Any]  # of what all processes share, and of this process among them
Gather = Callable[[Any], list[Any]]  # from the value of this process to the values of all
LOOK_SECONDS = 0.5  # between looks at whether a helper that says nothing is alive
LEAVE_SECONDS = 2.0  # until helpers that were asked to leave are ended
ALIGNED = 64  # floats: a slice of the buffer begins with a line of the cache


class _LeftAloneError(Exception):
    """The first process needs this helper no more, or has ended."""


class SharedMemory:
    """The exchange of local processes: small values through pipes, tensors through a buffer that all processes see.

    `buffer` has the shape (count + 1, n): a row for each process and one for the mean, each with room for all
    parameters of a network. It is a `nas.training.processes.Exchange`.
    """

    def __init__(self, rank: int, count: int, gather: Gather, buffer: Tensor) -> None:
        self._rank, self._count, self._gather, self._buffer = rank, count, gather, buffer

    def sums(self, values: Sequence[float], device: torch.device | str) -> list[float]:
        return [sum(column) for column in zip(*self.gathered(tuple(values)), strict=True)]

    def gathered(self, value: Any) -> list[Any]:
        return self._gathered("value", value)

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        own, means = self._views(self._rank, tensors), self._views(self._count, tensors)
        torch._foreach_copy_(own, list(tensors))
        self._average(sum(tensor.numel() for tensor in tensors), weight)
        torch._foreach_copy_(list(tensors), means)

    def synchronised(self, model: nn.Module) -> nn.Module:
        return model

    def gradient_average(self, model: nn.Module) -> Callable[[int], None]:
        parameters = list(model.parameters())
        own, means = self._views(self._rank, parameters), self._views(self._count, parameters)
        size = sum(parameter.numel() for parameter in parameters)

        def average(images: int) -> None:
            # A network that was cut from the one that is trained may lack some layers.
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            torch._foreach_copy_(own, gradients)
            self._average(size, images)
            # The optimiser reads the means where they are: they stay until all processes average again.
            for parameter, mean in zip(parameters, means, strict=True):
                parameter.grad = mean

        return average

    def _average(self, size: int, weight: float) -> None:
        """Compute the row of means. Each process takes a slice of it, in the order of the rows."""
        weights = self._gathered("average", weight)  # all rows are filled now
        total = sum(weights)
        each = -(-size // (self._count * ALIGNED)) * ALIGNED
        slices = slice(min(size, self._rank * each), min(size, (self._rank + 1) * each))
        *rows, mean = self._buffer[:, slices]
        torch.mul(rows[0], weights[0] / total, out=mean)
        for row, each_weight in zip(rows[1:], weights[1:], strict=True):
            mean.add_(row, alpha=each_weight / total)
        self._gathered("averaged", None)

    def _gathered(self, what: str, value: Any) -> list[Any]:
        whats, values = zip(*self._gather((what, value)), strict=True)
        if len(set(whats)) > 1:
            raise NasError(
                "the processes that train together have different numbers of batches, because too many images cannot "
                "be read; train with --processes 1"
            )
        return list(values)

    def _views(self, row: int, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the places of tensors in a row of the buffer, each with the shape and strides of the tensor."""
        views, start = [], 0
        for tensor in tensors:
            place = self._buffer[row, start : start + tensor.numel()]
            views.append(place.as_strided(tensor.shape, tensor.stride()))
            start += tensor.numel()
        return views


@dataclass
class LocalProcesses:
    """The first process and its helpers. `shared` is what the tasks of all processes get."""

    shared: Any
    buffer: Tensor
    _helpers: list[_Helper] = field(default_factory=list)

    def run(self, task: Task, count: int, threads: int) -> Any:
        """Run a task in `count` processes of so many threads; return what it returns in this one.

        Raises NasError for a helper that dies, and the one that a helper raises.
        """
        helpers = self._helpers[: count - 1]
        for helper in helpers:
            helper.send((task, count, threads))

        def gather(value: Any) -> list[Any]:
            values = [value, *(helper.receive() for helper in helpers)]
            for helper in helpers:
                helper.send(values)
            return values

        processes = Processes(0, count, SharedMemory(0, count, gather, self.buffer))
        with threads_used(threads):
            processes.wait()  # until the helpers have started, so that nobody's time includes that
            return task(self.shared, processes)

    def keep(self, count: int) -> None:
        """End the helpers that `count` processes do not need."""
        leaving, self._helpers[:] = self._helpers[max(0, count - 1) :], self._helpers[: max(0, count - 1)]
        for helper in leaving:
            helper.ask_to_leave()
        deadline = time.monotonic() + LEAVE_SECONDS
        for helper in leaving:
            helper.wait_until(deadline)
        for helper in leaving:
            helper.terminate()
        for helper in leaving:
            helper.close()


@contextmanager
def local_processes(count: int, shared: Callable[[int], Any], parameters: int) -> Iterator[LocalProcesses]:
    """Start helpers for up to `count` processes, and end them after the block.

    `shared` returns, for a rank, what the tasks of that process get; tensors in it are moved to shared memory.
    `parameters` is the number of a network's parameters. Raises OSError or RuntimeError where the system has no memory
    to share, or no more processes.
    """
    buffer = torch.zeros(count + 1, parameters)
    buffer.share_memory_()
    spawn = multiprocessing.get_context("spawn")
    local = LocalProcesses(shared(0), buffer)
    try:
        with children_without_ctrl_c():
            for rank in range(1, count):
                ours, theirs = spawn.Pipe()
                # Not daemons: these could not start the processes that load images.
                process = spawn.Process(target=_help, args=(rank, theirs, shared(rank), buffer))
                process.start()
                local._helpers.append(_Helper(process, ours))
                theirs.close()
        yield local
    finally:
        local.keep(1)


class _Helper:
    """A helper as the first process sees it."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._process, self._connection = process, connection

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:  # nobody is at the other end
            self._raise_death()

    def receive(self) -> Any:
        try:
            while not self._connection.poll(LOOK_SECONDS):
                # Its loaders keep the pipe open for some seconds after its death.
                if self._process.exitcode is not None:
                    self._raise_death()
            message = self._connection.recv()
        except (OSError, EOFError):
            self._raise_death()
        if isinstance(message, NasError):
            raise message
        return message

    def ask_to_leave(self) -> None:
        with suppress(OSError):  # it has ended
            self._connection.send(None)

    def wait_until(self, deadline: float) -> None:
        """Wait for its end, at most until `deadline`, a time of `time.monotonic`."""
        self._process.join(max(0.0, deadline - time.monotonic()))

    def terminate(self) -> None:
        self._process.terminate()

    def close(self) -> None:
        self._process.join()
        self._connection.close()

    def _raise_death(self) -> NoReturn:
        self._process.join(LEAVE_SECONDS)
        code = self._process.exitcode
        how = "it closed its pipe" if code is None else manner_of_death(code)
        raise NasError(
            f"one of the processes that train together died ({how}); go on with --resume, or train in one process with "
            "--processes 1"
        )


def _help(rank: int, connection: Connection, shared: Any, buffer: Tensor) -> None:
    """Run the tasks that the first process names, in a process of its own, until it needs this one no more."""
    live_with_parent()

    def gather(value: Any) -> list[Any]:
        try:
            connection.send(value)
        except OSError:
            raise _LeftAloneError from None
        return _received(connection)

    try:
        while True:
            task, count, threads = _received(connection)
            torch.set_num_threads(threads)
            processes = Processes(rank, count, SharedMemory(rank, count, gather, buffer))
            processes.wait()
            task(shared, processes)
    except _LeftAloneError:
        pass
    except NasError as error:
        with suppress(OSError):  # nobody is there any more
            connection.send(error)


def _received(connection: Connection) -> Any:
    """Return the next message. Raises _LeftAloneError if it is the last one, or nobody is there to send one."""
    try:
        message = connection.recv()
    except (EOFError, OSError):
        raise _LeftAloneError from None
    if message is None:
        raise _LeftAloneError
    return message
