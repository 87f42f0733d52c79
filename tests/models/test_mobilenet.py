"""The built module against torchvision's, against published sizes, and against the arithmetic of nas.arch.cost."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from support.fine_view import sample_fine_view
from torch import nn
from torch.nn.functional import conv2d
from torchvision.models import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small, mobilenetv2, mobilenetv3
from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf

from nas.arch.cost import count_cost, network_layers
from nas.arch.families import FAMILIES
from nas.arch.loading import load_space, load_spec, space_names
from nas.arch.published import published_names
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.models.mobilenet import InvertedResidual, build_model, folded_convolutions

# Parameters, and convolutional and linear MACs where they were measured, at 224 px and 1000 classes
# (torchvision 0.29, timm 1.0.31, fvcore 0.1.5).
PUBLISHED = {
    "mobilenet_v3_large": (5_483_032, 214_080_960, 2_508_800),
    "mobilenet_v3_small": (2_542_856, 54_896_576, 1_613_824),
    "mobilenet_v3_large@0.75": (3_993_528, None, None),
    "mobilenet_v3_small@0.75": (2_041_872, None, None),
    "mobilenet_v3_small@0.5": (1_593_224, None, None),
    "mobilenet_v2": (3_504_872, 299_494_272, 1_280_000),
    "mobilenet_v2@0.5": (1_968_680, None, None),
    "mobilenet_v2@1.4": (6_108_776, None, None),
    "mobilenet_v1": (4_231_976, 567_716_352, 1_024_000),
    "mnasnet_a1": (3_887_038, 310_299_072, 1_280_000),
    "mnasnet_100": (4_383_312, 313_135_872, 1_280_000),
    "mobilenetv4_conv_small": (3_774_024, None, None),
    "mobilenetv4_conv_medium": (9_715_512, None, None),
    "hardcorenas_a": (5_260_232, None, None),
    "hardcorenas_f": (8_199_688, None, None),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def traced_macs(model: nn.Module, resolution: int) -> tuple[int, int]:
    """Return the MACs of convolutions and of linear layers, counted by fvcore on the running module."""
    analysis = FlopCountAnalysis(model.eval(), torch.zeros(1, 3, resolution, resolution))
    counts = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return int(counts["conv"]), int(counts["linear"])


def randomise_norms(model: nn.Module) -> nn.Module:
    """Set statistics and scales as training leaves them, so that a wrong epsilon or order shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.2, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_is_the_published_one(name):
    spec = load_spec(name)
    params, conv_macs, linear_macs = PUBLISHED[name]
    model = build_model(spec)
    cost = count_cost(spec)
    assert parameters(model) == params == cost.params
    assert traced_macs(model, 224) == (cost.conv_macs, cost.linear_macs)
    if conv_macs:
        assert (cost.conv_macs, cost.linear_macs) == (conv_macs, linear_macs)


@pytest.mark.parametrize("name", sorted({*published_names(), *FAMILIES}))
def test_every_published_network_has_the_parameters_of_its_cost(name):
    spec = load_spec(name)
    assert parameters(build_model(spec, 17)) == count_cost(spec, 17).params


def torchvision_twins():
    yield load_spec("mobilenet_v3_large"), mobilenet_v3_large
    yield load_spec("mobilenet_v3_small"), mobilenet_v3_small
    yield load_spec("mobilenet_v2"), mobilenet_v2
    for name in ("mobilenet_v3_large", "mobilenet_v3_small"):
        for width in (0.35, 0.75, 1.25):
            yield (
                load_spec(name, width=width, scale_head=True),
                lambda name=name, width=width: MobileNetV3(*_mobilenet_v3_conf(name, width_mult=width)),
            )


@pytest.mark.parametrize(("spec", "theirs"), list(torchvision_twins()), ids=lambda value: getattr(value, "name", ""))
def test_equals_torchvision_to_the_last_bit(spec, theirs):
    torch.manual_seed(0)
    theirs = randomise_norms(theirs()).eval()
    ours = build_model(spec).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_is_initialised_as_torchvision():
    torch.manual_seed(3)
    theirs = mobilenet_v3_small().state_dict()
    torch.manual_seed(3)
    ours = build_model(load_spec("mobilenet_v3_small")).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_batch_norm_has_the_published_constants():
    for name, eps in (("mobilenet_v3_small", 1e-3), ("mobilenet_v2", 1e-5)):
        norms = [m for m in build_model(load_spec(name)).modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(eps, 0.01)}


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("fine", [False, True])
def test_networks_of_the_spaces_are_built_and_agree_with_their_cost(name, fine):
    space = load_space(name)
    sample = sample_fine_view if fine else SearchSpace.sample
    rng = random.Random(0)
    for _ in range(2):
        spec = sample(space, rng)
        model = build_model(spec, num_classes=10)
        cost = count_cost(spec, 10)
        assert parameters(model) == cost.params
        assert traced_macs(model, spec.resolution) == (cost.conv_macs, cost.linear_macs)


