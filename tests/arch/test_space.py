"""Search spaces: their skeletons, variants and options, the fine view around them, and spaces that are refused."""

import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fine_view import in_fine_view

from nas.arch.cost import count_cost
from nas.arch.families import FAMILIES
from nas.arch.loading import load_space, space_names
from nas.arch.published import published_spec
from nas.arch.skeleton import RESOLUTIONS, WIDTHS, Stage, Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError

SEEDS = st.integers(0, 2**32)


# Skeletons and variants -------------------------------------------------------------------------------


def test_variants_and_choices_are_the_papers() -> None:
    for name in ("mobilenet_v3_large", "mobilenet_v3_small"):
        space = load_space(name)
        assert space.widths == (0.35, 0.5, 0.75, 1.0, 1.25, 1.4)
        assert space.resolutions == (96, 128, 160, 192, 224, 256, 288)
        assert space.variants == tuple(itertools.product(space.widths, space.resolutions))
        assert all(stage.kernels == (3, 5, 7) for stage in space.stages)
        assert all(stage.expansions == (3, 4, 6) for stage in space.stages)
        assert all(set(stage.se) == {False, True} for stage in space.stages)
        assert all(set(stage.activations) == {"relu", "hswish"} for stage in space.stages)


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small", "once_for_all"])
def test_skeletons_are_the_published_ones(name: str) -> None:
    space, family = load_space(name), "mobilenet_v3_small" if name.endswith("small") else "mobilenet_v3_large"
    for width in space.widths:
        spec = published_spec(family, width)
        assert space.stem_at(width) == spec.stem
        assert space.first_at(width) == spec.blocks[0]
        if not space.scale_head:
            assert space.head_at(width) == spec.head
        outs = dict.fromkeys(block.out for block in spec.blocks[1:])  # narrow neighbours may come to be equal
        assert list(dict.fromkeys(space.stage_out(s, width) for s in range(len(space.stages)))) == list(outs)


def test_the_skeleton_for_small_images_keeps_their_maps() -> None:
    """At 32 px published V3-Small ends in one pixel, after 2.2 M multiply-accumulates."""
    space = load_space("mobilenet_v3_small_images")
    assert space.stem.stride == 1
    assert space.resolutions == (32, 48, 64, 96)
    assert space.widths == WIDTHS
    for end in (space.smallest, space.largest):
        assert [end((1.0, resolution)).head_input[1] for resolution in space.resolutions] == [4, 6, 8, 12]
    largest = [count_cost(space.largest((width, 32)), 10).macs for width in (0.5, 1.0)]
    assert 7e6 < largest[1] < 20e6
    assert largest[0] < largest[1] / 2.5


def test_variants_can_only_be_the_spaces_own() -> None:
    space = load_space("mobilenet_v3_large")
    with pytest.raises(NasError, match=r"has no width 0\.6; it has 0\.35, 0\.5, 0\.75, 1, 1\.25, 1\.4"):
        space.at([(1.0, 224), (0.6, 224)])
    with pytest.raises(NasError, match="has no resolution 225; it has 96, 128"):
        space.at([(1.0, 225)])
    with pytest.raises(NasError, match="needs at least one pair"):
        space.at([])
    assert space.at([(1.0, 224), (0.5, 96), (1.0, 224)]).variants == (Variant(1.0, 224), Variant(0.5, 96))
    assert space.at([(1, 224)]).sample(random.Random(1)).stem == space.stem


# Options ----------------------------------------------------------------------------------------------


@given(st.sampled_from(space_names()), SEEDS)
def test_options_hold_every_block_as_it_stands_in_a_network(name: str, seed: int) -> None:
    space = load_space(name)
    spec = space.sample(random.Random(seed))
    encoding = space.encode([spec])[0]
    variant = space.variants[encoding[0]]
    placed = list(spec.walk())[1:]
    for slot in space.slots:
        column = space.slot_column(slot)
        if encoding[column] < 0:
            continue
        stage = space.stages[slot.stage]
        lengths = [len(choices) for choices in (stage.kernels, stage.expansions, stage.se, stage.activations)]
        options = space.options(variant, slot)
        assert len(options) == np.prod(lengths)
        assert options[np.ravel_multi_index(tuple(encoding[column : column + 4]), lengths)] == placed.pop(0)
    assert not placed


