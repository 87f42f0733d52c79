"""Proposals, on latencies with the stairs of a vector unit."""

import dataclasses
import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fine_view import in_fine_view, sample_fine_view
from support.netadapt import cuts, place_of, predict_ms, width_of
from support.synthetic import network_ms

from nas.arch.loading import load_space, space_names
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import CHANNEL_STEP, ArchSpec, BlockSpec, HeadSpec, StemSpec, squeezed_channels
from nas.errors import NasError
from nas.netadapt.proposals import (
    EXTRA_CUTS,
    STEP_SHARE,
    Rules,
    bottlenecks,
    make_proposals,
    places_of,
    rounded_share,
    wider_and_faster,
    widths_near,
)


def networks() -> st.SearchStrategy[ArchSpec]:
    names = [*((name, fine) for name in space_names() for fine in (False, True))]

    def sampled(name: tuple[str, bool], seed: int) -> ArchSpec:
        space = load_space(name[0])
        return (sample_fine_view if name[1] else SearchSpace.sample)(space, random.Random(seed))

    return st.builds(sampled, st.sampled_from(names), st.integers(0, 2**32))


def space_of(spec: ArchSpec) -> SearchSpace:
    return load_space(spec.name.partition("@")[0])


@given(networks())
@settings(max_examples=15)
def test_proposals_are_smaller_networks_of_the_fine_view(spec: ArchSpec) -> None:
    space, latency_ms = space_of(spec), predict_ms([spec])[0]
    found = cuts(spec)
    assert len({proposal.spec.id for proposal in found}) == len(found)
    for cut, smaller, ms in found:
        assert in_fine_view(space, smaller), cut
        assert ms == predict_ms([smaller])[0] <= (1 - STEP_SHARE) * latency_ms
        assert smaller.resolution == spec.resolution
        assert (smaller.stem, smaller.head) == (spec.stem, spec.head)
        pairs = list(zip(spec.blocks, smaller.blocks, strict=True))
        assert all(new.expanded <= old.expanded and new.out <= old.out for old, new in pairs)
        for old, new in pairs:
            same = new.replace(expanded=old.expanded, out=old.out, se=old.se)
            assert same == old, "only channels are cut"
            assert new.se == (squeezed_channels(new.expanded) if old.se else 0)
            assert new.expanded % CHANNEL_STEP == new.out % CHANNEL_STEP == 0


@given(networks())
@settings(max_examples=15)
def test_no_proposal_is_slower_than_a_wider_one_at_its_place(spec: ArchSpec) -> None:
    found = cuts(spec)
    for one, other in itertools.permutations(found, 2):
        if place_of(one.cut) == place_of(other.cut) and width_of(one.cut) > width_of(other.cut):
            assert one.predicted_ms > other.predicted_ms


@given(networks())
@settings(max_examples=15)
def test_a_cut_never_unties_a_residual(spec: ArchSpec) -> None:
    """Tied blocks shrink together. A cut may tie two stages, but it never unties any."""
    tied = [placed.has_residual for placed in spec.walk()]
    for cut, smaller, _ in cuts(spec):
        after = [placed.has_residual for placed in smaller.walk()]
        assert all(new or not old for old, new in zip(tied, after, strict=True)), cut


def test_networks_that_a_limit_forbids_are_not_proposed() -> None:
    spec = published_spec("mobilenet_v3_small")
    forbidden = {proposal.spec.id for proposal in cuts(spec)[::2]}

    def limited(specs: Sequence[ArchSpec]) -> np.ndarray:
        return np.array([np.inf if s.id in forbidden else network_ms(s) for s in specs])

    found = make_proposals(spec, STEP_SHARE * predict_ms([spec])[0], limited)
    assert found
    assert not {proposal.spec.id for proposal in found} & forbidden


