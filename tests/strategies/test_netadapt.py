"""NetAdapt's trimming, on prices with the stairs of a vector unit and on prices made up for one question."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import network_ms

from nas.estimators.imagenet_prior import ImageNetPrior
from nas.published import published_spec
from nas.registry import load_space, space_names
from nas.space import CHANNEL_STEP, SearchSpace
from nas.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, squeezed_channels
from nas.strategies.netadapt import (
    BOTTLENECK_SHARES,
    EXPANSION_SHARES,
    STEP_SHARE,
    Step,
    best_proposal,
    bottlenecks,
    fewer,
    netadapt,
    proposals,
)

PRIOR = ImageNetPrior()


def price(specs: Sequence[ArchSpec]) -> np.ndarray:
    return np.array([network_ms(spec) for spec in specs])


def estimate(specs: Sequence[ArchSpec]) -> np.ndarray:
    return PRIOR.estimate(specs).top1


def trimmed(seed: ArchSpec, share: float) -> list[Step]:
    return list(netadapt(seed, share * price([seed])[0], price=price, estimate=estimate))


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """Published V3-Small down to 85 % of its latency."""
    return trimmed(published_spec("mobilenet_v3_small"), 0.85)


# Steps ------------------------------------------------------------------------------------------------


def test_the_first_is_the_seed_and_the_last_fits(steps: list[Step]) -> None:
    seed = published_spec("mobilenet_v3_small")
    budget_ms = 0.85 * price([seed])[0]
    assert (steps[0].spec, steps[0].cut) == (seed, "")
    assert len(steps) > 5
    assert all(step.latency_ms > budget_ms for step in steps[:-1])
    assert steps[-1].latency_ms <= budget_ms
    for step in steps:
        assert step.latency_ms == price([step.spec])[0]
        assert step.top1 == pytest.approx(estimate([step.spec])[0])


def test_each_step_saves_at_least_the_share_but_the_last(steps: list[Step]) -> None:
    least = STEP_SHARE * steps[0].latency_ms
    saved = [one.latency_ms - two.latency_ms for one, two in itertools.pairwise(steps)]
    assert all(ms >= least for ms in saved[:-1])
    assert saved[-1] > 0


def test_the_last_step_need_not_save_more_than_is_missing() -> None:
    """Else a network a hair over its budget would lose a whole percent."""
    seed = published_spec("mobilenet_v3_small")
    others = [spec for _, spec in proposals(seed)]
    saved = price([seed])[0] - price(others)
    small = next(i for i, ms in enumerate(saved) if 0 < ms < STEP_SHARE * price([seed])[0])

    def only_that(specs: Sequence[ArchSpec]) -> np.ndarray:
        return np.array([0.0 if spec in (seed, others[small]) else -9.0 for spec in specs])

    _, last = netadapt(seed, price([others[small]])[0], price=price, estimate=only_that)
    assert last.spec == others[small]


def test_each_step_keeps_the_best_ratio_of_all_proposals(steps: list[Step]) -> None:
    least = STEP_SHARE * steps[0].latency_ms
    for before, after in itertools.pairwise(steps[:-1]):
        specs = [spec for _, spec in proposals(before.spec)]
        saved, gained = before.latency_ms - price(specs), estimate(specs) - before.top1
        enough = saved >= least
        assert enough.sum() > 10
        if (gained[enough] >= 0).any():
            assert after.top1 >= before.top1
        else:
            ratio = (after.top1 - before.top1) / (before.latency_ms - after.latency_ms)
            assert ratio == pytest.approx((gained[enough] / saved[enough]).max())


def test_every_step_is_said(steps: list[Step]) -> None:
    for before, after in itertools.pairwise(steps):
        changed = [n for n, (a, b) in enumerate(zip(before.spec.blocks, after.spec.blocks, strict=True), 1) if a != b]
        assert after.cut.startswith((f"block {changed[0]}: expanded ", f"blocks {changed[0]}-{changed[-1]}: out "))


def test_ends_where_nothing_is_left_to_cut() -> None:
    seed = published_spec("mobilenet_v3_small@0.35").replace(resolution=32)
    steps = list(netadapt(seed, 0.0, price=price, estimate=estimate))
    assert steps[-1].latency_ms > 0
    least = STEP_SHARE * steps[0].latency_ms
    specs = [spec for _, spec in proposals(steps[-1].spec)]
    assert (steps[-1].latency_ms - price(specs) < least).all()


def test_a_seed_that_fits_is_left_alone() -> None:
    seed = published_spec("mobilenet_v3_small")
    (only,) = netadapt(seed, price([seed])[0], price=price, estimate=estimate)
    assert only.spec == seed


def test_without_accuracy_in_the_way_it_only_becomes_faster() -> None:
    """Gains are treated on their own: the largest saving, not the smallest."""
    seed = published_spec("mobilenet_v3_small")
    flat = list(netadapt(seed, 0.8 * price([seed])[0], price=price, estimate=lambda specs: np.zeros(len(specs))))
    for before, after in itertools.pairwise(flat):
        saved = before.latency_ms - price([spec for _, spec in proposals(before.spec)])
        assert before.latency_ms - after.latency_ms == pytest.approx(saved.max())
    assert len(flat) < len(trimmed(seed, 0.8)) / 2


def test_prefers_192_to_184_channels() -> None:
    """A cut to the wide width is never made where the next multiple of 16 is as good and faster."""
    block = BlockSpec(kernel=5, expanded=224, out=80, se=squeezed_channels(224))
    spec = _chain(80, block, BlockSpec(kernel=3, expanded=160, out=80))

    def wider_is_better(specs: Sequence[ArchSpec]) -> np.ndarray:
        return np.array([sum(block.expanded for block in spec.blocks) / 100 for spec in specs])

    at = {e: price([spec.with_block(1, expanded=e, se=squeezed_channels(e))])[0] for e in (176, 184, 192)}
    assert at[176] < at[192] < at[184]
    expanded = {
        step.spec.blocks[1].expanded
        for target in (at[184], at[192])
        for step in netadapt(spec, target, price=price, estimate=wider_is_better)
    }
    assert 192 in expanded
    assert not {184, 200, 216} & expanded


# Choosing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gained", "saved_ms", "best"),
    [
        ([-1.0, -1.0], [1.0, 2.0], 1),  # as much lost, more saved
        ([-1.0, -0.4], [2.0, 1.0], 1),  # -0.5 and -0.4 a millisecond
        ([-1.0, -0.6], [2.0, 1.0], 0),
        ([0.1, 0.2, -0.1], [3.0, 1.0, 9.0], 0),  # gains: the ratio would take the second
        ([0.0, -0.001], [0.1, 5.0], 0),  # nothing lost beats little lost
        ([0.0, 0.0], [0.1, 0.2], 1),
        ([-5.0], [0.1], 0),
    ],
)
def test_the_best_proposal(gained: list[float], saved_ms: list[float], best: int) -> None:
    assert best_proposal(np.array(gained), np.array(saved_ms)) == best


# Proposals --------------------------------------------------------------------------------------------


def networks() -> st.SearchStrategy[ArchSpec]:
    names = [*((name, fine) for name in space_names() for fine in (False, True))]

    def sampled(name: tuple[str, bool], seed: int) -> ArchSpec:
        space = load_space(name[0])
        return (space.fine_view if name[1] else space).sample(random.Random(seed))

    return st.builds(sampled, st.sampled_from(names), st.integers(0, 2**32))


def fine_view_of(spec: ArchSpec) -> SearchSpace:
    return load_space(spec.name.partition("@")[0]).fine_view


@given(networks())
@settings(max_examples=15)
def test_proposals_are_smaller_networks_of_the_fine_view(spec: ArchSpec) -> None:
    view = fine_view_of(spec)
    found = list(proposals(spec))
    assert len({smaller.id for _, smaller in found}) == len(found)
    for cut, smaller in found:
        assert view.contains(smaller), cut
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
def test_residuals_stay_where_they_are(spec: ArchSpec) -> None:
    """What is tied shrinks together; a cut may tie two stages, but never unties."""
    tied = [placed.has_residual for placed in spec.walk()]
    for cut, smaller in proposals(spec):
        after = [placed.has_residual for placed in smaller.walk()]
        assert all(new or not old for old, new in zip(tied, after, strict=True)), cut


def test_a_long_way_stays_in_the_fine_view() -> None:
    space = load_space("mobilenet_v3_small").at([(0.5, 96)])
    for seed in range(2):
        path = trimmed(space.sample(random.Random(seed)), 0.6)
        assert len(path) > 10
        assert all(fine_view_of(path[0].spec).contains(step.spec) for step in path)


def _chain(channels: int, *blocks: BlockSpec) -> ArchSpec:
    first = BlockSpec(kernel=3, expanded=16, out=channels, stride=2)
    return ArchSpec(name="chain", resolution=64, stem=StemSpec(out=16), blocks=(first, *blocks), head=HeadSpec(conv=64))


def test_bottlenecks_are_what_residuals_tie() -> None:
    spec = published_spec("mobilenet_v3_large")
    # 24, 24 | 40, 40, 40 | 80 x 4 | 112, 112 | 160 x 3; the first block's width is tied to the stem's.
    assert bottlenecks(spec) == [(1, 2), (3, 5), (6, 9), (10, 11), (12, 14)]
    # The last sepconv of V1's is followed by another: their widths are those of their inputs.
    assert bottlenecks(published_spec("mobilenet_v1")) == [(12, 12)]
    # A residual without a block before it is the stem's.
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


def test_stages_that_run_together_shrink_together() -> None:
    """At width 0.35 Small's stages of 40 and 48 channels both have 16, and a residual between them."""
    space = load_space("mobilenet_v3_small").at([(0.35, 96)])
    spec = space.largest((0.35, 96))
    outs = [block.out for block in spec.blocks]
    first, last = outs.index(16), len(outs) - 1 - outs[::-1].index(16)
    runs = [run for run in bottlenecks(spec) if outs[run[0]] == 16]
    assert runs[-1][1] == last
    assert runs[-1][1] - runs[-1][0] > 4
    assert first <= runs[-1][0]


@given(st.integers(1, 200).map(lambda n: 8 * n), st.sampled_from([EXPANSION_SHARES, BOTTLENECK_SHARES]))
def test_fewer_channels(channels: int, shares: tuple[float, ...]) -> None:
    found = fewer(channels, shares)
    assert found == sorted(set(found), reverse=True)
    assert all(0 < c < channels and c % 8 == 0 for c in found)
    if channels >= 32:
        assert found, "there is something to cut"
        assert any(c % 16 == 0 for c in found)
        assert min(found) >= min(shares) * channels - 16


def test_fewer_channels_by_hand() -> None:
    assert fewer(192, EXPANSION_SHARES) == [168, 160, 144, 120, 112, 96]
    assert fewer(16, BOTTLENECK_SHARES) == []
    assert fewer(8, EXPANSION_SHARES) == []
    assert fewer(16, EXPANSION_SHARES) == [8]
