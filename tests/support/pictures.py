"""Images made for one question, in memory and on disk."""

from pathlib import Path

import torch
from PIL import Image

from nas.training.images import MEAN, STD
from nas.training.recipes import load_recipe
from nas.training.tensor_images import TensorImages

PLAIN = load_recipe("quick").replace(batch_size=4, crop_padding=0.0, flip=False)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered_images(count: int = 10, channels: int = 1, size: int = 32) -> TensorImages:
    """Return images (count, channels, size, size) whose i-th is 10 i plus the column at each pixel, with label i."""
    columns = torch.arange(size).expand(channels, size, size)
    images = torch.stack([10 * i + columns for i in range(count)]).to(torch.uint8)
    return TensorImages(images, torch.arange(count))


def bytes_of(images: torch.Tensor) -> torch.Tensor:
    """Return images (n, 3, h, w) as they were before the normalisation."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images * std + mean) * 255).round().to(torch.uint8)


def save_images(folder: Path, count: int, colour: int, size: tuple[int, int] = (40, 50)) -> None:
    """Write images of `size` pixels into a new folder; the first one is grey, the others are RGB."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB" if i else "L", size, (colour, i, 0) if i else colour).save(folder / f"{i}.png")
