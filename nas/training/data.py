"""Labelled images by name: the embedded sample, torchvision's sets, and folders of images::

    data = load_data("fashion-mnist-sample")
    for images, labels in data.val.batches(batch_size=500, resolution=32): ...

Images come out as float tensors (n, 3, resolution, resolution), normalised with `MEAN` and `STD` whatever the
source, so that a trained network needs no constants of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
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


class Images(Protocol):
    """One part of a data set. Batches of shapes (n, 3, resolution, resolution) and (n,)."""

    def __len__(self) -> int: ...

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Full batches in random order, augmented; one smaller batch where there is no full one."""

    def batches(self, batch_size: int, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, as they are."""


@dataclass(frozen=True, slots=True)
class Data:
    """A source's training and validation images; `classes` are the names of the labels."""

    source: str
    classes: tuple[str, ...]
    train: Images
    val: Images


# Small images: in memory ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class TensorImages:
    """Images (n, 1 or 3, h, w) as bytes and labels (n,), augmented a batch at a time."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self), generator=generator)
        for start in range(0, max(1, len(self) - recipe.batch_size + 1), recipe.batch_size):
            chosen = order[start : start + recipe.batch_size]
            images = _random_crops(self.images[chosen], recipe.crop_padding, generator)
            if recipe.flip:
                flipped = torch.rand(len(images), generator=generator) < 0.5
                images = torch.where(flipped[:, None, None, None], images.flip(3), images)
            yield _prepared(images, resolution), self.labels[chosen]

    def batches(self, batch_size: int, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True):
            yield _prepared(images, resolution), labels


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


# Large images: from disk, one at a time, in worker processes --------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class DiskImages:
    """A torchvision data set of PIL images and labels."""

    images: Dataset[Any]

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def training_batches(
        self, recipe: Recipe, resolution: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # The crops of Inception and of nearly every ImageNet recipe since (arXiv 1409.4842).
        transform: list[Callable[..., Any]] = [v2.RandomResizedCrop(resolution)]
        if recipe.flip:
            transform.append(v2.RandomHorizontalFlip())
        yield from self._loader(
            transform, recipe.batch_size, shuffle=True, drop_last=len(self) >= recipe.batch_size, generator=generator
        )

    def batches(self, batch_size: int, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
        # Seven eighths of the shorter side, as torchvision's and most others' validation.
        yield from self._loader([v2.Resize(round(resolution / 0.875)), v2.CenterCrop(resolution)], batch_size)

    def _loader(
        self, transform: list[Callable[..., Any]], batch_size: int, **options: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        images = _Transformed(self.images, v2.Compose([*transform, *last]))
        workers = min(8, os.cpu_count() or 1) if len(self) > ALONE else 0
        for batch in DataLoader(images, batch_size, num_workers=workers, collate_fn=_collated, **options):
            if isinstance(batch, NasError):
                raise batch
            yield batch


class _Transformed(Dataset[Any]):
    """Gives an error as a value: raised in a worker process it would come with the worker's traceback."""

    def __init__(self, images: Dataset[Any], transform: Callable[..., Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int] | NasError:
        try:
            image, label = self.images[index]
        except NasError as error:
            return NasError(str(error))
        return self.transform(image), label


def _collated(samples: list[tuple[Tensor, int] | NasError]) -> Any:
    errors = [sample for sample in samples if isinstance(sample, NasError)]
    return errors[0] if errors else default_collate(samples)


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
            parts.append(datasets.ImageFolder(str(folder), loader=_load_image))
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


def _load_image(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise NasError(f"{path}: this image cannot be read ({error}); mend or remove it") from None


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
