"""Evaluate a classifier of images: the one loop for training, for NetAdapt's proposals and for exported networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.training.images import LabelledBatch


class Evaluation(NamedTuple):
    """Sums over labelled images. The properties are means, and need at least one image."""

    log_likelihood: float  # sum of the log-probabilities of the right classes, nats
    probability: float  # sum of the probabilities of the right classes
    right: int  # number of images whose likeliest class is the right one
    images: int  # number of images

    @property
    def cross_entropy(self) -> float:
        """Return the mean cross-entropy in nats."""
        return -self.log_likelihood / self.images

    @property
    def mean_probability(self) -> float:
        """Return the mean probability of the right class in percent."""
        return 100 * self.probability / self.images

    @property
    def top1(self) -> float:
        """Return the top-1 accuracy in percent."""
        return 100 * self.right / self.images


@torch.inference_mode()
def evaluate(logits_of: Callable[[Tensor], Tensor], batches: Iterable[LabelledBatch]) -> Evaluation:
    """Evaluate a function from images (n, 3, h, w) to logits (n, classes) on labelled images."""
    log_likelihood, probability, right, seen = 0.0, 0.0, 0, 0
    for images, labels in batches:
        logits = logits_of(images)
        labels = labels.to(logits.device)
        log_likelihood -= functional.cross_entropy(logits, labels, reduction="sum").item()
        probability += logits.softmax(1).gather(1, labels[:, None]).sum().item()
        right += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return Evaluation(log_likelihood, probability, right, seen)


def evaluate_model(model: nn.Module, batches: Iterable[LabelledBatch]) -> Evaluation:
    """Evaluate a network on the device where its weights are; it is left in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    return evaluate(lambda images: model(images.to(device, memory_format=torch.channels_last)), batches)
