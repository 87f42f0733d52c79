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
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from nas.errors import NasError
from nas.training.batchnorm import recalibrate
from nas.training.data import Data
from nas.training.recipes import Recipe

VALIDATION_BATCH = 500


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


class Training:
    """A model on its way: with its averaged copy, optimiser and schedule, between two epochs.

    Raises NasError if the data have another number of classes than the model, or are too few.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        *,
        resolution: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        check_classes(model, data)
        if len(data.train) < 2 or not len(data.val):
            raise NasError(
                f"{data.source}: {len(data.train)} images to train on and {len(data.val)} to validate on; "
                "there must be at least 2 and 1"
            )
        # On CPUs a step takes less than half the time with the channels last.
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.recipe, self.resolution, self.seed, self.device = data, recipe, resolution, seed, device
        self.epoch = 0  # finished ones
        self.steps = max(1, len(data.train) // recipe.batch_size)  # an epoch
        self.average = AveragedModel(self.model, multi_avg_fn=_moving_average(recipe.ema_decay))
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.model, recipe.weight_decay), lr=recipe.learning_rate, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=recipe.learning_rate,
            total_steps=self.steps * recipe.epochs,
            pct_start=recipe.warmup,
            div_factor=1 / recipe.start,
            cycle_momentum=False,
        )

    @property
    def kept(self) -> nn.Module:
        """The model with the averaged weights, batch norm ready; in evaluation mode."""
        return self.average.module.eval()

    def epochs(self, on_step: Callable[[Step], None] = lambda step: None) -> Iterator[Metrics]:
        """Trains for the epochs that the recipe has left; after each, `state` is one to go on from.

        Raises NasError when the loss is no longer finite.
        """
        while self.epoch < self.recipe.epochs:
            with _seeded(self.seed, self.epoch) as generator:
                metrics = self._epoch(generator, on_step)
            self.epoch += 1
            yield metrics

    def _epoch(self, generator: torch.Generator, on_step: Callable[[Step], None]) -> Metrics:
        start = time.perf_counter()
        learning_rate = float(self.schedule.get_last_lr()[0])
        self.model.train()
        total, seen = 0.0, 0
        for step, (images, labels) in enumerate(self._training_batches(generator), 1):
            loss = self._step(images.to(self.device, memory_format=torch.channels_last), labels.to(self.device))
            if not math.isfinite(loss):
                raise NasError(
                    f"the training loss is {loss} in epoch {self.epoch + 1}, step {step}: the training diverged; "
                    "take a recipe with a lower learning_rate"
                )
            total, seen = total + loss * len(images), seen + len(images)
            speed = seen / (time.perf_counter() - start)
            on_step(Step(self.epoch + 1, self.recipe.epochs, step, self.steps, speed))
        seconds = time.perf_counter() - start
        for model in (self.model, self.average.module):
            recalibrate(model, self._training_batches(generator), self.device)
        _, raw_top1 = evaluate(self.model, self.data.val.batches(VALIDATION_BATCH, self.resolution), self.device)
        val_loss, top1 = evaluate(self.kept, self.data.val.batches(VALIDATION_BATCH, self.resolution), self.device)
        return Metrics(
            epoch=self.epoch + 1,
            learning_rate=learning_rate,
            train_loss=total / seen,
            val_loss=val_loss,
            top1=top1,
            raw_top1=raw_top1,
            images_per_second=seen / seconds,
            seconds=time.perf_counter() - start,
        )

    def _training_batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        return self.data.train.training_batches(self.recipe, self.resolution, generator)

    def _step(self, images: Tensor, labels: Tensor) -> float:
        loss = functional.cross_entropy(self.model(images), labels, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return loss.item()

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


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Mean cross-entropy (nats) and top-1 accuracy (percent) over labelled images."""
    model.eval()
    loss, right, seen = 0.0, 0, 0
    for images, labels in batches:
        labels = labels.to(device)
        logits = model(images.to(device, memory_format=torch.channels_last))
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return loss / seen, 100 * right / seen


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Convolutions and linear layers decay; batch norm and biases do not."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """An exponential moving average that forgets faster in the first steps, as in TensorFlow's."""

    @torch.no_grad()
    def update(averages: Any, parameters: Any, updates: Tensor | int) -> None:
        torch._foreach_lerp_(averages, parameters, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))

    return update


@contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[torch.Generator]:
    """A generator for the data, and torch's global state (dropout) for a while, set from (seed, epoch)."""
    data_seed, global_seed = np.random.SeedSequence([seed, epoch]).generate_state(2).tolist()
    with torch.random.fork_rng():
        torch.manual_seed(global_seed)
        yield torch.Generator().manual_seed(data_seed)
