"""Load the best checkpoint of a training, with all that is needed to deploy it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nas.deploy.about import About
from nas.deploy.images import Preparation
from nas.errors import NasError
from nas.models.mobilenet import MobileNet
from nas.training.checkpoint import find_checkpoint, load_checkpoint, load_model
from nas.training.images import MEAN, STD
from nas.training.loop import Metrics
from nas.training.run import Settings
from nas.training.trained_on import TrainedOn


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A trained network in evaluation mode, with its training's settings and the metrics of its epoch."""

    path: Path  # of its checkpoint
    model: MobileNet
    settings: Settings
    metrics: Metrics | None  # None for a network as nas.netadapt left it
    about: About
    trained_on: TrainedOn


class DescribedNetwork(NamedTuple):
    """A network in evaluation mode with what prediction needs, and all that its checkpoint holds."""

    path: Path
    model: MobileNet
    about: About
    contents: dict[str, Any]


def load_described(path: str | Path) -> DescribedNetwork:
    """Return the network of a checkpoint, named as `find_checkpoint` takes it.

    Raises NasError if there is none, or if it does not say how its images are prepared.
    """
    path = find_checkpoint(path)
    model, contents = load_model(path), load_checkpoint(path)
    try:
        about = About(
            name=model.spec.name,
            spec_id=model.spec.replace(resolution=contents["resolution"]).id,
            classes=tuple(contents["classes"]),
            preparation=Preparation(resolution=contents["resolution"], crop=contents["crop"], mean=MEAN, std=STD),
        )
    except (KeyError, TypeError, NasError) as error:
        raise _not_deployable(path, error) from None
    return DescribedNetwork(path, model, about, contents)


def load_trained(path: str | Path) -> TrainedNetwork:
    """Return the network of a checkpoint, named as `find_checkpoint` takes it, with its training.

    Raises NasError if there is none, or if the checkpoint lacks what a deployment needs.
    """
    path, model, about, contents = load_described(path)
    if "source" not in contents or "recipe" not in contents:
        raise NasError(
            f"{path}: does not say on which images it was trained; train it with `python -m nas.train "
            f"{path.with_suffix('.json')} --init {path}` and --data, then export that"
        )
    try:
        settings = Settings.from_dict(contents)
        metrics = Metrics(**contents["metrics"][-1]) if "metrics" in contents else None
        return TrainedNetwork(path, model, settings, metrics, about, TrainedOn.of(contents, path))
    except (KeyError, TypeError, IndexError, NasError) as error:
        raise _not_deployable(path, error) from None


def _not_deployable(path: Path, error: Exception) -> NasError:
    return NasError(f"{path}: not a checkpoint of nas.train that can be deployed ({error})")
