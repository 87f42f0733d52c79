"""Run graphs in int8 as a processor without VNNI does, which adds each two products in 16 bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

INT16 = np.iinfo(np.int16)


def saturating(pairs: np.ndarray) -> np.ndarray:
    return np.clip(pairs, INT16.min, INT16.max)


def exact(pairs: np.ndarray) -> np.ndarray:
    return pairs


def run_int8(model: onnx.ModelProto, images: np.ndarray, add_pairs: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the logits of a quantised graph, whose sums of two products each are what `add_pairs` makes of them.

    Only the products of dense convolutions and linear layers are added so: onnxruntime widens those of depthwise ones.
    """

    class Product(OpRun):
        op_domain = "emulated"

        def _run(self, *inputs, kernel=1, stride=1, dense=1):  # type: ignore[no-untyped-def]
            images, scale, zero, weights, scales, bias = inputs
            if dense:
                values, weights = images[:, :, None, None], weights[:, :, None, None]
            else:
                edge = kernel // 2
                padding = ((0, 0), (0, 0), (edge, edge), (edge, edge))
                values = np.pad(images, padding, constant_values=zero)
            windows = np.lib.stride_tricks.sliding_window_view(values, (kernel, kernel), axis=(2, 3))
            windows = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 4, 5, 1).astype(np.int32)
            rows = windows.reshape(*windows.shape[:3], -1)
            columns = weights.transpose(2, 3, 1, 0).reshape(-1, len(weights)).astype(np.int32)
            total = -int(zero) * columns.sum(axis=0)
            for k in range(0, len(columns), 2):
                total = total + add_pairs(rows[..., k : k + 2] @ columns[k : k + 2])
            result = (total * (scale * scales) + bias).astype(np.float32).transpose(0, 3, 1, 2)
            return (result[:, :, 0, 0] if dense else result,)

    return ReferenceEvaluator(_with_products(model), new_ops=[Product]).run(None, {model.graph.input[0].name: images})[
        0
    ]


def _with_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with one operation `Product` for every dense product between dequantised tensors."""
    made_by = {node.output[0]: node for node in model.graph.node}
    nodes = []
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type not in ("Conv", "Gemm") or attributes.get("group", 1) != 1:
            nodes.append(node)
            continue
        values, weights = (made_by[name].input for name in node.input[:2])
        inputs = [*values, weights[0], weights[1], node.input[2]]
        options = {"kernel": attributes.get("kernel_shape", [1])[0], "stride": attributes.get("strides", [1])[0]}
        options["dense"] = int(node.op_type == "Gemm")
        nodes.append(helper.make_node("Product", inputs, node.output, domain="emulated", **options))
    graph = helper.make_graph(nodes, "emulated", model.graph.input, model.graph.output, model.graph.initializer)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("emulated", 1)]  # the evaluator's quantisation is of 19
    return helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
