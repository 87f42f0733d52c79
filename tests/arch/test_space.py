"""Search spaces: what is drawn is encoded, decoded, mutated and recognised."""

import dataclasses
import itertools
import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.arch.cost import count_cost
from nas.arch.loading import load_space, space_names
from nas.arch.published import FAMILIES, published_names, published_spec
from nas.arch.space import RESOLUTIONS, WIDTHS, SearchSpace, Slot, Stage, Variant
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError

SEEDS = st.integers(0, 2**32)


@cache
def view(name: str, fine: bool, restricted: bool) -> SearchSpace:
    space = load_space(name)
    space = space.fine_view if fine else space
    if restricted:
        space = space.at([(space.widths[-1], space.resolutions[2]), (space.widths[0], space.resolutions[-1])])
    return space


spaces = st.builds(view, st.sampled_from(space_names()), st.booleans(), st.booleans())
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
    codes = space.encode([spec])
    assert codes.shape == (1, len(space.decisions))
    assert space.decode(codes) == [spec]
    assert ArchSpec.from_json(spec.to_json()) == spec
    assert space.sample(random.Random(seed)) == spec


@given(spaces, SEEDS)
def test_codes_are_indices_of_choices_or_absent(space: SearchSpace, seed: int) -> None:
    rng = random.Random(seed)
    specs = [space.sample(rng) for _ in range(4)]
    codes = space.encode(specs)
    assert np.issubdtype(codes.dtype, np.integer)
    assert (codes >= -1).all()
    assert (codes < [len(decision.choices) for decision in space.decisions]).all()
    for spec, row in zip(specs, codes, strict=True):
        assert space.variants[row[0]].resolution == spec.resolution
        for s, stage in enumerate(space.stages):
            depth = stage.depths[row[space.depth_column(s)]]
            for slot in (slot for slot in space.slots if slot.stage == s):
                column = space.slot_column(slot)
                exists = row[column : column + 4] >= 0
                assert exists.all() if slot.position < depth else not exists.any()


