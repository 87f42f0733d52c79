"""Write networks and their parts as ONNX graphs, without torch.

torch's exporter takes 0.6 to 3 s a block, this module milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.arch.cost import NUM_CLASSES
from nas.arch.onnx_int8 import quantise_for_timing
from nas.arch.operations import INPUT, OUTPUT, Graph, Operation, Weights, graph_of
from nas.arch.parts import NetworkPart, Part
from nas.arch.spec import ArchSpec

OPSET = 17
IR_VERSION = 8  # the one of opset 17, so that older runtimes read the file
_OPERATORS = {
    "relu": "Relu",
    "hswish": "HardSwish",
    "hard_sigmoid": "HardSigmoid",
    "sigmoid": "Sigmoid",
    "pool": "GlobalAveragePool",
    "flatten": "Flatten",
    "scale": "Mul",
    "add": "Add",
}


def network_model(
    spec: ArchSpec, num_classes: int = NUM_CLASSES, weights: Weights | None = None, batch: int | str = 1
) -> onnx.ModelProto:
    """Return the graph of a whole network: float32 (batch, 3, resolution, resolution) to (batch, num_classes).

    `weights` are those of `nas.arch.cost.network_layers`, in their order, with batch norm folded in. They are random by
    default. A text as `batch` names a dynamic dimension.
    """
    return _Writer(graph_of(NetworkPart(spec, num_classes), weights)).model(batch)


def part_model(part: Part, precision: str = "float32") -> onnx.ModelProto:
    """Return the graph of a part in its context, with random weights and batch 1. `precision` is float32 or int8."""
    model = _Writer(graph_of(part)).model(1)
    return model if precision == "float32" else quantise_for_timing(model)


def part_file(part: Part, precision: str = "float32") -> bytes:
    """Return `part_model` as the bytes of a file."""
    content: bytes = part_model(part, precision).SerializeToString()
    return content


def constants_in(file: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the place of each constant in a file (bytes from its beginning) and its values.

    The file is one that this module wrote: it holds the bytes of the constants in their order.
    """
    place = 0
    for tensor in onnx.load_from_string(file).graph.initializer:
        place = file.index(tensor.raw_data, place)
        yield place, numpy_helper.to_array(tensor)
        place += len(tensor.raw_data)


class _Writer:
    """Turn operations into the nodes of an ONNX graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        names = [INPUT]
        for operation in graph.operations:
            names.append(self._add(operation, [names[number] for number in operation.inputs]))
        self._nodes[-1].output[0] = OUTPUT

    def model(self, batch: int | str) -> onnx.ModelProto:
        graph, last = self._graph, self._graph.operations[-1]
        in_shape = [batch, graph.in_channels, graph.in_size, graph.in_size]
        out_shape = [batch, last.channels, *([] if graph.is_flat else [1, 1])]
        images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, in_shape)
        logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, out_shape)
        made = helper.make_graph(self._nodes, graph.name, [images], [logits], self._initializers)
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _add(self, operation: Operation, inputs: list[str]) -> str:
        """Add the node of an operation, and return the name of its output."""
        if operation.kind == "relu6":
            return self._node("Clip", *inputs, self._constant(np.float32(0)), self._constant(np.float32(6)))
        if operation.kernel is None:
            attributes = {"alpha": 1 / 6, "beta": 0.5} if operation.kind == "hard_sigmoid" else {}
            return self._node(_OPERATORS[operation.kind], *inputs, **attributes)
        layer, stride, weight, bias = operation.kernel
        if operation.kind == "linear":
            flat = weight.reshape(len(bias), -1)
            return self._node("Gemm", *inputs, self._constant(flat), self._constant(bias), transB=1)
        kernel, pad = layer.kernel, layer.kernel // 2
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "group": layer.groups}
        return self._node("Conv", *inputs, self._constant(weight), self._constant(bias), **shape)

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{op.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _constant(self, value: np.ndarray | np.float32) -> str:
        name = f"constant{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name
