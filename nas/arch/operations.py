"""Describe networks and their parts as operations, in order: each file format is written from this description.

Batch norm is folded into the convolutions, so that the operations are those of a deployed network.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import NamedTuple

import numpy as np

from nas.arch.cost import Layer
from nas.arch.parts import (
    CONTEXT_CHANNELS,
    BlockPart,
    ContextPart,
    HeadPart,
    NetworkPart,
    Part,
    StemPart,
    context_of,
    parts_of,
)

INPUT, OUTPUT = "images", "logits"  # names in files
SIGNATURE = "serving_default"  # the name of a TFLite file's inputs and outputs, as TensorFlow writes it
RANDOM_NUMBERS, SHIFT = 1 << 18, 9973  # that weights are made of; how far those of two layers stand apart
Weights = Sequence[tuple[np.ndarray, np.ndarray]]  # a layer: weight (out, in / groups, k, k) and bias (out,)

# "pool" is global average pooling, "scale" multiplies the second input by a gate for each channel, the first one.
KINDS = frozenset(
    ["convolution", "linear", "relu", "relu6", "hswish", "hard_sigmoid", "sigmoid", "pool", "flatten", "scale", "add"]
)


class Kernel(NamedTuple):
    """The layer of a convolution or of a linear operation, with its stride and weights."""

    layer: Layer
    stride: int
    weight: np.ndarray  # float32 (out, in / groups, k, k)
    bias: np.ndarray  # float32 (out,)


class Operation(NamedTuple):
    """An operation. Its inputs are numbers of tensors: 0 is the input of the graph, n the output of the nth operation.

    The output has `channels` and a square map of side `size`.
    """

    kind: str  # one of KINDS
    inputs: tuple[int, ...]
    channels: int
    size: int
    kernel: Kernel | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """The operations of a part in its context. The last one has the output."""

    name: str
    in_channels: int
    in_size: int
    operations: Sequence[Operation]

    @property
    def is_flat(self) -> bool:
        """Return whether the output is (batch, channels), as logits are, and not (batch, channels, 1, 1)."""
        return self.operations[-1].kind == "linear"


def graph_of(part: Part, weights: Weights | None = None) -> Graph:
    """Return the operations of a part in its context.

    `weights` are those of its layers, in their order, with batch norm folded in. They are random by default.
    """
    return _Writer(part, weights).graph


def random_weights(layers: Sequence[Layer]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the weight and the bias of each layer.

    He initialisation (arXiv 1502.01852) keeps activations from fading into slow denormal numbers.
    """
    for number, layer in enumerate(layers):
        shape = (layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel)
        scale = np.float32((2 / np.prod(shape[1:])) ** 0.5)
        values = _normal()[number * SHIFT % (RANDOM_NUMBERS // 2) :]  # which are repeated as often as it takes
        yield np.resize(values, shape) * scale, np.float32(0.01) * values[: layer.out_channels]


@functools.cache
def _normal() -> np.ndarray:
    """Return random numbers of a standard normal distribution, drawn once: drawing takes longer than compiling."""
    return np.random.default_rng(0).standard_normal(RANDOM_NUMBERS, np.float32)


class _Writer:
    """Collect the operations of a part, in the order of its layers. Methods take and return numbers of tensors."""

    def __init__(self, part: Part, weights: Weights | None) -> None:
        context = context_of(part)
        layers = [*(context.layers() if context else []), *part.layers()]
        assert weights is None or len(weights) == len(layers)
        self._layers = iter(layers)
        self._weights = iter(weights) if weights is not None else random_weights(layers)
        self._operations: list[Operation] = []
        name, self._in_channels, self._in_size = _signature(part)
        x = self._convolution(0) if context else 0
        x = self.add(part, x)
        # A head or a network ends in its logits, every other part in the pooling of its context.
        if not isinstance(part, HeadPart | NetworkPart):
            self._pooled(x)
        self.graph = Graph(name, self._in_channels, self._in_size, self._operations)

    @singledispatchmethod
    def add(self, part: Part, x: int) -> int:
        raise NotImplementedError(part)

    @add.register
    def _(self, part: ContextPart, x: int) -> int:
        return self._convolution(x)

    @add.register
    def _(self, part: StemPart, x: int) -> int:
        return self._like(part.stem.activation, self._convolution(x, part.stem.stride))

    @add.register
    def _(self, part: BlockPart, x: int) -> int:
        block, y = part.block, x
        if block.start_kernel:
            y = self._convolution(y, 1 if block.kernel else block.stride)
        if block.has_expand:
            y = self._like(block.activation, self._convolution(y))
        if block.kernel:
            y = self._like(block.activation, self._convolution(y, block.stride))
        if block.se:
            squeezed = self._like("relu", self._convolution(self._pooled(y)))
            gate = self._like(block.gate, self._convolution(squeezed))
            y = self._append("scale", (gate, y), *self._shape(y))
        y = self._convolution(y)
        if block.activate_output:
            y = self._like(block.activation, y)
        return self._like("add", y, x) if part.placed.has_residual else y

    @add.register
    def _(self, part: HeadPart, x: int) -> int:
        if part.head.conv:
            x = self._like(part.head.activation, self._convolution(x))
        x = self._like("flatten", self._pooled(x))
        if part.head.hidden:
            x = self._like(part.head.activation, self._convolution(x, kind="linear"))
        return self._convolution(x, kind="linear")

    @add.register
    def _(self, part: NetworkPart, x: int) -> int:
        for piece in parts_of(part.spec, part.num_classes):
            x = self.add(piece, x)
        return x

    def _convolution(self, x: int, stride: int = 1, kind: str = "convolution") -> int:
        layer = next(self._layers)
        kernel = Kernel(layer, stride, *next(self._weights))
        return self._append(kind, (x,), layer.out_channels, layer.out_size, kernel)

    def _pooled(self, x: int) -> int:
        return self._append("pool", (x,), self._shape(x)[0], 1)

    def _like(self, kind: str, *inputs: int) -> int:
        """Add an operation whose output has the shape of its inputs."""
        return self._append(kind, inputs, *self._shape(inputs[0]))

    def _append(
        self, kind: str, inputs: tuple[int, ...], channels: int, size: int, kernel: Kernel | None = None
    ) -> int:
        assert kind in KINDS
        self._operations.append(Operation(kind, inputs, channels, size, kernel))
        return len(self._operations)

    def _shape(self, x: int) -> tuple[int, int]:
        return self._operations[x - 1][2:4] if x else (self._in_channels, self._in_size)


def _signature(part: Part) -> tuple[str, int, int]:
    """Return the name, the input channels and the input side."""
    if isinstance(part, NetworkPart):
        return part.spec.name, 3, part.spec.resolution
    if isinstance(part, StemPart):
        return part.key, 3, part.resolution
    return part.key, CONTEXT_CHANNELS, part.size if isinstance(part, ContextPart) else part.in_size
