"""Learn what cuts cost on images: train the weights that all cut networks share, and judge random ones of them.

    learned = learn(question, cuts, Path("reports/trimmed/supernet"), console)
    learned.surrogate.estimate(specs)

1. The seed is trained on, and each step trains another network that is cut from it at random, by its part of the
   weights (arXiv 1903.05134, 1903.11728). The seed as it was is the teacher.
2. Random networks are judged on training images that none is trained on. Nothing is trained for them, so that they
   differ by their cuts alone.
3. A regression on the logarithms of their channels says what each cut costs. It averages over all of them: a cut costs
   a few hundredths of a point, and one network is not judged so well.

The folder holds the training and what was judged, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.accuracy.ridge import Ridge
from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.errors import NasError
from nas.files import make_folder, write_text
from nas.models.inherited_weights import classes_of, inherit_weights, sorted_by_norm
from nas.models.mobilenet import MobileNet, build_model
from nas.models.supernet import Supernet
from nas.netadapt.narrowing import RandomCuts
from nas.training.batchnorm import recalibrate
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.cores import train_shown
from nas.training.data import load_data
from nas.training.evaluation import Evaluation, evaluate_model
from nas.training.held_out import hold_out
from nas.training.images import Data, LeftOut
from nas.training.loop import DivergedError, Machine
from nas.training.recipes import Recipe
from nas.training.run import LAST, Settings
from nas.training.side_by_side import Ended, SideBySide
from nas.training.threads import torch_alike

# The weights are nearly right for the seed and far from it for narrow networks.
RATE_SHARE = 0.5
CALIBRATION_IMAGES, CALIBRATION_BATCH = 1_024, 128
EVALUATION_BATCH = 500  # at most; a recipe of smaller batches has less memory
BELIEVED = 0.75
JUDGED_PER_PLACE, LEAST_JUDGED = 12, 60  # random networks
CHUNKS = 8  # parts of the judging, each kept when it is done
FIRST, JUDGED = "first.pt", "judged.json"


@dataclass(frozen=True, kw_only=True)
class Question:
    """The question: what cuts cost a `model` on images, by weights that are trained for so many `steps` of the recipe.

    `data` has the images to train on and, as `val`, those held out to judge on.
    """

    model: MobileNet
    data: Data
    recipe: Recipe
    steps: int
    seed: int = 0
    bf16: bool = False
    workers: int | None = None  # processes that judge; None: those of `SideBySide`


class Learned(NamedTuple):
    """The shared weights, and the surrogate that says what cuts cost."""

    supernet: Supernet
    surrogate: CutSurrogate


class CutSurrogate:
    """Estimates the accuracy of a network from its channels, by regression on networks that were judged.

    In Channel-Bench-Macro (arXiv 2105.10533), with 16,384 trained networks, a sum of functions of the logarithms of the
    channels leaves no more than the noise of the trainings, and most places have about the same slope. So a share of
    the channels is believed a priori to be worth the same at each place: `believed` is the weight of that belief in the
    estimate (`benchmarks/netadapt_truth.py`).
    """

    def __init__(
        self, cuts: RandomCuts, specs: Sequence[ArchSpec], accuracies: np.ndarray, *, believed: float = BELIEVED
    ) -> None:
        self._cuts, self._places, self._believed = cuts, cuts.places, believed
        known, columns = self._features(specs)
        self._ridge = Ridge(columns.shape[1])
        self._ridge.fit(known, columns, accuracies)
        self._slope, self._level = np.polyfit(known, accuracies, 1)

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Return the accuracy (percent) of each network: array of shape (n,)."""
        known, columns = self._features(specs)
        judged, _ = self._ridge.predict(known, columns)
        return (1 - self._believed) * judged + self._believed * (self._level + self._slope * known)

    def _features(self, specs: Sequence[ArchSpec]) -> tuple[np.ndarray, np.ndarray]:
        """Return the sum of the logarithms of all widths, shape (n,), and what deviates from it, shape (n, columns)."""
        largest = self._cuts.spec
        widths = np.log([[place.channels_in(spec) / place.channels for place in self._places] for spec in specs])
        extra = []
        for spec in specs:
            pairs = list(zip(spec.blocks, largest.blocks, strict=True))
            extra.append(
                [
                    *(float(bool(full.se) and not block.se) for block, full in pairs),
                    *(math.log(block.kernel / full.kernel) for block, full in pairs),
                    *(float(block.activation != full.activation) for block, full in pairs),
                    math.log(spec.resolution / largest.resolution),
                ]
            )
        return widths.sum(1), np.hstack([widths, widths**2, np.array(extra)])


def learn(question: Question, cuts: RandomCuts, folder: Path, console: Console) -> Learned:
    """Return what the cuts that `cuts` draws cost, from the folder where it is known, else learned now.

    Raises NasError where the training does, and where workers die.
    """
    make_folder(folder)
    supernet = _trained(question, cuts, folder, console)
    specs = judged_networks(cuts, question.seed)
    evaluations = _judged(question, supernet, specs, folder, console)
    accuracies = np.array([evaluation.mean_probability for evaluation in evaluations])
    return Learned(supernet, CutSurrogate(cuts, specs, accuracies))


