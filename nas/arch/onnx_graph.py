"""Write networks and their parts as ONNX graphs, without torch.

Batch norm is folded into the convolutions, so that the graph is that of a deployed network. torch's exporter takes 0.6
to 3 s a block, this module milliseconds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.arch.cost import NUM_CLASSES, Layer
from nas.arch.onnx_int8 import quantise_for_timing
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
from nas.arch.spec import ArchSpec

OPSET = 17
IR_VERSION = 8  # the one of opset 17, so that older runtimes read the file
INPUT, OUTPUT = "images", "logits"
RANDOM_NUMBERS, SHIFT = 1 << 18, 9973  # that weights are made of; how far those of two layers stand apart
Weights = Sequence[tuple[np.ndarray, np.ndarray]]  # a layer: weight (out, in / groups, k, k) and bias (out,)


def network_model(
    spec: ArchSpec, num_classes: int = NUM_CLASSES, weights: Weights | None = None, batch: int | str = 1
) -> onnx.ModelProto:
    """Return the graph of a whole network: float32 (batch, 3, resolution, resolution) to (batch, num_classes).

    `weights` are those of `nas.arch.cost.network_layers`, in their order, with batch norm folded in. They are random by
    default. A text as `batch` names a dynamic dimension.
    """
    return _Graph(NetworkPart(spec, num_classes), weights).model(batch)


def part_model(part: Part, precision: str = "float32") -> onnx.ModelProto:
    """Return the graph of a part in its context, with random weights and batch 1. `precision` is float32 or int8."""
    model = _Graph(part, None).model(1)
    return model if precision == "float32" else quantise_for_timing(model)


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


class _Graph:
    """The nodes of a part, in the order of its layers. Each method takes and returns the name of a tensor."""

    def __init__(self, part: Part, weights: Weights | None) -> None:
        context = context_of(part)
        layers = [*(context.layers() if context else []), *part.layers()]
        assert weights is None or len(weights) == len(layers)
        self._layers = iter(layers)
        self._weights = iter(weights) if weights is not None else random_weights(layers)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._part = part
        x = self._convolution(INPUT) if context else INPUT
        x = self.add(part, x)
        # A head or a network ends in its logits, every other part in the pooling of its context.
        if not isinstance(part, HeadPart | NetworkPart):
            x = self._node("GlobalAveragePool", x)
        self._nodes[-1].output[0] = OUTPUT

    def model(self, batch: int | str) -> onnx.ModelProto:
        name, in_channels, in_size, out_shape = _signature(self._part)
        images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [batch, in_channels, in_size, in_size])
        logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch, *out_shape])
        graph = helper.make_graph(self._nodes, name, [images], [logits], self._initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    # Parts --------------------------------------------------------------------------------------------

    @singledispatchmethod
    def add(self, part: Part, x: str) -> str:
        raise NotImplementedError(part)

    @add.register
    def _(self, part: ContextPart, x: str) -> str:
        return self._convolution(x)

    @add.register
    def _(self, part: StemPart, x: str) -> str:
        return self._activated(self._convolution(x, part.stem.stride), part.stem.activation)

    @add.register
    def _(self, part: BlockPart, x: str) -> str:
        block, y = part.block, x
        if block.start_kernel:
            y = self._convolution(y, 1 if block.kernel else block.stride)
        if block.has_expand:
            y = self._activated(self._convolution(y), block.activation)
        if block.kernel:
            y = self._activated(self._convolution(y, block.stride), block.activation)
        if block.se:
            squeezed = self._activated(self._convolution(self._node("GlobalAveragePool", y)), "relu")
            y = self._node("Mul", self._gated(self._convolution(squeezed), block.gate), y)
        y = self._convolution(y)
        if block.activate_output:
            y = self._activated(y, block.activation)
        return self._node("Add", y, x) if part.placed.has_residual else y

    @add.register
    def _(self, part: HeadPart, x: str) -> str:
        if part.head.conv:
            x = self._activated(self._convolution(x), part.head.activation)
        x = self._node("Flatten", self._node("GlobalAveragePool", x))
        if part.head.hidden:
            x = self._activated(self._linear(x), part.head.activation)
        return self._linear(x)

    @add.register
    def _(self, part: NetworkPart, x: str) -> str:
        for piece in parts_of(part.spec, part.num_classes):
            x = self.add(piece, x)
        return x

    # Nodes --------------------------------------------------------------------------------------------

    def _convolution(self, x: str, stride: int = 1) -> str:
        layer = next(self._layers)
        weight, bias = next(self._weights)
        kernel, pad = layer.kernel, layer.kernel // 2
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "group": layer.groups}
        return self._node("Conv", x, self._constant(weight), self._constant(bias), **shape)

    def _linear(self, x: str) -> str:
        next(self._layers)
        weight, bias = next(self._weights)
        return self._node("Gemm", x, self._constant(weight.reshape(len(bias), -1)), self._constant(bias), transB=1)

    def _activated(self, x: str, activation: str) -> str:
        if activation == "relu6":
            return self._node("Clip", x, self._constant(np.float32(0)), self._constant(np.float32(6)))
        return self._node({"relu": "Relu", "hswish": "HardSwish"}[activation], x)

    def _gated(self, x: str, gate: str) -> str:
        if gate == "hard_sigmoid":
            return self._node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        return self._node("Sigmoid", x)

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{op.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _constant(self, value: np.ndarray | np.float32) -> str:
        name = f"constant{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name


def _signature(part: Part) -> tuple[str, int, int, list[int]]:
    """Return the name, the input channels, the input side and the output shape without the batch."""
    if isinstance(part, NetworkPart):
        return part.spec.name, 3, part.spec.resolution, [part.num_classes]
    if isinstance(part, StemPart):
        return part.key, 3, part.resolution, [part.stem.out, 1, 1]
    if isinstance(part, HeadPart):
        return part.key, CONTEXT_CHANNELS, part.in_size, [part.num_classes]
    if isinstance(part, BlockPart):
        return part.key, CONTEXT_CHANNELS, part.in_size, [part.block.out, 1, 1]
    return part.key, CONTEXT_CHANNELS, part.size, [part.channels, 1, 1]
