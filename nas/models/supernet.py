"""Share the weights of one network among all networks that are cut from it.

    supernet = Supernet(sorted_by_norm(model))
    logits = supernet.logits(spec, images)         # of the network of a spec, by its part of the weights

Each network takes the first channels of every group that `nas.models.inherited_weights` keeps together, and the centre
of each kernel, as in once-for-all networks (arXiv 1908.09791, section 3.3). What trains one network therefore trains
its part of all others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.arch.cost import network_layers
from nas.arch.spec import ArchSpec
from nas.models.inherited_weights import classes_of, dropout_of, layers_of
from nas.models.mobilenet import MobileNet, build_model
from nas.models.small_maps import use_small_map_convolutions


class Supernet:
    """A network whose weights are shared by all networks that are cut from it.

    `model` holds the weights; what trains it trains them. Its channels should be in the order of their norms. Networks
    have the same number of blocks as it has, and at most its channels and kernels.
    """

    def __init__(self, model: MobileNet) -> None:
        self.model = model
        # Modules without weights, which take those of any network of the same structure: to build one takes as long as
        # a training step of a small network.
        self._shells: dict[Hashable, MobileNet] = {}

    def logits(self, spec: ArchSpec, images: Tensor) -> Tensor:
        """Return the logits (n, classes) of the network of `spec` for images (n, 3, h, w), in training mode.

        Batch norm takes the statistics of these images. Gradients reach the shared weights.
        """
        structure = _structure_of(spec)
        if structure not in self._shells:
            self._shells[structure] = self._empty(spec)
            use_small_map_convolutions(self._shells[structure])
        shell = self._shells[structure].train()
        tensors = dict(self._parts(spec, shell))
        # In training batch norm updates its statistics, which nobody reads: they must not be the supernet's.
        statistics = {name: torch.zeros_like(tensors[name]) for name, _ in shell.named_buffers()}
        logits: Tensor = functional_call(shell, tensors | statistics, (images,))
        return logits

    @torch.no_grad()
    def network(self, spec: ArchSpec) -> MobileNet:
        """Return the network of `spec` with a copy of its part of the weights, in evaluation mode.

        Batch norm's statistics are the supernet's, which are wrong for a narrower network: recalibrate them.
        """
        device = next(self.model.parameters()).device
        network = self._empty(spec).to_empty(device=device)
        targets = network.state_dict()
        for name, part in self._parts(spec, network):
            targets[name].copy_(part)
        network.to(memory_format=torch.channels_last)
        if device.type == "cpu":
            use_small_map_convolutions(network)
        return network.eval()

    def _parts(self, spec: ArchSpec, module: MobileNet) -> Iterator[tuple[str, Tensor]]:
        """Yield the part of each tensor that the network of `spec` has, by its name in a module of this structure.

        The module's convolutions are told their channels.
        """
        names = {each: name for name, each in module.named_modules()}
        ours = {layer.name: modules for layer, modules in layers_of(self.model)}
        sizes = network_layers(spec, classes_of(self.model))
        for (layer, modules), size in zip(layers_of(module), sizes, strict=True):
            if isinstance(modules[0], nn.Conv2d):
                modules[0].in_channels, modules[0].out_channels = size.in_channels, size.out_channels
                modules[0].groups = size.groups
            shape = (size.out_channels, size.in_channels // size.groups, size.kernel, size.kernel)
            for each, source in zip(modules, ours[layer.name], strict=True):
                for name, tensor in (*source.named_parameters(), *source.named_buffers()):
                    yield f"{names[each]}.{name}", _part(tensor, shape[: tensor.ndim])

    def _empty(self, spec: ArchSpec) -> MobileNet:
        with torch.device("meta"):
            return build_model(spec, classes_of(self.model), dropout_of(self.model))


def _structure_of(spec: ArchSpec) -> Hashable:
    """Return what two networks have in common if they differ in nothing but channels and resolution."""
    blocks = tuple(
        (placed.block.replace(expanded=1, out=1, se=int(placed.block.se > 0)), placed.has_residual)
        for placed in spec.walk()
    )
    return spec.stem.activation, spec.stem.stride, blocks, bool(spec.head.conv), bool(spec.head.hidden)


def _part(source: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the first channels of a tensor, and of a kernel its centre."""
    for dimension, size in enumerate(shape):
        first = (source.shape[dimension] - size) // 2 if dimension > 1 else 0
        source = source.narrow(dimension, first, size)
    return source
