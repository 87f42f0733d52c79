"""Hold some of the training images out, so that what is decided on them leaves the validation images unseen."""

from __future__ import annotations

from dataclasses import replace

from torch.utils.data import Subset

from nas.errors import NasError
from nas.training.disk_images import DiskImages
from nas.training.images import Data, Images
from nas.training.tensor_images import TensorImages

HELD_OUT_EVERY = 5  # every fifth training image is held out
HELD_OUT_IMAGES = 2_000  # at most
LEAST_IMAGES = 3  # one to evaluate on, two for batch norm


def hold_out(data: Data) -> Data:
    """Return the training images in two parts: to train on, and (as `val`) to evaluate on.

    Raises NasError for a source with too few images.
    """
    count = len(data.train)
    if count < LEAST_IMAGES:
        raise NasError(
            f"{data.source}: it has {count} training images; to train and evaluate networks takes at least "
            f"{LEAST_IMAGES}"
        )
    every = max(HELD_OUT_EVERY, -(-count // HELD_OUT_IMAGES))
    held_out = list(range(0, count, every))
    training = sorted(set(range(count)) - set(held_out))
    return replace(data, train=_part(data.train, training), val=_part(data.train, held_out))


def _part(images: Images, chosen: list[int]) -> Images:
    if isinstance(images, TensorImages):
        return replace(images, images=images.images[chosen], labels=images.labels[chosen])
    assert isinstance(images, DiskImages)
    return replace(images, images=Subset(images.images, chosen))
