"""Labelled images by the name of their source: the embedded sample, torchvision's data sets, folders of images::

data = load_data("fashion-mnist-sample")
for images, labels in data.val.batches(batch_size=500, resolution=32): ...
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets

from nas.errors import NasError, unknown_name
from nas.training.disk_images import DiskImages
from nas.training.image_files import open_rgb
from nas.training.image_folder import ImageFolder
from nas.training.images import Data, Images
from nas.training.tensor_images import TensorImages
from nas.utf8 import as_utf8

EMBEDDED = "fashion-mnist-sample"
EMBEDDED_RESOLUTION = 32  # five halvings of a 28-pixel image: 32 is the least that leaves a pixel
FOLDER = "imagefolder:"
NAMED_CLASSES = 5  # in an error


class _Torchvision(NamedTuple):
    """A class of torchvision.datasets, and its arguments for the two parts."""

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
    """Return a source's name in a form that fits into the name of a file."""
    if source.startswith(FOLDER):
        source = "imagefolder-" + Path(source.removeprefix(FOLDER)).resolve().name
    return re.sub(r"[^\w.-]+", "-", source)


def load_data(source: str, data_dir: str | Path | None = None, loaders: int | None = None) -> Data:
    """Return the images of a source. `data_dir` is where torchvision's data sets are, or are downloaded to.

    At most `loaders` processes read images from disk, by default a number that suits the machine.
    Raises NasError for an unknown source (it lists the known ones) and for data that are not there.
    """
    if source == EMBEDDED:
        return _embedded()
    if source.startswith(FOLDER):
        return _folder(source, Path(source.removeprefix(FOLDER)), loaders)
    if source in TORCHVISION:
        if data_dir is None:
            raise NasError(
                f"{source}: name the folder where this data set is, or where it shall be downloaded to, with --data-dir"
            )
        return _torchvision(source, Path(data_dir), loaders)
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


def _folder(source: str, root: Path, loaders: int | None) -> Data:
    parts = {part: _folder_part(source, root / part) for part in ("train", "val")}
    train, val = parts.values()
    lacking = [
        f"{name!r} in {part}/"
        for name in sorted({*train.classes, *val.classes})
        for part, images in parts.items()
        if name not in images.filled
    ]
    if lacking:
        more = f" and of {len(lacking) - NAMED_CLASSES} more" if len(lacking) > NAMED_CLASSES else ""
        raise NasError(
            f"{source}: there are no images of {', '.join(lacking[:NAMED_CLASSES])}{more}{_passed_over(train, val)}; "
            "put some into the folder of that name, or remove the class from train/ and val/"
        )
    classes = tuple(map(as_utf8, train.classes))
    for name, folder in zip(classes, train.classes, strict=True):
        if name != folder and name in train.classes:
            raise NasError(
                f"{source}: the name of the class {folder!r} is not UTF-8, and written as UTF-8 it is that of another "
                "class; rename one of them"
            )
    images = _on_disk(train, loaders)
    notes = train.notes + val.notes + images.notes
    return Data(source, classes, images, _on_disk(val, loaders), notes)


def _folder_part(source: str, folder: Path) -> ImageFolder:
    passed_over = ""
    try:
        images = ImageFolder(folder)
        if images.filled:
            return images
        passed_over = _passed_over(images)
    except OSError:  # the folder of the part, or of every class, is missing
        pass
    raise NasError(
        f"{source}: there are no images in {folder}{passed_over}; put one folder of images a class there, "
        f"such as {folder / 'cat' / '1.jpg'}"
    )


def _passed_over(*parts: ImageFolder) -> str:
    """Return what was passed over in parentheses, or nothing."""
    notes = [note for part in parts for note in part.notes]
    return f" ({'; '.join(notes)})" if notes else ""


def _torchvision(source: str, root: Path, loaders: int | None) -> Data:
    entry = TORCHVISION[source]
    train, val = (_torchvision_part(source, entry.type, root, arguments) for arguments in (entry.train, entry.val))
    # A name may be a tuple of synonyms (ImageNet). SVHN has no names: its classes are the digits.
    names = getattr(train, "classes", None) or [str(digit) for digit in range(10)]
    classes = tuple(name if isinstance(name, str) else name[0] for name in names)
    images = _images(train, loaders)
    notes = images.notes if isinstance(images, DiskImages) else ()
    return Data(source, classes, images, _images(val, loaders), notes)


def _torchvision_part(source: str, name: str, root: Path, arguments: dict[str, Any]) -> Any:
    make = getattr(datasets, name)
    try:
        return make(str(root), **arguments)
    except (RuntimeError, OSError):  # it is not there, or not whole
        pass
    try:
        return make(str(root), **arguments, **({} if source == "imagenet" else {"download": True}))
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NasError(
            f"{source}: not in {root}, and it cannot be downloaded ({reason}); put its original files where "
            f"torchvision.datasets.{name} looks for them under {root}"
        ) from None


def _images(dataset: Any, loaders: int | None) -> Images:
    """Return a torchvision data set as images in memory if torchvision holds them there, else as images on disk.

    In memory they have the shape (n, h, w) if they are grey, (n, h, w, 3) in CIFAR, and else (n, 3, h, w).
    """
    if not hasattr(dataset, "data"):
        if isinstance(dataset, datasets.OxfordIIITPet):
            return _on_disk(_Pets(dataset), loaders)
        if hasattr(dataset, "loader"):
            dataset.loader = open_rgb
        return _on_disk(dataset, loaders)
    images = torch.as_tensor(dataset.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[3] == 3:
        images = images.permute(0, 3, 1, 2).contiguous()
    labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return TensorImages(images, torch.as_tensor(labels).long())


class _Pets(Dataset[tuple[Image.Image, int]]):
    """The images of OxfordIIITPet, the only set that opens its files without a `loader` that could be replaced."""

    def __init__(self, pets: Any) -> None:
        self._images, self._labels = pets._images, pets._labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return open_rgb(self._images[index]), self._labels[index]


def _on_disk(dataset: Any, loaders: int | None) -> DiskImages:
    return DiskImages(dataset) if loaders is None else DiskImages(dataset, loaders)
