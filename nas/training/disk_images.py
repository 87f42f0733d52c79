"""Large images, read from disk one at a time by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import current_process
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from torchvision.transforms import v2

from nas.cpu import usable_cores
from nas.training.augmentation import Transform, erasing, policy
from nas.training.image_files import as_rgb
from nas.training.images import MEAN, STD, WHOLE_BATCH, BatchShare, LabelledBatch, shared_batches, shuffled
from nas.training.recipes import Recipe

DISK_CROP = 0.875  # as torchvision's and most others' validation
TO_TENSOR: list[Transform] = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
MOST_WORKERS = 8  # processes that read images
FEW_IMAGES = 1_000  # up to so many, images are read sooner than worker processes have started
TRIES = 100  # images in a row that cannot be read before a place in a batch stays empty


@dataclass(frozen=True, slots=True, eq=False)
class DiskImages:
    """A torchvision data set of Pillow's images and labels.

    Worker processes read the images where there are many. They start with the first batch and live as long as this
    object. A daemonic process, which may not start others, reads by itself. It is a `nas.training.images.Images`.
    """

    images: Dataset[Any]
    unreadable: dict[str, str] = field(default_factory=dict)
    _idle: list[_Loader] = field(default_factory=list, init=False, repr=False)
    crop = DISK_CROP

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator, share: BatchShare = WHOLE_BATCH
    ) -> Iterator[LabelledBatch]:
        order, generator = shuffled(len(self), generator, share)
        # The crops of Inception and of nearly every ImageNet recipe since (arXiv 1409.4842).
        transforms: list[Transform] = [v2.RandomResizedCrop(resolution, scale=(recipe.crop_scale, 1.0))]
        if recipe.flip:
            transforms.append(v2.RandomHorizontalFlip())
        transform = v2.Compose([*transforms, *policy(recipe), *TO_TENSOR, *erasing(recipe)])
        chosen = shared_batches(order, recipe.batch_size, share)
        requests = [_Request(batch.tolist(), transform, replace=True) for batch in chosen]
        yield from self._read(requests, int(torch.empty((), dtype=torch.int64).random_(generator=generator)))

    def batches(self, batch_size: int, resolution: int, chosen: Sequence[int] | None = None) -> Iterator[LabelledBatch]:
        transform = v2.Compose([v2.Resize(round(resolution / self.crop)), v2.CenterCrop(resolution), *TO_TENSOR])
        indices = list(range(len(self))) if chosen is None else list(chosen)
        starts = range(0, len(indices), batch_size)
        requests = [_Request(indices[start : start + batch_size], transform, replace=False) for start in starts]
        yield from self._read(requests)

    def _read(self, requests: list[_Request], seed: int = 0) -> Iterator[LabelledBatch]:
        """Yield the batches that are asked for; `seed` decides what workers do at random."""
        few = sum(len(request.indices) for request in requests) <= FEW_IMAGES
        alone = few or current_process().daemon
        for batch in map(_Reader(self.images).__getitem__, requests) if alone else self._loaded(requests, seed):
            self.unreadable.update(batch.failures)
            if batch.read is not None:
                yield batch.read

    def _loaded(self, requests: list[_Request], seed: int) -> Iterator[_Batch]:
        """Yield batches from an idle loader, or from a new one where all are at work."""
        loader = self._idle.pop() if self._idle else _Loader(self.images)
        try:
            yield from loader.read(requests, seed)
        finally:
            self._idle.append(loader)


class _Request(NamedTuple):
    """A batch for a worker process to read.

    With `replace` the next image takes the place of one that cannot be read. `seed`, where there is one, sets the
    random state of the process before it reads.
    """

    indices: list[int]
    transform: Transform
    replace: bool
    seed: int | None = None


class _Batch(NamedTuple):
    """A batch as it was read: None if no image could be. `failures` are files that could not be read, and reasons."""

    read: LabelledBatch | None
    failures: dict[str, str]


class _Reader(Dataset[_Batch]):
    """Read a whole batch at a time.

    Errors are values: raised in a worker process, they would end the training with a traceback.
    """

    def __init__(self, images: Dataset[Any]) -> None:
        self._images, self._count = images, len(images)  # type: ignore[arg-type]

    def __getitem__(self, request: _Request) -> _Batch:
        if request.seed is not None:
            torch.manual_seed(request.seed)
        failures: dict[str, str] = {}
        read = [self._sample(index, request, failures) for index in request.indices]
        samples = [sample for sample in read if sample is not None]
        if request.replace and len(samples) == 1 < len(request.indices):
            samples *= 2  # batch norm has no variance of one image on a map of one pixel
        return _Batch(tuple(default_collate(samples)) if samples else None, failures)

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


def _file_of(images: Any, index: int) -> str:
    """Return the file of an image, also through subsets and where a set of torchvision keeps its files to itself."""
    while isinstance(images, Subset):
        images, index = images.dataset, images.indices[index]
    for attribute in ("samples", "_samples", "_image_files", "_images"):
        if hasattr(images, attribute):
            entry = getattr(images, attribute)[index]
            return str(entry[0] if isinstance(entry, tuple) else entry)
    return f"image {index}"


class _Loader:
    """Worker processes that stay, and are asked for other batches each time."""

    def __init__(self, images: Dataset[Any]) -> None:
        self._requests: list[_Request] = []  # torch reads this list anew at the beginning of each iteration
        self._workers = min(MOST_WORKERS, usable_cores())
        self._loader: DataLoader[_Batch] = DataLoader(
            _Reader(images),
            batch_size=None,
            sampler=self._requests,
            num_workers=self._workers,
            collate_fn=_unchanged,
            persistent_workers=True,
            generator=torch.Generator(),
        )

    def read(self, requests: list[_Request], seed: int) -> Iterator[_Batch]:
        """Yield the batches that are asked for, in their order.

        Batch i is read by worker i modulo their number. The first one of each sets the worker's random state, so that
        what it does does not depend on what it did before.
        """
        seeded = [request._replace(seed=seed + number) for number, request in enumerate(requests[: self._workers])]
        self._requests[:] = [*seeded, *requests[self._workers :]]
        yield from self._loader


def _unchanged(batch: Any) -> Any:
    return batch
