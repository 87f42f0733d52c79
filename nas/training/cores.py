"""Train one network on all cores of a CPU: by threads of one process, by several processes, or by both.

Neither way is always the faster one. Threads wait for each other in every layer, and processes for each other's
gradients once a step. `train_on_cores` times both on the network and the batch that are to be trained.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nas.cpu import usable_cores
from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.training.checkpoint import load_checkpoint
from nas.training.disk_images import DiskImages
from nas.training.distillation import Teacher
from nas.training.images import Data, Images
from nas.training.loaders import lack_of_shared_memory
from nas.training.local_processes import LocalProcesses, local_processes, threads_used
from nas.training.loop import Machine, Metrics, Training
from nas.training.processes import Processes
from nas.training.run import LAST, Settings, train
from nas.training.tensor_images import TensorImages

LEAST_SHARE = 16  # images of a batch for each process that is chosen: batch norm needs some
SHORT_SECONDS = 60.0  # a training of one process that is shorter ends before others have started and been timed
FEW_STEPS = 20  # fewer are never worth it
TIMED_SECONDS, TIMED_STEPS = 1.0, 8  # of one way in one round, at most
ROUNDS = 2
MARGIN = 1.03  # several processes are chosen where they are so much faster


class Layout(NamedTuple):
    """So many processes of so many threads each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{processes} of {threads}"


def available_cores() -> int:
    """Return how many cores a training may use: the threads that torch would take, within what the system allows."""
    return min(torch.get_num_threads(), usable_cores())


def load_layout(out: str | Path) -> Layout:
    """Return the processes and threads of the training in a folder. Raises NasError where they are not known."""
    contents = load_checkpoint(Path(out) / LAST)
    try:
        return Layout(int(contents["processes"]), int(contents["threads"]))
    except (KeyError, TypeError, ValueError) as error:
        raise NasError(f"{Path(out) / LAST}: not a checkpoint that a training can resume from ({error})") from None


