"""Load the best checkpoint of a training, with all that is needed to deploy it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.deploy.images import Preparation
from nas.deploy.onnx_file import About
from nas.errors import NasError
from nas.models.mobilenet import MobileNet
from nas.training.checkpoint import load_checkpoint, load_model
from nas.training.images import MEAN, STD
from nas.training.loop import Metrics
from nas.training.run import BEST, Settings


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A trained network in evaluation mode, with its training's settings and the metrics of its epoch."""

    path: Path  # of its checkpoint
    model: MobileNet
    settings: Settings
    metrics: Metrics
    about: About


def load_trained(path: str | Path) -> TrainedNetwork:
    """Return the network of a checkpoint, or the best one in the folder of a training.

    Raises NasError if there is none, or if the checkpoint lacks what a deployment needs.
    """
    path = Path(path)
    path = path / BEST if path.is_dir() else path
    model, contents = load_model(path), load_checkpoint(path)
    try:
        settings = Settings.from_dict(contents)
        metrics = Metrics(**contents["metrics"][-1])
        return TrainedNetwork(path, model, settings, metrics, _about(settings, contents))
    except (KeyError, TypeError, IndexError, NasError) as error:
        raise NasError(f"{path}: not a checkpoint of nas.train that can be deployed ({error})") from None


def _about(settings: Settings, contents: dict[str, Any]) -> About:
    return About(
        name=settings.spec.name,
        spec_id=settings.spec.replace(resolution=settings.resolution).id,
        classes=tuple(contents["classes"]),
        preparation=Preparation(resolution=settings.resolution, crop=contents["crop"], mean=MEAN, std=STD),
    )
