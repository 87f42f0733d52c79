"""The light heads against torchvision's own models."""

import random

import pytest
import torch
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from nas.arch.loading import load_space, load_spec
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError
from nas.models.heads import detection_model, segmentation_model
from nas.models.mobilenet import build_model

LARGE = load_spec("mobilenet_v3_large")


def spec_of(strides: tuple[int, ...], **changes) -> ArchSpec:
    blocks = tuple(BlockSpec(kernel=3, expanded=24, out=16, stride=stride, **changes) for stride in strides)
    return ArchSpec(name="small net", resolution=64, stem=StemSpec(out=16), blocks=blocks, head=HeadSpec(conv=48))


def randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)


@torch.no_grad()
def test_segmentation_with_large_is_torchvision_s():
    torch.manual_seed(0)
    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    randomise_norms(theirs)
    ours = segmentation_model(LARGE, 21).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(1, 3, 96, 128)
    assert torch.equal(ours(images)["out"], theirs(images)["out"])
    assert ours(images)["out"].shape == (1, 21, 96, 128)


@torch.no_grad()
def test_detection_with_large_is_torchvision_s():
    torch.manual_seed(0)
    theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    randomise_norms(theirs)
    ours = detection_model(LARGE, 91).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    # torchvision's published figure for 91 classes.
    assert sum(parameter.numel() for parameter in ours.parameters()) == 3_440_060
    norms = {(m.eps, m.momentum) for m in ours.modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {(m.eps, m.momentum) for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.03)}
    images = [torch.rand(3, 200, 150)]
    (got,), (expected,) = ours(images), theirs(images)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in got)
    assert len(got["scores"]) > 0


