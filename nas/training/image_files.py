"""Open the file of an image as RGB, without torch: the one way for training, validation and prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

GREY_RANGES = (255, 4095, 65535)  # the largest values of grey in 8, 12 and 16 bits


def open_rgb(path: str | Path) -> Image.Image:
    """Return the image of a file as RGB. Raises OSError or another of Pillow's errors if it cannot be read."""
    with Image.open(path) as image:
        return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB. Transparency is left out.

    Grey of more than 8 bits is scaled to 8, where Pillow would clip it. Raises ValueError for grey that is no number or
    of more than 16 bits, and for modes that Pillow cannot convert.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _grey(image)
    if image.mode == "P":
        image = image.convert("RGBA")  # Pillow warns where the palette has transparency that RGB would lose
    return image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Return grey of 8 bits. The range is the smallest that holds the values, for few files tell it."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.format == "PPM":
        ranges: tuple[int, ...] = GREY_RANGES[-1:]  # Pillow has scaled it by the maximum that the file tells
    else:
        ranges = (1, *GREY_RANGES) if image.mode == "F" else GREY_RANGES
    largest = next((largest for largest in ranges if high <= largest), None)
    if largest is None or not low >= 0:
        raise ValueError(f"its grey goes from {low:g} to {high:g}; the range must lie within 0 to {GREY_RANGES[-1]}")
    return Image.fromarray(np.rint(values * (255 / largest)).astype(np.uint8))
