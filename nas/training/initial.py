"""Start a training from the weights of another training, or from torchvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision import models

from nas.errors import NasError
from nas.models.mobilenet import MobileNet
from nas.training.checkpoint import find_checkpoint, load_checkpoint, load_torch_file

TORCHVISION = "torchvision"
Weights = dict[str, Tensor]


class CopiedLayers(NamedTuple):
    """The number of layers that got weights, and the names of those that did not."""

    copied: int
    fresh: tuple[str, ...]


def load_weights(source: str, model: MobileNet) -> Weights:
    """Return the weights of a checkpoint, or torchvision's of the network that has most in common with `model`.

    A checkpoint is named as `find_checkpoint` takes it. Raises NasError if it is none, if torchvision's file is
    damaged, or neither here nor can be downloaded, and if the stem has another stride than theirs.
    """
    if source != TORCHVISION:
        contents = load_checkpoint(find_checkpoint(source))
        if not isinstance(contents.get("average"), dict):
            raise NasError(f"{source}: not a checkpoint of nas.train")
        return contents["average"]
    if model.spec.stem.stride != 2:
        raise NasError(
            f"{model.spec.name}: its stem has stride {model.spec.stem.stride}, and that of all of torchvision's "
            "MobileNets has 2; leave out --init"
        )
    with torch.device("meta"):
        networks = {name: models.get_model(name).state_dict() for name in TORCHVISION_NETWORKS}
    name = max(networks, key=lambda name: len(_matching(model, networks[name])))
    weights = models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if file.exists():
        return _check_state_dict(load_torch_file(file), file)
    try:
        return weights.get_state_dict(check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise NasError(
            f"torchvision's {weights} cannot be downloaded ({error}); put the file {file.name} into {file.parent}"
        ) from None


def _check_state_dict(contents: Any, file: Path) -> Weights:
    """Return the contents of torchvision's file if they are tensors by name; raise NasError if not."""
    if isinstance(contents, dict) and all(isinstance(value, Tensor) for value in contents.values()):
        return contents
    raise NasError(f"{file}: not torchvision's weights; remove it, and they are downloaded again")


TORCHVISION_NETWORKS = ("mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2")


@torch.no_grad()
def copy_weights(model: nn.Module, weights: Weights) -> CopiedLayers:
    """Copy the layers that have the same name and shapes in `weights`; the others stay as they are.

    Raises NasError if there is no such layer.
    """
    matching = _matching(model, weights)
    layers = [name for name, module in model.named_modules() if _own(module)]
    if not matching:
        raise NasError("none of these weights fits this network; leave out --init")
    model.load_state_dict({f"{layer}.{name}": weights[f"{layer}.{name}"] for layer, name in matching}, strict=False)
    copied = {layer for layer, _ in matching}
    return CopiedLayers(len(copied), tuple(layer for layer in layers if layer not in copied))


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module itself, without those of the modules in it."""
    return {name: tensor for name, tensor in module.state_dict().items() if "." not in name}


def _matching(model: nn.Module, weights: Weights) -> list[tuple[str, str]]:
    """Return (layer, tensor) for all tensors of each layer that `weights` has in full and in the right shapes."""
    pairs = []
    for layer, module in model.named_modules():
        own = _own(module)
        if all(f"{layer}.{name}" in weights and weights[f"{layer}.{name}"].shape == own[name].shape for name in own):
            pairs += [(layer, name) for name in own]
    return pairs