def _trained(question: Question, cuts: RandomCuts, folder: Path, console: Console) -> Supernet:
    """Return the shared weights after their training in the folder."""
    data, spec, first = question.data, cuts.spec, folder / FIRST
    classes = len(data.classes)
    if not first.exists():
        wide = sorted_by_norm(inherit_weights(spec, question.model, seed=question.seed))
        contents = {"spec": spec.to_dict(), "classes": list(data.classes), "average": wide.state_dict()}
        save_checkpoint(first, {**contents, "resolution": spec.resolution})
    epochs = max(1, math.ceil(question.steps / question.recipe.steps_of_epoch(len(data.train))))
    recipe = question.recipe.replace(
        epochs=epochs,
        epoch_steps=max(1, question.steps // epochs),
        learning_rate=RATE_SHARE * question.recipe.learning_rate,
    )
    settings = Settings(
        spec=spec,
        source=data.source,
        recipe=recipe,
        resolution=spec.resolution,
        seed=question.seed,
        init=str(first),
        teacher="the seed",
    )
    device = _device()
    machine = Machine(device=device, bf16=question.bf16 or device == "cuda")
    given = {"machine": machine, "teacher": question.model, "narrowing": cuts}
    try:
        train_shown(settings, data, folder, console, "training random cuts", **given)  # type: ignore[arg-type]
    except DivergedError:
        raise DivergedError(
            "the training of cut networks diverged; take a recipe with a lower learning_rate, or another --seed"
        ) from None
    model = build_model(spec, classes, 0.0)
    model.load_state_dict(load_checkpoint(folder / LAST)["average"])
    return Supernet(model.to(device))


def judged_networks(cuts: RandomCuts, seed: int) -> list[ArchSpec]:
    """Return the random networks that are judged. `seed` is of the random numbers."""
    count = max(LEAST_JUDGED, JUDGED_PER_PLACE * len(cuts.places))
    rng = np.random.default_rng([seed, count])
    return [cuts.random(rng) for _ in range(count)]


def _judged(
    question: Question, supernet: Supernet, specs: Sequence[ArchSpec], folder: Path, console: Console
) -> list[Evaluation]:
    """Return the evaluations of networks; those that the folder holds are not made again."""
    path = folder / JUDGED
    known: dict[str, Evaluation] = {}
    if path.exists():
        known = {key: Evaluation(*values) for key, values in json.loads(path.read_text()).items()}
    left = [spec for spec in dict.fromkeys(specs) if spec.id not in known]
    pool, left_out = SideBySide(question.data, question.workers), LeftOut(console.say)
    model = supernet.model.cpu()
    given = model.spec, model.state_dict(), classes_of(model), question.recipe.batch_size, question.seed
    total = len(known) + len(left)
    try:
        parts = [left[start :: CHUNKS * pool.at_a_time] for start in range(CHUNKS * pool.at_a_time)]
        jobs = {pool.begin(_evaluate, *given, part) for part in parts if part}
        with console.progress("judging random cuts") as progress:
            while jobs:
                number, value = pool.next_value()
                if isinstance(value, Ended):
                    jobs.remove(number)
                    continue
                found, unreadable = value
                left_out(unreadable)
                known |= found
                write_text(path, json.dumps(known))
                progress(len(known) / total, f"{len(known)} of {total} networks")
    finally:
        pool.close()
    supernet.model.to(_device())
    return [known[spec.id] for spec in specs]


def _evaluate(
    data: Data,
    stopped: Callable[[], bool],
    largest: ArchSpec,
    weights: dict[str, Tensor],
    classes: int,
    batch_size: int,
    seed: int,
    specs: Sequence[ArchSpec],
) -> Iterator[tuple[dict[str, Evaluation], dict[str, str]]]:
    """Yield the evaluations of networks, and the images that could not be read. It is a job of `SideBySide`."""
    model = build_model(largest, classes, 0.0)
    model.load_state_dict(weights)
    supernet = Supernet(model.to(_device()))
    found = {spec.id: evaluate(cut_network(supernet, spec, data, seed), data, batch_size) for spec in specs}
    yield found, data.unreadable


def cut_network(supernet: Supernet, spec: ArchSpec, data: Data, seed: int) -> MobileNet:
    """Return the network of a spec with its part of the shared weights, and batch norm's statistics of its own.

    The images for these are the same for all networks.
    """
    network = supernet.network(spec)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    chosen = order[:CALIBRATION_IMAGES].tolist()
    with torch_alike():
        recalibrate(network, data.train.batches(CALIBRATION_BATCH, spec.resolution, chosen), _device())
    return network.eval()


def evaluate(model: MobileNet, data: Data, batch_size: int = EVALUATION_BATCH) -> Evaluation:
    """Evaluate a network on the held-out images, at most `batch_size` at a time.

    Raises NasError if none of them can be read, and DivergedError for a network whose training diverged.
    """
    with torch_alike():
        batches = data.val.batches(min(EVALUATION_BATCH, batch_size), model.spec.resolution)
        evaluation = evaluate_model(model, batches)
    if not evaluation.images:
        raise NasError(f"{data.source}: none of the images to evaluate on can be read")
    if not math.isfinite(evaluation.probability):
        raise DivergedError("the training of cut networks diverged; take a recipe with a lower learning_rate")
    return evaluation


@functools.cache
def split_data(source: str, data_dir: Path | None, loaders: int | None = None) -> Data:
    """Return the training images of a source in two parts: to train on, and (as `val`) to judge on.

    Raises NasError for a source with too few images.
    """
    return hold_out(load_data(source, data_dir, loaders))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
