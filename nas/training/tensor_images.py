"""Small images, held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from nas.training.augmentation import erasing, policy, random_crops
from nas.training.images import MEAN, STD, WHOLE_BATCH, BatchShare, LabelledBatch, shared_batches, shuffled
from nas.training.recipes import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class TensorImages:
    """Images (n, 1 or 3, h, w) as bytes and labels (n,), cropped and flipped a batch at a time.

    It is a `nas.training.images.Images`.
    """

    images: Tensor
    labels: Tensor
    crop = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def unreadable(self) -> dict[str, str]:
        return {}

    @property
    def side(self) -> int:
        return min(self.images.shape[-2:])

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator, share: BatchShare = WHOLE_BATCH
    ) -> Iterator[LabelledBatch]:
        order, generator = shuffled(len(self), generator, share)
        for chosen in shared_batches(order, recipe.batch_size, share):
            images = random_crops(self.images[chosen], recipe.crop_padding, generator)
            if recipe.flip:
                flipped = torch.rand(len(images), generator=generator) < 0.5
                images = torch.where(flipped[:, None, None, None], images.flip(3), images)
            # One by one: torchvision's transforms would change all images of a batch alike.
            for transform in policy(recipe):
                images = torch.stack([transform(image) for image in images])
            images = _prepared(images, resolution)
            for transform in erasing(recipe):
                images = torch.stack([transform(image) for image in images])
            yield images, self.labels[chosen]

    def batches(self, batch_size: int, resolution: int, chosen: Sequence[int] | None = None) -> Iterator[LabelledBatch]:
        images, labels = self.images, self.labels
        if chosen is not None:
            images, labels = images[list(chosen)], labels[list(chosen)]
        for part, part_labels in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            yield _prepared(part, resolution), part_labels


def _prepared(images: Tensor, resolution: int) -> Tensor:
    """Return images (n, 1 or 3, h, w) resized and normalised: a tensor of shape (n, 3, resolution, resolution)."""
    images = v2.functional.resize(images, [resolution, resolution]) if images.shape[2] != resolution else images
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return (images - mean) / std  # grey images become three equal channels here
