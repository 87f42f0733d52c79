"""Networks and their parts as ONNX graphs, batch norm folded into the convolutions; without torch.

torch's exporter takes 0.6-3 s a block, this takes milliseconds. The graph is the one a deployed network has:
what is timed is what would be shipped. In int8 it is what static quantisation makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.arch.cost import NUM_CLASSES, Layer
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
IR_VERSION = 8  # what opset 17 came with, so that older runtimes read the file
INPUT, OUTPUT = "images", "logits"
Weights = Sequence[tuple[np.ndarray, np.ndarray]]  # weight (out, in / groups, k, k) and bias (out,) a layer


def network_model(
    spec: ArchSpec, num_classes: int = NUM_CLASSES, weights: Weights | None = None, batch: int | str = 1
) -> onnx.ModelProto:
    """The whole network: float32 (batch, 3, resolution, resolution) to (batch, num_classes).

    `weights` are of the layers of `nas.arch.cost.network_layers`, in their order, batch norm folded; random by
    default. A text as `batch` names a dynamic dimension.
    """
    return _Graph(NetworkPart(spec, num_classes), weights).model(batch)


def part_model(part: Part, precision: str = "float32") -> onnx.ModelProto:
    """A part with random weights, batch 1, in the context in which it is timed; `precision` float32 or int8."""
    model = _Graph(part, None).model(1)
    return model if precision == "float32" else quantised(model)


def random_weights(layers: Sequence[Layer]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """He-initialised weights (arXiv 1502.01852), so that no activation fades into slow denormal numbers."""
    rng = np.random.default_rng(0)
    for layer in layers:
        shape = (layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel)
        scale = np.float32((2 / np.prod(shape[1:])) ** 0.5)
        bias = 0.01 * rng.standard_normal(layer.out_channels, np.float32)
        yield rng.standard_normal(shape, np.float32) * scale, bias


class _Graph:
    """Nodes in the order of the layers; each method takes and gives the name of a tensor."""

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
        # A head or a network ends in its logits; everything else in the pooling of its context.
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
        return self._activated(self._convolution(x, stride=2), part.stem.activation)

    @add.register
    def _(self, part: BlockPart, x: str) -> str:
        block, y = part.block, x
        if block.op == "mbconv":
            y = self._activated(self._convolution(y), block.activation)
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
        return (
            self._node("HardSigmoid", x, alpha=1 / 6, beta=0.5) if gate == "hard_sigmoid" else self._node("Sigmoid", x)
        )

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{op.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _constant(self, value: np.ndarray | np.float32) -> str:
        name = f"constant{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name


def _signature(part: Part) -> tuple[str, int, int, list[int]]:
    """Name, input channels, input side and output shape without the batch."""
    if isinstance(part, NetworkPart):
        return part.spec.name, 3, part.spec.resolution, [part.num_classes]
    if isinstance(part, StemPart):
        return part.key, 3, part.resolution, [part.stem.out, 1, 1]
    if isinstance(part, HeadPart):
        return part.key, CONTEXT_CHANNELS, part.in_size, [part.num_classes]
    if isinstance(part, BlockPart):
        return part.key, CONTEXT_CHANNELS, part.in_size, [part.block.out, 1, 1]
    return part.key, CONTEXT_CHANNELS, part.size, [part.channels, 1, 1]


# Static quantisation ----------------------------------------------------------------------------------

# Scale and zero point (uint8) of an operation's output. They are fixed: no time depends on them, and calibration
# takes a hundred times as long as writing the graph. What follows a ReLU begins at zero.
_RANGES = {"Relu": (1 / 16, 0), "Clip": (6 / 255, 0), "HardSigmoid": (1 / 255, 0), "Sigmoid": (1 / 255, 0)}
_SIGNED = (1 / 16, 128)


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of this file in int8, for timing: its outputs are as rough as its scales, which nothing calibrated.

    Every tensor is quantised and dequantised again (QDQ), weights in int8 a channel, activations in uint8, a ReLU
    left to the range of the tensor in front of it: the operations that `onnxruntime.quantization.quantize_static`
    writes. It takes 50 to 800 ms a part, this a few.
    """
    return _Quantised(model).model


class _Quantised:
    """The nodes of a float graph, in their order, between quantised tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._scales: dict[str, float] = {}  # of the tensors that were quantised
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        rectifiers = {node.input[0]: node for node in model.graph.node if node.op_type in ("Relu", "Clip")}
        self._activation(INPUT, _SIGNED)
        for node in model.graph.node:
            if node.op_type not in ("Relu", "Clip"):
                # Nothing but the ReLU reads what it rectifies.
                last = rectifiers.get(node.output[0], node)
                self._operation(node, last.output[0])
                self._activation(last.output[0], _RANGES.get(last.op_type, _SIGNED))
        graph = helper.make_graph(
            self._nodes, model.graph.name, model.graph.input, model.graph.output, list(self._initializers.values())
        )
        self.model = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)

    def _operation(self, node: onnx.NodeProto, output: str) -> None:
        inputs = [_dequantised(name) for name in node.input]
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = (self._weights[name] for name in node.input[1:])
            scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / np.float32(127)
            steps = weight / scales.reshape(-1, *[1] * (weight.ndim - 1))
            inputs[1] = self._channels(node.input[1], np.rint(steps).astype(np.int8), scales)
            scales = scales * np.float32(self._scales[node.input[0]])
            inputs[2] = self._channels(node.input[2], np.rint(bias / scales).astype(np.int32), scales)
        quantised_node = helper.make_node(node.op_type, inputs, [_undone(output)])
        quantised_node.attribute.extend(node.attribute)
        self._nodes.append(quantised_node)

    def _channels(self, name: str, values: np.ndarray, scales: np.ndarray) -> str:
        """Weights with a scale a channel, their first axis."""
        zeros = np.zeros(len(scales), values.dtype)
        arrays = zip((name, f"{name}_scale", f"{name}_zero"), (values, scales, zeros), strict=True)
        inputs = [self._constant(key, value) for key, value in arrays]
        self._nodes.append(helper.make_node("DequantizeLinear", inputs, [_dequantised(name)], axis=0))
        return _dequantised(name)

    def _activation(self, name: str, spread: tuple[float, int]) -> None:
        scale, zero = spread
        self._scales[name] = scale
        constants = [
            self._constant(f"scale_{scale:.4f}", np.float32(scale)),
            self._constant(f"zero_{zero}", np.uint8(zero)),
        ]
        self._nodes += [
            helper.make_node("QuantizeLinear", [_undone(name), *constants], [f"{name}_quantised"]),
            helper.make_node("DequantizeLinear", [f"{name}_quantised", *constants], [_dequantised(name)]),
        ]

    def _constant(self, name: str, value: Any) -> str:
        self._initializers.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name


def _dequantised(name: str) -> str:
    """The tensor as it is read; the graph's output keeps its name."""
    return name if name == OUTPUT else f"{name}_dequantised"


def _undone(name: str) -> str:
    """The tensor as it was computed, before it is quantised."""
    return f"{name}_undone" if name == OUTPUT else name
