"""Estimate accuracy on the user's images from replacement blocks, the ImageNet prior and multiply-accumulates.

A teacher is trained on the images, and every other choice of each of its blocks is put in its place
(`nas.replacement`). The rise of the log-loss on held-out images is the cost of that choice, and a network costs the sum
over its blocks. That is a form that `exact` solves. The prior and the multiply-accumulates know what a short look at
the images does not, so that the three are mixed. The weights of the mixture were chosen on NAS-Bench-Macro
(arXiv 2103.11922), where `benchmarks/own_data.py` shows how it ranks, and are the same everywhere.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nas.accuracy.estimator import Estimates, HandedOver
from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.accuracy.learned_space import LearnedSpace
from nas.arch.additive import AdditiveModel
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Console, Silent
from nas.errors import NasError
from nas.files import fingerprint, write_text
from nas.replacement.assembly import EVALUATION_BATCH, finalist_recipe, fine_tune_assembled
from nas.replacement.choices import Choices, slots_of
from nas.replacement.learning import LessonRequest, Lessons, learn_lessons
from nas.training.checkpoint import find_checkpoint, load_checkpoint, load_model, save_checkpoint
from nas.training.data import EMBEDDED, FOLDER, load_data
from nas.training.evaluation import evaluate_model
from nas.training.held_out import hold_out
from nas.training.images import Data
from nas.training.trained_on import counts_of
from nas.utf8 import ESCAPING

MINUTES = 10.0
MAX_RESOLUTION = 96  # pixels of the images that teachers are trained on: a step at 224 takes five times as long
VERSION = 1  # of what is kept: another one is learned anew


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """The images, and how much work they are worth.

    `minutes` count the teacher's training, the blocks and their evaluation. `teacher` names a trained network of the
    user's own. What was learned is kept under `root`.
    """

    source: str = EMBEDDED
    data_dir: str | Path | None = None
    loaders: int | None = None
    minutes: float = MINUTES
    teacher: str | None = None
    seed: int = 0
    root: Path = Path("reports") / "own_data"


class ReplacementBlocks:
    """Estimate top-1 (percent) on the images of `own_data`, from what a teacher on them says.

    A space is learned when it is first asked about, which takes the minutes; `console` shows it. Raises NasError for
    images that cannot be used, and for a teacher that does not fit.
    """

    name, proxy = "replacement", None

    def __init__(self, own_data: OwnData | None = None, console: Console | None = None) -> None:
        self.own_data = own_data or OwnData()
        self._console = console or Silent()
        self._prior = ImageNetPrior()
        self._learned: dict[SearchSpace, LearnedSpace] = {}  # by the space at all its variants
        data = load_data(self.own_data.source, self.own_data.data_dir, self.own_data.loaders)
        for note in data.notes:
            self._console.say(f"note: {note}")
        if len(data.classes) < 2:
            raise NasError(f"{data.source}: it has one class; there is nothing to tell apart")
        self._data, self.whole_data = hold_out(data), data
        minutes = self.own_data.minutes
        self.training_recipe = (
            f"{data.source}, from a teacher and replacement blocks trained on it for {minutes:g} "
            f"minute{'s'[: minutes != 1]}, with the ImageNet prior and multiply-accumulates"
        )

    def estimate(self, specs: Sequence[ArchSpec]) -> Estimates:
        """Return top-1 (percent) and its standard deviation, one per spec.

        A network that fits no space that was learned is estimated by the prior alone, and marked as extrapolated.
        """
        found = [self._space_of(spec).estimate(spec) for spec in specs]
        top1, std, outside = (np.array(values) for values in zip(*found, strict=True))
        return Estimates(top1, std, outside.astype(bool), np.zeros(len(specs), bool))

    def compile(self, space: SearchSpace) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from encodings, shape (n, decisions), to top-1 (percent), shape (n,)."""
        return self.additive_model(space)

    def additive_model(self, space: SearchSpace) -> AdditiveModel:
        """Return top-1 (percent) as a sum over blocks. The space is learned if it is not known yet."""
        return self.learned(space).additive_model(space)

    def check(self, space: SearchSpace) -> None:
        """Raise NasError for a space that the user's teacher cannot judge, before anything is trained."""
        self._request(space)

    def learned(self, space: SearchSpace) -> LearnedSpace:
        """Return what was learned about a space; learn it if it is not known yet."""
        whole = dataclasses.replace(space, variants=())
        if whole not in self._learned:
            lessons = learn_lessons(self._request(space), self._folder(space), self._console)
            learned = self._learned[whole] = LearnedSpace(whole, lessons, self._prior)
            for line in learned.in_words():
                self._console.say(line)
        return self._learned[whole]

    def variant_of(self, spec: ArchSpec) -> Variant:
        """Return the variant that a network is of, or is closest to."""
        return self._space_of(spec).variant_of(spec)

    def teacher_variant(self, space: SearchSpace) -> Variant:
        """Return the variant of a space whose width, and then resolution, is nearest to the teacher's."""
        return self.learned(space).nearest_to_teacher(space.variants)

    def train_finalists(self, specs: Sequence[ArchSpec], folder: Path) -> np.ndarray:
        """Return top-1 (percent) on held-out images of networks after a short training, shape (n,).

        They are put together from the teacher's blocks and the replacements, and learn from the teacher. Their
        checkpoints are kept in the folder, and a network that has one there is not trained again.
        """
        new = [spec for spec in specs if not _is_readable(_checkpoint(folder, spec))]
        if new:
            learned = self._space_of(new[0])
            with self._console.progress("training the finalists") as progress:
                trained = fine_tune_assembled(
                    new, learned.lessons, self._data, seed=self.own_data.seed, progress=progress
                )
            for spec, (weights, evaluation) in zip(new, trained, strict=True):
                contents = _contents(
                    spec, weights, evaluation.top1, self.whole_data, learned.lessons, self.own_data.seed
                )
                save_checkpoint(_checkpoint(folder, spec), contents)
        return np.array([load_checkpoint(_checkpoint(folder, spec))["held_out_top1"] for spec in specs])

    def hand_over(self, spec: ArchSpec, folder: Path, path: Path) -> HandedOver:
        """Write the checkpoint of a finalist, or of a network that is trained now, to `path`.

        Returns what it reaches on the validation images, which nothing was decided on.
        """
        self.train_finalists([spec], folder)
        contents = load_checkpoint(_checkpoint(folder, spec))
        model = load_model(_checkpoint(folder, spec))
        evaluation = evaluate_model(model, self.whole_data.val.batches(EVALUATION_BATCH, contents["resolution"]))
        if not evaluation.images:
            raise NasError(f"{self._data.source}: none of the images to validate on can be read")
        save_checkpoint(path, {**contents, "spec": spec.to_dict()})
        return HandedOver(evaluation.top1, contents["resolution"])

    def _space_of(self, spec: ArchSpec) -> LearnedSpace:
        """Return the learned space that a network is of, or else one that it fits, or else any."""
        if not self._learned:
            raise NasError("no space was learned yet; ask for its additive model first")
        learned = list(self._learned.values())
        fitting = [one for one in learned if slots_of(one.space, spec) is not None]
        return next((one for one in fitting if one.contains(spec)), (fitting or learned)[0])

    def _request(self, space: SearchSpace) -> LessonRequest:
        resolution = min(MAX_RESOLUTION, max(variant.resolution for variant in space.variants))
        checkpoint = None
        if self.own_data.teacher is not None:
            checkpoint = find_checkpoint(self.own_data.teacher)
            teacher = load_model(checkpoint).spec
            contents = load_checkpoint(checkpoint)
            if tuple(contents["classes"]) != self._data.classes:
                raise NasError(
                    f"{checkpoint}: the teacher was trained on other classes than those of {self._data.source}; name "
                    "one that was trained on these images, or leave --teacher out"
                )
            resolution = int(contents.get("resolution", resolution))
        else:
            width = 1.0 if 1.0 in space.widths else max(space.widths)
            known = space.at([Variant(width, space.variants[0].resolution)])
            teacher = known.largest(known.variants[0]).replace(name=f"{space.name}-teacher", resolution=resolution)
        return LessonRequest(
            choices=Choices(dataclasses.replace(space, variants=()), teacher),
            resolution=resolution,
            data=self._data,
            minutes=self.own_data.minutes,
            seed=self.own_data.seed,
            teacher=checkpoint,
        )

    def _folder(self, space: SearchSpace) -> Path:
        """Return the folder for what is learned about a space: its name holds a hash of all that it depends on."""
        own, request = self.own_data, self._request(space)
        depends_on = {
            "version": VERSION,
            "space": space.name,
            "stages": repr((space.stem, space.first, space.stages, space.head)),
            "images": _content_of(own.source),
            "teacher": request.choices.teacher.id,
            "checkpoint": None if request.teacher is None else fingerprint(request.teacher.read_bytes()),
            "resolution": request.resolution,
            "minutes": float(own.minutes),
            "seed": own.seed,
        }
        text = json.dumps(depends_on, indent=1)
        folder = own.root / f"{space.name}-{fingerprint(text.encode())}"
        if not (folder / "settings.json").exists():
            write_text(folder / "settings.json", text + "\n")
        return folder