def test_more_is_cut_only_where_it_is_allowed() -> None:
    spec = published_spec("mobilenet_v3_small")
    plain = {proposal.cut for proposal in cuts(spec, 1e-4)}
    for option, cut in (
        ("se", "block 4: no SE"),
        ("kernel", "block 4: kernel 5 to 3"),
        ("activation", "block 4: h-swish to ReLU"),
        ("resolution", "resolution 224 to 208"),
        ("head", "head: hidden 1024 to 512"),
    ):
        assert cut not in plain
        found = {proposal.cut: proposal.spec for proposal in cuts(spec, 1e-4, Rules(allow=(option,)))}
        assert plain < set(found)
        assert cut in found, sorted(set(found) - plain)
    every = {p.cut: p.spec for p in cuts(spec, 1e-4, Rules(allow=EXTRA_CUTS))}
    assert every["block 4: no SE"] == spec.with_block(3, se=0)
    assert every["block 4: kernel 5 to 3"] == spec.with_block(3, kernel=3)
    assert every["block 4: h-swish to ReLU"] == spec.with_block(3, activation="relu")
    assert every["resolution 224 to 208"] == spec.replace(resolution=208)
    assert every["head: hidden 1024 to 512"].head == HeadSpec(conv=spec.head.conv, hidden=512)


def test_universal_and_fused_blocks_are_cut_where_they_have_channels() -> None:
    """An expansion, a bottleneck with the depthwise convolutions that begin on it, a kernel before the expansion."""
    spec = published_spec("mobilenetv4_conv_medium")
    found = {proposal.cut: proposal.spec for proposal in cuts(spec, 1e-4, Rules(allow=EXTRA_CUTS))}
    assert found["block 1: expanded 128 to 64"] == spec.with_block(0, expanded=64)  # fused
    assert found["block 10: expanded 320 to 160"] == spec.with_block(9, expanded=160)  # neither kernel
    assert found["block 12: start_kernel 5 to 3"] == spec.with_block(11, start_kernel=3)
    narrow = found["blocks 4-11: out 160 to 80"]
    assert [placed.in_channels for placed in narrow.walk()][3:12] == [80] * 9
    assert [placed.has_residual for placed in narrow.walk()] == [placed.has_residual for placed in spec.walk()]
    assert found["head: hidden 1280 to 640"].head == dataclasses.replace(spec.head, hidden=640)
    assert bottlenecks(spec) == [(0, 0), (1, 2), (3, 10), (11, 21)]
    assert bottlenecks(published_spec("mobilenetv4_conv_small")) == [(0, 0), (1, 1), (2, 7), (8, 13)]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"step_share": 0.0}, "share of the latency is 0"),
        ({"step_share": 1.0}, "between 0 and 1"),
        ({"metric": "speed"}, "unknown metric 'speed'; known: ratio, accuracy"),
        ({"allow": ("se", "skip")}, "unknown option to cut 'skip'; known: stem, head, se, kernel"),
    ],
)
def test_impossible_rules(rules: dict, message: str) -> None:
    with pytest.raises(NasError, match=message):
        Rules(**rules)


# Wider and faster -------------------------------------------------------------------------------------


def test_expansions_that_are_faster_wider_are_widened() -> None:
    spec = published_spec("mobilenet_v3_large")
    wider = wider_and_faster(spec, predict_ms)
    assert wider is not None
    changed = [(a.expanded, b.expanded) for a, b in zip(spec.blocks, wider.spec.blocks, strict=True) if a != b]
    assert changed == [(72, 80), (120, 128), (120, 128), (200, 208), (184, 192), (184, 192)]
    assert wider.predicted_ms == predict_ms([wider.spec])[0] < predict_ms([spec])[0]
    assert wider.spec.blocks[4].se == squeezed_channels(128)
    assert wider_and_faster(wider.spec, predict_ms) is None
    # Where latency is proportional to channels, wider is slower.
    assert (
        wider_and_faster(spec, lambda specs: np.array([sum(b.expanded for b in s.blocks) for s in specs], float))
        is None
    )


def test_a_limit_on_the_sum_forbids_widening_all_at_once() -> None:
    spec = published_spec("mobilenet_v3_large")

    def one_at_most(specs: Sequence[ArchSpec]) -> np.ndarray:
        changes = [sum(a != b for a, b in zip(spec.blocks, other.blocks, strict=True)) for other in specs]
        return np.where(np.array(changes) > 1, np.inf, predict_ms(specs))

    assert wider_and_faster(spec, one_at_most) is None


# Places and widths ------------------------------------------------------------------------------------


