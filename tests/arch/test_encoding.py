"""Networks to encodings and back, mutation, and membership in a space."""

import dataclasses
import random
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.arch.families import FAMILIES
from nas.arch.loading import load_space, space_names
from nas.arch.published import published_names, published_spec
from nas.arch.skeleton import Decision, Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError

SEEDS = st.integers(0, 2**32)


@cache
def view(name: str, restricted: bool) -> SearchSpace:
    space = load_space(name)
    if restricted:
        space = space.at([(space.widths[-1], space.resolutions[2]), (space.widths[0], space.resolutions[-1])])
    return space


spaces = st.builds(view, st.sampled_from(space_names()), st.booleans())
TINY = SearchSpace(
    name="tiny",
    stem=StemSpec(out=8),
    first=BlockSpec(op="sepconv", kernel=3, expanded=8, out=8),
    stages=(
        Stage(out=8, stride=1, depths=(1, 2), kernels=(3, 5), expansions=(2,), se=(False,), activations=("relu",)),
        Stage(out=16, stride=2, depths=(1,), kernels=(3,), expansions=(1, 2), se=(True,), activations=("relu",)),
    ),
    head=HeadSpec(conv=96, hidden=64),
    widths=(1.0, 2.0),
    resolutions=(32, 64),
)


# Round trips ------------------------------------------------------------------------------------------


@given(spaces, SEEDS)
def test_a_sample_encodes_and_decodes(space: SearchSpace, seed: int) -> None:
    spec = space.sample(random.Random(seed))
    assert space.contains(spec)
    encodings = space.encode([spec])
    assert encodings.shape == (1, len(space.decisions))
    assert space.decode(encodings) == [spec]
    assert ArchSpec.from_json(spec.to_json()) == spec
    assert space.sample(random.Random(seed)) == spec


@given(spaces, SEEDS)
def test_encodings_are_indices_of_choices_or_absent(space: SearchSpace, seed: int) -> None:
    rng = random.Random(seed)
    specs = [space.sample(rng) for _ in range(4)]
    encodings = space.encode(specs)
    assert np.issubdtype(encodings.dtype, np.integer)
    assert (encodings >= -1).all()
    assert (encodings < [len(decision.choices) for decision in space.decisions]).all()
    for spec, encoding in zip(specs, encodings, strict=True):
        assert space.variants[encoding[0]].resolution == spec.resolution
        for s, stage in enumerate(space.stages):
            depth = stage.depths[encoding[space.depth_column(s)]]
            for slot in (slot for slot in space.slots if slot.stage == s):
                column = space.slot_column(slot)
                exists = encoding[column : column + 4] >= 0
                assert exists.all() if slot.position < depth else not exists.any()


@given(spaces, SEEDS)
def test_built_encodings_mean_what_their_decisions_say(space: SearchSpace, seed: int) -> None:
    """`decode` against the decisions' names, block by block."""
    rng = random.Random(seed)
    encoding = space.build_encoding(lambda decision: rng.randrange(len(decision.choices)))
    (spec,) = space.decode([encoding])
    value = {
        decision.name: decision.choices[index]
        for decision, index in zip(space.decisions, encoding, strict=True)
        if index >= 0
    }
    placed = list(spec.walk())[1:]
    for s, stage in enumerate(space.stages):
        for p in range(value[f"stage{s + 1}.depth"]):
            block, in_channels, _ = placed.pop(0)
            name = f"stage{s + 1}.block{p + 1}"
            assert block.kernel == value[f"{name}.kernel"]
            assert block.activation == value[f"{name}.activation"]
            assert (block.se > 0) == value[f"{name}.se"]
            assert block.stride == (1 if p else stage.stride)
            assert block.expanded == value[f"{name}.expansion"] * in_channels
    assert not placed


@given(spaces, SEEDS)
def test_decisions_are_asked_in_their_order_and_absent_ones_are_not(space: SearchSpace, seed: int) -> None:
    rng = random.Random(seed)
    asked: list[Decision] = []

    def choose(decision: Decision) -> int:
        asked.append(decision)
        return rng.randrange(len(decision.choices))

    encoding = space.build_encoding(choose)
    assert asked == [decision for decision, index in zip(space.decisions, encoding, strict=True) if index >= 0]


def test_where_two_encodings_describe_one_network_the_shallower_early_stages_are_given() -> None:
    stage = Stage(out=16, stride=1, depths=(1, 2), kernels=(3,), expansions=(2,), se=(False,), activations=("relu",))
    space = dataclasses.replace(TINY.at([(1.0, 32)]), name="twins", stages=(stage, stage))
    encodings = every_encoding(space)
    specs = space.decode(encodings)
    assert len({spec.id for spec in specs}) == 3
    assert len(specs) == space.size == 4
    for spec in specs:
        assert space.decode(space.encode([spec])) == [spec]
    three = next(spec for spec in specs if len(spec.blocks) == 4)
    encoding = space.encode([three])[0]
    assert [space.stages[s].depths[encoding[space.depth_column(s)]] for s in (0, 1)] == [1, 2]


# Mutation ---------------------------------------------------------------------------------------------


@given(spaces, SEEDS, st.sampled_from([0.01, 0.1, 0.5, 1.0]))
def test_a_mutant_is_a_network_of_the_space(space: SearchSpace, seed: int, rate: float) -> None:
    rng = random.Random(seed)
    parent = space.encode([space.sample(rng)])[0]
    child = space.mutate_encoding(parent, rng, rate)
    (spec,) = space.decode([child])
    assert space.decode(space.encode([spec])) == [spec]


