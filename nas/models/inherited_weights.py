"""Give a network the weights of another one: of that which it was cut from, or of a narrower one.

Channels that belong together are kept together. The expanded channels of a block go through its expand convolution,
its depthwise convolution, its SE and its projection. The channels of a bottleneck go through every layer that writes or
reads it, across the residuals of its stage, and through depthwise convolutions before an expansion. Of each such group
those channels are kept whose weights in all of these layers together have the largest L2 norm (arXiv 1804.03230,
section 3.3).

A wider network begins close to the function of a narrower one (Net2WiderNet, arXiv 1511.05641, section 2.3): channels
are there twice, and whoever reads them has half of the weight for each. Some noise lets the two become different. A
larger kernel has zeros around the smaller one. Layers that the parent does not have are initialised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nas.arch.spec import ArchSpec
from nas.models.mobilenet import MobileNet, build_model

Group = str  # name of channels that are kept or removed together
NOISE = 0.1  # standard deviation of the factors (mean 1) of a second channel's weights


class Layer(NamedTuple):
    """A convolution or linear layer, with the channels that it writes and reads.

    `reads` is None for the stem, which reads the image, and for a depthwise convolution, which reads what it writes.
    """

    name: str
    writes: Group
    reads: Group | None


@torch.no_grad()
def inherit_weights(spec: ArchSpec, parent: MobileNet, *, seed: int = 0) -> MobileNet:
    """Return the network of `spec` with the weights of `parent`, which has the same number of blocks.

    A smaller kernel is the centre of the larger one. `seed` is for weights that the parent does not have, and for the
    noise of channels that are there twice.
    """
    assert len(spec.blocks) == len(parent.spec.blocks)
    return _copied(spec, parent, channels_of(spec, parent), seed)


def _copied(spec: ArchSpec, parent: MobileNet, channels: dict[Group, Tensor], seed: int = 0) -> MobileNet:
    """Return the network of `spec` with the given channels of the parent."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        child = build_model(spec, classes_of(parent), dropout_of(parent))
    child.to(next(parent.parameters()).device)
    generator = torch.Generator().manual_seed(seed)
    sources = {layer.name: (layer, modules) for layer, modules in layers_of(parent)}
    for layer, modules in layers_of(child):
        if layer.name not in sources:
            continue
        source_layer, source_modules = sources[layer.name]
        for module, source in zip(modules, source_modules, strict=True):
            for name, target in module.state_dict().items():  # shares memory with the module
                target.copy_(_taken(target, source.state_dict()[name], channels, source_layer, generator))
    return child


def classes_of(model: MobileNet) -> int:
    """Return the number of classes of a network."""
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    return last.out_features


def dropout_of(model: MobileNet) -> float:
    """Return the dropout of a network before its last layer."""
    *_, dropout = (module.p for module in model.modules() if isinstance(module, nn.Dropout))
    return float(dropout)


@torch.no_grad()
def sorted_by_norm(model: MobileNet) -> MobileNet:
    """Return a network with the same outputs whose channels are in the order of their norms, the largest first."""
    channels = {group: torch.argsort(square, descending=True) for group, square in squared_norms(model).items()}
    channels["classes"] = torch.arange(classes_of(model))
    return _copied(model.spec, model, channels)


def squared_norms(model: MobileNet) -> dict[Group, Tensor]:
    """Return the squared L2 norm of each channel of each group, over all layers that write or read it."""
    squares: dict[Group, Tensor] = {}
    for layer, (convolution, *_) in layers_of(model):
        weight = convolution.get_parameter("weight").double() ** 2
        for dimension, group in enumerate((layer.writes, layer.reads)):
            if group is None:
                continue
            others = [other for other in range(weight.ndim) if other != dimension]
            squares[group] = squares.get(group, 0) + weight.sum(others)
    return squares


