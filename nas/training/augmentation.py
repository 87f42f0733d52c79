"""The random changes of training images that recipes name, by torchvision's transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from nas.training.recipes import Recipe

Transform = Callable[[Any], Any]  # of an image, as a tensor or by Pillow
POLICIES: dict[str, Callable[[], Transform]] = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
}


def policy(recipe: Recipe) -> list[Transform]:
    """Return the recipe's augmentation policy for one image, or an empty list."""
    return [] if recipe.augment == "none" else [POLICIES[recipe.augment]()]


def erasing(recipe: Recipe) -> list[Transform]:
    """Return the random erasing of one normalised image, or an empty list."""
    return [v2.RandomErasing(recipe.erase)] if recipe.erase else []


def mixing(recipe: Recipe, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return the recipe's mixup and cutmix of a batch, or None.

    It maps images and labels (n,) to mixed images and the shares of their labels, shape (n, num_classes).
    """
    transforms: list[Transform] = []
    if recipe.mixup:
        transforms.append(v2.MixUp(alpha=recipe.mixup, num_classes=num_classes))
    if recipe.cutmix:
        transforms.append(v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes))
    return v2.RandomChoice(transforms) if transforms else None


def random_crops(images: Tensor, padding: float, generator: torch.Generator) -> Tensor:
    """Return a random window of each image (n, c, h, w), as large as the image itself.

    `padding` is the part of the height by which the images are surrounded with black before that.
    """
    height, width = images.shape[2:]
    pixels = round(padding * height)
    windows = functional.pad(images, [pixels] * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * pixels + 1, (2, len(images)), generator=generator)
    return windows[torch.arange(len(images)), :, top, left]