# Blocks that torchvision's classes cannot express, and some that they can, at their edges.
ODD_SPEC = ArchSpec(
    name="odd",
    resolution=32,
    stem=StemSpec(out=16, activation="relu6"),
    blocks=(
        BlockSpec(kernel=3, expanded=16, out=16),  # an expand convolution that keeps the channels
        BlockSpec(op="sepconv", kernel=5, expanded=16, out=16, activation="hswish", se=4, gate="sigmoid"),
        BlockSpec(kernel=3, expanded=20, out=12, activation="relu"),  # channels that are no multiples of 8
        BlockSpec(kernel=7, expanded=24, out=16, stride=2, activation="relu6"),
        BlockSpec(kernel=3, expanded=24, out=16, activation="relu6", se=5),
        BlockSpec(kernel=3, expanded=32, out=16, activation="relu6"),
        BlockSpec(op="sepconv", kernel=3, expanded=16, out=16, activation="relu6", activate_output=True),
    ),
    head=HeadSpec(conv=0, hidden=24),
)
UNIVERSAL_SPEC = ArchSpec(
    name="universal",
    resolution=32,
    stem=StemSpec(out=16, activation="relu"),
    blocks=(
        BlockSpec(op="fused", kernel=5, expanded=24, out=16, se=8),
        BlockSpec(op="uib", start_kernel=5, kernel=3, expanded=40, out=24, stride=2),
        BlockSpec(op="uib", start_kernel=3, kernel=5, expanded=48, out=24, activation="hswish"),
        BlockSpec(op="uib", kernel=0, expanded=48, out=24),
        BlockSpec(op="uib", start_kernel=3, kernel=0, expanded=48, out=32, stride=2, activation="relu6"),
        BlockSpec(op="fused", kernel=3, expanded=48, out=32, activate_output=True),
    ),
    head=HeadSpec(conv=40, hidden=24, activation="relu", hidden_norm=True),
)
BLOCK_TYPES = [
    InvertedResidual,
    mobilenetv3.InvertedResidual,
    InvertedResidual,
    InvertedResidual,
    InvertedResidual,
    mobilenetv2.InvertedResidual,
    InvertedResidual,
]


def plain_forward(spec: ArchSpec, folded, images: torch.Tensor) -> torch.Tensor:
    """Run the network as nas.arch.spec describes it, with the layers of `folded_convolutions`."""
    activations = {"relu": nn.functional.relu, "relu6": nn.functional.relu6, "hswish": nn.functional.hardswish}
    gates = {"hard_sigmoid": nn.functional.hardsigmoid, "sigmoid": torch.sigmoid}
    layers = iter(folded)

    def convolve(x, stride=1, groups=1):
        weight, bias = map(torch.from_numpy, next(layers))
        return conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)

    def linear(x):
        weight, bias = map(torch.from_numpy, next(layers))
        return nn.functional.linear(x, weight, bias)

    x = activations[spec.stem.activation](convolve(images, 2))
    for placed in spec.walk():
        block, before = placed.block, x
        activation = activations[block.activation]
        if block.start_kernel:
            x = convolve(x, 1 if block.kernel else block.stride, placed.in_channels)
        if block.op in ("mbconv", "uib"):
            x = activation(convolve(x))
        if block.kernel:
            x = activation(convolve(x, block.stride, 1 if block.op == "fused" else block.expanded))
        if block.se:
            squeezed = nn.functional.relu(convolve(x.mean((2, 3), keepdim=True)))
            x = x * gates[block.gate](convolve(squeezed))
        x = convolve(x)
        if block.activate_output:
            x = activation(x)
        if placed.has_residual:
            x = x + before
    if spec.head.conv:
        x = activations[spec.head.activation](convolve(x))
    x = x.mean((2, 3))
    if spec.head.hidden:
        x = activations[spec.head.activation](linear(x))
    x = linear(x)
    assert next(layers, None) is None
    return x


def test_blocks_are_torchvision_s_where_they_can_be():
    assert [type(block) for block in build_model(ODD_SPEC).features[1:]] == BLOCK_TYPES
    assert {type(block) for block in build_model(load_spec("mobilenet_v3_large")).features[1:-1]} == {
        mobilenetv3.InvertedResidual
    }


@pytest.mark.parametrize(
    "spec",
    [
        ODD_SPEC,
        UNIVERSAL_SPEC,
        *map(
            load_spec, ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet_a1", "mobilenetv4_conv_medium")
        ),
    ],
)
def test_a_network_computes_as_its_spec_says(spec):
    torch.manual_seed(1)
    model = randomise_norms(build_model(spec, num_classes=7)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        got = plain_forward(spec, folded_convolutions(model), images)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_folded_convolutions_follow_the_layers_of_the_cost():
    for spec in (ODD_SPEC, UNIVERSAL_SPEC, load_spec("mobilenet_v2"), load_spec("mnasnet_a1")):
        folded = folded_convolutions(build_model(spec, num_classes=7))
        layers = list(network_layers(spec, 7))
        assert len(folded) == len(layers)
        for (weight, bias), layer in zip(folded, layers, strict=True):
            assert weight.dtype == bias.dtype == np.float32
            shape = (layer.out_channels, layer.in_channels // layer.groups)
            assert weight.shape == (shape if layer.linear else (*shape, layer.kernel, layer.kernel))
            assert bias.shape == (layer.out_channels,)


def test_a_module_keeps_its_spec_and_can_be_copied():
    model = build_model(ODD_SPEC, num_classes=3)
    assert model.spec is ODD_SPEC
    assert copy.deepcopy(model).spec == ODD_SPEC
    assert pickle.loads(pickle.dumps(model)).spec == ODD_SPEC
