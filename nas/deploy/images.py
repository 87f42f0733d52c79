"""Prepare images for a deployed network, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nas.errors import NasError
from nas.training.image_files import open_rgb


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The preparation of images, the same as that of the validation images.

    `crop` is the part of the shorter side that is shown; with 1 the whole image is made square. `mean` and `std` are
    those of red, green and blue from 0 to 1.
    """

    resolution: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def load(self, path: str | Path) -> np.ndarray:
        """Return the image of a file: float32 (3, resolution, resolution). Raises NasError if it cannot be read."""
        try:
            return self.prepared(open_rgb(path))
        except FileNotFoundError:
            raise NasError(f"{path}: no such file") from None
        except Exception as error:  # Pillow raises many types for bytes that are no image
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise NasError(f"{path}: this image cannot be read ({reason})") from None

    def prepared(self, image: Image.Image) -> np.ndarray:
        """Return an RGB image of any size as torchvision's Resize, CenterCrop and Normalize prepare it."""
        size = self.resolution
        if self.crop == 1:
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        else:
            shorter = round(size / self.crop)
            width, height = (int(shorter * side / min(image.size)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
            left, top = round((width - size) / 2), round((height - size) / 2)
            image = image.crop((left, top, left + size, top + size))
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std
