"""Learn from a larger network's outputs beside the labels (arXiv 1503.02531)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Teacher(NamedTuple):
    """A trained network of the same classes. It sees the same images as the student (arXiv 2106.05237).

    `weight` is the share of its outputs in the loss. `temperature` softens the outputs of both networks.
    """

    model: nn.Module
    weight: float = 0.5
    temperature: float = 2.0

    def loss(self, images: Tensor, logits: Tensor, label_loss: Tensor) -> Tensor:
        """Return the loss of the labels mixed with the divergence from the teacher.

        The factor of the squared temperature keeps the gradients of both at the same scale.
        """
        with torch.no_grad():
            wanted = self.model(images)
        divergence = functional.kl_div(
            functional.log_softmax(logits / self.temperature, 1),
            functional.log_softmax(wanted / self.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.weight) * label_loss + self.weight * self.temperature**2 * divergence