def test_bottlenecks_are_the_runs_that_residuals_tie() -> None:
    spec = published_spec("mobilenet_v3_large")
    # 24, 24 | 40, 40, 40 | 80 x 4 | 112, 112 | 160 x 3; the first block's width is tied to the stem's.
    assert bottlenecks(spec) == [(1, 2), (3, 5), (6, 9), (10, 11), (12, 14)]
    # The last sepconv of V1's is followed by another: their widths are those of their inputs.
    assert bottlenecks(published_spec("mobilenet_v1")) == [(12, 12)]
    # A residual without a block before it is the stem's, which a sepconv that follows keeps as it is.
    tied = ArchSpec(
        name="tied",
        resolution=32,
        stem=StemSpec(out=16),
        blocks=(
            BlockSpec(op="sepconv", kernel=3, expanded=16, out=16),
            BlockSpec(kernel=3, expanded=48, out=16),
            BlockSpec(kernel=3, expanded=48, out=24),
            BlockSpec(kernel=3, expanded=48, out=24),
        ),
        head=HeadSpec(conv=64),
    )
    assert bottlenecks(tied) == [(2, 3)]
    assert bottlenecks(tied.replace(blocks=tied.blocks[1:])) == [(-1, 0), (1, 2)]
    assert bottlenecks(tied.replace(blocks=tied.blocks[2:])) == [(0, 1)], "a stem by itself is left as it is"


def test_a_stem_is_cut_with_the_blocks_that_residuals_tie_to_it() -> None:
    spec = ArchSpec(
        name="tied",
        resolution=32,
        stem=StemSpec(out=32),
        blocks=(
            BlockSpec(kernel=3, expanded=48, out=32),
            BlockSpec(kernel=3, expanded=48, out=32),
            BlockSpec(kernel=3, expanded=48, out=24, stride=2),
        ),
        head=HeadSpec(conv=64),
    )
    (stem,) = (place for place in places_of(spec, ["stem"]) if place.name == "stem to block 2: out")
    assert all(place.first > 0 or place.field != "out" for place in places_of(spec))
    narrower = stem.cut(spec, 16)
    assert (narrower.stem.out, [block.out for block in narrower.blocks]) == (16, [16, 16, 24])
    assert [placed.has_residual for placed in narrower.walk()] == [True, True, False]
    assert stem.channels_in(narrower) == 16


def test_a_cut_gives_se_no_more_channels_than_it_had() -> None:
    """MnasNet's SE has a quarter of the block's input."""
    spec = published_spec("mnasnet_a1")
    squeezed = [block.se for block in spec.blocks]
    for place in places_of(spec):
        cut = place.cut(spec, place.channels - 8)
        assert all(block.se <= before for block, before in zip(cut.blocks, squeezed, strict=True))


def test_stages_that_run_together_shrink_together() -> None:
    """Small's stages of 40 and 48 channels both have 16 at width 0.35, and a residual between them."""
    space = load_space("mobilenet_v3_small").at([(0.35, 96)])
    spec = space.largest((0.35, 96))
    outs = [block.out for block in spec.blocks]
    first, last = outs.index(16), len(outs) - 1 - outs[::-1].index(16)
    runs = [run for run in bottlenecks(spec) if outs[run[0]] == 16]
    assert runs[-1][1] == last
    assert runs[-1][1] - runs[-1][0] > 4
    assert first <= runs[-1][0]


@given(st.integers(2, 200).map(lambda n: 8 * n), st.floats(0.1, 2000))
def test_widths_near_a_needed_number(channels: int, needed: float) -> None:
    found = widths_near(channels, needed)
    assert found == sorted(set(found))
    assert all(0 < width < channels and width % 8 == 0 for width in found)
    assert len(found) <= 6
    if 16 <= needed <= channels / 2:
        assert any(needed / 2 <= channels - width <= 2 * needed for width in found)


def test_widths_by_hand() -> None:
    assert widths_near(192, 8) == [176, 184]
    assert widths_near(192, 30) == [144, 160, 176]
    assert widths_near(960, 100) == [768, 832, 896]
    assert widths_near(16, 4) == [8]
    assert widths_near(64, 200) == []
    assert [rounded_share(channels, 3 / 4) for channels in (16, 24, 184, 960)] == [8, 16, 136, 720]
