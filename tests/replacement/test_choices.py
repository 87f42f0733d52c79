"""The choices around a teacher, and the slots of networks."""

import dataclasses
import random

import pytest
from support.problems import TINY
from support.replacing import LARGEST, LITTLE

from nas.arch.loading import load_space
from nas.arch.skeleton import Slot, Stage
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.replacement.choices import LEFT_OUT, Change, Choices, Replacement, slots_of


def test_every_other_choice_of_every_block_is_a_change() -> None:
    early = [[("kernel", 3), ("expansion", 2)], [("kernel", 3), ("expansion", 2), (LEFT_OUT, None)]]
    late = [("expansion", 2), ("se", False)]
    assert list(Choices(LITTLE, LARGEST).changes()) == [
        *(Change(Slot(0, position), *own) for position in (0, 1) for own in early[position]),
        *(Change(Slot(1, 0), *own) for own in late),
        *(Change(Slot(1, position), *own) for position in (1, 2) for own in (*late, (LEFT_OUT, None))),
    ]


def test_a_smaller_teacher_has_no_choices_where_it_has_no_block() -> None:
    smallest = LITTLE.smallest((0.5, 32))
    choices = Choices(LITTLE, smallest)
    assert choices.width == 0.5
    assert list(choices.changes()) == [
        Change(Slot(0, 0), "kernel", 5),
        Change(Slot(0, 0), "expansion", 4),
        Change(Slot(1, 0), "expansion", 3),
        Change(Slot(1, 0), "se", True),
    ]
    assert [choices.position(slot) for slot in (Slot(0, 0), Slot(1, 0))] == [1, 2]


def with_block(teacher: ArchSpec, replacement: Replacement) -> ArchSpec:
    """Return the teacher with the block of a replacement."""
    blocks = list(teacher.blocks)
    assert replacement.block is not None
    blocks[replacement.position] = replacement.block
    return teacher.replace(blocks=tuple(blocks))


def test_a_teacher_with_a_change_is_a_network_of_the_space() -> None:
    rng = random.Random(0)
    for teacher in (LARGEST, LITTLE.sample(rng), LITTLE.sample(rng)):
        choices = Choices(LITTLE, teacher)
        for change in choices.changes():
            replacement = choices.replacement(change)
            if change.decision == LEFT_OUT:
                assert replacement.block is None
                continue
            network = with_block(teacher, replacement)
            assert LITTLE.contains(network)
            assert [a == b for a, b in zip(network.blocks, teacher.blocks, strict=True)].count(False) == 1
            assert network.blocks[replacement.position] != teacher.blocks[replacement.position]


def test_blocks_are_counted_from_behind_the_first_one() -> None:
    choices = Choices(LITTLE, LARGEST)
    assert [choices.position(slot) for slot in LITTLE.slots] == [1, 2, 3, 4, 5]
    assert choices.replacement(Change(Slot(1, 2), LEFT_OUT, None)) == Replacement(5, None)
    assert choices.replacement(Change(Slot(0, 1), "kernel", 3)) == Replacement(2, LARGEST.blocks[2].replace(kernel=3))


def test_a_teacher_has_any_resolution() -> None:
    assert Choices(LITTLE, LARGEST.replace(resolution=96)).teacher.resolution == 96


@pytest.mark.parametrize(
    "teacher", [LARGEST.with_block(1, expanded=24), TINY.largest((1.0, 32)), LARGEST.replace(norm_eps=1e-5)]
)
def test_a_teacher_of_another_space_is_refused(teacher: ArchSpec) -> None:
    with pytest.raises(NasError, match=r"^the teacher .* is not a network of the space little; name one that is, or"):
        Choices(LITTLE, teacher)


# Slots ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v3_small_images"])
def test_networks_of_a_space_have_the_slots_of_their_encoding(name: str) -> None:
    """Also where two stages come to have equal channels, as at the width 0.35 of the small skeleton."""
    space, rng = load_space(name), random.Random(0)
    for width in space.widths:
        at = space.at([(width, space.resolutions[0])])
        for _ in range(20):
            spec = at.sample(rng)
            (encoding,) = space.encode([spec])
            assert slots_of(space, spec) == [s for s in space.slots if encoding[space.slot_column(s)] >= 0]


def slots(*depths: int) -> list[Slot]:
    return [Slot(stage, position) for stage, depth in enumerate(depths) for position in range(depth)]


def test_networks_of_another_resolution_and_of_other_channels_have_slots() -> None:
    trimmed = LARGEST.with_block(1, expanded=40, kernel=3).with_block(5, expanded=56)
    for spec in (LARGEST, LARGEST.replace(resolution=224), trimmed):
        assert slots_of(LITTLE, spec) == slots(2, 3)
    narrow = [block.replace(out=16) if block.out == 24 else block for block in trimmed.blocks]
    assert slots_of(LITTLE, trimmed.replace(blocks=tuple(narrow))) == slots(2, 3)


def test_stages_are_told_apart_by_their_channels_where_none_has_a_stride() -> None:
    stage = Stage(out=16, stride=1, depths=(1, 2), kernels=(3,), expansions=(2,), se=(False,), activations=("relu",))
    space = dataclasses.replace(LITTLE, stages=(stage, dataclasses.replace(stage, out=32)), variants=())
    for depths in ((1, 2), (2, 1)):
        spec = space.decode([space.build_encoding(lambda d, depths=depths: depths_choice(d.name, depths))])[0]
        wider = [block.replace(out=round(block.out * 0.75)) for block in spec.blocks[1:]]
        trimmed = spec.replace(blocks=(spec.blocks[0], *wider))
        assert not space.contains(trimmed)
        assert slots_of(space, trimmed) == slots_of(space, spec) == slots(*depths)


def depths_choice(decision: str, depths: tuple[int, int]) -> int:
    """Return the choice of a decision in the network of so many blocks a stage."""
    return {"stage1.depth": depths[0] - 1, "stage2.depth": depths[1] - 1}.get(decision, 0)


def test_of_equal_stages_the_early_one_is_the_shallower() -> None:
    """As in `encode`, which knows no trimmed networks."""
    three = TINY.decode([TINY.build_encoding(lambda d: {"stage2.depth": 1}.get(d.name, 0))])[0]
    trimmed = three.with_block(2, expanded=40)
    assert not TINY.contains(trimmed)
    assert slots_of(TINY, trimmed) == slots_of(TINY, three) == slots(1, 1, 2)


@pytest.mark.parametrize(
    "blocks",
    [
        LARGEST.blocks[:1],
        (*LARGEST.blocks, LARGEST.blocks[-1]),
        (LARGEST.blocks[0], *LARGEST.blocks[2:]),
        tuple(block.replace(stride=1) for block in LARGEST.blocks),
    ],
    ids=["none", "too many", "no stride", "all without stride"],
)
def test_blocks_that_fit_no_depths_have_no_slots(blocks: tuple) -> None:
    assert slots_of(LITTLE, LARGEST.replace(blocks=blocks)) is None
