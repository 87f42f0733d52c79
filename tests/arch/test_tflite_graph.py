"""TFLite files written without TensorFlow, run by LiteRT, against the ONNX graphs of the same operations."""

import random
from typing import Any

import numpy as np
import pytest
from support.onnx_sessions import session

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from ai_edge_litert import schema_py_generated as schema

from nas.arch import onnx_graph
from nas.arch.loading import load_space
from nas.arch.operations import INPUT, OUTPUT, SIGNATURE
from nas.arch.parts import BlockPart, ContextPart, HeadPart, Part, StemPart
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.arch.tflite_graph import metadata_of, network_model, part_file
from nas.latency.runtimes.litert import LiteRt

ODD = ArchSpec(
    name="odd sizes, every operation",
    resolution=33,
    stem=StemSpec(out=8, activation="relu6"),
    blocks=(
        BlockSpec(op="fused", kernel=5, expanded=20, out=8, se=4),
        BlockSpec(op="sepconv", kernel=7, expanded=8, out=8, se=8, gate="sigmoid", activation="hswish"),
        BlockSpec(kernel=5, expanded=20, out=12, stride=2, se=4),
        BlockSpec(op="uib", start_kernel=5, kernel=3, expanded=24, out=12, stride=2, activation="hswish"),
        BlockSpec(op="uib", kernel=0, expanded=30, out=12, se=8),
        BlockSpec(kernel=7, expanded=36, out=20, stride=2, se=8, activate_output=True),
    ),
    head=HeadSpec(conv=24, hidden=30),
)
NETWORKS = {
    "odd": ODD,
    "odd, stride 1": ODD.replace(stem=StemSpec(out=8, stride=1)),
    "without a last convolution": ODD.replace(head=HeadSpec(conv=0)),
    "hidden relu": ODD.replace(head=HeadSpec(conv=0, hidden=30, activation="relu")),
    **{
        name: published_spec(name).replace(resolution=64)
        for name in ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mnasnet_a1", "mobilenetv4_conv_small")
    },
}
PARTS: dict[str, Part] = {
    "stem": StemPart(StemSpec(out=8), 32),
    "block": BlockPart(BlockSpec(kernel=5, expanded=48, out=16, se=16, activation="hswish"), 16, 14),
    "strided": BlockPart(BlockSpec(kernel=5, expanded=48, out=24, stride=2, activation="relu6"), 16, 14),
    "head": HeadPart(HeadSpec(conv=48, hidden=32), 16, 7, 10),
    "context": ContextPart(16, 14),
}


