"""TFLite graphs in int8 with fixed scales against those of ai-edge-quantizer, which is what an export ships."""

from typing import Any

import numpy as np
import pytest
from support.quantised_parts import QUANTISED

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")

from ai_edge_litert import schema_py_generated as schema

from nas.arch.tflite_graph import FLOAT_OPERATORS, float_operators, part_file
from nas.deploy.tflite_int8 import quantised
from nas.litert import open_interpreter


def described(model: bytes) -> list[tuple[Any, ...]]:
    """Return the operators of a file with their options, and of their tensors type, shape and number of scales."""
    contents = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = contents.subgraphs

    def tensor(number: int) -> tuple[Any, ...]:
        found = graph.tensors[number]
        scales = found.quantization.scale if found.quantization else None
        return found.type, tuple(map(int, found.shape)), 0 if scales is None else len(scales)

    def options(operator: Any) -> dict[str, Any]:
        return vars(operator.builtinOptions) if operator.builtinOptions else {}

    return [
        (
            contents.operatorCodes[operator.opcodeIndex].builtinCode,
            options(operator),
            [tensor(number) for number in operator.inputs],
            [tensor(number) for number in operator.outputs],
        )
        for operator in graph.operators
    ]


def operators(model: bytes) -> set[str]:
    """Return the names of the operators of a file."""
    contents = schema.ModelT.InitFromPackedBuf(model, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    return {names[code.builtinCode] for code in contents.operatorCodes}


def run_by(model: bytes) -> list[tuple[str, int, int]]:
    """Return the operators that LiteRT runs: those that XNNPACK takes are one DELEGATE for each piece of the graph."""
    return [
        (one["op_name"], len(one["inputs"]), len(one["outputs"])) for one in open_interpreter(model)._get_ops_details()
    ]


@pytest.mark.parametrize("name", QUANTISED)
def test_int8_has_the_operators_of_ai_edge_quantizers_own(name: str) -> None:
    """A timed part runs as the deployed network would, on the kernels of XNNPACK or of LiteRT alike."""
    plain, ours = part_file(QUANTISED[name]), part_file(QUANTISED[name], "int8")
    graph = schema.ModelT.InitFromPackedBuf(plain, 0).subgraphs[0]
    one, height, width, channels = graph.tensors[graph.inputs[0]].shape
    images = np.random.default_rng(0).standard_normal((2 * one, channels, height, width), np.float32)
    theirs = quantised(plain, [images])
    assert described(ours) == described(theirs)
    assert run_by(ours) == run_by(theirs)
    hswish = "HARD_SWISH" in operators(plain)
    assert float_operators(ours) == float_operators(theirs) == (list(FLOAT_OPERATORS) if hswish else [])
    assert "DELEGATE" in [name for name, *_ in run_by(ours)]


def test_operators_in_float32_are_named() -> None:
    assert float_operators(part_file(QUANTISED["sigmoid"])) == [
        *("CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "LOGISTIC", "MUL", "ADD")
    ]
