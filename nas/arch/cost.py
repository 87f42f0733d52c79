"""Count the cost of a network by arithmetic on its spec: multiply-accumulates, parameters, activation memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nas.arch.spec import ArchSpec, HeadSpec, PlacedBlock, StemSpec

NUM_CLASSES = 1000  # ImageNet's
FLOAT_BYTES = 4


class Layer(NamedTuple):
    """A convolution and the sizes of the tensors around it, or a linear layer: size 1."""

    in_channels: int
    out_channels: int
    kernel: int
    in_size: int
    out_size: int
    groups: int = 1
    norm: bool = True  # batch norm instead of a bias
    linear: bool = False
    held: int = 0  # elements kept alive beside input and output: a residual, the tensor that SE scales

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates at batch 1."""
        return self.weights * self.out_size**2

    @property
    def weights(self) -> int:
        """Return the number of weights, without bias and batch norm."""
        return self.out_channels * (self.in_channels // self.groups) * self.kernel**2

    @property
    def parameters(self) -> int:
        """Return the number of weights with those of the bias or of batch norm."""
        return self.weights + self.out_channels * (2 if self.norm else 1)

    @property
    def activations(self) -> int:
        """Return the number of elements that are alive while the layer runs."""
        return self.in_channels * self.in_size**2 + self.out_channels * self.out_size**2 + self.held


class Cost(NamedTuple):
    """The cost of a network at batch 1. MACs leave out batch norm, pooling and activations, as papers do."""

    conv_macs: int
    linear_macs: int
    params: int
    peak_activation_bytes: int  # float32, at the worst layer: its input, its output and held tensors

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of all layers."""
        return self.conv_macs + self.linear_macs

    @property
    def param_bytes(self) -> int:
        """Return the bytes of the parameters in float32."""
        return FLOAT_BYTES * self.params

    @property
    def memory_bytes(self) -> int:
        """Return the bytes of the parameters and of the activations of the worst layer."""
        return self.param_bytes + self.peak_activation_bytes


def count_cost(spec: ArchSpec, num_classes: int = NUM_CLASSES) -> Cost:
    """Return the cost of `spec` with a classifier for `num_classes`."""
    layers = list(network_layers(spec, num_classes))
    return Cost(
        conv_macs=sum(layer.macs for layer in layers if not layer.linear),
        linear_macs=sum(layer.macs for layer in layers if layer.linear),
        params=sum(layer.parameters for layer in layers),
        peak_activation_bytes=FLOAT_BYTES * max(layer.activations for layer in layers),
    )


def network_layers(spec: ArchSpec, num_classes: int = NUM_CLASSES) -> Iterator[Layer]:
    """Yield every convolution and linear layer, in the order in which they run."""
    yield stem_layer(spec.stem, spec.resolution)
    for placed in spec.walk():
        yield from block_layers(placed)
    channels, size = spec.head_input
    yield from head_layers(spec.head, channels, size, num_classes)


def head_layers(head: HeadSpec, in_channels: int, in_size: int, num_classes: int) -> Iterator[Layer]:
    """Yield the convolution and the linear layers of a head, on an input of side `in_size`."""
    channels = in_channels
    if head.conv:
        yield Layer(channels, head.conv, 1, in_size, in_size)
        channels = head.conv
    if head.hidden:
        yield Layer(channels, head.hidden, 1, 1, 1, norm=head.hidden_norm, linear=True)
        channels = head.hidden
    yield Layer(channels, num_classes, 1, 1, 1, norm=False, linear=True)


def stem_layer(stem: StemSpec, resolution: int) -> Layer:
    """Return the convolution of a stem on images of side `resolution` (pixels)."""
    return Layer(3, stem.out, 3, resolution, stem.out_size(resolution))


def block_layers(placed: PlacedBlock) -> Iterator[Layer]:
    """Yield the convolutions of one block, with the two of squeeze-and-excitation."""
    block, channels, out_size = placed.block, placed.in_channels, placed.out_size
    expanded, start = block.expanded, block.start_kernel
    residual = channels * placed.in_size**2 if placed.has_residual else 0
    size, held = placed.in_size, 0  # the first convolution's input is the residual: counted once
    if start:
        after = size if block.kernel else out_size
        yield Layer(channels, channels, start, size, after, groups=channels)
        size, held = after, residual
    if block.has_expand:
        yield Layer(channels, expanded, 1, size, size, held=held)
        held = residual
    if block.op == "fused":
        yield Layer(channels, expanded, block.kernel, size, out_size)
    elif block.kernel:
        yield Layer(expanded, expanded, block.kernel, size, out_size, groups=expanded, held=held)
    if block.se:
        scaled = residual + expanded * out_size**2
        yield Layer(expanded, block.se, 1, 1, 1, norm=False, held=scaled)
        yield Layer(block.se, expanded, 1, 1, 1, norm=False, held=scaled)
    yield Layer(expanded, block.out, 1, out_size, out_size, held=residual)
