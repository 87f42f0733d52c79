"""Compute batch norm's statistics right before they are used.

MobileNetV3 was trained for hundreds of thousands of steps, so its running statistics move by 1 % a step. In a short
training they never arrive: the network validates at chance level while its training loss falls. Therefore they are
computed from training images before every validation. The published momentum stays in the module.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from nas.training.images import LabelledBatch

# Once-for-All and BigNAS recalibrate on 2,000 images as well (arXiv 1908.09791, 2003.11142).
IMAGES = 2_048


def recalibrate(model: nn.Module, batches: Iterable[LabelledBatch], device: torch.device | str = "cpu") -> None:
    """Set the running statistics to their plain average over about the first `IMAGES` images of `batches`.

    Weights, momentum and mode (training or evaluation) of the model stay as they are.
    """
    images = (images.to(device, memory_format=torch.channels_last) for images, _ in batches)
    first = next(images)
    rest = islice(images, -(-IMAGES // len(first)) - 1)
    update_bn((batch for part in ([first], rest) for batch in part), model)