def images_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def run(model: bytes, images: np.ndarray) -> np.ndarray:
    """Return the output of a TFLite model for images with the channels in the second place."""
    interpreter = LiteRt().interpreter(model)
    runner = interpreter.get_signature_runner(SIGNATURE)
    output: np.ndarray = runner(**{INPUT: np.ascontiguousarray(images.transpose(0, 2, 3, 1))})[OUTPUT]
    return output.transpose(0, 3, 1, 2) if output.ndim == 4 else output


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_the_outputs_of_their_onnx_graphs(name: str) -> None:
    """The ONNX graphs are compared with torch's modules."""
    spec = NETWORKS[name]
    images = images_of((1, 3, spec.resolution, spec.resolution))
    (wanted,) = session(onnx_graph.network_model(spec, 17)).run([OUTPUT], {INPUT: images})
    got = run(network_model(spec, 17), images)
    assert got.shape == wanted.shape == (1, 17)
    assert np.abs(got - wanted).max() <= 1e-5 * np.ptp(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_a_space_give_the_outputs_of_their_onnx_graphs(seed: int) -> None:
    spec = load_space("mobilenet_v3_small").sample(random.Random(seed)).replace(resolution=64)
    images = images_of((1, 3, 64, 64))
    (wanted,) = session(onnx_graph.network_model(spec, 17)).run([OUTPUT], {INPUT: images})
    assert np.abs(run(network_model(spec, 17), images) - wanted).max() <= 1e-5 * np.ptp(wanted)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", PARTS)
def test_parts_give_the_outputs_of_their_onnx_graphs(name: str, precision: str) -> None:
    """In int8 both have the same scales, and differ by their rounding."""
    graph = session(onnx_graph.part_model(PARTS[name], precision))
    (source,) = graph.get_inputs()
    images = images_of(tuple(source.shape))
    (wanted,) = graph.run([OUTPUT], {INPUT: images})
    got = run(part_file(PARTS[name], precision), images)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= (1e-5 if precision == "float32" else 0.05) * np.ptp(wanted)


def contents(model: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(model, 0)


def operators(model: bytes) -> list[str]:
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    found = contents(model)
    return [names[found.operatorCodes[one.opcodeIndex].builtinCode] for one in found.subgraphs[0].operators]


def test_a_relu_is_part_of_its_convolution_and_uneven_padding_an_operator_of_its_own() -> None:
    block = BlockPart(BlockSpec(kernel=5, expanded=48, out=24, stride=2, se=16), 16, 14)
    squeeze = ["MEAN", "CONV_2D", "CONV_2D", "ADD", "MUL", "MUL"]
    inner = ["CONV_2D", "PAD", "DEPTHWISE_CONV_2D", *squeeze, "CONV_2D"]
    assert operators(part_file(block)) == ["CONV_2D", *inner, "MEAN"]
    odd = BlockPart(block.block, 16, 15)  # TensorFlow's padding is the same at both ends
    assert operators(part_file(odd)) == ["CONV_2D", *(one for one in inner if one != "PAD"), "MEAN"]
    assert operators(part_file(block, "int8")) == ["QUANTIZE", "CONV_2D", *inner, "MEAN", "DEQUANTIZE"]


def test_int8_has_weights_of_a_byte_with_a_scale_for_each_channel() -> None:
    block = BlockPart(BlockSpec(kernel=5, expanded=48, out=16, se=16), 16, 14)
    tensors = contents(part_file(block, "int8")).subgraphs[0].tensors
    kinds = {tensor.type for tensor in tensors if tensor.name.decode() not in (INPUT, OUTPUT)}
    assert kinds == {schema.TensorType.INT8, schema.TensorType.INT32}
    depthwise = next(tensor for tensor in tensors if list(tensor.shape) == [1, 5, 5, 48])
    assert (len(depthwise.quantization.scale), depthwise.quantization.quantizedDimension) == (48, 3)
    constants = [tensor for tensor in tensors if tensor.buffer and tensor.quantization]  # not the axes of a mean
    weights = [tensor for tensor in constants if len(tensor.quantization.scale) > 1]  # not numbers
    assert len(constants) == len(weights) + 2
    assert not any(np.any(tensor.quantization.zeroPoint) for tensor in weights)


def test_buffers_are_aligned() -> None:
    """The schema asks for it, and a processor may refuse to read floats anywhere else."""
    model = part_file(PARTS["block"])
    read = schema.Model.GetRootAsModel(model, 0)
    data = [
        buffer.DataAsNumpy() for number in range(read.BuffersLength()) if (buffer := read.Buffers(number)).DataLength()
    ]
    base = np.frombuffer(model, np.uint8).ctypes.data
    assert len(data) > 5
    assert all((values.ctypes.data - base) % 16 == 0 for values in data)


def test_texts_travel_in_the_metadata() -> None:
    texts = {"nas": "{}", "labels": "Kleid\nÄrmel"}
    model = network_model(ODD, 10, metadata=texts)
    assert metadata_of(model) == texts
    images = images_of((1, 3, 33, 33))
    assert (run(model, images) == run(network_model(ODD, 10), images)).all()


def test_files_are_the_same_every_time() -> None:
    assert part_file(PARTS["block"], "int8") == part_file(PARTS["block"], "int8")
