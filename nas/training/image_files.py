"""Open the file of an image as RGB, without torch: the one way for training, validation and prediction."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

GREY_RANGES = (255, 4095, 65535)  # the largest values of grey in 8, 12 and 16 bits


def open_rgb(path: str | Path) -> Image.Image:
    """Return the image of a file as RGB. Raises OSError or another of Pillow's errors if it cannot be read."""
    # Pillow warns of damaged EXIF data and of transparency that is lost, and reads on.
    with warnings.catch_warnings(action="ignore", category=UserWarning), Image.open(path) as image:
        return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB, upright as its EXIF data say. Transparency is left out.

    Grey of more than 8 bits is scaled to 8, where Pillow would clip it. Raises ValueError for grey that is no number or
    of more than 16 bits, and for modes that Pillow cannot convert.
    """
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _grey(image)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # errors in the pixels are raised
    try:
        shown = ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many types for damaged EXIF data: the picture is shown as it is stored
        return image
    shown.format = image.format
    return shown


def _grey(image: Image.Image) -> Image.Image:
    """Return grey of 8 bits. The range is the smallest that holds the values, for few files tell it."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    ranges: tuple[int, ...] = GREY_RANGES
    if image.mode == "F":
        ranges = (1, *GREY_RANGES)
    elif image.format == "PPM":
        ranges = GREY_RANGES[-1:]  # Pillow has scaled it by the maximum that the file tells
    largest = next((largest for largest in ranges if high <= largest), None)
    if largest is None or not low >= 0:
        raise ValueError(f"its grey goes from {low:g} to {high:g}; the range must lie within 0 to {GREY_RANGES[-1]}")
    return Image.fromarray(np.rint(values * (255 / largest)).astype(np.uint8))
