"""Load the network that trimming starts from, with its weights where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from nas.arch.cost import NUM_CLASSES
from nas.arch.loading import is_published, load_spec
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.netadapt.request import NetAdaptRequest

if TYPE_CHECKING:  # it loads torch
    from nas.models.mobilenet import MobileNet


# Entries of a checkpoint that a trimmed network takes along.
TRAINING = ("source", "images", "crop", "recipe", "seed", "init", "teacher")


class Seed(NamedTuple):
    """The network that trimming starts from."""

    spec: ArchSpec
    model: MobileNet | None  # with its weights; None where there are none
    classes: tuple[str, ...]  # names; empty for ImageNet's classes
    training: Mapping[str, Any] = MappingProxyType({})  # of its weights, as far as it is known: entries of a checkpoint

    @property
    def num_classes(self) -> int:
        return len(self.classes) or NUM_CLASSES


def load_seed(request: NetAdaptRequest) -> Seed:
    """Return the network that a request names, at the resolution of its images.

    Raises NasError for a network, weights or images that cannot be loaded or do not fit together.
    """
    name, resolution = request.network, request.resolution
    model: MobileNet | None = None
    classes: tuple[str, ...] = ()
    training: dict[str, Any] = {}
    checkpoint = seed_checkpoint(name)
    if checkpoint is not None:
        if request.weights:
            raise NasError(f"{name}: a checkpoint has weights of its own; leave --weights out")
        from nas.training.checkpoint import load_checkpoint, load_model

        model, contents = load_model(checkpoint), load_checkpoint(checkpoint)
        classes, training = tuple(contents["classes"]), _training_of(contents)
        spec = model.spec.replace(resolution=resolution or contents.get("resolution", model.spec.resolution))
    else:
        spec = load_spec(name, resolution=resolution)
        if request.weights:
            model, classes, training = _with_weights(spec, request.weights)
    if request.data:
        from nas.training.data import EMBEDDED, EMBEDDED_RESOLUTION, load_data
        from nas.training.trained_on import counts_of

        data = load_data(request.data, request.data_dir)
        classes = data.classes
        training = {"source": request.data, "images": list(counts_of(data)), "crop": data.val.crop}
        if request.data == EMBEDDED and not resolution and checkpoint is None:
            spec = spec.replace(resolution=EMBEDDED_RESOLUTION)
    if model is not None:
        model.spec = spec
    return Seed(spec, model, classes, training)


def seed_checkpoint(name: str) -> Path | None:
    """Return the checkpoint of a seed that is named by it or by the folder of its run, or None for a spec.

    Raises NasError for a folder without weights.
    """
    if not name.endswith(".pt") and (is_published(name) or not Path(name).is_dir()):
        return None
    from nas.training.checkpoint import find_checkpoint

    return find_checkpoint(name)


def _training_of(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return those entries of a checkpoint that say how its weights were trained."""
    return {key: contents[key] for key in TRAINING if key in contents}


class _Weighted(NamedTuple):
    """A seed with weights from elsewhere: their classes, empty for ImageNet's, and their training if it is known."""

    model: MobileNet
    classes: tuple[str, ...]
    training: dict[str, Any]


def _with_weights(spec: ArchSpec, source: str) -> _Weighted:
    """Return the seed with torchvision's published weights ("DEFAULT"), or with those of a file.

    Raises NasError if they are not weights of this network.
    """
    import torch

    from nas.models.mobilenet import build_model
    from nas.training.checkpoint import find_checkpoint, load_torch_file
    from nas.training.initial import TORCHVISION, load_weights

    weights: Any
    contents: dict[str, Any] = {}
    if source == "DEFAULT":
        weights = load_weights(TORCHVISION, build_model(spec))
    else:
        weights = load_torch_file(find_checkpoint(source))
        if isinstance(weights, dict) and isinstance(weights.get("average"), dict):
            contents, weights = weights, weights["average"]
        elif not isinstance(weights, dict):
            weights = {}
    tensors = [value for value in weights.values() if isinstance(value, torch.Tensor)]
    if not tensors or len(tensors) < len(weights) or not tensors[-1].ndim:
        raise NasError(f"{source}: not a file of weights; name a state dict of the seed, or a checkpoint")
    outputs = len(tensors[-1])  # the last tensor is the classifier's
    model = build_model(spec, outputs)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise NasError(f"{source}: not the weights of {spec.name}: {_first_mismatch(str(error))}") from None
    unnamed = () if outputs == NUM_CLASSES else map(str, range(outputs))
    return _Weighted(model.eval(), tuple(contents.get("classes", unnamed)), _training_of(contents))


def _first_mismatch(text: str) -> str:
    """Return the first of torch's lines about tensors that do not fit."""
    lines = [line.strip() for line in text.splitlines()[1:]] or [text]
    return lines[0][:200]
