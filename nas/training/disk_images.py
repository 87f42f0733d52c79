"""Large images, read from disk one at a time, by loaders where there are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import current_process
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, default_collate
from torchvision.transforms import v2

from nas.training.augmentation import Transform, erasing, policy
from nas.training.image_files import as_rgb
from nas.training.images import MEAN, STD, WHOLE_BATCH, BatchShare, Images, LabelledBatch, shared_batches, shuffled
from nas.training.loaders import Loader, automatic_loaders, little_shared_memory
from nas.training.recipes import Recipe

DISK_CROP = 0.875  # as torchvision's and most others' validation
TO_TENSOR: list[Transform] = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
FEW_IMAGES = 1_000  # up to so many, images are read sooner than loaders have started
SEEN_IMAGES = 16  # that tell how large all are
TRIES = 100  # images in a row that cannot be read before a place in a batch stays empty


@dataclass(frozen=True, slots=True, eq=False)
class DiskImages:
    """A torchvision data set of Pillow's images and labels.

    At most `loaders` processes read the images where there are many. They start with the first batch and live as long
    as this object. A daemonic process, which may not start others, reads by itself. The batches are the same, whoever
    reads them. It is a `nas.training.images.Images`.
    """

    images: Dataset[Any]
    loaders: int = field(default_factory=automatic_loaders)
    unreadable: dict[str, str] = field(default_factory=dict)
    _idle: list[Loader] = field(default_factory=list, init=False, repr=False)
    crop = DISK_CROP

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    @property
    def side(self) -> int | None:
        seen = min(len(self), SEEN_IMAGES)
        sides = [_side(self.images, index * len(self) // seen) for index in range(seen)]
        return max((side for side in sides if side is not None), default=None)

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator, share: BatchShare = WHOLE_BATCH
    ) -> Iterator[LabelledBatch]:
        order, generator = shuffled(len(self), generator, share)
        # The crops of Inception and of nearly every ImageNet recipe since (arXiv 1409.4842).
        transforms: list[Transform] = [v2.RandomResizedCrop(resolution, scale=(recipe.crop_scale, 1.0))]
        if recipe.flip:
            transforms.append(v2.RandomHorizontalFlip())
        transform = v2.Compose([*transforms, *policy(recipe), *TO_TENSOR, *erasing(recipe)])
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
        chosen = shared_batches(order, recipe.batch_size, share)
        requests = [
            _Request(batch.tolist(), transform, replace=True, seed=seed + number) for number, batch in enumerate(chosen)
        ]
        yield from self._read(requests)

    def batches(self, batch_size: int, resolution: int, chosen: Sequence[int] | None = None) -> Iterator[LabelledBatch]:
        transform = v2.Compose([v2.Resize(round(resolution / self.crop)), v2.CenterCrop(resolution), *TO_TENSOR])
        indices = list(range(len(self))) if chosen is None else list(chosen)
        starts = range(0, len(indices), batch_size)
        requests = [_Request(indices[start : start + batch_size], transform, replace=False) for start in starts]
        yield from self._read(requests)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what hinders the loaders, a line for each kind."""
        little = "" if self._reads_alone(len(self)) else little_shared_memory(self.loaders)
        if not little:
            return ()
        return (f"{little}: batches come from the loaders through pipes, which is slower; enlarge it to avoid that",)

    def _reads_alone(self, count: int) -> bool:
        return count <= FEW_IMAGES or not self.loaders or current_process().daemon

    def _read(self, requests: list[_Request]) -> Iterator[LabelledBatch]:
        """Yield the batches that are asked for."""
        alone = self._reads_alone(sum(len(request.indices) for request in requests))
        for batch in map(_Reader(self.images).__getitem__, requests) if alone else self._loaded(requests):
            self.unreadable.update(batch.failures)
            if batch.read is not None:
                images, labels = batch.read
                yield torch.as_tensor(images), torch.as_tensor(labels)

    def _loaded(self, requests: list[_Request]) -> Iterator[_Batch]:
        """Yield batches from an idle loader, or from a new one where all are at work."""
        loader = self._idle.pop() if self._idle else self._new_loader()
        try:
            yield from loader.read(requests)
        finally:
            if not loader.broken:
                self._idle.append(loader)

    def _new_loader(self) -> Loader:
        return Loader(_Reader(self.images, arrays=bool(little_shared_memory(self.loaders))), self.loaders)


def with_share_of_loaders(images: Images, index: int, count: int) -> Images:
    """Return images with those of their loaders that the `index`-th of `count` processes gets. None is left over."""
    if not isinstance(images, DiskImages):
        return images
    each, rest = divmod(images.loaders, count)
    return replace(images, loaders=each + (index < rest))


class _Request(NamedTuple):
    """A batch to read.

    With `replace` the next image takes the place of one that cannot be read. `seed` decides what is done at random.
    """

    indices: list[int]
    transform: Transform
    replace: bool
    seed: int = 0


class _Batch(NamedTuple):
    """A batch as it was read: None if no image could be. `failures` are files that could not be read, and reasons."""

    read: LabelledBatch | tuple[np.ndarray, np.ndarray] | None
    failures: dict[str, str]


class _Reader(Dataset[_Batch]):
    """Read a whole batch at a time.

    Errors are values: raised in a loader, they would end the training with a traceback. Torch's tensors go through
    shared memory; as `arrays`, batches go through pipes.
    """

    def __init__(self, images: Dataset[Any], *, arrays: bool = False) -> None:
        self._images, self._count = images, len(images)  # type: ignore[arg-type]
        self._collated = _as_arrays if arrays else default_collate

    def __getitem__(self, request: _Request) -> _Batch:
        failures: dict[str, str] = {}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(request.seed)
            read = [self._sample(index, request, failures) for index in request.indices]
        samples = [sample for sample in read if sample is not None]
        if request.replace and len(samples) == 1 < len(request.indices):
            samples *= 2  # batch norm has no variance of one image on a map of one pixel
        return _Batch(tuple(self._collated(samples)) if samples else None, failures)

    def _sample(self, index: int, request: _Request, failures: dict[str, str]) -> tuple[Tensor, int] | None:
        for attempt in range(TRIES if request.replace else 1):
            at = (index + attempt) % self._count
            try:
                image, label = self._images[at]
                image = as_rgb(image)
            except Exception as error:  # Pillow raises many types for bytes that are no image
                failures[_file_of(self._images, at)] = str(error).partition("\n")[0] or type(error).__name__
            else:
                return request.transform(image), label
        return None


def _side(images: Any, index: int) -> int | None:
    """Return the shorter side of an image (pixels), or None if it cannot be read."""
    try:
        image, _ = images[index]
        return min(image.size)
    except Exception:  # Pillow raises many types for bytes that are no image
        return None


def _as_arrays(samples: list[tuple[Tensor, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([image.numpy() for image, _ in samples]), np.array([label for _, label in samples], np.int64)


def _file_of(images: Any, index: int) -> str:
    """Return the file of an image, also through subsets and where a set of torchvision keeps its files to itself."""
    while isinstance(images, Subset):
        images, index = images.dataset, images.indices[index]
    for attribute in ("samples", "_samples", "_image_files", "_images"):
        if hasattr(images, attribute):
            entry = getattr(images, attribute)[index]
            return str(entry[0] if isinstance(entry, tuple) else entry)
    return f"image {index}"
