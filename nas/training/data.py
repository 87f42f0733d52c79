"""Labelled images by name: the embedded sample, torchvision's sets, and folders of images::

    data = load_data("fashion-mnist-sample")
    for images, labels in data.val.batches(batch_size=500, resolution=32): ...

Images come out as float tensors (n, 3, resolution, resolution), normalised with `MEAN` and `STD` whatever the
source, so that a trained network needs no constants of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import datasets
from torchvision.transforms import v2

from nas.errors import NasError, unknown_name
from nas.training.recipes import Recipe

# ImageNet's, those of torchvision's published weights.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EMBEDDED = "fashion-mnist-sample"
EMBEDDED_RESOLUTION = 32  # five halvings of a 28-pixel image: 32 is the least that leaves a pixel
FOLDER = "imagefolder:"
ALONE = 1_000  # images that are read sooner than worker processes have started


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every batch a process takes, where several train together: the `index`-th of `count`."""

    index: int = 0
    count: int = 1


WHOLE = Share()


class Images(Protocol):
    """One part of a data set. Batches of shapes (n, 3, resolution, resolution) and (n,)."""

    crop: float  # part of the shorter side that `batches` show

    def __len__(self) -> int: ...

    @property
    def unreadable(self) -> dict[str, str]:
        """Images that could not be read so far, and why; they were left out of all batches."""

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator, share: Share = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of full batches in random order, augmented; of a smaller one where there is no full one.

        An image that cannot be read is replaced by the next one.
        """

    def batches(
        self, batch_size: int, resolution: int, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of these indices (by default all) in order, as they are."""


@dataclass(frozen=True, slots=True)
class Data:
    """A source's training and validation images; `classes` are the names of the labels."""

    source: str
    classes: tuple[str, ...]
    train: Images
    val: Images

    @property
    def unreadable(self) -> dict[str, str]:
        """Images that could not be read so far, and why."""
        return self.train.unreadable | self.val.unreadable


def _shuffled(count: int, generator: torch.Generator, share: Share) -> tuple[Tensor, torch.Generator]:
    """An order that all processes agree on, and a generator of this one's own for everything else."""
    order = torch.randperm(count, generator=generator)
    seeds = torch.randint(2**62, (share.count,), generator=generator).tolist()
    return order, torch.Generator().manual_seed(seeds[share.index])


def _batches_of(order: Tensor, batch_size: int, share: Share) -> Iterator[Tensor]:
    for start in range(0, max(1, len(order) - batch_size + 1), batch_size):
        yield order[start : start + batch_size][share.index :: share.count]


