"""Find the images of a training again, also where they were moved to another place since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nas.errors import NasError
from nas.files import fingerprint
from nas.training import data as sources
from nas.training.images import Data

NAMED_CLASSES = 5  # in an error


class TrainedOn(NamedTuple):
    """The images that a training rests on, as its checkpoint describes them.

    `images` are the numbers of those to train on and those to validate on.
    """

    path: Path  # of the checkpoint
    source: str
    classes: tuple[str, ...]
    images: tuple[int, ...]

    @classmethod
    def of(cls, contents: Mapping[str, Any], path: Path) -> TrainedOn:
        """Return what the contents of a checkpoint say. Raises KeyError or TypeError for those of no training."""
        return cls(path, contents["source"], tuple(contents["classes"]), tuple(contents["images"]))

    def load(self, place: str | None = None, data_dir: str | Path | None = None, loaders: int | None = None) -> Data:
        """Return the images from the source `place`, by default from where they were.

        Raises NasError for images that are not there, and for others than those of the training.
        """
        try:
            data = sources.load_data(place or self.source, data_dir, loaders)
        except NasError as error:
            if place is None and self.source.startswith(sources.FOLDER):
                raise NasError(f"{error}; where the images were moved, name their place with --data") from None
            raise
        self.check(data)
        return data

    def check(self, data: Data) -> None:
        """Raise NasError for other classes and, where the place is another one, for other numbers of images.

        Only a folder of images can be moved: a data set of that name is another one.
        """
        if data.classes != self.classes:
            raise NasError(
                f"{data.source} has the classes {_listed(data.classes)} now, and {self.path} was trained on "
                f"{_listed(self.classes)}; put the old ones back, or train again"
            )
        if data.source == self.source:
            return
        if not all(source.startswith(sources.FOLDER) for source in (data.source, self.source)):
            raise NasError(
                f"--data is {data.source}, and {self.path} was trained on {self.source}; leave it out, or train again"
            )
        if counts_of(data) != self.images:
            raise NasError(
                f"{data.source} has {_sum(counts_of(data))} images, and {self.path} was trained on {_sum(self.images)} "
                f"of {self.source}; name the place where these are now, or train again"
            )


def content_of(source: str, classes: Sequence[str], images: Sequence[int]) -> str | None:
    """Return the fingerprint of a folder's images, wherever it lies, by their classes and numbers.

    None for a data set with a name, which is the same everywhere.
    """
    if not source.startswith(sources.FOLDER):
        return None
    return fingerprint(json.dumps([list(classes), list(images)]).encode())


def counts_of(data: Data) -> tuple[int, ...]:
    """Return the numbers of images to train on and to validate on."""
    return len(data.train), len(data.val)


def _sum(images: Sequence[int]) -> str:
    return " + ".join(map(str, images))


def _listed(classes: Sequence[str]) -> str:
    """Return the first few classes, so that an error stays one line."""
    return ", ".join(classes[:NAMED_CLASSES]) + (f", … ({len(classes)})" if len(classes) > NAMED_CLASSES else "")
