"""Train the network of a spec on images.

    python -m nas.train reports/20ms/small.json
    python -m nas.train mobilenet_v3_small --data cifar10 --data-dir data --resolution 32
    torchrun --nproc-per-node 8 -m nas.train reports/20ms/large.json --data imagefolder:PATH --recipe modern

Without --data it trains on 10,000 embedded images of Fashion-MNIST, MobileNetV3-Small in four to five minutes on two
cores.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.arch.loading import is_published, load_spec
from nas.arch.spec import ArchSpec
from nas.cli.arguments import Parser, positive_int, positive_int_or_auto
from nas.cli.console import RichConsole
from nas.cli.entry import run
from nas.cli.flags import DATA, RECIPE, add_data_flags, add_run_flags, add_training_flags
from nas.console import Console, Silent
from nas.errors import NasError

if TYPE_CHECKING:  # torch takes seconds to load
    import torch

    from nas.models.mobilenet import MobileNet
    from nas.training.images import Data
    from nas.training.initial import CopiedLayers
    from nas.training.loop import Machine, Metrics, TrainingStep
    from nas.training.processes import Processes
    from nas.training.run import Settings


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    spec = load_spec(arguments.spec)

    from nas.training.data import load_data
    from nas.training.images import small_data_warning
    from nas.training.processes import joined_processes
    from nas.training.run import (
        best_epoch,
        check_unused,
        default_folder,
        holds_training,
        load_settings,
        load_trained_on,
    )

    source = arguments.data or DATA
    out = arguments.out or default_folder(arguments.spec, spec, source)
    resume = arguments.resume and holds_training(out)
    if resume:
        settings = load_settings(out)
        _check_same(arguments, spec, settings)
        data = load_trained_on(out).load(arguments.data, arguments.data_dir, arguments.loaders)
    else:
        check_unused(out)  # before a teacher is trained
        settings = _settings(arguments, spec, source)
        data = load_data(source, arguments.data_dir, arguments.loaders)
    moved_from, recipe = settings.source, settings.recipe
    settings = dataclasses.replace(settings, source=data.source)
    with joined_processes() as (processes, device):
        _check_processes(arguments, processes, device)
        machine = _machine(arguments, processes, device)
        console = RichConsole() if processes.first else Silent()  # one of several processes reports
        console.say(
            f"{spec.name} on {settings.source} ({len(data.train)} + {len(data.val)} images, "
            f"{len(data.classes)} classes) at {settings.resolution} px, recipe {recipe.name}, {recipe.length}, "
            f"on {_described(machine)}, into {out}"
        )
        if arguments.resume and not resume:
            console.say(f"{out} holds no training to resume; a new one begins there")
        if data.source != moved_from:
            console.say(f"note: the same images were in {moved_from} before")
        if warning := small_data_warning(data, recipe):
            console.say(f"{warning}; a smaller --batch-size takes more steps, at a lower learning rate")
        for note in data.notes:
            console.say(f"note: {note}")
        teacher = _teacher(settings, data, out, machine, console, arguments.processes) if settings.teacher else None
        rows = _train(
            settings,
            data,
            out,
            console,
            resume=resume,
            machine=machine,
            teacher=teacher,
            tensorboard=arguments.tensorboard,
            on_cores=arguments.processes,
        )
        best = best_epoch(rows)
        if data.unreadable:
            console.say(f"{len(data.unreadable)} images could not be read and were left out")
        weights = out / "best.pt"
        console.say(
            f"best accuracy {best.top1:.2f} % after epoch {best.epoch}; its weights are in {weights}; load them by"
        )
        console.say(f"    import nas; model = nas.load_model({str(weights)!r})")


def _train(
    settings: Settings,
    data: Data,
    out: Path,
    console: Console,
    *,
    resume: bool,
    machine: Machine,
    teacher: MobileNet | None = None,
    tensorboard: bool = False,
    on_cores: int | None = None,
) -> list[Metrics]:
    """Train with a progress bar, a line for each epoch, and a line for each image that cannot be read.

    On a CPU, where nobody else has started several processes, `on_cores` are started; by default as many as are
    fastest.
    """
    import torch

    from nas.training.cores import train_on_cores
    from nas.training.images import LeftOut
    from nas.training.run import train

    left_out = LeftOut(console.say)

    def on_init(layers: CopiedLayers) -> None:
        fresh = f"; new are {', '.join(layers.fresh)}" if layers.fresh else ""
        console.say(f"took the weights of {layers.copied} of {layers.copied + len(layers.fresh)} layers{fresh}")

    def on_epoch(row: Metrics) -> None:
        left_out(data.unreadable)
        console.say(
            f"epoch {row.epoch:3}: loss {row.train_loss:.3f}, validation loss {row.val_loss:.3f}, "
            f"accuracy {row.top1:.2f} %, {row.seconds:.1f} s, {row.images_per_second:,.0f} images/s"
        )

    with console.progress(f"training {settings.spec.name}") as progress:

        def on_step(step: TrainingStep) -> None:
            share = (step.epoch - 1 + step.step / step.steps) / step.epochs
            progress(share, f"epoch {step.epoch}/{step.epochs}, {step.images_per_second:,.0f} images/s")

        run_training: Callable[..., list[Metrics]] = train
        if machine.processes.count == 1 and machine.device == torch.device("cpu"):
            run_training = partial(train_on_cores, processes=on_cores, say=console.say)
        return run_training(
            settings,
            data,
            out,
            resume=resume,
            machine=machine,
            teacher=teacher,
            tensorboard=tensorboard,
            on_init=on_init,
            on_step=on_step,
            on_epoch=on_epoch,
        )


def _settings(arguments: argparse.Namespace, spec: ArchSpec, source: str) -> Settings:
    """Return the settings of a new training."""
    from nas.training.data import EMBEDDED, EMBEDDED_RESOLUTION
    from nas.training.recipes import load_recipe
    from nas.training.run import Settings

    recipe = load_recipe(arguments.recipe or RECIPE)
    if arguments.batch_size:
        recipe = recipe.with_batch_size(arguments.batch_size)
    if arguments.epochs:
        recipe = recipe.replace(epochs=arguments.epochs)
    return Settings(
        spec=spec,
        source=source,
        recipe=recipe,
        resolution=arguments.resolution or (EMBEDDED_RESOLUTION if source == EMBEDDED else spec.resolution),
        seed=arguments.seed or 0,
        init=arguments.init,
        teacher=arguments.teacher,
    )


def _check_same(arguments: argparse.Namespace, spec: ArchSpec, settings: Settings) -> None:
    """Raise NasError for an argument that contradicts the settings of the training to resume."""
    if spec.id != settings.spec.id:
        raise NasError(
            f"the training to resume is of another network ({settings.spec.name}, id {settings.spec.id}) than "
            f"{arguments.spec} (id {spec.id}); name the right one, or start a new training with another --out"
        )
    recipe = arguments.recipe and Path(arguments.recipe).stem
    for flag, given, saved in (
        ("--recipe", recipe, settings.recipe.name),
        ("--epochs", arguments.epochs, settings.recipe.epochs),
        ("--batch-size", arguments.batch_size, settings.recipe.batch_size),
        ("--resolution", arguments.resolution, settings.resolution),
        ("--seed", arguments.seed, settings.seed),
        ("--init", arguments.init, settings.init),
        ("--teacher", arguments.teacher, settings.teacher),
    ):
        if given is not None and given != saved:
            raise NasError(
                f"{flag} is {given}, and the training to resume has {saved or 'none'}; leave it out, "
                "or start a new training with another --out"
            )


def _check_processes(arguments: argparse.Namespace, processes: Processes, device: torch.device) -> None:
    """Raise NasError for --processes where something else decides their number."""
    if arguments.processes is None:
        return
    if processes.count > 1:
        raise NasError("--processes is of no use under torchrun, whose --nproc-per-node decides; leave it out")
    if device.type != "cpu":
        raise NasError(
            "--processes is for the cores of a CPU, and this training is on a GPU; leave it out, or start one process "
            "a GPU with torchrun --nproc-per-node N"
        )


def _machine(arguments: argparse.Namespace, processes: Processes, device: torch.device) -> Machine:
    """Return how the training is computed."""
    from nas.training.loop import Machine

    bf16 = device.type == "cuda" if arguments.bf16 is None else arguments.bf16
    return Machine(
        device=device, processes=processes, bf16=bf16, compile=arguments.compile, accumulate=arguments.accumulate
    )


def _described(machine: Machine) -> str:
    """Return the machine in words, such as "2 x cuda:0, bfloat16"."""
    words = [f"{machine.processes.count} x {machine.device}" if machine.processes.count > 1 else str(machine.device)]
    words += [word for word, used in (("bfloat16", machine.bf16), ("compiled", machine.compile)) if used]
    return ", ".join(words)


def _teacher(
    settings: Settings, data: Data, out: Path, machine: Machine, console: Console, on_cores: int | None
) -> MobileNet:
    """Return the trained network that the settings name as the teacher.

    A spec without weights beside it is trained first, with the same settings, into `out`/teacher.
    """
    from nas.training.checkpoint import find_checkpoint, load_model
    from nas.training.run import BEST, LAST, load_settings

    assert settings.teacher is not None
    path = Path(settings.teacher)
    beside = path.suffix == ".json" and path.with_suffix(".pt").exists()
    if (path.is_dir() or path.suffix == ".pt" or beside) and not is_published(settings.teacher):
        return load_model(find_checkpoint(path))
    spec, folder = load_spec(settings.teacher), out / "teacher"
    own = dataclasses.replace(settings, spec=spec, init=None, teacher=None)
    resume = (folder / LAST).exists()
    if resume and dataclasses.replace(load_settings(folder), source=own.source) != own:
        raise NasError(f"{folder}: holds the training of another teacher than {settings.teacher}; name another --out")
    console.say(f"training the teacher first, {spec.name}, into {folder}")
    _train(own, data, folder, console, resume=resume, machine=machine, on_cores=on_cores)
    machine.processes.wait()  # until the first process has written the file
    return load_model(folder / BEST)


def _parser() -> Parser:
    parser = Parser("train", __doc__)
    parser.add_argument("spec", metavar="SPEC", help="a published network by name, or a spec's file")
    add_data_flags(parser, f"images to train on (default: {DATA})")
    add_training_flags(parser)
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=positive_int,
        help="images in a step, over all processes; the learning rate follows (default: the recipe's)",
    )
    parser.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="start from the weights of a checkpoint or a folder of nas.train or nas.netadapt, or from torchvision's "
        "with the word torchvision",
    )
    parser.add_argument(
        "--teacher",
        metavar="NETWORK",
        help="learn from the outputs of a larger network too: a checkpoint or a folder of nas.train or nas.netadapt, "
        "or a spec, which is trained first",
    )
    add_run_flags(parser, "reports/<network>-<data>, or beside the spec of a search")
    parser.set_defaults(recipe=None, seed=None)  # None: not given, so that a resumed training keeps its own
    parser.add_argument("--tensorboard", action="store_true", help="write the metrics for TensorBoard too")
    parser.add_argument(
        "--accumulate",
        metavar="N",
        type=positive_int,
        default=1,
        help="compute each batch in N parts, to save memory (default: 1)",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=positive_int_or_auto,
        help="processes that train together on the cores of a CPU; auto: as many as are fastest, or as before with "
        "--resume (default: auto)",
    )
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="compute in bfloat16 where it is safe (default: on a GPU)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the network with torch.compile")
    return parser


if __name__ == "__main__":
    run("train", main)