# Small images: in memory ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class TensorImages:
    """Images (n, 1 or 3, h, w) as bytes and labels (n,), cropped and flipped a batch at a time."""

    images: Tensor
    labels: Tensor
    crop = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def unreadable(self) -> dict[str, str]:
        return {}

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator, share: Share = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order, generator = _shuffled(len(self), generator, share)
        for chosen in _batches_of(order, recipe.batch_size, share):
            images = _random_crops(self.images[chosen], recipe.crop_padding, generator)
            if recipe.flip:
                flipped = torch.rand(len(images), generator=generator) < 0.5
                images = torch.where(flipped[:, None, None, None], images.flip(3), images)
            # torchvision's transforms would do the same to all images of a batch.
            for change in _policy(recipe):
                images = torch.stack([change(image) for image in images])
            images = _prepared(images, resolution)
            for change in _erasing(recipe):
                images = torch.stack([change(image) for image in images])
            yield images, self.labels[chosen]

    def batches(
        self, batch_size: int, resolution: int, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.images, self.labels
        if chosen is not None:
            images, labels = images[list(chosen)], labels[list(chosen)]
        for part, part_labels in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            yield _prepared(part, resolution), part_labels


def _random_crops(images: Tensor, padding: float, generator: torch.Generator) -> Tensor:
    """Windows of the images' own size out of the images with black around them."""
    height, width = images.shape[2:]
    pixels = round(padding * height)
    windows = functional.pad(images, [pixels] * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * pixels + 1, (2, len(images)), generator=generator)
    return windows[torch.arange(len(images)), :, top, left]


def _prepared(images: Tensor, resolution: int) -> Tensor:
    images = v2.functional.resize(images, [resolution, resolution]) if images.shape[2] != resolution else images
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return (images - mean) / std  # grey images become three equal channels here


# What recipes name, as torchvision has it; lists of none or one ------------------------------------------

Change = Callable[[Any], Any]
POLICIES = {"autoaugment": v2.AutoAugment, "randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}


def _policy(recipe: Recipe) -> list[Change]:
    return [] if recipe.augment == "none" else [POLICIES[recipe.augment]()]


def _erasing(recipe: Recipe) -> list[Change]:
    return [v2.RandomErasing(recipe.erase)] if recipe.erase else []


def mixing(recipe: Recipe, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Mixes a batch's images and labels; these become shares (n, classes)."""
    changes: list[Change] = []
    if recipe.mixup:
        changes.append(v2.MixUp(alpha=recipe.mixup, num_classes=num_classes))
    if recipe.cutmix:
        changes.append(v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes))
    return v2.RandomChoice(changes) if changes else None


# Large images: from disk, one at a time, in worker processes --------------------------------------------

DISK_CROP = 0.875  # as torchvision's and most others' validation


@dataclass(frozen=True, slots=True, eq=False)
class DiskImages:
    """A torchvision data set of PIL images and labels."""

    images: Dataset[Any]
    unreadable: dict[str, str] = field(default_factory=dict)
    crop = DISK_CROP

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator, share: Share = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order, generator = _shuffled(len(self), generator, share)
        # The crops of Inception and of nearly every ImageNet recipe since (arXiv 1409.4842).
        transform: list[Change] = [v2.RandomResizedCrop(resolution, scale=(recipe.crop_scale, 1.0))]
        if recipe.flip:
            transform.append(v2.RandomHorizontalFlip())
        transform += [*_policy(recipe), *TO_TENSOR, *_erasing(recipe)]
        batches = [batch.tolist() for batch in _batches_of(order, recipe.batch_size, share)]
        yield from self._loaded(transform, batches, replace=True, generator=generator)

    def batches(
        self, batch_size: int, resolution: int, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        transform = [v2.Resize(round(resolution / self.crop)), v2.CenterCrop(resolution), *TO_TENSOR]
        indices = list(range(len(self))) if chosen is None else list(chosen)
        batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
        yield from self._loaded(transform, batches, replace=False)

    def _loaded(
        self,
        transform: list[Change],
        batches: list[list[int]],
        *,
        replace: bool,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images = _Transformed(self.images, v2.Compose(transform), replace)
        workers = min(8, _cores()) if sum(map(len, batches)) > ALONE else 0
        loader = DataLoader(
            images, batch_sampler=batches, num_workers=workers, collate_fn=_collated, generator=generator
        )
        for batch, failures in loader:
            self.unreadable.update(failures)
            if batch is not None:
                yield batch


def _cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


TO_TENSOR: list[Change] = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


class _Sample(NamedTuple):
    image: Tensor | None
    label: int
    failures: dict[str, str]  # files that were tried, and why they could not be read


class _Transformed(Dataset[_Sample]):
    """Gives errors as values: raised in a worker process they would end the training with a traceback."""

    def __init__(self, images: Dataset[Any], transform: Change, replace: bool) -> None:
        self.images, self.transform, self.replace = images, transform, replace

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> _Sample:
        failures: dict[str, str] = {}
        for attempt in range(TRIES if self.replace else 1):
            at = (index + attempt) % len(self)
            try:
                image, label = self.images[at]
            except Exception as error:  # whatever Pillow stumbles over in bytes that mean nothing
                failures[_file_of(self.images, at)] = str(error).partition("\n")[0] or type(error).__name__
            else:
                return _Sample(self.transform(image.convert("RGB")), label, failures)
        return _Sample(None, 0, failures)


TRIES = 100  # images in a row that cannot be read before one is given up


def _file_of(images: Any, index: int) -> str:
    return images.samples[index][0] if hasattr(images, "samples") else f"image {index}"


def _collated(samples: list[_Sample]) -> tuple[Any, dict[str, str]]:
    failures = {file: reason for sample in samples for file, reason in sample.failures.items()}
    read = [(sample.image, sample.label) for sample in samples if sample.image is not None]
    return default_collate(read) if read else None, failures


# Sources ------------------------------------------------------------------------------------------------


class _Torchvision(NamedTuple):
    """A class of torchvision.datasets and its arguments for the two parts."""

    type: str
    train: dict[str, Any]
    val: dict[str, Any]


_BOOLEAN = {"train": True}, {"train": False}
_TEST = {"split": "train"}, {"split": "test"}
_VAL = {"split": "train"}, {"split": "val"}
TORCHVISION = {
    "cifar10": _Torchvision("CIFAR10", *_BOOLEAN),
    "cifar100": _Torchvision("CIFAR100", *_BOOLEAN),
    "dtd": _Torchvision("DTD", *_VAL),
    "fashion-mnist": _Torchvision("FashionMNIST", *_BOOLEAN),
    "fgvc-aircraft": _Torchvision("FGVCAircraft", *_VAL),
    "flowers102": _Torchvision("Flowers102", *_VAL),
    "food101": _Torchvision("Food101", *_TEST),
    "imagenet": _Torchvision("ImageNet", *_VAL),
    "imagenette": _Torchvision("Imagenette", *_VAL),
    "kmnist": _Torchvision("KMNIST", *_BOOLEAN),
    "mnist": _Torchvision("MNIST", *_BOOLEAN),
    "oxford-iiit-pet": _Torchvision("OxfordIIITPet", {"split": "trainval"}, {"split": "test"}),
    "stl10": _Torchvision("STL10", *_TEST),
    "svhn": _Torchvision("SVHN", *_TEST),
}


def source_names() -> list[str]:
    return [EMBEDDED, *TORCHVISION, f"{FOLDER}PATH"]


def source_slug(source: str) -> str:
    """A source's name as a part of a file's name."""
    if source.startswith(FOLDER):
        source = "imagefolder-" + Path(source.removeprefix(FOLDER)).resolve().name
    return re.sub(r"[^\w.-]+", "-", source)


def load_data(source: str, data_dir: str | Path | None = None) -> Data:
    """The images of a source; `data_dir` is where torchvision's sets lie, or are downloaded to.

    Raises NasError for an unknown source (it lists the known ones) and for data that are not there.
    """
    if source == EMBEDDED:
        return _embedded()
    if source.startswith(FOLDER):
        return _folder(source, Path(source.removeprefix(FOLDER)))
    if source in TORCHVISION:
        if data_dir is None:
            raise NasError(f"{source}: name the folder where this data set lies, or is to be put, with --data-dir")
        return _torchvision(source, Path(data_dir))
    raise unknown_name("data source", source, source_names())


def _embedded() -> Data:
    with (files("nas") / "data" / "fashion_mnist_sample.npz").open("rb") as file, np.load(file) as arrays:
        train, val = (
            TensorImages(
                torch.from_numpy(arrays[f"{part}_images"])[:, None],
                torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64)),
            )
            for part in ("train", "val")
        )
    return Data(EMBEDDED, tuple(datasets.FashionMNIST.classes), train, val)


def _folder(source: str, root: Path) -> Data:
    parts = []
    for part in ("train", "val"):
        folder = root / part
        try:
            parts.append(datasets.ImageFolder(str(folder)))
        except OSError:  # also where no class has an image
            raise NasError(
                f"{source}: there are no images in {folder}; put one folder of images a class there, "
                f"such as {folder / 'cat' / '1.jpg'}"
            ) from None
    train, val = parts
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))[0]
        raise NasError(f"{source}: the class {odd!r} is in one of train/ and val/ only; both need the same folders")
    return Data(source, tuple(train.classes), DiskImages(train), DiskImages(val))