def layouts(cores: int, batch_size: int, parts: int) -> list[Layout]:
    """Return the ways to use all cores on a batch that is computed in `parts`; the first one is a single process."""
    most = min(cores, max(1, batch_size // (LEAST_SHARE * parts)))
    return [Layout(count, cores // count) for count in range(1, most + 1) if cores % count == 0]


@dataclass(frozen=True, slots=True)
class _Work:
    """A training as each of its processes gets it. The callbacks are for the first one alone."""

    settings: Settings
    data: Data
    out: Path
    resume: bool
    machine: Machine
    teacher: nn.Module | None
    first: dict[str, Any]

    def machine_of(self, processes: Processes) -> Machine:
        return dataclasses.replace(self.machine, processes=processes)


def train_on_cores(
    settings: Settings,
    data: Data,
    out: str | Path,
    *,
    processes: int | None = None,
    resume: bool = False,
    machine: Machine,
    teacher: nn.Module | None = None,
    say: Callable[[str], None] = lambda text: None,
    **first: Any,
) -> list[Metrics]:
    """Train as `nas.training.run.train` does, in one or several processes of this machine's CPU.

    `processes` is their number. By default a resumed training has as many as before, and a new one as many as are
    fastest: it says in one line what was timed. `first` are other arguments of `train`. Raises NasError where `train`
    does, for a batch that is too small for so many processes, and for one of them that dies.
    """
    out, cores = Path(out), available_cores()
    recorded = load_layout(out) if resume else None
    parts = machine.accumulate
    if processes:
        ways = [Layout(processes, max(1, cores // processes))]
        _check_share(settings, data, processes, parts)
        if processes > cores:
            say(f"warning: {processes} processes share {cores} core{'s'[: cores > 1]}; fewer are faster")
        if recorded and processes != recorded.processes:
            say(f"note: the training had {recorded.processes} processes until now; it goes on a little differently")
    elif recorded:
        ways = [recorded]
    else:
        ways = layouts(cores, min(settings.recipe.batch_size, len(data.train)), parts)
    work = _Work(settings, data, out, resume, machine, teacher, first)
    alone = Layout(1, cores)
    steps = settings.recipe.epochs * max(1, len(data.train) // settings.recipe.batch_size)
    seconds = None
    if len(ways) > 1 and (steps < FEW_STEPS or steps * (seconds := _time_alone(work, alone)) < SHORT_SECONDS):
        ways, seconds = [alone], None
    most = max(way.processes for way in ways)
    with ExitStack() as stack:
        local = None
        if most > 1:
            try:
                local = stack.enter_context(_started(work, most))
            except (OSError, RuntimeError) as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                say(f"note: {most} processes cannot train together here ({reason}); one process trains")
        if local is None:
            with threads_used(ways[0].threads if ways[0].processes == 1 else cores):
                return train(settings, data, out, resume=resume, machine=machine, teacher=teacher, **first)
        way = ways[0] if seconds is None else _fastest(local, ways, seconds, say)
        if seconds is None:
            say(f"{way} each train together")
        local.keep(way.processes)
        return local.run(_train, way.processes, way.threads)


def _check_share(settings: Settings, data: Data, processes: int, parts: int) -> None:
    """Raise NasError where a process gets fewer than two images of a batch: batch norm needs two."""
    batch = min(settings.recipe.batch_size, len(data.train))
    if batch < 2 * processes * parts:
        raise NasError(
            f"--processes is {processes}, and a batch has {batch} images; batch norm needs two in every process"
            f"{' and part' if parts > 1 else ''}: take at most {max(1, batch // (2 * parts))} processes"
        )


@contextmanager
def step_timer(
    settings: Settings, data: Data, machine: Machine, most_processes: int
) -> Iterator[Callable[[Layout, int], float]]:
    """Yield a function that returns the mean seconds of so many steps of a training in a layout, on made-up images."""
    with _started(_Work(settings, data, Path(), False, machine, None, {}), most_processes) as local:
        yield lambda layout, steps: local.run(_Timing(steps), *layout)


@contextmanager
def _started(work: _Work, count: int) -> Iterator[LocalProcesses]:
    """Start the processes. Raises OSError where there is too little memory to share."""
    with torch.device("meta"):
        model = build_model(work.settings.spec, len(work.data.classes))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    images = sum(
        tensor.nbytes
        for part in (work.data.train, work.data.val)
        if isinstance(part, TensorImages)
        for tensor in (part.images, part.labels)
    )
    teacher = sum(tensor.nbytes for tensor in work.teacher.state_dict().values()) if work.teacher else 0
    if lack := lack_of_shared_memory((count + 1) * parameters * 4 + images + teacher):
        raise OSError(lack)

    helping = dataclasses.replace(work, first={})
    with local_processes(count, lambda rank: helping if rank else work, parameters) as local:
        yield local


def _divided(images: Images, processes: Processes) -> Images:
    """Return the images with this process's share of their loaders."""
    if not isinstance(images, DiskImages):
        return images
    share, rest = divmod(images.loaders, processes.count)
    return dataclasses.replace(images, loaders=share + (processes.rank < rest))


def _train(work: _Work, processes: Processes) -> list[Metrics]:
    data = work.data
    return train(
        work.settings,
        dataclasses.replace(data, train=_divided(data.train, processes), val=_divided(data.val, processes)),
        work.out,
        resume=work.resume,
        machine=work.machine_of(processes),
        teacher=work.teacher,
        **work.first,
    )


def _fastest(local: LocalProcesses, ways: list[Layout], alone: float, say: Callable[[str], None]) -> Layout:
    """Time steps of all ways in turn, and return the fastest. Says what was found."""
    steps = min(TIMED_STEPS, max(1, math.ceil(TIMED_SECONDS / alone)))
    timed = dict.fromkeys(ways, math.inf)
    for _ in range(ROUNDS):
        for way in ways:
            timed[way] = min(timed[way], local.run(_Timing(steps), *way))
    best = min(ways, key=timed.__getitem__)
    if timed[ways[0]] < MARGIN * timed[best]:
        best = ways[0]
    found = ", ".join(f"{way} {1000 * seconds:.0f} ms" for way, seconds in timed.items())
    say(f"trains in {best}, the fastest way to compute a step here ({found})")
    return best


def _time_alone(work: _Work, alone: Layout) -> float:
    with threads_used(alone.threads):
        return _Timing(2)(work, Processes())


@dataclass(frozen=True, slots=True)
class _Timing:
    """The task that returns the mean seconds of so many steps on made-up images. The training stays as it is."""

    steps: int

    def __call__(self, work: _Work, processes: Processes) -> float:
        settings, machine = work.settings, work.machine_of(processes)
        with torch.random.fork_rng(devices=[]):
            training = Training(
                build_model(settings.spec, len(work.data.classes), settings.recipe.dropout),
                work.data,
                settings.recipe,
                resolution=settings.resolution,
                machine=machine,
                teacher=Teacher(work.teacher) if work.teacher else None,
            )
            return training.time_steps(self.steps)
