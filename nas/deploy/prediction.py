"""Classify images by a network in an ONNX or TFLite file (without torch) or in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.deploy.about import About
from nas.deploy.network import is_exported, load_network


class Guess(NamedTuple):
    """A class and the probability that the network gives to it."""

    name: str
    probability: float


class ImageClassifier(NamedTuple):
    """A trained network that classifies image files.

    `run` returns logits (n, classes) for images (n, 3, resolution, resolution).
    """

    about: About
    run: Callable[[np.ndarray], np.ndarray]

    def guesses(self, image: str | Path, count: int) -> list[Guess]:
        """Return the `count` likeliest classes, the likeliest first. Raises NasError for an unreadable image."""
        logits = self.run(self.about.preparation.load(image)[None])[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares, kind="stable")[:count]
        return [Guess(self.about.classes[index], float(shares[index])) for index in best]


def load_classifier(path: str | Path) -> ImageClassifier:
    """Return the network of a file that nas.export wrote, of a checkpoint, or of the folder of a run.

    Raises NasError for a file that is none of these.
    """
    if is_exported(path):
        network = load_network(path)
        return ImageClassifier(network.about, network.run)
    import torch

    from nas.deploy.trained import load_described

    described = load_described(path)

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return described.model(torch.from_numpy(images)).numpy()

    return ImageClassifier(described.about, run)
