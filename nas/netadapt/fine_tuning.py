"""What proposals of NetAdapt are worth on images: each inherits weights, is trained a little, and is then judged.

The judging images are training images that no proposal is trained on, so that the validation images stay unseen.
Judged is the mean probability that a network gives the right class, in percent: what its top-1 would be if it drew
its answers by its own probabilities. It moves with top-1, and two networks that differ by one cut can be told apart
by it on far fewer images.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Subset

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.models.mobilenet import MobileNet, build_model
from nas.models.small_maps import quicken
from nas.netadapt.inherited_weights import classes_of, inherited
from nas.training.batchnorm import recalibrate
from nas.training.data import Data, DiskImages, Images, TensorImages, load_data
from nas.training.loop import DivergedError, make_optimizer
from nas.training.recipes import Recipe

HELD_OUT = 5  # every fifth training image is for judging, at most
JUDGING_IMAGES = 2_000
LEAST_IMAGES = 3  # one to judge by, two for batch norm
CALIBRATION_IMAGES, CALIBRATION_BATCH = 1_024, 128
JUDGING_BATCH = 500
# The recipe's largest learning rate is for fresh weights; this part of it falls to nothing over a proposal's steps.
LEARNING_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How each proposal is trained: `steps` batches of the recipe."""

    source: str
    data_dir: Path | None
    recipe: Recipe
    steps: int
    seed: int = 0


class Judged(NamedTuple):
    """A network on the judging images, percent."""

    probability: float  # mean one of the right class
    top1: float


class TunedProposals:
    """An estimate of accuracy that NetAdapt can work with, and the weights that go with it.

        proposals = TunedProposals(model, tuning)
        accuracies = proposals.estimate(specs)   # each with weights inherited from `model`, trained a little
        proposals.keep(specs[2])                 # its weights are those that the next ones inherit

    `steps_done` and the tuning's seed decide the batches, so that a run that is taken up repeats what an
    uninterrupted one does. With several workers each is a process that takes a proposal at a time; a context manager,
    so that they end.
    """

    def __init__(self, model: MobileNet, tuning: Tuning, *, workers: int = 1, steps_done: int = 0) -> None:
        self.model, self.tuning, self.steps_done = model, tuning, steps_done
        self._tuned: dict[str, tuple[dict[str, Tensor], Judged]] = {}
        self._pool = None
        if workers > 1:
            threads = max(1, torch.get_num_threads() // workers)
            self._pool = ProcessPoolExecutor(
                workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
            )

    def __enter__(self) -> TunedProposals:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Judged accuracy (percent) of each network after its training: array of shape (n,)."""
        parent, weights = self.model.spec, self.model.state_dict()
        work = functools.partial(_tuned, parent, weights, classes_of(self.model), self.tuning, self.steps_done)
        self._tuned = {
            spec.id: result
            for spec, result in zip(specs, (self._pool.map if self._pool else map)(work, specs), strict=True)
        }
        return np.array([self._tuned[spec.id][1].probability for spec in specs])

    def keep(self, spec: ArchSpec) -> Judged:
        """Goes on from one of the networks of the last `estimate`."""
        weights, judged = self._tuned[spec.id]
        self.model = inherited(spec, self.model)
        self.model.load_state_dict(weights)
        self.steps_done += 1
        self._tuned = {}
        return judged

    def judge(self) -> Judged:
        """The current network as it is."""
        return judge(self.model, split_data(self.tuning.source, self.tuning.data_dir))


def _tuned(
    parent: ArchSpec, weights: dict[str, Tensor], classes: int, tuning: Tuning, step: int, spec: ArchSpec
) -> tuple[dict[str, Tensor], Judged]:
    """One proposal; in a process of its own where there are workers."""
    data = split_data(tuning.source, tuning.data_dir)
    model = build_model(parent, classes, tuning.recipe.dropout)
    model.load_state_dict(weights)
    seed, data_seed = map(int, np.random.SeedSequence([tuning.seed, step]).generate_state(2))
    child = inherited(spec, model, seed=seed)
    tune(child, data, tuning, torch.Generator().manual_seed(data_seed), seed)
    return {name: tensor.cpu() for name, tensor in child.state_dict().items()}, judge(child, data)


def tune(model: MobileNet, data: Data, tuning: Tuning, generator: torch.Generator, seed: int) -> None:
    """Trains `model` for the steps of `tuning`, at the resolution of its spec, and readies its batch norm."""
    recipe, resolution, device = tuning.recipe, model.spec.resolution, _device()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device == "cpu":
        quicken(model)
    model.train()
    optimizer = make_optimizer(model, recipe)
    batches = _endless(data, recipe, resolution, generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of dropout
        for step in range(tuning.steps):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_SHARE * recipe.learning_rate * (1 - step / tuning.steps)
            images, labels = (tensor.to(device) for tensor in next(batches))
            logits = model(images.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    chosen = torch.randperm(len(data.train), generator=generator)[:CALIBRATION_IMAGES].tolist()
    recalibrate(model, data.train.batches(CALIBRATION_BATCH, resolution, chosen), device)


def _endless(
    data: Data, recipe: Recipe, resolution: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        batch = None
        for batch in data.train.training_batches(recipe, resolution, generator):
            yield batch
        if batch is None:
            raise NasError(f"{data.source}: none of the images to train on can be read")


@torch.inference_mode()
def judge(model: MobileNet, data: Data) -> Judged:
    """The network on the judging images of `split_data`.

    Raises NasError if none can be read, and for a network whose training diverged.
    """
    model.eval()
    device = next(model.parameters()).device
    probability, right, seen = 0.0, 0, 0
    for images, labels in data.val.batches(JUDGING_BATCH, model.spec.resolution):
        labels = labels.to(device)
        probabilities = model(images.to(device, memory_format=torch.channels_last)).softmax(1)
        probability += float(probabilities.gather(1, labels[:, None]).sum())
        right += int((probabilities.argmax(1) == labels).sum())
        seen += len(labels)
    if not seen:
        raise NasError(f"{data.source}: none of the images to judge by can be read")
    if not math.isfinite(probability):
        raise DivergedError("the training of a proposal diverged; take a recipe with a lower learning_rate")
    return Judged(100 * probability / seen, 100 * right / seen)


@functools.cache
def split_data(source: str, data_dir: Path | None) -> Data:
    """The training images of a source, in two parts: to train proposals on, and (as `val`) to judge them by.

    Raises NasError for too few.
    """
    data = load_data(source, data_dir)
    count = len(data.train)
    if count < LEAST_IMAGES:
        raise NasError(f"{source}: {count} images to train on; to train and judge proposals takes {LEAST_IMAGES}")
    every = max(HELD_OUT, -(-count // JUDGING_IMAGES))
    judging = list(range(0, count, every))
    training = sorted(set(range(count)) - set(judging))
    return replace(data, train=_part(data.train, training), val=_part(data.train, judging))


def _part(images: Images, chosen: list[int]) -> Images:
    if isinstance(images, TensorImages):
        return replace(images, images=images.images[chosen], labels=images.labels[chosen])
    assert isinstance(images, DiskImages)
    return replace(images, images=Subset(images.images, chosen))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
