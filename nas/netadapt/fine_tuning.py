"""Evaluate proposals on images: each inherits weights and is trained a little before it is evaluated.

Proposals are evaluated on training images that none of them is trained on, so that the validation images stay unseen.
They are compared by the mean probability that a network gives to the right class. It moves with top-1, and needs far
fewer images to tell apart two networks that differ by one cut.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.models.inherited_weights import classes_of, inherit_weights
from nas.models.mobilenet import MobileNet, build_model
from nas.models.small_maps import use_small_map_convolutions
from nas.training.batchnorm import recalibrate
from nas.training.data import load_data
from nas.training.evaluation import Evaluation, evaluate_model
from nas.training.held_out import hold_out
from nas.training.images import Data, LeftOut, endless_batches
from nas.training.loop import DivergedError
from nas.training.optimization import INHERITED_SHARE, make_optimizer
from nas.training.recipes import Recipe
from nas.training.side_by_side import Ended, SideBySide, WorkerDiedError
from nas.training.threads import torch_alike

CALIBRATION_IMAGES, CALIBRATION_BATCH = 1_024, 128
EVALUATION_BATCH = 500  # at most; a recipe of smaller batches has less memory
MOST_DEATHS = 3  # of workers in one step, after which it is tried again


class Tuned(NamedTuple):
    """A proposal after its training: `unreadable` are the images that its process could not read so far, and why."""

    weights: dict[str, Tensor]
    evaluation: Evaluation
    unreadable: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """Settings of the training of each proposal: `steps` batches of the recipe. `loaders` are those of `load_data`."""

    source: str
    data_dir: Path | None
    recipe: Recipe
    steps: int
    seed: int = 0
    loaders: int | None = None


class FineTunedProposals:
    """Accuracies of proposals after a little training, and the weights that the kept one has then.

        proposals = FineTunedProposals(model, tuning)
        accuracies = proposals.estimate(specs)   # each with weights inherited from `model`, trained a little
        proposals.keep(specs[2])                 # its weights are those that the next ones inherit

    `steps_done` and the tuning's seed decide the batches, so that a resumed run repeats what an uninterrupted one does.
    As many proposals are trained side by side as there are `workers`: processes, by default those of `SideBySide`. What
    a dead one left is done again. They end with `close`, or with the block of a `with` statement. `say` gets a line for
    each image that cannot be read, and a warning where a worker died.
    """

    def __init__(
        self,
        model: MobileNet,
        tuning: FineTuning,
        *,
        workers: int | None = None,
        steps_done: int = 0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.tuning, self.steps_done = model, tuning, steps_done
        self._left_out = LeftOut(say)
        self._tuned: dict[str, Tuned] = {}
        self._workers, self._say = workers, say

    @functools.cached_property
    def _pool(self) -> SideBySide:
        return SideBySide(self._data, self._workers)

    @property
    def _data(self) -> Data:
        return split_data(self.tuning.source, self.tuning.data_dir, self.tuning.loaders)

    def __enter__(self) -> FineTunedProposals:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, whatever they do."""
        if "_pool" in self.__dict__:  # to create it would load the images, and could hide an error by its own
            self._pool.close()

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Return the mean probability of the right class (percent) of each network: array of shape (n,)."""
        results = self._results_of(specs)
        self._tuned = {spec.id: result for spec, result in zip(specs, results, strict=True)}
        for tuned in self._tuned.values():
            self._left_out(tuned.unreadable)
        return np.array([self._tuned[spec.id].evaluation.mean_probability for spec in specs])

    def _results_of(self, specs: Sequence[ArchSpec]) -> list[Tuned]:
        """Return the proposals after their training, in the order of `specs`.

        What was not finished when a worker died is done again. Raises NasError where workers die again and again.
        """
        model, finished = self.model, dict[int, Tuned]()
        given = model.spec, model.state_dict(), classes_of(model), self.tuning, self.steps_done
        for deaths in range(1 + MOST_DEATHS):
            if deaths:
                self._say("warning: a worker died; the proposals that were not finished are done again")
            left = [index for index in range(len(specs)) if index not in finished]
            jobs = {self._pool.begin(_tuned, *given, specs[index]): index for index in left}
            try:
                while jobs:
                    number, value = self._pool.next_value()
                    if isinstance(value, Ended):
                        del jobs[number]
                    else:
                        finished[jobs[number]] = value
            except WorkerDiedError:
                continue
            return [finished[index] for index in range(len(specs))]
        raise NasError(
            f"workers died {1 + MOST_DEATHS} times in one step, perhaps for want of memory; continue the run with "
            "--resume and fewer --workers"
        )

    def keep(self, spec: ArchSpec) -> Evaluation:
        """Make one of the networks of the last `estimate` the current one, and return its evaluation."""
        weights, evaluation, _ = self._tuned[spec.id]
        self.model = inherit_weights(spec, self.model)
        self.model.load_state_dict(weights)
        self.steps_done += 1
        self._tuned = {}
        return evaluation

    def evaluate(self) -> Evaluation:
        """Return the evaluation of the current network as it is."""
        with torch_alike():  # as proposals are evaluated
            evaluation = evaluate_on_held_out(self.model, self._data, self.tuning.recipe.batch_size)
        self._left_out(self._data.unreadable)
        return evaluation


def _tuned(
    data: Data,
    stopped: Callable[[], bool],
    parent: ArchSpec,
    weights: dict[str, Tensor],
    classes: int,
    tuning: FineTuning,
    step: int,
    spec: ArchSpec,
) -> Iterator[Tuned]:
    """Train a proposal and yield it. It is a job of `SideBySide`."""
    model = build_model(parent, classes, tuning.recipe.dropout)
    model.load_state_dict(weights)
    seed, data_seed = map(int, np.random.SeedSequence([tuning.seed, step]).generate_state(2))
    child = inherit_weights(spec, model, seed=seed)
    fine_tune(child, data, tuning, torch.Generator().manual_seed(data_seed), seed)
    evaluation = evaluate_on_held_out(child, data, tuning.recipe.batch_size)
    yield Tuned({name: tensor.cpu() for name, tensor in child.state_dict().items()}, evaluation, data.unreadable)


def fine_tune(model: MobileNet, data: Data, tuning: FineTuning, generator: torch.Generator, seed: int) -> None:
    """Train `model` for the steps of `tuning` at the resolution of its spec, and recalibrate its batch norm."""
    recipe, resolution, device = tuning.recipe, model.spec.resolution, _device()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device == "cpu":
        use_small_map_convolutions(model)
    model.train()
    optimizer = make_optimizer(model, recipe)
    batches = endless_batches(data, recipe, resolution, generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of dropout
        for step in range(tuning.steps):
            for group in optimizer.param_groups:
                group["lr"] = INHERITED_SHARE * recipe.learning_rate * (1 - step / tuning.steps)
            images, labels = (tensor.to(device) for tensor in next(batches))
            logits = model(images.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    chosen = torch.randperm(len(data.train), generator=generator)[:CALIBRATION_IMAGES].tolist()
    recalibrate(model, data.train.batches(CALIBRATION_BATCH, resolution, chosen), device)


def evaluate_on_held_out(model: MobileNet, data: Data, batch_size: int = EVALUATION_BATCH) -> Evaluation:
    """Evaluate a network on the held-out images of `split_data`, at most `batch_size` at a time.

    Raises NasError if none of them can be read, and DivergedError for a network whose training diverged.
    """
    at_a_time = min(EVALUATION_BATCH, batch_size)
    evaluation = evaluate_model(model, data.val.batches(at_a_time, model.spec.resolution))
    if not evaluation.images:
        raise NasError(f"{data.source}: none of the images to evaluate on can be read")
    if not math.isfinite(evaluation.probability):
        raise DivergedError("the training of a proposal diverged; take a recipe with a lower learning_rate")
    return evaluation


@functools.cache
def split_data(source: str, data_dir: Path | None, loaders: int | None = None) -> Data:
    """Return the training images of a source in two parts: to train proposals on, and (as `val`) to evaluate them on.

    Raises NasError for a source with too few images.
    """
    return hold_out(load_data(source, data_dir, loaders))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
