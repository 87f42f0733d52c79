"""Quantise the graphs of `nas.arch.onnx_graph` to int8, for timing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Scale and zero point (uint8) of an operation's output. They are fixed: no time depends on them, and calibration
# takes a hundred times as long as writing the graph. The output of a ReLU begins at zero.
_RANGES = {"Relu": (1 / 16, 0), "Clip": (6 / 255, 0), "HardSigmoid": (1 / 255, 0), "Sigmoid": (1 / 255, 0)}
_SIGNED = (1 / 16, 128)


def quantise_for_timing(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph in int8 with the operations that `onnxruntime.quantization.quantize_static` writes.

    Every tensor is quantised and dequantised again (QDQ): weights in int8 with a scale a channel, activations in uint8.
    A ReLU is left to the range of the tensor in front of it. The scales are not calibrated, so that the outputs are
    rough. onnxruntime takes 50 to 800 ms a part, this function a few.
    """
    return _QuantisedGraph(model).model


class _QuantisedGraph:
    """The nodes of a float graph, in their order, between quantised tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        (graph_input,), (graph_output,) = model.graph.input, model.graph.output
        self._output = graph_output.name
        self._weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._scales: dict[str, float] = {}  # of the quantised tensors
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        rectifiers = {node.input[0]: node for node in model.graph.node if node.op_type in ("Relu", "Clip")}
        self._quantise_activation(graph_input.name, _SIGNED)
        for node in model.graph.node:
            if node.op_type not in ("Relu", "Clip"):
                # No other node reads the tensor in front of a ReLU.
                last = rectifiers.get(node.output[0], node)
                self._add_operation(node, last.output[0])
                self._quantise_activation(last.output[0], _RANGES.get(last.op_type, _SIGNED))
        graph = helper.make_graph(
            self._nodes, model.graph.name, model.graph.input, model.graph.output, list(self._initializers.values())
        )
        self.model = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)

    def _add_operation(self, node: onnx.NodeProto, output: str) -> None:
        inputs = [self._dequantised(name) for name in node.input]
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = (self._weights[name] for name in node.input[1:])
            scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / np.float32(127)
            steps = weight / scales.reshape(-1, *[1] * (weight.ndim - 1))
            inputs[1] = self._quantise_weights(node.input[1], np.rint(steps).astype(np.int8), scales)
            scales = scales * np.float32(self._scales[node.input[0]])
            inputs[2] = self._quantise_weights(node.input[2], np.rint(bias / scales).astype(np.int32), scales)
        operation = helper.make_node(node.op_type, inputs, [self._computed(output)])
        operation.attribute.extend(node.attribute)
        self._nodes.append(operation)

    def _quantise_weights(self, name: str, values: np.ndarray, scales: np.ndarray) -> str:
        """Add weights with one scale a channel, their first axis, and return the name of the dequantised tensor."""
        zeros = np.zeros(len(scales), values.dtype)
        arrays = zip((name, f"{name}_scale", f"{name}_zero"), (values, scales, zeros), strict=True)
        inputs = [self._constant(key, value) for key, value in arrays]
        self._nodes.append(helper.make_node("DequantizeLinear", inputs, [self._dequantised(name)], axis=0))
        return self._dequantised(name)

    def _quantise_activation(self, name: str, scale_and_zero: tuple[float, int]) -> None:
        scale, zero = scale_and_zero
        self._scales[name] = scale
        constants: Sequence[str] = [
            self._constant(f"scale_{scale:.4f}", np.float32(scale)),
            self._constant(f"zero_{zero}", np.uint8(zero)),
        ]
        self._nodes += [
            helper.make_node("QuantizeLinear", [self._computed(name), *constants], [f"{name}_quantised"]),
            helper.make_node("DequantizeLinear", [f"{name}_quantised", *constants], [self._dequantised(name)]),
        ]

    def _constant(self, name: str, value: np.ndarray | np.generic) -> str:
        self._initializers.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def _dequantised(self, name: str) -> str:
        """Return the name of a tensor as nodes read it. The graph's output keeps its name."""
        return name if name == self._output else f"{name}_dequantised"

    def _computed(self, name: str) -> str:
        """Return the name of a tensor as its node computes it, before it is quantised."""
        return f"{name}_computed" if name == self._output else name
