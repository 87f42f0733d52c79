"""Batch norm's statistics, right before they are used.

MobileNetV3 was trained for hundreds of thousands of steps, so its running statistics move by 1 % a step. In a
short training they never arrive, and the network validates at chance level while its training loss falls. So
they are computed anew from training images before every validation. The published momentum stays in the module.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

# Once-for-All and BigNAS recalibrate on 2,000 images as well (arXiv 1908.09791, 2003.11142).
IMAGES = 2_048


def recalibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | str = "cpu") -> None:
    """Sets the running statistics to their plain average over the first `IMAGES` images or so of `batches`.

    Weights, momentum and mode (training or evaluation) of the model stay as they are.
    """
    images = (images.to(device, memory_format=torch.channels_last) for images, _ in batches)
    first = next(images)
    rest = islice(images, -(-IMAGES // len(first)) - 1)
    update_bn((batch for part in ([first], rest) for batch in part), model)
