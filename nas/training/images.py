"""Labelled images, as batches to train on and batches to validate on.

Images are float tensors of shape (n, 3, resolution, resolution). They are normalised with `MEAN` and `STD` whatever
their source, so that a trained network needs no constants of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nas.errors import NasError
from nas.training.recipes import Recipe

# ImageNet's, which torchvision's published weights were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LabelledBatch = tuple[Tensor, Tensor]  # images (n, 3, resolution, resolution) and labels (n,)


@dataclass(frozen=True, slots=True)
class BatchShare:
    """The part of every batch that one process takes where several train together: the `index`-th of `count`."""

    index: int = 0
    count: int = 1


WHOLE_BATCH = BatchShare()


class Images(Protocol):
    """One part of a data set: its training images or its validation images."""

    crop: float  # part of the shorter side that `batches` show

    def __len__(self) -> int: ...

    @property
    def unreadable(self) -> dict[str, str]:
        """Return the images that could not be read so far, with the reason; all batches leave them out."""

    @property
    def side(self) -> int | None:
        """Return the shorter side of the largest of some images (pixels), or None if none of them can be read."""

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator, share: BatchShare = WHOLE_BATCH
    ) -> Iterator[LabelledBatch]:
        """Yield one epoch in random order, augmented: this process's share of each full batch.

        There is one smaller batch where there are too few images for a full one. The next image takes the place of
        one that cannot be read.
        """

    def batches(self, batch_size: int, resolution: int, chosen: Sequence[int] | None = None) -> Iterator[LabelledBatch]:
        """Yield the images of the indices `chosen` (by default all) in their order, without augmentation."""


@dataclass(frozen=True, slots=True)
class Data:
    """A source's training and validation images.

    `classes` are the names of the labels. `notes` say what was passed over when the images were looked for.
    """

    source: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    notes: tuple[str, ...] = ()

    @property
    def unreadable(self) -> dict[str, str]:
        """Return the images that could not be read so far, with the reason."""
        return self.train.unreadable | self.val.unreadable


def endless_batches(data: Data, recipe: Recipe, resolution: int, generator: torch.Generator) -> Iterator[LabelledBatch]:
    """Yield training batches, epoch after epoch. Raises NasError if no image can be read."""
    while True:
        batch = None
        for batch in data.train.training_batches(recipe, resolution, generator):
            yield batch
        if batch is None:
            raise NasError(f"{data.source}: none of the images to train on can be read")


def small_data_warning(data: Data, recipe: Recipe) -> str | None:
    """Return what happens to batch and learning rate where the training images are fewer than a batch of the recipe."""
    count = len(data.train)
    if count >= recipe.batch_size:
        return None
    return (
        f"warning: {data.source}: {count} images to train on are fewer than the batch of {recipe.batch_size} of recipe "
        f"{recipe.name}; an epoch is one step on all {count}, at the learning rate for {recipe.batch_size}"
    )


class LeftOut:
    """Say each image that cannot be read, once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._named = say, set[str]()

    def __call__(self, unreadable: Mapping[str, str]) -> None:
        """Say those of the images that are new, with the reasons."""
        for file, reason in unreadable.items():
            if file not in self._named:
                self._say(f"left out {file}: {reason}")
        self._named.update(unreadable)


def shuffled(count: int, generator: torch.Generator, share: BatchShare) -> tuple[Tensor, torch.Generator]:
    """Return an order of `count` images that all processes agree on, and a generator for this process alone."""
    order = torch.randperm(count, generator=generator)
    seeds = torch.randint(2**62, (share.count,), generator=generator).tolist()
    return order, torch.Generator().manual_seed(seeds[share.index])


def shared_batches(order: Tensor, batch_size: int, share: BatchShare) -> Iterator[Tensor]:
    """Yield this process's share of each batch, as indices of images."""
    for start in range(0, max(1, len(order) - batch_size + 1), batch_size):
        yield order[start : start + batch_size][share.index :: share.count]
