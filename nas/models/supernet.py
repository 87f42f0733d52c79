"""Share the weights of one network among all networks that are cut from it.

    supernet = Supernet(sorted_by_norm(model))
    logits = supernet.logits(spec, images)         # of the network of a spec, by its part of the weights

Each network takes the first channels of every group that `nas.models.inherited_weights` keeps together, and the centre
of each kernel, as in once-for-all networks (arXiv 1908.09791, section 3.3). What trains one network therefore trains
its part of all others.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.arch.spec import ArchSpec
from nas.models.inherited_weights import classes_of, layers_of
from nas.models.mobilenet import MobileNet, build_model
from nas.models.small_maps import use_small_map_convolutions


class Supernet:
    """A network whose weights are shared by all networks that are cut from it.

    `model` holds the weights; what trains it trains them. Its channels should be in the order of their norms. Networks
    have the same number of blocks as it has, and at most its channels and kernels.
    """

    def __init__(self, model: MobileNet) -> None:
        self.model = model
        self._shells: dict[str, MobileNet] = {}

    def logits(self, spec: ArchSpec, images: Tensor) -> Tensor:
        """Return the logits (n, classes) of the network of `spec` for images (n, 3, h, w), in training mode.

        Batch norm takes the statistics of these images. Gradients reach the shared weights.
        """
        shell = self._shell(spec).train()
        buffers = {name: torch.zeros_like(buffer, device=images.device) for name, buffer in shell.named_buffers()}
        logits: Tensor = functional_call(shell, {**self._parameters(spec), **buffers}, (images,))
        return logits

    @torch.no_grad()
    def network(self, spec: ArchSpec) -> MobileNet:
        """Return the network of `spec` with a copy of its part of the weights, in evaluation mode.

        Batch norm's statistics are the supernet's, which are wrong for a narrower network: recalibrate them.
        """
        device = next(self.model.parameters()).device
        network = self._empty(spec).to_empty(device=device)
        sources = dict(self._sources(network))
        for name, target in network.state_dict().items():
            target.copy_(_part(sources[name], target.shape))
        network.to(memory_format=torch.channels_last)
        if device.type == "cpu":
            use_small_map_convolutions(network)
        return network.eval()

    def _parameters(self, spec: ArchSpec) -> dict[str, Tensor]:
        """Return the part of each parameter that a network has, by the names of its own module."""
        shell = self._shell(spec)
        sources = dict(self._sources(shell))
        return {name: _part(sources[name], empty.shape) for name, empty in shell.named_parameters()}

    def _sources(self, network: MobileNet) -> Iterable[tuple[str, Tensor]]:
        """Yield the supernet's tensor for each tensor of a network, by the name that it has there."""
        names = {module: name for name, module in network.named_modules()}
        ours = {layer.name: modules for layer, modules in layers_of(self.model)}
        for layer, modules in layers_of(network):
            for module, source in zip(modules, ours[layer.name], strict=True):
                own = dict(source.named_parameters()) | dict(source.named_buffers())
                for name, tensor in own.items():
                    yield f"{names[module]}.{name}", tensor

    def _shell(self, spec: ArchSpec) -> MobileNet:
        """Return the module of a spec without weights."""
        if spec.id not in self._shells:
            self._shells[spec.id] = self._empty(spec)
            use_small_map_convolutions(self._shells[spec.id])
        return self._shells[spec.id]

    def _empty(self, spec: ArchSpec) -> MobileNet:
        *_, dropout = (module.p for module in self.model.modules() if isinstance(module, nn.Dropout))
        with torch.device("meta"):
            return build_model(spec, classes_of(self.model), dropout)


def _part(source: Tensor, shape: torch.Size) -> Tensor:
    """Return the first channels of a tensor, and of a kernel its centre."""
    for dimension, size in enumerate(shape):
        first = (source.shape[dimension] - size) // 2 if dimension > 1 else 0
        source = source.narrow(dimension, first, size)
    return source
