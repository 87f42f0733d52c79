"""The training loop: epochs of steps, each ended by ready batch norm statistics and a validation::

    training = Training(build_model(spec, num_classes=10), data, load_recipe("quick"), resolution=32)
    for metrics in training.epochs():
        print(metrics.epoch, metrics.top1)

The randomness of an epoch comes from (seed, epoch) alone, so that a training taken up from its state after
some epoch repeats, on a CPU to the last digit, what an uninterrupted one does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from nas.errors import NasError
from nas.models.small_maps import quicken
from nas.training.batchnorm import IMAGES, recalibrate
from nas.training.data import Data, mixing
from nas.training.distillation import Teacher
from nas.training.processes import ALONE, Processes
from nas.training.recipes import Recipe

VALIDATION_BATCH = 500
CALIBRATION_BATCH = 128


class DivergedError(NasError):
    """The loss of a training is no number any more."""


class Step(NamedTuple):
    """Where a training stands: step `step` of `steps` in epoch `epoch` of `epochs`, all counted from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float  # of this epoch so far


class Metrics(NamedTuple):
    """One epoch. Losses are cross-entropies (nats; the training loss with label smoothing), top-1 is in percent.

    `top1` and `val_loss` are of the averaged weights, which are the ones to keep; `raw_top1` of the last step's.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    top1: float
    raw_top1: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What computes the steps, and how.

    `bf16` computes in bfloat16 where that is safe (autocast), `compile` hands the network to torch.compile,
    `accumulate` takes each batch in so many parts, one after another, to save memory.
    """

    device: torch.device | str = "cpu"
    processes: Processes = ALONE
    bf16: bool = False
    compile: bool = False
    accumulate: int = 1


