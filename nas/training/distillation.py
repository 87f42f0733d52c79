"""A larger network's outputs as further labels (arXiv 1503.02531)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Teacher(NamedTuple):
    """A trained network of the same classes; it sees the very images that the student does (arXiv 2106.05237).

    `weight` is the share of its labels in the loss, `temperature` softens both networks' outputs.
    """

    model: nn.Module
    weight: float = 0.5
    temperature: float = 2.0

    def loss(self, images: Tensor, logits: Tensor, label_loss: Tensor) -> Tensor:
        """The labels' loss mixed with the divergence from the teacher, which T² keeps at the scale of the former."""
        with torch.no_grad():
            wanted = self.model(images)
        divergence = functional.kl_div(
            functional.log_softmax(logits / self.temperature, 1),
            functional.log_softmax(wanted / self.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.weight) * label_loss + self.weight * self.temperature**2 * divergence
