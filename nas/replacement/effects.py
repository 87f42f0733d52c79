"""Measure the effect of a replacement: how much the log-loss on held-out images rises when it stands in the teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.models.mobilenet import MobileNet
from nas.replacement.blocks import feature_maps
from nas.training.images import Data
from nas.training.loop import DivergedError


class Effect(NamedTuple):
    """The mean rise of the log-loss (nats), its standard error, and the means of every other image.

    It is positive for a replacement that harms.
    """

    rise: float
    error: float
    halves: tuple[float, float]

    @classmethod
    def of(cls, rises: np.ndarray) -> Effect:
        """Return the effect of the rises of single images, shape (images,), of at least two."""
        error = float(rises.std(ddof=1)) / math.sqrt(len(rises))
        return cls(float(rises.mean()), error, (float(rises[::2].mean()), float(rises[1::2].mean())))


@torch.inference_mode()
def log_loss_rises(
    teacher: MobileNet, blocks: Sequence[tuple[int, nn.Module | None]], data: Data, *, resolution: int, batch_size: int
) -> np.ndarray:
    """Return the rise of the log-loss (nats) of each held-out image, shape (blocks, images).

    `blocks` are positions and what stands there, None for nothing. Only the layers behind it are computed anew. Raises
    DivergedError for a rise that is not finite.
    """
    teacher.eval()
    device = next(teacher.parameters()).device
    last = len(teacher.spec.blocks) - 1
    rises = []
    for images, labels in data.val.batches(batch_size, resolution):
        labels = labels.to(device)
        maps = feature_maps(teacher, images.to(device, memory_format=torch.channels_last), last)
        before = _log_losses(teacher, maps[-1], last, labels)
        rises.append(
            torch.stack(
                [
                    _log_losses(teacher, maps[position] if block is None else block(maps[position]), position, labels)
                    - before
                    for position, block in blocks
                ]
            )
        )
    found: np.ndarray = torch.cat(rises, 1).double().cpu().numpy()
    if not np.isfinite(found).all():
        position = blocks[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])][0]
        raise DivergedError(
            f"the network with a replacement of block {position} gives no finite log-loss: the block diverged; train "
            "the teacher for longer, with more --minutes"
        )
    return found


def _log_losses(teacher: MobileNet, feature_map: Tensor, position: int, labels: Tensor) -> Tensor:
    """Return the log-loss of each image, given the output of the block at a position."""
    features = teacher.features[2 + position :](feature_map)
    logits = teacher.classifier(torch.flatten(teacher.avgpool(features), 1))
    return functional.cross_entropy(logits, labels, reduction="none")
