"""Compute batch norm's statistics right before they are used.

MobileNetV3 was trained for hundreds of thousands of steps, so its running statistics move by 1 % a step. In a short
training they never arrive: the network validates at chance level while its training loss falls. Therefore they are
computed from training images before every validation. The published momentum stays in the module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from nas.errors import NasError
from nas.training.images import LabelledBatch

# Once-for-All and BigNAS recalibrate on 2,000 images as well (arXiv 1908.09791, 2003.11142).
IMAGES = 2_048


def recalibrate(model: nn.Module, batches: Iterable[LabelledBatch], device: torch.device | str = "cpu") -> int:
    """Set the running statistics to their average over about the first `IMAGES` images of `batches`, and count these.

    A batch weighs as much as it has images. Weights, momentum and mode (training or evaluation) of the model stay as
    they are. Raises NasError for fewer than two images.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    seen = 0

    def weighed() -> Iterator[Tensor]:
        nonlocal seen
        for images in _without_lone_images(images for images, _ in batches):
            seen += len(images)
            for norm in norms:
                norm.momentum = len(images) / seen
            yield images.to(device, memory_format=torch.channels_last)
            if seen >= IMAGES:
                return

    update_bn(weighed(), model)
    return seen


def _without_lone_images(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the batches, with a lone image added to its neighbour.

    Batch norm has no variance of one image on a map of one pixel.
    """
    held: Tensor | None = None
    for images in batches:
        if held is None:
            held = images
        elif min(len(held), len(images)) == 1:
            held = torch.cat([held, images])
        else:
            yield held
            held = images
    if held is None or len(held) == 1:
        raise NasError("fewer than two of the images for batch norm's statistics can be read; it takes more of them")
    yield held
