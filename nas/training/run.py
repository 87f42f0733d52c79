"""Train into a folder: `last.pt` to resume from, `best.pt` to use, and `metrics.csv`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import write_text
from nas.models.mobilenet import build_model
from nas.training.checkpoint import BEST, load_checkpoint, save_checkpoint
from nas.training.data import source_slug
from nas.training.distillation import Teacher
from nas.training.images import Data
from nas.training.initial import CopiedLayers, copy_weights, load_weights
from nas.training.loop import Machine, Metrics, Narrowing, Training, TrainingStep
from nas.training.recipes import Recipe
from nas.training.tensorboard import tensorboard_writer
from nas.training.trained_on import TrainedOn, counts_of

LAST, METRICS = "last.pt", "metrics.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings that determine the result of a training. `resolution` is that of the images, in pixels.

    `init` and `teacher` name the source of the first weights and of the teacher, where there are any.
    """

    spec: ArchSpec
    source: str
    recipe: Recipe
    resolution: int
    seed: int = 0
    init: str | None = None
    teacher: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "spec": self.spec.to_dict(),
            "source": self.source,
            "recipe": self.recipe.to_dict(),
            "resolution": self.resolution,
            "seed": self.seed,
            "init": self.init,
            "teacher": self.teacher,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Settings:
        return cls(
            spec=ArchSpec.from_dict(data["spec"]),
            source=data["source"],
            recipe=Recipe.from_dict(data["recipe"]),
            resolution=data["resolution"],
            seed=data["seed"],
            init=data["init"],
            teacher=data["teacher"],
        )


def load_settings(out: str | Path) -> Settings:
    """Return the settings of the training in a folder. Raises NasError if there is none."""
    path = Path(out) / LAST
    if not holds_training(out):
        raise NasError(f"{out}: there is no training to resume here; leave out --resume to start one")
    return _settings(load_checkpoint(path), path)


def trained_on(contents: dict[str, Any], path: Path) -> TrainedOn:
    """Return what the contents of a checkpoint say of its images. Raises NasError if they say nothing."""
    try:
        return TrainedOn.of(contents, path)
    except (KeyError, TypeError) as error:
        raise NasError(f"{path}: does not say on which images it was trained ({error}); train again") from None


def load_trained_on(out: str | Path) -> TrainedOn:
    """Return the images of the training in a folder. Raises NasError if there is none."""
    path = Path(out) / LAST
    return trained_on(load_checkpoint(path), path)


def _settings(contents: dict[str, Any], path: Path) -> Settings:
    try:
        return Settings.from_dict(contents)
    except (KeyError, TypeError, NasError) as error:
        raise NasError(f"{path}: not a checkpoint that a training can resume from ({error})") from None


def default_folder(name: str, spec: ArchSpec, source: str) -> Path:
    """Return the folder for training a network on a source: beside its spec if a search found it, else in reports/.

    `name` is how the user named the network: a published name or a file.
    """
    *beside, in_reports = _stems(name, spec)
    stem = beside[0] if beside and (beside[0].parent / "run.json").exists() else in_reports
    return stem.with_name(f"{stem.name}-{source_slug(source)}")


def trainings_of(name: str, spec: ArchSpec) -> list[Path]:
    """Return the folders of a network's finished trainings, beside its spec and in reports/.

    `name` is how the user named the network: a published name or a file.
    """
    found = {best.parent for stem in _stems(name, spec) for best in stem.parent.glob(f"{escape(stem.name)}-*/{BEST}")}
    return sorted(found)


def _stems(name: str, spec: ArchSpec) -> list[Path]:
    path = Path(name)
    in_reports = Path("reports") / re.sub(r"[^\w.@-]+", "-", spec.name)
    return [path.parent / path.stem, in_reports] if path.is_file() else [in_reports]


def holds_training(out: str | Path) -> bool:
    """Return whether a folder holds a training."""
    return (Path(out) / LAST).exists()


def check_unused(out: str | Path) -> None:
    """Raise NasError for a folder that holds a training."""
    if holds_training(out):
        raise NasError(f"{out}: already holds a training; continue it with --resume, or name another folder with --out")


