"""The training loop: epochs of steps. Each epoch ends with fresh batch norm statistics and a validation::

    training = Training(build_model(spec, num_classes=10), data, load_recipe("quick"), resolution=32)
    for metrics in training.epochs():
        print(metrics.epoch, metrics.top1)

The randomness of an epoch comes from (seed, epoch) alone. A training that is resumed from its state after some epoch
therefore repeats what an uninterrupted one does, on a CPU to the last digit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.models.mobilenet import MobileNet
from nas.models.small_maps import use_small_map_convolutions
from nas.models.supernet import Supernet
from nas.training.augmentation import mixing
from nas.training.batchnorm import IMAGES, recalibrate
from nas.training.distillation import Teacher
from nas.training.evaluation import Evaluation, evaluate_model
from nas.training.images import Data
from nas.training.memory import keep_freed_memory
from nas.training.optimization import make_optimizer, make_schedule, moving_average
from nas.training.processes import SINGLE_PROCESS, Processes
from nas.training.recipes import Recipe

VALIDATION_BATCH = 500  # at most; where a step computes fewer images at a time, so does the validation
CALIBRATION_BATCH = 128  # whatever the step: batch norm's statistics are better of large batches


class DivergedError(NasError):
    """The loss of a training is not a finite number any more."""


class TrainingStep(NamedTuple):
    """A position in a training: step `step` of `steps` in epoch `epoch` of `epochs`, all counted from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float  # of this epoch so far


class Metrics(NamedTuple):
    """The metrics of one epoch. Losses are cross-entropies in nats, and top-1 is in percent.

    `train_loss` includes the recipe's label smoothing. `val_loss` and `top1` are those of the averaged weights, which
    are kept.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    top1: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The device and the processes that compute the steps, and how they do it.

    `bf16` computes in bfloat16 where that is safe (autocast). `compile` hands the network to torch.compile.
    `accumulate` takes each batch in so many parts, one after another, to save memory.
    """

    device: torch.device | str = "cpu"
    processes: Processes = SINGLE_PROCESS
    bf16: bool = False
    compile: bool = False
    accumulate: int = 1


class Narrowing(Protocol):
    """Draw networks that are cut from the one that is trained, so that each step trains one of them."""

    def draw(self, random_seed: int) -> ArchSpec:
        """Return the network of one step."""


class Narrowed(nn.Module):
    """A network of which each call computes one that is cut from it, with its part of the weights.

    A call returns the logits (n, classes) of images (n, 3, h, w), scaled to the resolution of the network. The networks
    depend on torch's global random state.
    """

    def __init__(self, model: nn.Module, narrowing: Narrowing) -> None:
        super().__init__()
        assert isinstance(model, MobileNet)
        self.model, self._narrowing, self._supernet = model, narrowing, Supernet(model)

    def forward(self, images: Tensor) -> Tensor:
        spec = self._narrowing.draw(int(torch.randint(2**31, (1,))))
        if images.shape[-1] != spec.resolution:
            size = (spec.resolution, spec.resolution)
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        return self._supernet.logits(spec, images)


