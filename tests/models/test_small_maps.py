"""Small-map convolutions against torch's own."""

import copy

import pytest
import torch
from torch import nn

from nas.arch.loading import load_spec
from nas.models import small_maps
from nas.models.mobilenet import build_model
from nas.models.small_maps import SmallMapConv2d, use_small_map_convolutions


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (7, 7), (1, 3), (5, 2)])
@pytest.mark.parametrize(
    ("kernel", "stride", "groups"),
    [(1, 1, 1), (1, 2, 1), (3, 1, 8), (3, 2, 8), (5, 1, 8), (5, 2, 8), (7, 2, 1), (5, 1, 2)],
)
@pytest.mark.parametrize("bias", [False, True])
def test_results_and_gradients_are_those_of_torch(size, kernel, stride, groups, bias):
    torch.manual_seed(0)
    theirs = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups, bias=bias).double()
    ours = copy.deepcopy(theirs)
    use_small_map_convolutions(ours)
    assert type(ours) is SmallMapConv2d
    images = torch.randn(3, 8, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    results = []
    for convolution in (theirs, ours):
        x = images.clone().requires_grad_()
        y = convolution(x)
        (y**3).sum().backward()
        results.append([y, x.grad, *(parameter.grad for parameter in convolution.parameters())])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "way"),
    [
        *((2, 3, 1, "pairs"), (3, 3, 2, "pairs"), (4, 3, 1, ""), (4, 5, 2, "pairs"), (4, 5, 1, "convolution")),
        *((7, 5, 1, "convolution"), (8, 5, 2, ""), (14, 5, 1, "")),
    ],
)
def test_gradients_of_depthwise_weights_are_computed_as_is_quickest(side, kernel, stride, way):
    assert small_maps._way(torch.Size((side, side)), kernel, stride, kernel // 2) == way


def test_bfloat16_has_gradients_too():
    convolution = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    use_small_map_convolutions(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        result = convolution(torch.randn(2, 8, 2, 2))
    assert result.dtype == torch.bfloat16
    result.float().sum().backward()
    assert convolution.weight.grad.dtype == torch.float32


def test_a_network_keeps_its_blocks_and_results():
    torch.manual_seed(0)
    theirs = build_model(load_spec("mobilenet_v3_small"), 10).eval()
    ours = copy.deepcopy(theirs)
    use_small_map_convolutions(ours)
    assert [type(block) for block in ours.features] == [type(block) for block in theirs.features]
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    with torch.no_grad():
        images = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(ours(images), theirs(images))
    assert type(copy.deepcopy(ours).features[0][0]) is SmallMapConv2d


def test_other_paddings_are_left_alone():
    convolutions = nn.ModuleList(
        [
            nn.Conv2d(4, 4, 3),
            nn.Conv2d(4, 4, 3, padding=2, dilation=2),
            nn.Conv2d(4, 4, 4, padding=2),
            nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(4, 4, 3, padding="same"),
        ]
    )
    use_small_map_convolutions(convolutions)
    assert {type(convolution) for convolution in convolutions} == {nn.Conv2d}


def test_a_depthwise_convolution_with_a_stride_is_float32_in_bfloat16_training():
    """In bfloat16 its gradient takes twenty times as long."""
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
    )
    use_small_map_convolutions(model)
    with torch.autocast("cpu", torch.bfloat16):
        strided = model[0](torch.randn(2, 8, 16, 16))
        assert (strided.dtype, model[1](strided).dtype) == (torch.float32, torch.bfloat16)
    strided.sum().backward()
    assert model[0].weight.grad is not None
