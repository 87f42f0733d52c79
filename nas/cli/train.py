"""Trains a network of a spec on images::

    python -m nas.train reports/20ms/small.json
    python -m nas.train mobilenet_v3_small --data cifar10 --data-dir data --resolution 32
    torchrun --nproc-per-node 8 -m nas.train reports/20ms/large.json --data imagefolder:PATH --recipe modern

Without --data on 10,000 embedded images of Fashion-MNIST: a few minutes for MobileNetV3-Small on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.arch.loading import load_spec
from nas.arch.spec import MAX_RESOLUTION, MIN_RESOLUTION, ArchSpec
from nas.cli import Parser, natural_int, positive_int
from nas.errors import NasError

if TYPE_CHECKING:  # torch takes seconds to load
    import torch

    from nas.models.mobilenet import MobileNet
    from nas.training.data import Data
    from nas.training.initial import Taken
    from nas.training.loop import Machine, Metrics, Step
    from nas.training.processes import Processes
    from nas.training.run import Settings

DEFAULT_DATA, DEFAULT_RECIPE = "fashion-mnist-sample", "quick"


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    spec = load_spec(args.spec)

    from nas.training.data import load_data
    from nas.training.processes import joined_processes
    from nas.training.run import best_epoch, check_unused, default_folder, load_settings, train

    source = args.data or DEFAULT_DATA
    out = args.out or default_folder(args.spec, spec, source)
    if not args.resume:
        check_unused(out)  # before a teacher is trained
    settings = _resumed(args, spec, load_settings(out)) if args.resume else _settings(args, spec, source)
    data = load_data(settings.source, args.data_dir)
    recipe = settings.recipe
    with joined_processes() as (processes, device):
        machine = _machine(args, processes, device)
        say = print if processes.first else _silent
        say(
            f"{spec.name} on {settings.source} ({len(data.train)} + {len(data.val)} images, "
            f"{len(data.classes)} classes) at {settings.resolution} px, recipe {recipe.name}, {recipe.epochs} epochs, "
            f"on {_described(machine)}, into {out}"
        )
        teacher = _teacher(settings, data, out, machine) if settings.teacher else None
        with _Progress(data, processes.first) as progress:
            rows = train(
                settings,
                data,
                out,
                resume=args.resume,
                machine=machine,
                teacher=teacher,
                tensorboard=args.tensorboard,
                on_init=progress.on_init,
                on_step=progress.on_step,
                on_epoch=progress.on_epoch,
            )
        best = best_epoch(rows)
        if data.unreadable:
            say(f"{len(data.unreadable)} images could not be read and were left out")
        say(f"best accuracy {best.top1:.2f} % after epoch {best.epoch}; weights in {out / 'best.pt'}, to be had by")
        say(f"    import nas; model = nas.load_model({str(out / 'best.pt')!r})")


def _silent(text: str) -> None:
    """Of several processes one speaks."""


def _parser() -> Parser:
    parser = Parser(
        prog="python -m nas.train",
        description=__doc__.partition("::")[0],
        epilog=__doc__.partition("::")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", metavar="SPEC", help="a spec's file, or a published network by name")
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help=f"{DEFAULT_DATA} (the default), a data set of torchvision such as cifar10, or imagefolder:PATH "
        "with train/ and val/",
    )
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where torchvision's sets lie or are put")
    parser.add_argument("--recipe", metavar="NAME", help=f"by name ({DEFAULT_RECIPE}), or a path to a .toml file")
    parser.add_argument("--epochs", metavar="N", type=positive_int, help="default: the recipe's")
    parser.add_argument(
        "--resolution",
        metavar="N",
        type=_resolution,
        help="of the images in pixels; default: 32 on the embedded data, otherwise the spec's",
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=positive_int,
        help="images a step, over all processes; the learning rate follows; default: the recipe's",
    )
    parser.add_argument(
        "--init", metavar="WEIGHTS", help="start from a checkpoint, or from torchvision's weights: torchvision"
    )
    parser.add_argument(
        "--teacher",
        metavar="NETWORK",
        help="learn from a larger network too: a checkpoint, or a spec, which is then trained first",
    )
    parser.add_argument("--seed", metavar="N", type=natural_int, help="default: 0")
    parser.add_argument("--out", metavar="DIR", type=Path, help="default: reports/<network>-<data>, or beside the spec")
    parser.add_argument("--tensorboard", action="store_true", help="write the metrics for TensorBoard as well")
    machine = parser.add_argument_group("how it is computed")
    machine.add_argument("--accumulate", metavar="N", type=positive_int, default=1, help="parts a batch is taken in")
    machine.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="bfloat16 where it is safe; default: on a GPU"
    )
    machine.add_argument("--compile", action="store_true", help="let torch.compile have the network")
    parser.add_argument("--resume", action="store_true", help="go on with the training that --out holds")
    return parser


def _resolution(text: str) -> int:
    value = positive_int(text)
    if not MIN_RESOLUTION <= value <= MAX_RESOLUTION:
        raise argparse.ArgumentTypeError(f"{value} pixels; it must be from {MIN_RESOLUTION} to {MAX_RESOLUTION}")
    return value


def _settings(args: argparse.Namespace, spec: ArchSpec, source: str) -> Settings:
    from nas.training.data import EMBEDDED, EMBEDDED_RESOLUTION
    from nas.training.recipes import load_recipe
    from nas.training.run import Settings

    recipe = load_recipe(args.recipe or DEFAULT_RECIPE)
    if args.batch_size:
        recipe = recipe.with_batch_size(args.batch_size)
    if args.epochs:
        recipe = recipe.replace(epochs=args.epochs)
    resolution = args.resolution or (EMBEDDED_RESOLUTION if source == EMBEDDED else spec.resolution)
    return Settings(
        spec=spec,
        source=source,
        recipe=recipe,
        resolution=resolution,
        seed=args.seed or 0,
        init=args.init,
        teacher=args.teacher,
    )


def _machine(args: argparse.Namespace, processes: Processes, device: torch.device) -> Machine:
    from nas.training.loop import Machine

    bf16 = device.type == "cuda" if args.bf16 is None else args.bf16
    return Machine(device=device, processes=processes, bf16=bf16, compile=args.compile, accumulate=args.accumulate)


def _described(machine: Machine) -> str:
    words = [f"{machine.processes.count} x {machine.device}" if machine.processes.count > 1 else str(machine.device)]
    words += [word for word, so in (("bfloat16", machine.bf16), ("compiled", machine.compile)) if so]
    return ", ".join(words)


def _teacher(settings: Settings, data: Data, out: Path, machine: Machine) -> MobileNet:
    """The trained network that the settings name; a spec is trained first, by the same recipe, into `out`/teacher."""
    from nas.training.checkpoint import load_model
    from nas.training.run import BEST, LAST, load_settings, train

    assert settings.teacher is not None
    if settings.teacher.endswith(".pt"):
        return load_model(settings.teacher)
    spec, folder = load_spec(settings.teacher), out / "teacher"
    own = dataclasses.replace(settings, spec=spec, init=None, teacher=None)
    resume = (folder / LAST).exists()
    if resume and load_settings(folder) != own:
        raise NasError(f"{folder}: holds another training than that of this teacher; name another --out")
    if machine.processes.first:
        print(f"first the teacher, {spec.name}, into {folder}")
    with _Progress(data, machine.processes.first) as progress:
        train(
            own,
            data,
            folder,
            resume=resume,
            machine=machine,
            on_step=progress.on_step,
            on_epoch=progress.on_epoch,
        )
    machine.processes.wait()  # for the first one's file
    return load_model(folder / BEST)


def _resumed(args: argparse.Namespace, spec: ArchSpec, settings: Settings) -> Settings:
    """The saved settings, after a look at whether the arguments contradict them."""
    saved: dict[str, Any] = {
        "data": settings.source,
        "recipe": settings.recipe.name,
        "epochs": settings.recipe.epochs,
        "batch_size": settings.recipe.batch_size,
        "resolution": settings.resolution,
        "seed": settings.seed,
        "init": settings.init,
        "teacher": settings.teacher,
    }
    if spec.id != settings.spec.id:
        raise NasError(
            f"the training to resume is of another network ({settings.spec.name}, id {settings.spec.id}) than "
            f"{args.spec} (id {spec.id}); name the right one, or start a new training with another --out"
        )
    for name, value in saved.items():
        given = getattr(args, name)
        given = Path(given).stem if name == "recipe" and given else given
        if given is not None and given != value:
            flag = "--" + name.replace("_", "-")
            raise NasError(
                f"{flag} is {given}, and the training to resume has {value or 'none'}; leave it out, "
                "or start a new training with another --out"
            )
    return settings


class _Progress:
    """A bar over the whole training, a line an epoch, and one for each image that cannot be read."""

    def __init__(self, data: Data, speaks: bool) -> None:
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("{task.fields[speed]:,.0f} images/s, time left"),
            TimeRemainingColumn(),
            disable=not speaks,
        )
        self._speaks = speaks
        self._task: TaskID | None = None
        self._data, self._named = data, 0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def on_init(self, taken: Taken) -> None:
        fresh = f"; new are {', '.join(taken.fresh)}" if taken.fresh else ""
        self._say(f"took the weights of {taken.taken} of {taken.taken + len(taken.fresh)} layers{fresh}")

    def on_step(self, step: Step) -> None:
        state: dict[str, Any] = {
            "completed": (step.epoch - 1) * step.steps + step.step,
            "epoch": step.epoch,
            "epochs": step.epochs,
            "speed": step.images_per_second,
        }
        if self._task is None:  # a resumed training starts in the middle
            self._task = self._bar.add_task("", total=step.epochs * step.steps, **state)
        self._bar.update(self._task, **state)

    def on_epoch(self, row: Metrics) -> None:
        for file, reason in list(self._data.unreadable.items())[self._named :]:
            self._bar.console.print(f"left out {file}: {reason}", highlight=False, markup=False, soft_wrap=True)
        self._named = len(self._data.unreadable)
        self._say(
            f"epoch {row.epoch:3}: loss {row.train_loss:.3f}, validation loss {row.val_loss:.3f}, "
            f"accuracy {row.top1:.2f} %, {row.seconds:.1f} s, {row.images_per_second:,.0f} images/s"
        )

    def _say(self, text: str) -> None:
        if self._speaks:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
