"""Load the network that trimming starts from, with its weights where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from nas.arch.cost import NUM_CLASSES
from nas.arch.loading import load_spec
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
    if name.endswith(".pt"):
        if request.weights:
            raise NasError(f"{name}: a checkpoint has weights of its own; leave --weights out")
        from nas.training.checkpoint import load_checkpoint, load_model

        model, contents = load_model(name), load_checkpoint(name)
        classes = tuple(contents["classes"])
        training = {key: contents[key] for key in TRAINING if key in contents}
        spec = model.spec.replace(resolution=resolution or contents.get("resolution", model.spec.resolution))
    else:
        spec = load_spec(name, resolution=resolution)
        if request.weights:
            model = _with_weights(spec, request.weights)
    if request.data:
        from nas.training.data import EMBEDDED, EMBEDDED_RESOLUTION, load_data
        from nas.training.trained_on import counts_of

        data = load_data(request.data, request.data_dir)
        classes = data.classes
        training = {"source": request.data, "images": list(counts_of(data)), "crop": data.val.crop}
        if request.data == EMBEDDED and not resolution and not name.endswith(".pt"):
            spec = spec.replace(resolution=EMBEDDED_RESOLUTION)
    if model is not None:
        model.spec = spec
    return Seed(spec, model, classes, training)


def _with_weights(spec: ArchSpec, source: str) -> MobileNet:
    """Return the seed with torchvision's published weights ("DEFAULT"), or with those of a file.

    Raises NasError if they are not weights of this network.
    """
    import torch

    from nas.models.mobilenet import build_model
    from nas.training.checkpoint import load_torch_file
    from nas.training.initial import TORCHVISION, load_weights

    weights: Any
    if source == "DEFAULT":
        weights = load_weights(TORCHVISION, build_model(spec))
    else:
        weights = load_torch_file(source)
        weights = weights.get("average", weights) if isinstance(weights, dict) else {}
    tensors = [value for value in weights.values() if isinstance(value, torch.Tensor)]
    if not tensors or len(tensors) < len(weights) or not tensors[-1].ndim:
        raise NasError(f"{source}: not a file of weights; name a state dict of the seed, or a checkpoint")
    model = build_model(spec, len(tensors[-1]))  # the last tensor is the classifier's
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise NasError(f"{source}: not the weights of {spec.name}: {_first_mismatch(str(error))}") from None
    return model.eval()


def _first_mismatch(text: str) -> str:
    """Return the first of torch's lines about tensors that do not fit."""
    lines = [line.strip() for line in text.splitlines()[1:]] or [text]
    return lines[0][:200]