def test_the_backbone_starts_as_torchvision_s_detector():
    """All weights have a deviation of 0.03. Those of He's initialisation are several times that."""
    torch.manual_seed(0)
    model = detection_model(load_spec("mobilenet_v3_small"), 5)
    deviations = [m.weight.std().item() for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 999]
    assert all(0.025 < deviation < 0.035 for deviation in deviations)


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_found_networks_are_tapped_at_the_last_block_of_a_stride(name):
    spec = load_space(name).sample(random.Random(0)).replace(resolution=64)
    model = segmentation_model(spec, 3)
    seen = []
    for module in model.backbone.values():
        module.register_forward_hook(lambda module, _, output: seen.append(output))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 64, 64))
        low, high = model.backbone(torch.zeros(1, 3, 64, 64)).values()
    sides = [output.shape[2] for output in seen[: len(seen) // 2]]
    last = len(sides) - 1 - sides[::-1].index(8)
    assert low.shape[1:] == (spec.blocks[last - 1].out, 8, 8)
    assert torch.equal(low, seen[len(seen) // 2 + last])
    assert sides[last + 1 :] == [4] * (len(sides) - last - 1)  # stride 16 to the end
    assert high.shape[1:] == (spec.head.conv, 4, 4)


@pytest.mark.parametrize(
    ("strided", "channels"),
    [
        ({"op": "uib", "start_kernel": 3, "kernel": 5}, 24),  # behind the expansion
        ({"op": "uib", "start_kernel": 3, "kernel": 0}, 16),  # the stride comes before the expansion
        ({"op": "fused", "kernel": 3}, 16),
    ],
)
def test_detection_taps_what_still_has_stride_16(strided, channels):
    spec = spec_of((2, 2, 2, 2)).with_block(3, **strided)
    model = detection_model(spec, 3, build_model(spec, 3)).eval()
    with torch.no_grad():
        first, second, *_ = model.backbone(torch.zeros(1, 3, 320, 320)).values()
    assert (first.shape[1:], second.shape[1:]) == ((channels, 20, 20), (48, 10, 10))


@torch.no_grad()
def test_behind_stride_16_universal_and_fused_blocks_are_dilated():
    spec = spec_of((2, 2, 2), activation="relu")
    spec = spec.replace(
        blocks=(
            *spec.blocks,
            BlockSpec(op="uib", start_kernel=3, kernel=0, expanded=24, out=16, stride=2),
            BlockSpec(op="uib", start_kernel=3, kernel=5, expanded=24, out=16),
            BlockSpec(op="fused", kernel=3, expanded=24, out=16),
        )
    )
    model = segmentation_model(spec, 3, build_model(spec, 3)).eval()
    assert model.backbone(torch.zeros(1, 3, 256, 256))["high"].shape[2:] == (16, 16)
    convolutions = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert [m.dilation[0] for m in convolutions] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert all(m.stride == (1, 1) for m in convolutions[4:])


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mnasnet_a1", "mobilenetv4_conv_small"])
def test_other_networks_carry_the_heads_too(name):
    spec = load_spec(name)
    torch.manual_seed(0)
    with torch.no_grad():
        assert segmentation_model(spec, 4).eval()(torch.rand(1, 3, 64, 64))["out"].shape == (1, 4, 64, 64)
        model = detection_model(spec, 4).eval()
        assert model([torch.rand(3, 64, 64)])[0]["boxes"].shape[1] == 4
        maps = model.backbone(torch.zeros(1, 3, 320, 320))
    assert [tuple(value.shape[2:]) for value in maps.values()] == [(n, n) for n in (20, 10, 5, 3, 2, 1)]


def test_a_trained_network_hands_on_its_weights():
    spec = load_spec("mobilenet_v2")
    torch.manual_seed(0)
    trained = build_model(spec, 10)
    for model in (segmentation_model(spec, 3, trained), detection_model(spec, 3, trained)):
        body = model.backbone if isinstance(model.backbone, nn.ModuleDict) else model.backbone.features
        first, *_, last = [m.weight for m in body.modules() if isinstance(m, nn.Conv2d)]
        assert torch.equal(first, trained.features[0][0].weight)
        assert torch.equal(last, trained.features[-1][0].weight)  # whole: the tail is not halved
    with pytest.raises(
        NasError, match=r"the trained network is of another spec \(mobilenet_v2\) than mobilenet_v3_large"
    ):
        segmentation_model(LARGE, 3, trained)


@pytest.mark.parametrize(
    ("model", "strides", "message"),
    [
        (segmentation_model, (1, 2), r"small net: its strides are 2, 4; LR-ASPP taps a block of stride 8"),
        (segmentation_model, (2, 2), r"small net: its strides are 2, 4, 8; LR-ASPP needs a map of stride 16 as well"),
        (detection_model, (2, 2, 2), r"small net: its strides are 2, 4, 8, 16; SSDLite taps the last maps of strides"),
        (detection_model, (2,) * 5, r"small net: its strides are 2, 4, 8, 16, 32, 64; SSDLite taps the last maps"),
    ],
)
def test_networks_without_a_fitting_tap_are_refused(model, strides, message):
    with pytest.raises(NasError, match=message):
        model(spec_of(strides), 3)


def test_a_stem_of_stride_1_counts_as_such():
    """The strides of the blocks alone reach 32; with torchvision's blocks it is still not torchvision's network."""
    stem = StemSpec(out=16, stride=1)
    with pytest.raises(NasError, match=r"its strides are 1, 2, 4; LR-ASPP taps a block of stride 8"):
        segmentation_model(spec_of((2, 2)).replace(stem=stem), 3)
    with pytest.raises(NasError, match=r"its strides are 1, 2, 4, 8, 16; SSDLite taps"):
        detection_model(LARGE.replace(stem=stem), 3)
    model = segmentation_model(LARGE.replace(stem=stem), 3)
    with torch.no_grad():
        low, high = model.eval().backbone(torch.zeros(1, 3, 64, 64)).values()
    assert (low.shape[1:], high.shape[1:]) == ((112, 8, 8), (960, 4, 4))  # the last block of stride 8, not the first