def _contents(
    spec: ArchSpec, weights: dict[str, Tensor], top1: float, data: Data, lessons: Lessons, seed: int
) -> dict[str, Any]:
    """Return the contents of a finalist's checkpoint, which reads like one of nas.train.

    `top1` (percent) is that on the held-out images of `data`.
    """
    return {
        "spec": spec.to_dict(),
        "source": data.source,
        "classes": list(data.classes),
        "images": list(counts_of(data)),
        "crop": data.val.crop,
        "recipe": finalist_recipe(lessons.plan).to_dict(),
        "resolution": lessons.resolution,
        "seed": seed,
        "init": None,
        "teacher": lessons.choices.teacher.name,
        "average": weights,
        "held_out_top1": top1,
    }


def _is_readable(path: Path) -> bool:
    try:
        return "held_out_top1" in load_checkpoint(path)
    except NasError:
        return False


def _content_of(source: str) -> str:
    """Return what says whether images are the same: the fingerprint of a folder's files, or the name of a data set.

    A file counts by its place in the folder and its size, so that a folder may be moved.
    """
    if not source.startswith(FOLDER):
        return source
    folder = Path(source.removeprefix(FOLDER))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [f"{path.relative_to(folder)} {path.stat().st_size}" for path in files]
    return fingerprint("\n".join(listed).encode("utf-8", ESCAPING))


def _checkpoint(folder: Path, spec: ArchSpec) -> Path:
    return folder / f"{spec.id}.pt"
