"""Graphs written without torch, run by onnxruntime, against the modules that torch builds."""

import random
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from support.fine_view import sample_fine_view
from support.onnx_sessions import session
from torch import nn

from nas.arch.cost import network_layers
from nas.arch.loading import load_space, space_names
from nas.arch.onnx_graph import network_model, part_model
from nas.arch.operations import INPUT, OUTPUT
from nas.arch.parts import BlockPart, ContextPart, HeadPart, NetworkPart, Part, StemPart, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.models.mobilenet import build_model, folded_convolutions

PUBLISHED = {
    "mobilenet_v1": 64,  # activations behind both convolutions, no residual
    "mobilenet_v2": 64,  # ReLU6, no hidden layer
    "mobilenet_v3_large": 96,
    "mobilenet_v3_small": 96,
    "mnasnet_a1": 64,  # SE sized from the input, with a sigmoid
    "mobilenetv4_conv_small": 64,  # fused and universal blocks, batch norm behind the hidden layer
    "mobilenetv4_conv_medium": 64,  # a residual around blocks without a depthwise convolution
}
SAMPLES = [(name, fine, seed) for name in space_names() for fine, seed in ((False, 0), (False, 1), (True, 2))]


def trained_looking(spec: ArchSpec, num_classes: int) -> nn.Module:
    """Return a network with batch norm as training leaves it. A fold in the wrong order or with a wrong epsilon shows.

    The statistics are those of random images, without which the signal fades and only the biases are compared.
    """
    torch.manual_seed(0)
    model = build_model(spec, num_classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, spec.resolution, spec.resolution))
    return model.eval()


def assert_equal_to_torch(spec: ArchSpec) -> None:
    """Compare with the module in double precision: in float32 torch is off by up to 2e-5 of the output's scale."""
    module = trained_looking(spec, 17)
    images = np.random.default_rng(0).standard_normal((2, 3, spec.resolution, spec.resolution), np.float32)
    graph = network_model(spec, 17, folded_convolutions(module), batch=2)
    (got,) = session(graph).run([OUTPUT], {INPUT: images})
    with torch.no_grad():
        wanted = module.double()(torch.from_numpy(images).double()).numpy()
    assert got.shape == wanted.shape == (2, 17)
    scale = np.abs(wanted).max()
    assert np.abs(got - wanted).max() <= min(1e-5, 3e-5 * scale)
    assert np.ptp(wanted, axis=0).max() > 0.1 * scale, "the images make no difference"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_give_torchs_outputs(name: str) -> None:
    assert_equal_to_torch(published_spec(name).replace(resolution=PUBLISHED[name]))


@pytest.mark.parametrize(("name", "fine", "seed"), SAMPLES)
def test_networks_of_the_spaces_give_torchs_outputs(name: str, fine: bool, seed: int) -> None:
    space = load_space(name).at([(1.0, load_space(name).resolutions[0])])
    sample = sample_fine_view if fine else SearchSpace.sample
    spec = sample(space, random.Random(seed))
    assert_equal_to_torch(spec.replace(resolution=64))


def test_odd_sizes_and_empty_heads_give_torchs_outputs() -> None:
    """33 pixels: 17, 9, 5 on the way down; no last convolution, no hidden layer, a residual around SE."""
    spec = ArchSpec(
        name="odd",
        resolution=33,
        stem=StemSpec(out=8, activation="relu6"),
        blocks=(
            BlockSpec(op="sepconv", kernel=7, expanded=8, out=8, se=8, gate="sigmoid", activation="hswish"),
            BlockSpec(kernel=5, expanded=20, out=12, stride=2, se=4),
            BlockSpec(kernel=3, expanded=12, out=12, activation="relu6"),
            BlockSpec(kernel=7, expanded=36, out=20, stride=2, se=8, activate_output=True),
        ),
        head=HeadSpec(conv=0),
    )
    assert_equal_to_torch(spec)
    assert_equal_to_torch(spec.replace(head=HeadSpec(conv=0, hidden=30, activation="relu")))
    assert_equal_to_torch(spec.replace(head=HeadSpec(conv=30, activation="relu6"), norm_eps=0.5))
    assert_equal_to_torch(spec.replace(stem=StemSpec(out=8, activation="relu6", stride=1)))