class Training:
    """A training of a model between two epochs: with its averaged copy, optimiser and schedule.

    With a `narrowing` each step trains another network that is cut from the model, by its part of the weights.

    Raises NasError if the data or the teacher have another number of classes than the model, or the data are too few.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        *,
        resolution: int,
        seed: int = 0,
        machine: Machine | None = None,
        teacher: Teacher | None = None,
        narrowing: Narrowing | None = None,
    ) -> None:
        self.machine = machine or Machine()
        check_classes(model, data)
        self._check_sizes(data, recipe)
        # On CPUs a step takes less than half the time with the channels last.
        self.model = self._placed(model)
        if torch.device(self.machine.device).type == "cpu":
            use_small_map_convolutions(self.model)
            keep_freed_memory()
        self.data, self.recipe, self.resolution, self.seed = data, recipe, resolution, seed
        self.epoch = 0  # finished epochs
        self.steps = recipe.steps_of_epoch(len(data.train))
        self.average = AveragedModel(self.model, multi_avg_fn=moving_average(recipe.ema_decay))
        self.optimizer = make_optimizer(self.model, recipe)
        self.schedule = make_schedule(self.optimizer, recipe, self.steps)
        self._mixing = mixing(recipe, len(data.classes))
        self._teacher = teacher
        if teacher:
            check_classes(teacher.model, data)
            self._placed(teacher.model).eval()
        # The module that steps call: the model, wrapped in what synchronises its gradients or compiles it.
        stepped = Narrowed(self.model, narrowing) if narrowing else self.model
        self._stepped: nn.Module = self.machine.processes.synchronised(stepped)
        self._average_gradients = self.machine.processes.gradient_average(self.model)
        if self.machine.compile:
            self._stepped = torch.compile(self._stepped)  # type: ignore[assignment]

    def _placed(self, model: nn.Module) -> nn.Module:
        return model.to(self.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _check_sizes(self, data: Data, recipe: Recipe) -> None:
        """Raise NasError unless batch norm gets two images at once, in every process and part."""
        count, parts = self.machine.processes.count, self.machine.accumulate
        if len(data.train) < 2 * count * parts or not len(data.val):
            raise NasError(
                f"{data.source}: {len(data.train)} images to train on and {len(data.val)} to validate on; "
                f"there must be at least {2 * count * parts} and 1"
            )
        if recipe.batch_size < 2 * count * parts:
            raise NasError(
                f"batch_size is {recipe.batch_size}; with {count} processes and {parts} accumulated parts it must be "
                f"at least {2 * count * parts}"
            )

    @property
    def kept(self) -> nn.Module:
        """Return the model with the averaged weights and fresh batch norm statistics, in evaluation mode."""
        return self.average.module.eval()

    def epochs(self, on_step: Callable[[TrainingStep], None] = lambda step: None) -> Iterator[Metrics]:
        """Train for the recipe's epochs that are not done yet; after each, `state` is one to resume from.

        Raises NasError when the loss is no longer finite, or no image can be read.
        """
        while self.epoch < self.recipe.epochs:
            with _seeded(self.seed, self.epoch, self.machine.processes.rank) as generator:
                metrics = self._epoch(generator, on_step)
            self.epoch += 1
            yield metrics

    def _epoch(self, generator: torch.Generator, on_step: Callable[[TrainingStep], None]) -> Metrics:
        processes = self.machine.processes
        start = time.perf_counter()
        learning_rate = float(self.schedule.get_last_lr()[0])
        self._stepped.train()
        total, seen, step = 0.0, 0, 0
        unread: Tensor | None = None
        # No name for the batches: behind the last one their loader must be free for the batches of batch norm.
        for images, labels in islice(
            self.data.train.training_batches(self.recipe, self.resolution, generator, processes.share), self.steps
        ):
            loss = self._step(images, labels)
            # The loss is read a step later, so that a GPU has that step to work on meanwhile.
            total += self._finite(unread, step)
            unread = loss * len(images)
            step, seen = step + 1, seen + len(images)
            speed = processes.count * seen / (time.perf_counter() - start)
            on_step(TrainingStep(self.epoch + 1, self.recipe.epochs, step, self.steps, speed))
        total += self._finite(unread, step)
        seconds = time.perf_counter() - start
        total, images_seen = processes.sums(total, seen, device=self.machine.device)
        if not images_seen:
            raise NasError(f"{self.data.source}: none of the images to train on can be read")
        self._recalibrate(self.kept)
        evaluation = self._validate(self.kept)
        self._tell_unreadable()
        return Metrics(
            epoch=self.epoch + 1,
            learning_rate=learning_rate,
            train_loss=total / images_seen,
            val_loss=evaluation.cross_entropy,
            top1=evaluation.top1,
            images_per_second=images_seen / seconds,
            seconds=time.perf_counter() - start,
        )

    def time_steps(self, count: int) -> float:
        """Return the seconds of a step, the mean of `count` of them, on made-up images. It changes the weights."""
        share, batch = self.machine.processes.share, min(self.recipe.batch_size, len(self.data.train))
        own = len(range(batch)[share.index :: share.count])
        images = torch.rand(own, 3, self.resolution, self.resolution)
        labels = torch.randint(len(self.data.classes), (own,))
        self._stepped.train()
        self._step(images, labels)  # the first one allocates memory
        start = time.perf_counter()
        for _ in range(count):
            self._step(images, labels)
        return (time.perf_counter() - start) / count

    def _finite(self, loss: Tensor | None, step: int) -> float:
        """Return the value of a step's loss (0 for None). Raises DivergedError if it is not finite."""
        value = 0.0 if loss is None else loss.item()
        if not math.isfinite(value):
            raise DivergedError(
                f"the training loss is {value} in epoch {self.epoch + 1}, step {step}: the training diverged; "
                "take a recipe with a lower learning_rate"
            )
        return value

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Update the weights once, and return the mean loss over the batch before the update."""
        device, parts = self.machine.device, self.machine.accumulate
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        if self._mixing:
            images, labels = self._mixing(images, labels)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=device)
        # The parts are as equal as can be, with at least two images: of 10 images in 4 parts `chunk` would leave one
        # alone.
        parts = min(parts, max(1, len(images) // 2))
        pieces = list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))
        for index, piece in enumerate(pieces):
            with self._unsynchronised() if index + 1 < len(pieces) else nullcontext():
                loss = self._loss(*piece) * (len(piece[0]) / len(images))
                loss.backward()
            total += loss.detach()
        self._average_gradients(len(images))
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return total

    def _unsynchronised(self) -> AbstractContextManager[None]:
        """Keep gradients in this process for a while."""
        return self._stepped.no_sync() if isinstance(self._stepped, DistributedDataParallel) else nullcontext()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(torch.device(self.machine.device).type, torch.bfloat16, enabled=self.machine.bf16):
            logits = self._stepped(images)
            loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
            return self._teacher.loss(images, logits, loss) if self._teacher else loss

    def _recalibrate(self, model: nn.Module) -> None:
        """Compute batch norm's statistics from training images, prepared as validation images are.

        The images are the same in every epoch. Each process takes its share of them.
        """
        processes = self.machine.processes
        order = torch.randperm(len(self.data.train), generator=torch.Generator().manual_seed(self.seed))
        chosen = order[:IMAGES][processes.rank :: processes.count].tolist()
        batches = self.data.train.batches(CALIBRATION_BATCH, self.resolution, chosen)
        images = recalibrate(model, batches, self.machine.device)
        processes.average_statistics(model, images)

    def _validate(self, model: nn.Module) -> Evaluation:
        """Evaluate a model on all validation images. Each process takes its share of them."""
        processes, data = self.machine.processes, self.data
        chosen = range(processes.rank, len(data.val), processes.count)
        at_a_time = min(VALIDATION_BATCH, self.recipe.batch_size // (processes.count * self.machine.accumulate))
        own = evaluate_model(model, data.val.batches(at_a_time, self.resolution, chosen))
        log_likelihood, probability, right, images = processes.sums(*own, device=self.machine.device)
        if not images:
            raise NasError(f"{data.source}: none of the images to validate on can be read")
        return Evaluation(log_likelihood, probability, int(right), int(images))

    def _tell_unreadable(self) -> None:
        """Tell the other processes which images this one could not read, and note theirs."""
        for part in (self.data.train, self.data.val):
            for unreadable in self.machine.processes.gathered(part.unreadable):
                part.unreadable.update(unreadable)

    # State between two epochs: tensors and plain values only ------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs to resume the training after the last finished epoch."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume the training that `state` was taken from, which had the same model, data, recipe and seed."""
        self.model.load_state_dict(state["model"])
        self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch = state["epoch"]
        self.average.n_averaged.fill_(self.epoch * self.steps)


def check_classes(model: nn.Module, data: Data) -> None:
    """Raise NasError if the model has another number of classes than the data."""
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    if last.out_features != len(data.classes):
        raise NasError(
            f"the network has {last.out_features} classes and {data.source} has {len(data.classes)}; "
            "they must be the same"
        )


@contextmanager
def _seeded(seed: int, epoch: int, rank: int) -> Iterator[torch.Generator]:
    """Yield a generator for the data, and set torch's global random state (dropout, transforms) for a while.

    Both depend on (seed, epoch). The generator is the same in all processes, the global state differs between them.
    """
    data_seed, global_seed = np.random.SeedSequence([seed, epoch]).generate_state(2).tolist()
    with torch.random.fork_rng():
        torch.manual_seed(global_seed + rank)
        yield torch.Generator().manual_seed(data_seed)