@pytest.mark.parametrize("name", space_names())
def test_smallest_and_largest_bound_every_cost(name: str) -> None:
    space, rng = load_space(name), random.Random(0)
    for variant in (space.variants[0], space.variants[-1]):
        smallest, largest = count_cost(space.smallest(variant)), count_cost(space.largest(variant))
        for _ in range(20):
            cost = count_cost(space.at([variant]).sample(rng))
            assert smallest.macs <= cost.macs <= largest.macs
            assert smallest.params <= cost.params <= largest.params
    with pytest.raises(NasError, match="has no width"):
        space.smallest((9.0, 224))


# The fine view ----------------------------------------------------------------------------------------


@given(st.sampled_from(space_names()), SEEDS)
def test_a_network_of_a_space_is_one_of_its_fine_view(name: str, seed: int) -> None:
    space = load_space(name)
    assert in_fine_view(space, space.sample(random.Random(seed)))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("family", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_published_v3_networks_are_members_of_the_fine_view(family: str, width: float) -> None:
    space = load_space(family)
    for resolution in RESOLUTIONS:
        spec = published_spec(family, width).replace(resolution=resolution)
        assert in_fine_view(space, spec)
    assert not space.contains(spec)  # their expansions are their own


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", space_names())
def test_other_published_networks_are_not_of_the_fine_view(family: str, name: str) -> None:
    # Once-for-All's space is built around V3-Large.
    at_home = (family, name) == ("mobilenet_v3_large", "once_for_all") or family == name
    assert in_fine_view(load_space(name), published_spec(family)) == at_home


def test_a_stage_wider_than_the_skeleton_is_not_of_the_fine_view() -> None:
    space = load_space("mobilenet_v3_large")
    spec = published_spec("mobilenet_v3_large@0.5")
    for stage, out in ((3, 56), (4, 80)):
        skeleton = space.stage_out(stage, 0.5)
        wide, narrow, uneven = (
            spec.replace(
                blocks=tuple(block.replace(out=size if block.out == skeleton else block.out) for block in spec.blocks)
            )
            for size in (skeleton + 8, skeleton - 8, skeleton - 4)
        )
        assert skeleton == out
        assert in_fine_view(space, narrow)
        assert not in_fine_view(space, wide)
        assert not in_fine_view(space, uneven)


# Refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (0, 1)}, "depths and expansions must be 1 or more"),
        ({"depths": ()}, "depths is ().* at least one choice"),
        ({"depths": 2}, "depths is 2; it must be a tuple"),
        ({"kernels": (3, 4)}, "kernel is 4; it must be odd"),
        ({"kernels": [3, 5]}, "must be a tuple"),
        ({"kernels": (3, 3)}, "holds a choice twice"),
        ({"expansions": (0, 3)}, "depths and expansions must be 1 or more"),
        ({"stride": 3}, "stride is 3"),
        ({"out": 0}, "out is 0"),
        ({"activations": ("swish",)}, "activation is 'swish'"),
        ({"se": ()}, "se is ()"),
    ],
)
def test_a_stage_that_cannot_be_built_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NasError, match=message.replace("()", r"\(\)")):
        Stage(**{"out": 24, "stride": 2, **changes})


@pytest.mark.parametrize("name", ["stages", "widths", "resolutions"])
def test_a_space_needs_choices(name: str) -> None:
    fields: dict[str, Any] = {
        "name": "tiny",
        "stem": StemSpec(out=8),
        "first": BlockSpec(op="sepconv", kernel=3, expanded=8, out=8),
        "stages": (Stage(out=16, stride=2),),
        "head": HeadSpec(conv=96, hidden=64),
    }
    assert SearchSpace(**fields).variants
    for choices in ((), 1):
        with pytest.raises(NasError, match=f"space tiny: {name} is"):
            SearchSpace(**{**fields, name: choices})