@torch.no_grad()
def channels_of(spec: ArchSpec, parent: MobileNet) -> dict[Group, Tensor]:
    """Return which of the parent's channels stands at each place of the network of `spec`, for each group.

    Those that are kept are in order. Behind them, where the group is wider than the parent's, stand those with the
    largest norms once more.
    """
    squares = squared_norms(parent)
    widths, channels = _widths(spec, parent.spec), {}
    for group, square in squares.items():
        width = widths.get(group, len(square))
        kept = torch.topk(square, min(len(square), width)).indices.sort().values
        again = torch.topk(square, len(square)).indices.repeat(math.ceil(width / len(square)))
        channels[group] = torch.cat([kept, again[: width - len(kept)]])
    return channels


def _taken(
    target: Tensor, source: Tensor, channels: dict[Group, Tensor], layer: Layer, generator: torch.Generator
) -> Tensor:
    """Return the values of `source` for the channels of `target`."""
    if not target.ndim:  # batch norm's counter
        return source
    # Where the child lacks a residual, parts of one group have numbers of channels of their own.
    writes, known = channels[layer.writes][: len(target)], len(source)
    source = source[writes]
    if target.ndim > 1:
        if len(writes) > known:
            again = source[known:]
            noise = NOISE * torch.randn(again.shape, generator=generator).to(again)
            source = torch.cat([source[:known], again * (1 + noise)])
        if layer.reads is not None:
            reads = channels[layer.reads][: target.shape[1]]
            times = torch.bincount(reads, minlength=source.shape[1])[reads]
            source = source[:, reads] / times.view(-1, *(1,) * (target.ndim - 2))
    if target.ndim == 4:
        # Negative padding crops: a smaller kernel is the centre of the larger one.
        border = (target.shape[-1] - source.shape[-1]) // 2
        source = pad(source, (border,) * 4)
    return source


# Layers and their channels ----------------------------------------------------------------------------


def layers_of(model: MobileNet) -> Iterator[tuple[Layer, list[nn.Module]]]:
    """Yield each layer with its convolution (or linear layer) and the batch norm behind it, in the order they run."""
    modules: list[list[nn.Module]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            modules.append([module])
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            modules[-1].append(module)
    return zip(_layers(model.spec), modules, strict=True)


def _layers(spec: ArchSpec) -> Iterator[Layer]:
    """Yield the layers of a network in the order of `nas.arch.cost.network_layers`."""
    trunk: Group = "stem"
    yield Layer("stem", trunk, None)
    for index, placed in enumerate(spec.walk()):
        block, name = placed.block, f"block {index}"
        # A sepconv's depthwise convolution works on the channels of its input, and so does one before the expansion.
        expanded: Group = trunk if block.op == "sepconv" else f"{name} expanded"
        if block.start_kernel:
            yield Layer(f"{name} start", trunk, None)
        if block.has_expand:
            yield Layer(f"{name} expand", expanded, trunk)
        if block.op == "fused":
            yield Layer(f"{name} fused", expanded, trunk)
        elif block.kernel:
            yield Layer(f"{name} depthwise", expanded, None)
        if block.se:
            yield Layer(f"{name} squeeze", f"{name} squeezed", expanded)
            yield Layer(f"{name} excite", expanded, f"{name} squeezed")
        trunk = trunk if placed.has_residual else f"{name} out"
        yield Layer(f"{name} project", trunk, expanded)
    head: Group = trunk
    for name, channels in (("head convolution", spec.head.conv), ("head hidden", spec.head.hidden)):
        if channels:
            yield Layer(name, name, head)
            head = name
    yield Layer("classifier", "classes", head)


def _widths(spec: ArchSpec, parent: ArchSpec) -> dict[Group, int]:
    """Return how many channels of each of the parent's groups `spec` has.

    Groups that `spec` cannot change are left out.
    """
    widths: dict[Group, int] = {
        "stem": spec.stem.out,
        "head convolution": spec.head.conv,
        "head hidden": spec.head.hidden,
    }
    trunk: Group = "stem"
    for index, (placed, block) in enumerate(zip(parent.walk(), spec.blocks, strict=True)):
        name = f"block {index}"
        trunk = trunk if placed.has_residual else f"{name} out"
        widths[trunk] = max(block.out, widths.get(trunk, 0))
        widths[f"{name} expanded"] = block.expanded
        if block.se:
            widths[f"{name} squeezed"] = block.se
    return widths
