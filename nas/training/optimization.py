"""Optimiser, learning rate schedule and averaged weights of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from nas.training.recipes import Recipe

# A recipe's largest learning rate is for fresh weights. Weights that are nearly right start at this share of it.
INHERITED_SHARE = 0.125


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser, at its largest learning rate."""
    groups, rate = _parameter_groups(model, recipe), recipe.learning_rate
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, rate, eps=recipe.epsilon, fused=True)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, rate, recipe.smoothing, recipe.epsilon, momentum=recipe.momentum)
    return torch.optim.SGD(groups, rate, recipe.momentum)


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameters with their weight decay.

    Convolutions and linear layers decay. Batch norm and biases decay only where the recipe says so.
    """
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": recipe.weight_decay if recipe.decay_norms else 0.0},
    ]


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> lr_scheduler.LRScheduler:
    """Return the recipe's schedule of the learning rate, with `steps` steps an epoch.

    A training that is too short for the warm-up begins at the largest rate, so that even a single step learns.
    """
    total = steps * recipe.epochs
    # A cycle's warm-up of one step has no slope. One of less would let the only step of a training have no rate.
    if recipe.schedule == "one_cycle" and recipe.warmup * total > 1:
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=recipe.learning_rate,
            total_steps=total,
            pct_start=recipe.warmup,
            div_factor=1 / recipe.start,
            cycle_momentum=False,
        )
    warmup = 0 if recipe.schedule == "one_cycle" else min(round(recipe.warmup * total), total - 1)
    after: lr_scheduler.LRScheduler
    if recipe.schedule == "steps":
        after = lr_scheduler.StepLR(optimizer, max(1, round(recipe.step_epochs * steps)), recipe.step_factor)
    else:
        after = lr_scheduler.CosineAnnealingLR(optimizer, total - warmup)
    if not warmup:
        return after
    rise = lr_scheduler.LinearLR(optimizer, recipe.start, total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [rise, after], [warmup])


def moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Return the update of an exponential moving average, for torch's `AveragedModel`.

    The average forgets faster in the first steps, as TensorFlow's does.
    """

    @torch.no_grad()
    def update(averages: Any, parameters: Any, updates: Tensor | int) -> None:
        torch._foreach_lerp_(averages, parameters, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))

    return update
