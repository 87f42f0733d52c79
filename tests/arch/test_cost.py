"""Costs by arithmetic against published counts, sums by hand and each other."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.arch.cost import Layer, block_layers, count_cost, network_layers
from nas.arch.loading import load_space, space_names
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, PlacedBlock, StemSpec

# Counted on torchvision's and timm's own modules (parameters by torch, MACs by fvcore) at 224 x 224, 1000 classes.
# MACs are rounded to 10,000. None: not counted there.
COUNTED = [
    ("mobilenet_v1", 1.0, False, 4_231_976, 567.72, 1.02),
    ("mobilenet_v2", 1.0, False, 3_504_872, 299.49, 1.28),
    ("mobilenet_v2", 0.5, False, 1_968_680, None, None),
    ("mobilenet_v2", 1.4, False, 6_108_776, None, None),
    ("mobilenet_v3_large", 1.0, False, 5_483_032, 214.08, 2.51),
    ("mobilenet_v3_large", 0.75, False, 3_993_528, None, None),
    ("mobilenet_v3_large", 0.35, True, 997_064, None, None),
    ("mobilenet_v3_large", 0.75, True, 3_377_576, None, None),
    ("mobilenet_v3_large", 1.25, True, 8_164_744, None, None),
    ("mobilenet_v3_small", 1.0, False, 2_542_856, 54.90, 1.61),
    ("mobilenet_v3_small", 0.75, False, 2_041_872, None, None),
    ("mobilenet_v3_small", 0.5, False, 1_593_224, None, None),
    ("mnasnet_a1", 1.0, False, 3_887_038, 310.30, 1.28),
    ("mnasnet_100", None, False, 4_383_312, 313.14, 1.28),
    ("mobilenetv4_conv_small", None, False, 3_774_024, 183.50, 2.51),
    ("mobilenetv4_conv_medium", None, False, 9_715_512, 825.14, 2.51),
    ("hardcorenas_a", None, False, 5_260_232, None, None),
    ("hardcorenas_f", None, False, 8_199_688, None, None),
]


@pytest.mark.parametrize(("name", "width", "scale_head", "params", "conv", "linear"), COUNTED)
def test_costs_are_those_counted_on_the_networks_themselves(
    name: str, width: float | None, scale_head: bool, params: int, conv: float | None, linear: float | None
) -> None:
    cost = count_cost(published_spec(name, width, scale_head))
    assert cost.params == params
    if conv is not None:
        assert round(cost.conv_macs / 1e6, 2) == conv
        assert round(cost.linear_macs / 1e6, 2) == linear
    assert cost.macs == cost.conv_macs + cost.linear_macs


def test_macs_of_v3_to_the_last_digit() -> None:
    large = count_cost(published_spec("mobilenet_v3_large"))
    assert (large.conv_macs, large.linear_macs) == (214_080_960, 960 * 1_280 + 1_280 * 1_000)
    small = count_cost(published_spec("mobilenet_v3_small"))
    assert (small.conv_macs, small.linear_macs) == (54_896_576, 576 * 1_024 + 1_024 * 1_000)


def test_one_network_by_hand() -> None:
    spec = ArchSpec(
        name="hand",
        resolution=32,
        stem=StemSpec(out=8),
        blocks=(
            BlockSpec(op="sepconv", kernel=3, expanded=8, out=8),  # at 16 x 16, residual
            BlockSpec(kernel=5, expanded=24, out=12, stride=2, se=6),  # to 8 x 8
            BlockSpec(kernel=3, expanded=36, out=12, se=8),  # at 8 x 8, residual
        ),
        head=HeadSpec(conv=20, hidden=30),
    )
    stem = (8 * 3 * 9, 8 * 2)
    first = (8 * 9 + 8 * 8, 2 * 8 + 2 * 8)
    second = (8 * 24 + 24 * 25 + 24 * 12, 2 * (24 + 24 + 12), 24 * 6 + 6 + 6 * 24 + 24)
    third = (12 * 36 + 36 * 9 + 36 * 12, 2 * (36 + 36 + 12), 36 * 8 + 8 + 8 * 36 + 36)
    head = (12 * 20 + 2 * 20) + (20 * 30 + 30) + (30 * 10 + 10)
    cost = count_cost(spec, num_classes=10)
    assert cost.params == sum(stem) + sum(first) + sum(second) + sum(third) + head
    assert cost.linear_macs == 20 * 30 + 30 * 10
    assert cost.conv_macs == (
        stem[0] * 16 * 16
        + first[0] * 16 * 16
        + (8 * 24 * 16 * 16 + (24 * 25 + 24 * 12) * 8 * 8 + 2 * 24 * 6)
        + (third[0] * 8 * 8 + 2 * 36 * 8)
        + 12 * 20 * 8 * 8
    )
    # Worst: the second block's first convolution, from 8 to 24 channels at 16 x 16.
    assert cost.peak_activation_bytes == 4 * (8 + 24) * 16 * 16


def activations(block: BlockSpec, in_channels: int, size: int) -> list[int]:
    return [layer.activations for layer in block_layers(PlacedBlock(block, in_channels, size))]


def test_memory_of_a_block_holds_the_residual_once() -> None:
    size = 14
    block = BlockSpec(kernel=3, expanded=240, out=40, se=64)
    assert activations(block, 40, size) == [
        (40 + 240) * 196,  # the input, which is also the residual, and the expanded
        (240 + 240 + 40) * 196,  # in, out, and the residual held
        240 + 64 + (240 + 40) * 196,  # pooled and squeezed, beside the tensor to be scaled and the residual
        64 + 240 + (240 + 40) * 196,
        (240 + 40 + 40) * 196,
    ]
    # No residual: nothing is held.
    assert activations(block.replace(out=48, se=0), 40, size) == [280 * 196, 480 * 196, 288 * 196]
    assert activations(block.replace(stride=2, se=0), 40, size) == [280 * 196, 240 * 196 + 240 * 49, 280 * 49]
    # The depthwise of a sepconv reads the residual itself.
    sepconv = BlockSpec(op="sepconv", kernel=3, expanded=40, out=40)
    assert activations(sepconv, 40, size) == [80 * 196, (40 + 40 + 40) * 196]


def test_a_universal_and_a_fused_block_by_hand() -> None:
    both = BlockSpec(op="uib", start_kernel=3, kernel=5, expanded=96, out=32, stride=2)
    norms = 2 * (24 + 96 + 96 + 32)
    layers = list(block_layers(PlacedBlock(both, 24, 14)))
    assert sum(layer.parameters for layer in layers) == 24 * 9 + 24 * 96 + 96 * 25 + 96 * 32 + norms
    assert sum(layer.macs for layer in layers) == (24 * 9 + 24 * 96) * 196 + (96 * 25 + 96 * 32) * 49
    first = both.replace(kernel=0)  # the stride comes before the expansion
    layers = list(block_layers(PlacedBlock(first, 24, 14)))
    assert sum(layer.macs for layer in layers) == (24 * 9 + 24 * 96 + 96 * 32) * 49
    fused = BlockSpec(op="fused", kernel=3, expanded=96, out=32, stride=2)
    layers = list(block_layers(PlacedBlock(fused, 24, 14)))
    assert sum(layer.parameters for layer in layers) == 24 * 96 * 9 + 96 * 32 + 2 * (96 + 32)
    assert sum(layer.macs for layer in layers) == (24 * 96 * 9 + 96 * 32) * 49


def test_memory_of_a_universal_block_holds_the_residual_once() -> None:
    block = BlockSpec(op="uib", start_kernel=3, kernel=3, expanded=240, out=40)
    assert activations(block, 40, 14) == [80 * 196, (40 + 240 + 40) * 196, (480 + 40) * 196, (280 + 40) * 196]
    assert activations(block.replace(start_kernel=0, kernel=0), 40, 14) == [280 * 196, (280 + 40) * 196]
    assert activations(BlockSpec(op="fused", kernel=3, expanded=240, out=40), 40, 14) == [280 * 196, (280 + 40) * 196]


def test_memory_of_published_networks() -> None:
    assert count_cost(published_spec("mobilenet_v3_large")).peak_activation_bytes == (16 + 64) * 112**2 * 4
    assert count_cost(published_spec("mobilenet_v3_small")).peak_activation_bytes == (3 * 224**2 + 16 * 112**2) * 4
    # The first strided depthwise: 96 channels of 112 x 112 in, of 56 x 56 out.
    assert count_cost(published_spec("mobilenet_v2")).peak_activation_bytes == 96 * (112**2 + 56**2) * 4


@given(st.sampled_from(space_names()), st.integers(0, 2**32))
def test_costs_grow_with_the_network(name: str, seed: int) -> None:
    space = load_space(name)
    rng = random.Random(seed)
    spec = space.sample(rng)
    cost = count_cost(spec)
    index = rng.randrange(1, len(spec.blocks))
    block = spec.blocks[index]
    for grown in (
        spec.with_block(index, kernel=block.kernel + 2),
        spec.with_block(index, expanded=block.expanded + 8),
        spec.with_block(index, se=block.se + 8),
    ):
        other = count_cost(grown)
        assert other.params > cost.params
        assert other.conv_macs > cost.conv_macs
        assert other.linear_macs == cost.linear_macs
        assert other.peak_activation_bytes >= cost.peak_activation_bytes
    finer = count_cost(spec.replace(resolution=spec.resolution + 32))
    assert (finer.params, finer.linear_macs) == (cost.params, cost.linear_macs)
    assert finer.conv_macs > cost.conv_macs
    assert finer.peak_activation_bytes > cost.peak_activation_bytes


@given(st.sampled_from(space_names()), st.integers(0, 2**32), st.integers(1, 21_841))
def test_classes_only_change_the_classifier(name: str, seed: int, classes: int) -> None:
    spec = load_space(name).sample(random.Random(seed))
    cost, other = count_cost(spec), count_cost(spec, classes)
    assert other.conv_macs == cost.conv_macs
    assert other.linear_macs - cost.linear_macs == (classes - 1_000) * spec.head.hidden
    assert other.params - cost.params == (classes - 1_000) * (spec.head.hidden + 1)


@given(st.sampled_from(space_names()), st.integers(0, 2**32))
def test_layers_fit_together(name: str, seed: int) -> None:
    """The sizes and channels of each layer are those of the one before it (SE aside)."""
    spec = load_space(name).sample(random.Random(seed))
    main = [layer for layer in network_layers(spec) if layer.norm]
    assert (main[0].in_channels, main[0].in_size) == (3, spec.resolution)
    for before, after in itertools.pairwise(main):
        assert (before.out_channels, before.out_size) == (after.in_channels, after.in_size)


def test_a_layer_by_hand() -> None:
    depthwise = Layer(24, 24, 5, 16, 8, groups=24)
    assert (depthwise.weights, depthwise.parameters, depthwise.macs) == (600, 648, 600 * 64)
    linear = Layer(10, 7, 1, 1, 1, norm=False, linear=True)
    assert (linear.weights, linear.parameters, linear.macs, linear.activations) == (70, 77, 70, 17)
