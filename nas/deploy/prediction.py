"""The classes of images, by a network in an ONNX file (without torch) or in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.deploy.onnx_file import About, OnnxNetwork


class Guess(NamedTuple):
    name: str
    probability: float


class Predictor(NamedTuple):
    """What a file says of itself, and its logits (n, classes) for images (n, 3, resolution, resolution)."""

    about: About
    run: Callable[[np.ndarray], np.ndarray]

    def guesses(self, image: str | Path, count: int) -> list[Guess]:
        """The likeliest classes first. Raises NasError for an image that cannot be read."""
        logits = self.run(self.about.preparation.load(image)[None])[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares, kind="stable")[:count]
        return [Guess(self.about.classes[index], float(shares[index])) for index in best]


def load_predictor(path: str | Path) -> Predictor:
    """Of an ONNX file that nas.export wrote, a checkpoint, or the folder of a training. Raises NasError."""
    if str(path).endswith(".onnx"):
        network = OnnxNetwork.load(path)
        return Predictor(network.about, network.run)
    import torch

    from nas.deploy.trained import load_trained

    trained = load_trained(path)

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return trained.model(torch.from_numpy(images)).numpy()

    return Predictor(trained.about, run)