def train(
    settings: Settings,
    data: Data,
    out: str | Path,
    *,
    resume: bool = False,
    machine: Machine | None = None,
    teacher: nn.Module | None = None,
    narrowing: Narrowing | None = None,
    tensorboard: bool = False,
    on_init: Callable[[CopiedLayers], None] = lambda layers: None,
    on_step: Callable[[TrainingStep], None] = lambda step: None,
    on_epoch: Callable[[Metrics], None] = lambda metrics: None,
) -> list[Metrics]:
    """Train to the end of the recipe, and return the metrics of each epoch. The folder is up to date after each.

    A training resumes with the images of another place if these are the same, and its checkpoints then name that place.
    `teacher` is the network that `settings.teacher` names. With a `narrowing` each step trains a network that is cut
    from that of the settings. Of several processes all call this, and the first one
    writes. Raises NasError for a folder that already holds a training (unless `resume`), for a training of other
    settings, for weights that cannot be loaded, and where `Training` does.
    """
    out, machine = Path(out), machine or Machine()
    last, first = out / LAST, machine.processes.first
    if not resume:
        check_unused(out)
    machine.processes.wait()  # the others look into the folder before the first one writes
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = build_model(settings.spec, len(data.classes), settings.recipe.dropout)
    if settings.init and not resume:
        on_init(copy_weights(model, load_weights(settings.init, model)))
    training = Training(
        model,
        data,
        settings.recipe,
        resolution=settings.resolution,
        seed=settings.seed,
        machine=machine,
        teacher=Teacher(teacher) if teacher else None,
        narrowing=narrowing,
    )
    header = {**settings.to_dict(), "classes": list(data.classes), "images": list(counts_of(data))}
    header["crop"] = data.val.crop
    header |= {"processes": machine.processes.count, "threads": torch.get_num_threads()}
    rows = _resume(training, header, last) if resume else []
    write_row = tensorboard_writer(out, len(rows)) if tensorboard and first else lambda row: None
    if first:
        if not resume:
            # Before the first epoch, so that a folder that cannot be written to is found out at once, and Ctrl-C in
            # the first epoch leaves a training to resume.
            save_checkpoint(last, {**header, "metrics": [], **training.state()})
        else:
            _name_place(out, settings.source)
        _write_metrics(out, rows)
    for metrics in training.epochs(on_step):
        rows.append(metrics)
        if first:
            # The best is written first: if the process is killed in between, the epoch is trained and both are written
            # again.
            if best_epoch(rows) is metrics:
                weights = {"average": training.kept.state_dict(), "epoch": metrics.epoch}
                save_checkpoint(out / BEST, {**header, "metrics": [metrics._asdict()], **weights})
            save_checkpoint(last, {**header, "metrics": [row._asdict() for row in rows], **training.state()})
            _write_metrics(out, rows)
            write_row(metrics)
        on_epoch(metrics)
    return rows


def best_epoch(rows: list[Metrics]) -> Metrics:
    """Return the earliest of the epochs with the highest top-1."""
    return max(rows, key=lambda row: row.top1)


def _resume(training: Training, header: dict[str, Any], last: Path) -> list[Metrics]:
    contents = load_checkpoint(last)
    saved = _settings(contents, last)
    if saved.spec.id != ArchSpec.from_dict(header["spec"]).id:
        raise NasError(f"{last}: is of another network ({saved.spec.name}, id {saved.spec.id}); name another --out")
    trained_on(contents, last).check(training.data)
    for key in ("recipe", "resolution", "seed", "init", "teacher"):
        if saved.to_dict()[key] != header[key]:
            raise NasError(f"{last}: was trained with another {key}; resume with the same one, or name another --out")
    try:
        training.load_state(contents)
        return [Metrics(**row) for row in contents["metrics"]]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise NasError(f"{last}: not a checkpoint that a training can resume from ({error})") from None


def _name_place(out: Path, source: str) -> None:
    """Write the place of the images into the checkpoints of a training that began with them in another place."""
    for path in (out / LAST, out / BEST):
        if path.exists() and (contents := load_checkpoint(path)).get("source") != source:
            save_checkpoint(path, {**contents, "source": source})


def _write_metrics(out: Path, rows: list[Metrics]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Metrics._fields)
    writer.writerows(rows)
    write_text(out / METRICS, text.getvalue())