class Training:
    """A model on its way: with its averaged copy, optimiser and schedule, between two epochs.

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
    ) -> None:
        self.machine = machine or Machine()
        check_classes(model, data)
        self._check_sizes(data, recipe)
        # On CPUs a step takes less than half the time with the channels last.
        self.model = self._placed(model)
        if torch.device(self.machine.device).type == "cpu":
            quicken(self.model)
        self.data, self.recipe, self.resolution, self.seed = data, recipe, resolution, seed
        self.epoch = 0  # finished ones
        self.steps = max(1, len(data.train) // recipe.batch_size)  # an epoch
        self.average = AveragedModel(self.model, multi_avg_fn=_moving_average(recipe.ema_decay))
        self.optimizer = make_optimizer(self.model, recipe)
        self.schedule = _schedule(self.optimizer, recipe, self.steps)
        self._mixing = mixing(recipe, len(data.classes))
        self._teacher = teacher
        if teacher:
            check_classes(teacher.model, data)
            self._placed(teacher.model).eval()
        # What the steps go through: the model, with what computes its gradients together or quicker around it.
        self._stepped: nn.Module = self.model
        if self.machine.processes.count > 1:
            self._stepped = DistributedDataParallel(self.model, broadcast_buffers=False)
        if self.machine.compile:
            self._stepped = torch.compile(self._stepped)  # type: ignore[assignment]

    def _placed(self, model: nn.Module) -> nn.Module:
        return model.to(self.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _check_sizes(self, data: Data, recipe: Recipe) -> None:
        """Batch norm needs two images at once, in every process and part."""
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
        """The model with the averaged weights, batch norm ready; in evaluation mode."""
        return self.average.module.eval()

    def epochs(self, on_step: Callable[[Step], None] = lambda step: None) -> Iterator[Metrics]:
        """Trains for the epochs that the recipe has left; after each, `state` is one to go on from.

        Raises NasError when the loss is no longer finite, or no image can be read.
        """
        while self.epoch < self.recipe.epochs:
            with _seeded(self.seed, self.epoch, self.machine.processes.rank) as generator:
                metrics = self._epoch(generator, on_step)
            self.epoch += 1
            yield metrics

    def _epoch(self, generator: torch.Generator, on_step: Callable[[Step], None]) -> Metrics:
        processes = self.machine.processes
        start = time.perf_counter()
        learning_rate = float(self.schedule.get_last_lr()[0])
        self._stepped.train()
        total, seen, step = 0.0, 0, 0
        unread: Tensor | None = None
        for images, labels in self.data.train.training_batches(
            self.recipe, self.resolution, generator, processes.share
        ):
            loss = self._step(images, labels)
            # Read a step later, so that a GPU has that step to work on meanwhile.
            total += self._finite(unread, step)
            unread = loss * len(images)
            step, seen = step + 1, seen + len(images)
            speed = processes.count * seen / (time.perf_counter() - start)
            on_step(Step(self.epoch + 1, self.recipe.epochs, step, self.steps, speed))
        total += self._finite(unread, step)
        seconds = time.perf_counter() - start
        total, images_seen = processes.sums(total, seen, device=self.machine.device)
        if not images_seen:
            raise NasError(f"{self.data.source}: none of the images to train on can be read")
        for model in (self.model, self.average.module):
            self._recalibrate(model)
        _, raw_top1 = self._validate(self.model)
        val_loss, top1 = self._validate(self.kept)
        return Metrics(
            epoch=self.epoch + 1,
            learning_rate=learning_rate,
            train_loss=total / images_seen,
            val_loss=val_loss,
            top1=top1,
            raw_top1=raw_top1,
            images_per_second=images_seen / seconds,
            seconds=time.perf_counter() - start,
        )

    def _finite(self, loss: Tensor | None, step: int) -> float:
        value = 0.0 if loss is None else loss.item()
        if not math.isfinite(value):
            raise DivergedError(
                f"the training loss is {value} in epoch {self.epoch + 1}, step {step}: the training diverged; "
                "take a recipe with a lower learning_rate"
            )
        return value

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the weights; gives the mean loss over the batch before it."""
        device, parts = self.machine.device, self.machine.accumulate
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        if self._mixing:
            images, labels = self._mixing(images, labels)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=device)
        # As equal as can be, of two images at least: of 10 images in 4 parts `chunk` would leave one alone.
        parts = min(parts, max(1, len(images) // 2))
        pieces = list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))
        for index, piece in enumerate(pieces):
            with self._unsynchronised() if index + 1 < len(pieces) else nullcontext():
                loss = self._loss(*piece) * (len(piece[0]) / len(images))
                loss.backward()
            total += loss.detach()
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return total

    def _unsynchronised(self) -> Any:
        """Gradients stay in this process."""
        return self._stepped.no_sync() if isinstance(self._stepped, DistributedDataParallel) else nullcontext()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(torch.device(self.machine.device).type, torch.bfloat16, enabled=self.machine.bf16):
            logits = self._stepped(images)
            loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
            return self._teacher.loss(images, logits, loss) if self._teacher else loss

    def _recalibrate(self, model: nn.Module) -> None:
        """On images as validation shows them, the same in every epoch; each process takes its share."""
        processes = self.machine.processes
        order = torch.randperm(len(self.data.train), generator=torch.Generator().manual_seed(self.seed))
        chosen = order[:IMAGES][processes.rank :: processes.count].tolist()
        if len(chosen) > CALIBRATION_BATCH:  # a small last batch would count as much as a full one
            chosen = chosen[: len(chosen) // CALIBRATION_BATCH * CALIBRATION_BATCH]
        batches = self.data.train.batches(CALIBRATION_BATCH, self.resolution, chosen)
        recalibrate(model, batches, self.machine.device)
        processes.average_statistics(model)

    def _validate(self, model: nn.Module) -> tuple[float, float]:
        processes, data = self.machine.processes, self.data
        chosen = range(processes.rank, len(data.val), processes.count)
        sums = _right(model, data.val.batches(VALIDATION_BATCH, self.resolution, chosen), self.machine.device)
        loss, right, seen = processes.sums(*sums, device=self.machine.device)
        if not seen:
            raise NasError(f"{data.source}: none of the images to validate on can be read")
        return loss / seen, 100 * right / seen

    # State between two epochs: tensors and plain values only ------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up the training where `state` was taken, with the same model, data, recipe and seed."""
        self.model.load_state_dict(state["model"])
        self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch = state["epoch"]
        self.average.n_averaged.fill_(self.epoch * self.steps)


def check_classes(model: nn.Module, data: Data) -> None:
    """Raises NasError if the model tells apart another number of classes than the data have."""
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    if last.out_features != len(data.classes):
        raise NasError(
            f"the network has {last.out_features} classes and {data.source} has {len(data.classes)}; "
            "they must be the same"
        )


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Mean cross-entropy (nats) and top-1 accuracy (percent) over labelled images."""
    loss, right, seen = _right(model, batches, device)
    return loss / seen, 100 * right / seen


@torch.inference_mode()
def _right(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | str
) -> tuple[float, int, int]:
    """Sum of cross-entropies, images that are right, images."""
    model.eval()
    loss, right, seen = 0.0, 0, 0
    for images, labels in batches:
        labels = labels.to(device)
        logits = model(images.to(device, memory_format=torch.channels_last))
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return loss, right, seen


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's, at its largest learning rate."""
    groups, rate = _parameter_groups(model, recipe), recipe.learning_rate
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, rate, eps=recipe.epsilon, fused=True)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, rate, recipe.smoothing, recipe.epsilon, momentum=recipe.momentum)
    return torch.optim.SGD(groups, rate, recipe.momentum)


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Convolutions and linear layers decay; batch norm and biases only where the recipe says so."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": recipe.weight_decay if recipe.decay_norms else 0.0},
    ]


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> lr_scheduler.LRScheduler:
    """Of the learning rate, step by step; `steps` are those of an epoch."""
    total = steps * recipe.epochs
    if recipe.schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=recipe.learning_rate,
            total_steps=total,
            pct_start=recipe.warmup,
            div_factor=1 / recipe.start,
            cycle_momentum=False,
        )
    warmup = round(recipe.warmup * total)
    after: lr_scheduler.LRScheduler
    if recipe.schedule == "cosine":
        after = lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - warmup))
    else:
        after = lr_scheduler.StepLR(optimizer, max(1, round(recipe.step_epochs * steps)), recipe.step_factor)
    if not warmup:
        return after
    rise = lr_scheduler.LinearLR(optimizer, recipe.start, total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [rise, after], [warmup])


def _moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """An exponential moving average that forgets faster in the first steps, as in TensorFlow's."""

    @torch.no_grad()
    def update(averages: Any, parameters: Any, updates: Tensor | int) -> None:
        torch._foreach_lerp_(averages, parameters, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))

    return update


@contextmanager
def _seeded(seed: int, epoch: int, rank: int) -> Iterator[torch.Generator]:
    """A generator for the data, and torch's global state (dropout, transforms) for a while, set from (seed, epoch).

    The generator is the same in all processes, the global state is each one's own.
    """
    data_seed, global_seed = np.random.SeedSequence([seed, epoch]).generate_state(2).tolist()
    with torch.random.fork_rng():
        torch.manual_seed(global_seed + rank)
        yield torch.Generator().manual_seed(data_seed)
