"""Networks cut into parts: nothing is lost or repeated, and names hold everything that a time depends on."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fine_view import sample_fine_view

from nas.arch.cost import network_layers
from nas.arch.families import FAMILIES
from nas.arch.loading import load_space, space_names
from nas.arch.parts import BlockPart, ContextPart, HeadPart, NetworkPart, StemPart, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import ACTIVATIONS, GATES, ArchSpec, BlockSpec, HeadSpec, StemSpec

V4 = ("mobilenetv4_conv_small", "mobilenetv4_conv_medium")


@st.composite
def networks(draw: st.DrawFn) -> ArchSpec:
    """Draw a network of a space, of its fine view, or of a published family."""
    name = draw(st.sampled_from([*space_names(), *FAMILIES, *V4]))
    if name in V4 or (name in FAMILIES and draw(st.booleans())):
        return published_spec(name)
    space = load_space(name if name in space_names() else "mobilenet_v3_large")
    sample = sample_fine_view if draw(st.booleans()) else SearchSpace.sample
    return sample(space, random.Random(draw(st.integers(0, 2**32))))


@given(networks(), st.sampled_from([10, 1000]))
def test_the_parts_are_the_network(spec: ArchSpec, num_classes: int) -> None:
    parts = list(parts_of(spec, num_classes))
    layers = [layer for part in parts for layer in part.layers()]
    assert layers == list(network_layers(spec, num_classes)) == NetworkPart(spec, num_classes).layers()
    assert isinstance(parts[0], StemPart)
    assert isinstance(parts[-1], HeadPart)
    assert [part.block for part in parts[1:-1] if isinstance(part, BlockPart)] == list(spec.blocks)


@given(networks(), networks())
def test_parts_have_one_name_exactly_if_they_are_alike(one: ArchSpec, other: ArchSpec) -> None:
    """The gate of a block without SE and the activation of an empty head do not exist, and do not count."""

    def plain(part: object) -> object:
        if isinstance(part, BlockPart) and not part.block.se:
            return dataclasses.replace(part, block=part.block.replace(gate="hard_sigmoid"))
        if isinstance(part, HeadPart) and not part.head.conv and not part.head.hidden:
            return dataclasses.replace(part, head=dataclasses.replace(part.head, activation="relu"))
        return part

    parts = [*parts_of(one), *parts_of(other)]
    parts += [context for part in parts if (context := context_of(part))]
    assert len({part.key for part in parts}) == len({plain(part) for part in parts})


@given(networks())
def test_a_block_is_read_from_its_name(spec: ArchSpec) -> None:
    for part in parts_of(spec):
        again = BlockPart.of_key(part.key)
        if isinstance(part, BlockPart):
            assert again is not None
            assert again.key == part.key
            assert (again.block.se, again.in_size) == (part.block.se, part.in_size)
            assert again.block.start_kernel == part.block.start_kernel
        else:
            assert again is None
        context = context_of(part)
        assert context is None or BlockPart.of_key(context.key) is None


BLOCK = BlockPart(BlockSpec(kernel=5, expanded=72, out=40, stride=2, se=24), 24, 56)


def test_names_that_a_person_can_read() -> None:
    """Users' tables hold these names: another name makes every table useless."""
    assert StemPart(StemSpec(out=16), 224).key == "stem 224 o16 hswish"
    assert StemPart(StemSpec(out=16, stride=1), 32).key == "stem 32 o16 s1 hswish"
    assert BLOCK.key == "mbconv 24x56 k5 e72 o40 s2 se24-hard_sigmoid relu"
    v1 = BlockSpec(op="sepconv", kernel=3, expanded=32, out=64, activation="relu6", activate_output=True)
    assert BlockPart(v1, 32, 112).key == "sepconv 32x112 k3 e32 o64 s1 relu6 activate-output"
    assert HeadPart(HeadSpec(conv=960, hidden=1280), 160, 7, 1000).key == "head 160x7 c960 h1280 n1000 hswish"
    uib = BlockSpec(op="uib", start_kernel=3, kernel=5, expanded=192, out=80, stride=2)
    assert BlockPart(uib, 48, 56).key == "uib 48x56 b3 k5 e192 o80 s2 relu"
    assert BlockPart(uib.replace(kernel=0, start_kernel=0, stride=1), 48, 56).key == "uib 48x56 k0 e192 o80 s1 relu"
    fused = BlockSpec(op="fused", kernel=3, expanded=128, out=48, stride=2)
    assert BlockPart(fused, 32, 112).key == "fused 32x112 k3 e128 o48 s2 relu"
    with_norm = HeadSpec(conv=960, hidden=1280, activation="relu", hidden_norm=True)
    assert HeadPart(with_norm, 128, 7, 1000).key == "head 128x7 c960 h1280 n1000 relu hidden-norm"
    assert HeadPart(HeadSpec(conv=0), 160, 7, 10).key == "head 160x7 c0 h0 n10"
    assert ContextPart(24, 56).key == "context 24x56"
    spec = published_spec("mobilenet_v2")
    assert NetworkPart(spec, 10).key == f"network {spec.id} n10"


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": 3},
        {"expanded": 80},
        {"out": 48},
        {"stride": 1},
        {"se": 0},
        {"se": 16},
        {"gate": next(gate for gate in GATES if gate != BLOCK.block.gate)},
        *({"activation": name} for name in ACTIVATIONS if name != BLOCK.block.activation),
        {"activate_output": True},
    ],
    ids=str,
)
def test_everything_that_a_blocks_time_depends_on_is_in_its_name(change: dict) -> None:
    assert dataclasses.replace(BLOCK, block=BLOCK.block.replace(**change)).key != BLOCK.key


def test_the_place_is_in_the_name_too() -> None:
    keys = {BLOCK.key, BlockPart(BLOCK.block, 32, 56).key, BlockPart(BLOCK.block, 24, 28).key}
    assert len(keys) == 3


def test_contexts_have_the_shape_of_the_parts_input() -> None:
    assert context_of(BLOCK) == ContextPart(24, 56)
    assert context_of(HeadPart(HeadSpec(conv=960), 160, 7, 1000)) == ContextPart(160, 7)
    assert context_of(StemPart(StemSpec(out=16), 224)) is None
    assert context_of(ContextPart(24, 56)) is None
    assert context_of(NetworkPart(published_spec("mobilenet_v2"))) is None
