"""Give a trimmed network the weights of the network that it was cut from.

Channels that belong together are kept together. The expanded channels of a block go through its expand convolution,
its depthwise convolution, its SE and its projection. The channels of a bottleneck go through every layer that writes or
reads it, across the residuals of its stage. Of each such group those channels are kept whose weights in all of these
layers together have the largest L2 norm (arXiv 1804.03230, section 3.3). Weights that the parent does not have are
initialised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.arch.spec import ArchSpec
from nas.models.mobilenet import MobileNet, build_model

Group = str  # name of channels that are kept or removed together


class _Layer(NamedTuple):
    """A convolution or linear layer, with the channels that it writes and reads.

    A depthwise convolution reads what it writes. `reads` is None for the stem, which reads the image.
    """

    name: str
    writes: Group
    reads: Group | None


@torch.no_grad()
def inherit_weights(spec: ArchSpec, parent: MobileNet, *, seed: int = 0) -> MobileNet:
    """Return the network of `spec` with the weights of `parent`, which has the same number of blocks.

    A smaller kernel is the centre of the larger one. `seed` is for weights that the parent does not have.
    """
    assert len(spec.blocks) == len(parent.spec.blocks)
    *_, dropout = (module.p for module in parent.modules() if isinstance(module, nn.Dropout))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        child = build_model(spec, classes_of(parent), dropout)
    child.to(next(parent.parameters()).device)
    kept = kept_channels(spec, parent)
    sources = {layer.name: (layer, modules) for layer, modules in _layers_of(parent)}
    for layer, modules in _layers_of(child):
        if layer.name not in sources:
            continue
        source_layer, source_modules = sources[layer.name]
        for module, source in zip(modules, source_modules, strict=True):
            for name, target in module.state_dict().items():  # shares memory with the module
                _copy(target, source.state_dict()[name], kept, source_layer)
    return child


def classes_of(model: MobileNet) -> int:
    """Return the number of classes of a network."""
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    return last.out_features


@torch.no_grad()
def kept_channels(spec: ArchSpec, parent: MobileNet) -> dict[Group, Tensor]:
    """Return the parent's channels that the network of `spec` keeps: for each group, their indices in order."""
    squares: dict[Group, Tensor] = {}
    for layer, (convolution, *_) in _layers_of(parent):
        weight = convolution.get_parameter("weight").double() ** 2
        dimensions = {layer.writes: 0}
        if layer.reads is not None and layer.reads != layer.writes:
            dimensions[layer.reads] = 1
        for group, dimension in dimensions.items():
            others = [other for other in range(weight.ndim) if other != dimension]
            squares[group] = squares.get(group, 0) + weight.sum(others)
    widths = _widths(spec, parent.spec)
    return {
        group: torch.topk(square, min(len(square), widths.get(group, len(square)))).indices.sort().values
        for group, square in squares.items()
    }


def _copy(target: Tensor, source: Tensor, kept: dict[Group, Tensor], layer: _Layer) -> None:
    """Copy the kept channels of `source` into the first channels of `target`."""
    if not target.ndim:  # batch norm's counter
        target.copy_(source)
        return
    source = source[kept[layer.writes]]
    if target.ndim > 1 and layer.reads is not None and layer.reads != layer.writes:
        source = source[:, kept[layer.reads]]
    if target.ndim == 4:
        crop = (source.shape[-1] - target.shape[-1]) // 2
        if crop < 0:
            return  # a larger kernel has no source
        source = source[:, :, crop : crop + target.shape[-1], crop : crop + target.shape[-1]]
    target[tuple(slice(size) for size in source.shape)] = source


# Layers and their channels ----------------------------------------------------------------------------


def _layers_of(model: MobileNet) -> Iterator[tuple[_Layer, list[nn.Module]]]:
    """Yield each layer with its convolution (or linear layer) and the batch norm behind it, in the order they run."""
    modules: list[list[nn.Module]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            modules.append([module])
        elif isinstance(module, nn.BatchNorm2d):
            modules[-1].append(module)
    return zip(_layers(model.spec), modules, strict=True)


def _layers(spec: ArchSpec) -> Iterator[_Layer]:
    """Yield the layers of a network in the order of `nas.arch.cost.network_layers`."""
    trunk: Group = "stem"
    yield _Layer("stem", trunk, None)
    for index, placed in enumerate(spec.walk()):
        block, name = placed.block, f"block {index}"
        # A sepconv's depthwise convolution works on the channels of its input.
        expanded: Group = f"{name} expanded" if block.op == "mbconv" else trunk
        if block.op == "mbconv":
            yield _Layer(f"{name} expand", expanded, trunk)
        yield _Layer(f"{name} depthwise", expanded, expanded)
        if block.se:
            yield _Layer(f"{name} squeeze", f"{name} squeezed", expanded)
            yield _Layer(f"{name} excite", expanded, f"{name} squeezed")
        trunk = trunk if placed.has_residual else f"{name} out"
        yield _Layer(f"{name} project", trunk, expanded)
    head: Group = trunk
    for name, channels in (("head convolution", spec.head.conv), ("head hidden", spec.head.hidden)):
        if channels:
            yield _Layer(name, name, head)
            head = name
    yield _Layer("classifier", "classes", head)


def _widths(spec: ArchSpec, parent: ArchSpec) -> dict[Group, int]:
    """Return how many channels of each of the parent's groups `spec` has.

    Groups that `spec` cannot change are left out.
    """
    widths: dict[Group, int] = {
        "stem": spec.stem.out,
        "head convolution": spec.head.conv,
        "head hidden": spec.head.hidden,
    }
    for index, (placed, block) in enumerate(zip(parent.walk(), spec.blocks, strict=True)):
        name = f"block {index}"
        if not placed.has_residual:
            widths[f"{name} out"] = block.out
        widths[f"{name} expanded"] = block.expanded
        if block.se:
            widths[f"{name} squeezed"] = block.se
    return widths
