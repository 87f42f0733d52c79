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

from nas.console import Console
from nas.cpu import usable_cores
from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.training.checkpoint import load_checkpoint
from nas.training.disk_images import with_share_of_loaders
from nas.training.distillation import Teacher
from nas.training.images import Data, LeftOut, small_data_warning
from nas.training.loaders import lack_of_shared_memory
from nas.training.local_processes import LocalProcesses, local_processes
from nas.training.loop import Machine, Metrics, Narrowing, Training
from nas.training.processes import Processes
from nas.training.run import LAST, Settings, train
from nas.training.tensor_images import TensorImages
from nas.training.threads import threads_used

LEAST_SHARE = 16  # images of a batch for each process that is chosen: batch norm needs some
# A training that one process ends sooner gains less by several than starting and timing them costs.
SHORT_SECONDS = 60.0
FEW_STEPS = 20  # fewer are never worth it
TIMED_SECONDS, TIMED_STEPS = 1.0, 8  # of one way in one round, at most
ROUNDS = 2
MARGIN = 1.03  # several processes are chosen where they are so much faster


class Layout(NamedTuple):
    """So many processes of so many threads each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{_counted_processes(self.processes)} of {self.threads} thread{'s'[: self.threads > 1]}"


def _counted_processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def available_cores() -> int:
    """Return how many cores a training may use: the threads that torch would take, within what the system allows."""
    return min(torch.get_num_threads(), usable_cores())


def load_layout_and_epochs(out: str | Path) -> tuple[Layout, int]:
    """Return the layout of the training in a folder, and its finished epochs.

    A checkpoint that does not say the layout is of one process, on all cores. Raises NasError for one that cannot be
    resumed from.
    """
    path = Path(out) / LAST
    contents = load_checkpoint(path)
    try:
        layout = Layout(1, available_cores())
        if "processes" in contents and "threads" in contents:
            layout = Layout(int(contents["processes"]), int(contents["threads"]))
        if min(layout) < 1:
            raise ValueError(f"{layout} train nothing")
        return layout, int(contents["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise NasError(f"{path}: not a checkpoint that a training can resume from ({error})") from None


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
    narrowing: Narrowing | None
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
    narrowing: Narrowing | None = None,
    say: Callable[[str], None] = lambda text: None,
    **first: Any,
) -> list[Metrics]:
    """Train as `nas.training.run.train` does, in one or several processes of this machine's CPU.

    `processes` is their number. By default a resumed training has the layout that it had before, and a new one that
    which is fastest: it says in one line what was timed. A network that is compiled has one process then, as each
    layout would compile it anew. `first` are other arguments of `train`. Raises NasError where `train` does, for a
    batch that is too small for so many processes, and for one of them that dies.
    """
    out, cores = Path(out), available_cores()
    alone, parts = Layout(1, cores), machine.accumulate
    recorded, epochs = load_layout_and_epochs(out) if resume else (None, 0)
    if epochs >= settings.recipe.epochs:
        ways = [alone]  # nothing is left to compute
    elif recorded and processes in (None, recorded.processes):
        ways = [recorded]
    elif processes:
        ways = [Layout(processes, max(1, cores // processes))]
        if recorded:
            had = _counted_processes(recorded.processes)
            say(f"note: the training had {had} until now; it goes on a little differently")
    elif machine.compile:
        ways = [alone]
    else:
        ways = layouts(cores, min(settings.recipe.batch_size, len(data.train)), parts)
    if len(ways) == 1:
        _check_share(settings, data, ways[0].processes, parts, given=processes is not None)
        _warn_of_few_cores(ways[0], cores, say)
    work = _Work(settings, data, out, resume, machine, teacher, narrowing, first)
    steps = settings.recipe.epochs * settings.recipe.steps_of_epoch(len(data.train))
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
                given: dict[str, Any] = {
                    "resume": resume,
                    "machine": machine,
                    "teacher": teacher,
                    "narrowing": narrowing,
                }
                return train(settings, data, out, **given, **first)
        way = ways[0] if seconds is None else _fastest(local, ways, seconds, say)
        if seconds is None:
            say(f"{way} each train together")
        local.keep(way.processes)
        return local.run(_train, way.processes, way.threads)


def train_shown(
    settings: Settings,
    data: Data,
    out: Path,
    console: Console,
    title: str,
    *,
    machine: Machine,
    teacher: nn.Module | None = None,
    narrowing: Narrowing | None = None,
) -> list[Metrics]:
    """Train in a folder, or go on there, and return the metrics of each epoch.

    The console shows progress under a title, and has a line for each image that cannot be read. On a CPU all cores are
    used as `train_on_cores` finds best. Raises NasError where the training does.
    """
    if warning := small_data_warning(data, settings.recipe):
        console.say(warning)
    left_out = LeftOut(console.say)
    with console.progress(title) as progress:
        given: dict[str, Any] = {
            "resume": (out / LAST).exists(),
            "machine": machine,
            "teacher": teacher,
            "narrowing": narrowing,
            "on_epoch": lambda metrics: left_out(data.unreadable),
            "on_step": lambda s: progress((s.epoch - 1 + s.step / s.steps) / s.epochs, f"epoch {s.epoch}/{s.epochs}"),
        }
        if torch.device(machine.device).type != "cpu":
            return train(settings, data, out, **given)
        return train_on_cores(settings, data, out, say=console.say, **given)


def _check_share(settings: Settings, data: Data, processes: int, parts: int, *, given: bool) -> None:
    """Raise NasError where one of several processes gets fewer than two images of a batch: batch norm needs two.

    `given` tells whether `--processes` says their number, or the checkpoint. `Training` checks a single process.
    """
    batch = min(settings.recipe.batch_size, len(data.train))
    if processes > 1 and batch < 2 * processes * parts:
        number = f"--processes is {processes}" if given else f"the training had {processes} processes until now"
        raise NasError(
            f"{number}, and a batch has {batch} images; batch norm needs two in every process"
            f"{' and part' if parts > 1 else ''}: take at most --processes {max(1, batch // (2 * parts))}"
        )


def _warn_of_few_cores(way: Layout, cores: int, say: Callable[[str], None]) -> None:
    if way.processes * way.threads > cores:
        share = "shares" if way.processes == 1 else "share"
        fewer = "; fewer are faster (--processes N)" if way.processes > 1 else ", as many as the training had until now"
        say(f"warning: {way} {share} {cores} core{'s'[: cores > 1]}{fewer}")


@contextmanager
def step_timer(
    settings: Settings, data: Data, machine: Machine, most_processes: int
) -> Iterator[Callable[[Layout, int], float]]:
    """Yield a function that returns the mean seconds of so many steps of a training in a layout, on made-up images."""
    with _started(_Work(settings, data, Path(), False, machine, None, None, {}), most_processes) as local:
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


def _train(work: _Work, processes: Processes) -> list[Metrics]:
    train_images, val_images = (
        with_share_of_loaders(images, processes.rank, processes.count) for images in (work.data.train, work.data.val)
    )
    return train(
        work.settings,
        dataclasses.replace(work.data, train=train_images, val=val_images),
        work.out,
        resume=work.resume,
        machine=work.machine_of(processes),
        teacher=work.teacher,
        narrowing=work.narrowing,
        **work.first,
    )


def _fastest(local: LocalProcesses, ways: list[Layout], alone: float, say: Callable[[str], None]) -> Layout:
    """Time steps of all ways in turn, say the times, and return the fastest, or the first if none is clearly faster."""
    steps = min(TIMED_STEPS, max(1, math.ceil(TIMED_SECONDS / alone)))
    timed = dict.fromkeys(ways, math.inf)
    for _ in range(ROUNDS):
        for way in ways:
            timed[way] = min(timed[way], local.run(_Timing(steps), *way))
    best = min(ways, key=timed.__getitem__)
    if timed[ways[0]] < MARGIN * timed[best]:
        best = ways[0]
    found = ", ".join(f"{1000 * seconds:.0f} ms in {way}" for way, seconds in timed.items())
    say(f"trains in {best} (a step took {found})")
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
                narrowing=work.narrowing,
            )
            return training.time_steps(self.steps)