def _torchvision(source: str, root: Path) -> Data:
    entry = TORCHVISION[source]
    train, val = (_torchvision_part(source, entry.type, root, arguments) for arguments in (entry.train, entry.val))
    # Names may be tuples of synonyms (ImageNet); SVHN's are missing, and are the digits.
    names = getattr(train, "classes", None) or [str(digit) for digit in range(10)]
    classes = tuple(name if isinstance(name, str) else name[0] for name in names)
    return Data(source, classes, _images(train), _images(val))


def _torchvision_part(source: str, name: str, root: Path, arguments: dict[str, Any]) -> Any:
    kind = getattr(datasets, name)
    try:
        return kind(str(root), **arguments)
    except (RuntimeError, OSError):  # not there, or not whole
        pass
    try:
        return kind(str(root), **arguments, **({} if source == "imagenet" else {"download": True}))
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NasError(
            f"{source}: not in {root} and not to be had ({reason}); put its original files where "
            f"torchvision.datasets.{name} looks for them under {root}"
        ) from None


def _images(dataset: Any) -> Images:
    """In memory, if torchvision has it there; black and white, (n, h, w); CIFAR, (n, h, w, 3); else (n, 3, h, w)."""
    if not hasattr(dataset, "data"):
        return DiskImages(dataset)
    images = torch.as_tensor(dataset.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[3] == 3:
        images = images.permute(0, 3, 1, 2).contiguous()
    labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return TensorImages(images, torch.as_tensor(labels).long())