def test_universal_and_fused_blocks_at_odd_sizes_give_torchs_outputs() -> None:
    """Every form of the universal block, the stride before and behind its expansion; SE and residual in a fused one."""
    spec = ArchSpec(
        name="odd universal",
        resolution=33,
        stem=StemSpec(out=8, activation="relu"),
        blocks=(
            BlockSpec(op="fused", kernel=5, expanded=20, out=8, se=4),
            BlockSpec(op="uib", start_kernel=5, kernel=3, expanded=24, out=12, stride=2, activation="hswish"),
            BlockSpec(op="uib", start_kernel=3, kernel=5, expanded=36, out=12),
            BlockSpec(op="uib", start_kernel=0, kernel=0, expanded=30, out=12, se=8),
            BlockSpec(op="uib", start_kernel=7, kernel=0, expanded=24, out=16, stride=2, activation="relu6"),
            BlockSpec(op="uib", start_kernel=3, kernel=0, expanded=24, out=16),
            BlockSpec(op="fused", kernel=3, expanded=16, out=16, activate_output=True),
        ),
        head=HeadSpec(conv=24, hidden=30, activation="relu", hidden_norm=True),
    )
    assert_equal_to_torch(spec)
    assert_equal_to_torch(spec.replace(head=HeadSpec(conv=0, hidden=30, hidden_norm=True)))


def test_a_batch_can_be_left_open() -> None:
    spec = published_spec("mobilenet_v3_small").replace(resolution=32)
    run = session(network_model(spec, 10, batch="images_at_once"))
    for batch in (1, 3):
        (logits,) = run.run(None, {INPUT: np.zeros((batch, 3, 32, 32), np.float32)})
        assert logits.shape == (batch, 10)
    (images,) = session(network_model(spec)).get_inputs()
    assert images.shape == [1, 3, 32, 32]


def every_part() -> list[Part]:
    spec = published_spec("mobilenet_v3_large").replace(resolution=64)
    parts: list[Part] = [*parts_of(spec)]
    for name in ("mobilenet_v1", "mobilenetv4_conv_medium"):
        parts += parts_of(published_spec(name).replace(resolution=32))
    contexts = [context for part in parts if (context := context_of(part))]
    return [*dict.fromkeys([*parts, *contexts, NetworkPart(spec, 10)])]


def test_every_part_is_a_graph_that_runs() -> None:
    for part in every_part():
        run = session(part_model(part))
        (images,), (logits,) = run.get_inputs(), run.get_outputs()
        (got,) = run.run(None, {images.name: np.ones(images.shape, np.float32)})
        assert list(got.shape) == logits.shape
        assert np.isfinite(got).all()
        assert np.abs(got).max() > 1e-6, f"{part.key}: nothing comes through"


def operations(part: Part) -> list[str]:
    return [node.op_type for node in part_model(part).graph.node]


def test_a_part_stands_in_its_context() -> None:
    """A timed graph is the context's convolution, the part, and the pooling."""
    block = BlockPart(BlockSpec(kernel=3, expanded=48, out=24, se=16), 24, 14)
    assert operations(ContextPart(24, 14)) == ["Conv", "GlobalAveragePool"]
    squeeze = ["GlobalAveragePool", "Conv", "Relu", "Conv", "HardSigmoid", "Mul"]
    inner = ["Conv", "Relu", "Conv", "Relu", *squeeze, "Conv", "Add"]
    assert operations(block) == ["Conv", *inner, "GlobalAveragePool"]
    head = HeadPart(HeadSpec(conv=48, hidden=32), 24, 7, 10)
    inner = ["Conv", "HardSwish", "GlobalAveragePool", "Flatten", "Gemm", "HardSwish", "Gemm"]
    assert operations(head) == ["Conv", *inner]
    assert operations(StemPart(StemSpec(out=8), 32)) == ["Conv", "HardSwish", "GlobalAveragePool"]


def test_a_network_is_its_parts_without_their_contexts() -> None:
    spec = load_space("mobilenet_v3_small").sample(random.Random(0))
    whole = operations(NetworkPart(spec))
    pieces: list[str] = []
    for part in parts_of(spec):
        nodes = operations(part)
        nodes = nodes[1:] if context_of(part) else nodes
        pieces += nodes if isinstance(part, HeadPart) else nodes[:-1]
    assert whole == pieces


def test_weights_are_those_of_the_layers_and_no_denormals() -> None:
    spec = published_spec("mobilenet_v3_small")
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in network_model(spec).graph.initializer]
    layers = list(network_layers(spec))
    assert sum(tensor.size for tensor in tensors) == sum(layer.weights + layer.out_channels for layer in layers)
    assert all(np.abs(tensor[tensor != 0]).min() > np.finfo(np.float32).tiny for tensor in tensors)
    # The signal neither dies nor explodes on its way through random weights.
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    (logits,) = session(network_model(spec)).run(None, {INPUT: images})
    assert 1e-3 < np.abs(logits).max() < 1e3


def test_graphs_are_the_same_every_time() -> None:
    part = next(part for part in every_part() if isinstance(part, BlockPart))
    assert part_model(part).SerializeToString() == part_model(part).SerializeToString()


def test_writing_graphs_needs_no_torch() -> None:
    """Nor does measuring with onnxruntime: both must work on devices where torch cannot be installed."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import nas.arch.onnx_graph, nas.latency.runtimes.onnx_runtime as runtime\n"
        "from nas.arch.parts import ContextPart\n"
        "runtime.OnnxRuntime().compile(ContextPart(8, 4))()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