@given(spaces, SEEDS)
def test_drawn_codes_mean_what_their_genes_say(space: SearchSpace, seed: int) -> None:
    """`decode` against the decisions' names, block by block."""
    rng = random.Random(seed)
    row = space.draw(lambda decision: rng.randrange(len(decision.choices)))
    (spec,) = space.decode([row])
    value = {
        decision.name: decision.choices[code] for decision, code in zip(space.decisions, row, strict=True) if code >= 0
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
            if space.fine:
                assert block.expanded == value[f"{name}.expanded"]
                assert block.out == value[f"stage{s + 1}.out"]
            else:
                assert block.expanded == value[f"{name}.expansion"] * in_channels
    assert not placed


@given(spaces, SEEDS, st.sampled_from([0.01, 0.1, 0.5, 1.0]))
def test_a_mutant_is_another_network_of_the_space(space: SearchSpace, seed: int, rate: float) -> None:
    rng = random.Random(seed)
    parent = space.sample(rng)
    child = space.mutate(parent, rng, rate)
    assert child.id != parent.id
    assert space.decode(space.encode([child])) == [child]


@given(spaces, SEEDS)
def test_a_mutant_keeps_most_genes(space: SearchSpace, seed: int) -> None:
    rng = random.Random(seed)
    row = space.encode([space.sample(rng)])[0]
    assert (space.redraw(row, rng, 1e-9) == row).all()
    changed = np.mean([(space.redraw(row, rng, 0.1) != row).mean() for _ in range(20)])
    assert changed < 0.6


@given(st.sampled_from(space_names()), SEEDS)
def test_a_network_of_a_space_is_one_of_its_fine_view(name: str, seed: int) -> None:
    space = load_space(name)
    spec = space.sample(random.Random(seed))
    assert space.fine_view.contains(spec)
    (same,) = space.fine_view.decode(space.fine_view.encode([spec]))
    assert same.id == spec.id


@given(st.sampled_from(space_names()), st.booleans(), SEEDS)
def test_a_restriction_holds_its_scales_and_no_others(name: str, fine: bool, seed: int) -> None:
    rng = random.Random(seed)
    whole, space = view(name, fine, False), view(name, fine, True)
    spec = space.sample(rng)
    assert whole.contains(spec)
    assert spec.resolution in {variant.resolution for variant in space.variants}
    other = whole.sample(rng)
    width, resolution = whole.variants[whole.encode([other])[0, 0]]
    assert space.contains(other) == ((width, resolution) in space.variants)


@given(spaces, SEEDS)
def test_membership_depends_on_the_architecture_alone(space: SearchSpace, seed: int) -> None:
    """Neither the name nor the gate of an absent SE counts; whatever changes what is decoded does."""
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
        spec.replace(blocks=spec.blocks[:-3]),
        spec.replace(blocks=(*spec.blocks, *[last.replace(stride=1)] * 4)),
        spec.replace(stem=StemSpec(out=spec.stem.out, activation="relu")),
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


# What is in a space -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("family", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_published_v3_networks_are_members_of_the_fine_view(family: str, width: float) -> None:
    fine = load_space(family).fine_view
    for resolution in RESOLUTIONS:
        spec = published_spec(family, width).replace(resolution=resolution)
        (same,) = fine.decode(fine.encode([spec]))
        assert same.id == spec.id
    assert not load_space(family).contains(spec)  # their expansions are their own


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
def test_other_published_networks_are_members_of_neither_view(family: str, name: str) -> None:
    assert not load_space(name).contains(published_spec(family))
    # Once-for-All's space is built around V3-Large.
    at_home = (family, name) == ("mobilenet_v3_large", "once_for_all") or family == name
    assert load_space(name).fine_view.contains(published_spec(family)) == at_home


def test_scales_are_the_papers() -> None:
    for name in ("mobilenet_v3_large", "mobilenet_v3_small"):
        space = load_space(name)
        assert space.widths == (0.35, 0.5, 0.75, 1.0, 1.25, 1.4)
        assert space.resolutions == (96, 128, 160, 192, 224, 256, 288)
        assert space.variants == tuple(itertools.product(space.widths, space.resolutions))
        assert all(stage.kernels == (3, 5, 7) for stage in space.stages)
        assert all(stage.expansions == (3, 4, 6) for stage in space.stages)
        assert all(set(stage.se) == {False, True} for stage in space.stages)
        assert all(set(stage.activations) == {"relu", "hswish"} for stage in space.stages)


@pytest.mark.parametrize("name", space_names())
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


# Tables of options ------------------------------------------------------------------------------------


@given(st.sampled_from(space_names()), SEEDS)
def test_options_hold_every_block_as_it_stands_in_a_network(name: str, seed: int) -> None:
    space = load_space(name)
    spec = space.sample(random.Random(seed))
    row = space.encode([spec])[0]
    variant = space.variants[row[0]]
    placed = list(spec.walk())[1:]
    for slot in space.slots:
        column = space.slot_column(slot)
        if row[column] < 0:
            continue
        stage = space.stages[slot.stage]
        lengths = [len(choices) for choices in (stage.kernels, stage.expansions, stage.se, stage.activations)]
        options = space.options(variant, slot)
        assert len(options) == np.prod(lengths)
        assert options[np.ravel_multi_index(tuple(row[column : column + 4]), lengths)] == placed.pop(0)
    assert not placed


def test_fine_channels_are_the_multiples_of_8_up_to_the_skeletons() -> None:
    fine = load_space("mobilenet_v3_large").fine_view
    rng = random.Random(0)
    # At width 0.5 stage 3 has 40 channels and its input 24 (20 rounded): so many choices must be left.
    asked: dict[str, tuple[int, ...]] = {}
    half = fine.at([(0.5, 224)])

    def choose(decision: Any) -> int:
        asked[decision.name] = decision.choices
        return rng.randrange(len(decision.choices))

    half.draw(choose)
    assert asked["stage3.out"] == (8, 16, 24, 32, 40)
    assert asked["stage3.block1.expanded"] == tuple(range(8, 6 * 24 + 1, 8))
    assert asked["stage3.block2.expanded"] == tuple(range(8, 6 * 40 + 1, 8))
    assert fine.largest_expanded(Slot(2, 0), 0.5) == 144


def test_a_stage_wider_than_the_skeleton_is_not_of_the_fine_view() -> None:
    fine = load_space("mobilenet_v3_large").fine_view
    spec = published_spec("mobilenet_v3_large@0.5")
    for stage, out in ((3, 56), (4, 80)):
        skeleton = fine.stage_out(stage, 0.5)
        wide, narrow = (
            spec.replace(
                blocks=tuple(block.replace(out=size if block.out == skeleton else block.out) for block in spec.blocks)
            )
            for size in (skeleton + 8, skeleton - 8)
        )
        assert skeleton == out
        assert fine.contains(narrow)
        assert not fine.contains(wide)


# Size, enumeration, odd spaces ------------------------------------------------------------------------


def every_row(space: SearchSpace) -> list[np.ndarray]:
    """All rows of codes, by trying every answer to every question that `draw` asks."""
    rows, todo = [], [[]]
    while todo:
        answers: list[int] = todo.pop()
        asked: list[int] = []

        def choose(decision: Any, answers: list[int] = answers, asked: list[int] = asked) -> int:
            asked.append(len(decision.choices))
            return answers[len(asked) - 1] if len(asked) <= len(answers) else 0

        row = space.draw(choose)
        rows.append(row)
        for place in range(len(answers), len(asked)):
            todo += [[*answers, *[0] * (place - len(answers)), other] for other in range(1, asked[place])]
    return rows


@pytest.mark.parametrize("space", [TINY, TINY.at([(1.0, 32)]).fine_view])
def test_size_counts_every_row_once(space: SearchSpace) -> None:
    rows = every_row(space)
    assert len({row.tobytes() for row in rows}) == len(rows) == space.size
    specs = space.decode(np.array(rows))
    again = space.decode(space.encode(specs))
    assert specs == again
    if not space.fine:
        assert len({spec.id for spec in specs}) == len(specs)


def test_samples_reach_every_network() -> None:
    rng = random.Random(0)
    space = TINY.at([(1.0, 32)])
    assert len({space.sample(rng).id for _ in range(400)}) == space.size == 12


def test_mutants_reach_every_network() -> None:
    rng = random.Random(0)
    space = TINY.at([(1.0, 32)])
    spec = space.sample(rng)
    seen = set()
    for _ in range(600):
        spec = space.mutate(spec, rng, 0.2)
        seen.add(spec.id)
    assert len(seen) == space.size


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


def test_where_two_rows_describe_one_network_the_shallower_early_stages_are_given() -> None:
    stage = Stage(out=16, stride=1, depths=(1, 2), kernels=(3,), expansions=(2,), se=(False,), activations=("relu",))
    space = dataclasses.replace(TINY.at([(1.0, 32)]), name="twins", stages=(stage, stage))
    # From 8 channels on, the first block differs; the next two are alike, whosever they are.
    rows = [row for row in every_row(space) if space.decode([row])[0].blocks[1:] and (row[[1, 10]] >= 0).all()]
    specs = space.decode(np.array(rows))
    assert len({spec.id for spec in specs}) == 3
    assert len(specs) == space.size == 4
    for spec in specs:
        assert space.decode(space.encode([spec])) == [spec]
    three = next(spec for spec in specs if len(spec.blocks) == 4)
    codes = space.encode([three])[0]
    assert [space.stages[s].depths[codes[space.depth_column(s)]] for s in (0, 1)] == [1, 2]


def test_a_space_of_one_network_cannot_be_mutated() -> None:
    stage = Stage(out=8, stride=1, depths=(1,), kernels=(3,), expansions=(2,), se=(False,), activations=("relu",))
    space = dataclasses.replace(TINY, name="single", stages=(stage,), variants=(Variant(1.0, 32),))
    assert space.size == 1
    with pytest.raises(NasError, match="space single has one network only"):
        space.mutate(space.sample(random.Random(0)), random.Random(0))


def test_mutate_refuses_a_foreign_network() -> None:
    with pytest.raises(NasError, match="is not a network of the space tiny"):
        TINY.mutate(published_spec("mobilenet_v2"), random.Random(0))


def test_scales_can_only_be_the_spaces_own() -> None:
    space = load_space("mobilenet_v3_large")
    with pytest.raises(NasError, match=r"has no width 0\.6; it has 0\.35, 0\.5, 0\.75, 1, 1\.25, 1\.4"):
        space.at([(1.0, 224), (0.6, 224)])
    with pytest.raises(NasError, match="has no resolution 225; it has 96, 128"):
        space.at([(1.0, 225)])
    with pytest.raises(NasError, match="needs at least one pair"):
        space.at([])
    assert space.at([(1.0, 224), (0.5, 96), (1.0, 224)]).variants == (Variant(1.0, 224), Variant(0.5, 96))
    assert space.at([(1, 224)]).sample(random.Random(1)).stem == space.stem


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
    with pytest.raises(NasError, match=f"space tiny: {name} is"):
        dataclasses.replace(TINY, **{name: ()}, variants=())
    with pytest.raises(NasError, match=f"space tiny: {name} is"):
        dataclasses.replace(TINY, **{name: 1}, variants=())