@given(spaces, SEEDS)
def test_a_mutant_keeps_most_choices(space: SearchSpace, seed: int) -> None:
    rng = random.Random(seed)
    parent = space.encode([space.sample(rng)])[0]
    assert (space.mutate_encoding(parent, rng, 1e-9) == parent).all()
    changed = np.mean([(space.mutate_encoding(parent, rng, 0.1) != parent).mean() for _ in range(20)])
    assert 0 < changed < 0.6


def test_mutants_reach_every_network() -> None:
    rng = random.Random(0)
    space = TINY.at([(1.0, 32)])
    encoding = tuple(space.encode([space.sample(rng)])[0])
    seen = set()
    for _ in range(600):
        encoding = space.mutate_encoding(encoding, rng, 0.2)
        seen.add(encoding)
    assert len(seen) == space.size


# Membership -------------------------------------------------------------------------------------------


@given(st.sampled_from(space_names()), SEEDS)
def test_a_restriction_holds_its_variants_and_no_others(name: str, seed: int) -> None:
    rng = random.Random(seed)
    whole, space = view(name, False), view(name, True)
    spec = space.sample(rng)
    assert whole.contains(spec)
    assert spec.resolution in {variant.resolution for variant in space.variants}
    other = whole.sample(rng)
    width, resolution = whole.variants[whole.encode([other])[0, 0]]
    assert space.contains(other) == ((width, resolution) in space.variants)


@given(spaces, SEEDS)
def test_membership_depends_on_the_architecture_alone(space: SearchSpace, seed: int) -> None:
    """Neither the name nor the gate of an absent SE counts. Every other change does."""
    spec = space.sample(random.Random(seed)).replace(name="mine")
    for index, block in enumerate(spec.blocks):
        if not block.se:
            spec = spec.with_block(index, gate="sigmoid")
    assert space.contains(spec)
    assert space.decode(space.encode([spec]))[0].id == spec.id
    for foreign in foreigners(spec):
        assert not space.contains(foreign)
        with pytest.raises(NasError, match=f"mine .* is not a network of the space {space.name}"):
            space.encode([foreign])


def foreigners(spec: ArchSpec) -> list[ArchSpec]:
    index = len(spec.blocks) - 1
    last = spec.blocks[index]
    return [
        spec.replace(norm_eps=1e-5),
        spec.replace(resolution=1_000),
        spec.replace(blocks=spec.blocks[:1]),
        spec.replace(blocks=(*spec.blocks, *[last.replace(stride=1)] * 4)),
        spec.replace(stem=dataclasses.replace(spec.stem, activation="relu")),
        spec.replace(stem=dataclasses.replace(spec.stem, stride=3 - spec.stem.stride)),
        spec.replace(head=dataclasses.replace(spec.head, hidden=0)),
        spec.replace(head=dataclasses.replace(spec.head, conv=spec.head.conv + 8)),
        spec.with_block(0, activation="relu6"),
        spec.with_block(index, kernel=9),
        spec.with_block(index, expanded=last.expanded + 4),
        spec.with_block(index, expanded=60_000),
        spec.with_block(index, se=last.expanded + 1),
        spec.with_block(index, activation="relu6"),
        spec.with_block(index, activate_output=True),
        spec.with_block(index, stride=3 - last.stride),
        spec.with_block(index, out=60_000),
        spec.with_block(index, out=last.out + 4),
    ]


OFA_V3 = [
    name
    for name in published_names()
    if name.startswith("ofa_") and published_spec(name).head.hidden  # the others are of the Proxyless family
]


@pytest.mark.parametrize("name", OFA_V3)
def test_once_for_all_networks_are_members_of_their_space(name: str) -> None:
    space = load_space("once_for_all")
    spec = published_spec(name).replace(resolution=224)
    (same,) = space.decode(space.encode([spec]))
    assert same.id == spec.id
    assert (spec.head.hidden == 1_280) == (same.name == "once_for_all@1")


def test_there_are_once_for_all_networks_of_both_widths() -> None:
    assert len(OFA_V3) == 26
    assert {published_spec(name).head.hidden for name in OFA_V3} == {1_280, 1_536}


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", space_names())
def test_hand_made_networks_are_members_of_no_space(family: str, name: str) -> None:
    assert not load_space(name).contains(published_spec(family))


# Enumeration ------------------------------------------------------------------------------------------


def every_encoding(space: SearchSpace) -> list[tuple[int, ...]]:
    """Return all encodings, by giving every answer to every question that `build_encoding` asks."""
    encodings: list[tuple[int, ...]] = []
    todo: list[list[int]] = [[]]
    while todo:
        answers = todo.pop()
        asked: list[int] = []

        def choose(decision: Decision, answers: list[int] = answers, asked: list[int] = asked) -> int:
            asked.append(len(decision.choices))
            return answers[len(asked) - 1] if len(asked) <= len(answers) else 0

        encodings.append(space.build_encoding(choose))
        for place in range(len(answers), len(asked)):
            todo += [[*answers, *[0] * (place - len(answers)), other] for other in range(1, asked[place])]
    return encodings


def test_size_counts_every_encoding_once() -> None:
    encodings = every_encoding(TINY)
    assert len(set(encodings)) == len(encodings) == TINY.size
    specs = TINY.decode(np.array(encodings))
    assert TINY.decode(TINY.encode(specs)) == specs
    assert len({spec.id for spec in specs}) == len(specs)


def test_samples_reach_every_network() -> None:
    rng = random.Random(0)
    space = TINY.at([(1.0, 32)])
    assert len({space.sample(rng).id for _ in range(400)}) == space.size == 12
