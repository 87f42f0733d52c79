"""NetAdapt's trimming, on prices with the stairs of a vector unit and on prices made up for one question."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic import network_ms

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.loading import load_space, space_names
from nas.arch.published import published_spec
from nas.arch.space import CHANNEL_STEP, SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, squeezed_channels
from nas.errors import NasError
from nas.netadapt.algorithm import (
    OPTIONS,
    PAPER,
    PATIENCE,
    STEP_SHARE,
    Proposal,
    Rules,
    Step,
    best_proposal,
    bottlenecks,
    near,
    netadapt,
    next_step,
    proposals,
    share_of,
    widened,
)

PRIOR = ImageNetPrior()


def price(specs: Sequence[ArchSpec]) -> np.ndarray:
    return np.array([network_ms(spec) for spec in specs])


def estimate(specs: Sequence[ArchSpec]) -> np.ndarray:
    return PRIOR.estimate(specs).top1


def cuts(spec: ArchSpec, share: float = STEP_SHARE, rules: Rules = PAPER) -> list[Proposal]:
    return proposals(spec, share * price([spec])[0], price, rules)


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
    assert all(ms >= least for ms in saved[1:-1])
    assert saved[0] > 0, "wider and faster"
    assert saved[-1] > 0


def test_the_last_step_need_not_save_more_than_is_missing() -> None:
    """Else a network a hair over its budget would lose a whole percent."""
    seed = published_spec("mobilenet_v2").replace(resolution=32)  # nothing in it is faster wider
    before_ms = price([seed])[0]
    small = min(cuts(seed, 0.001), key=lambda proposal: before_ms - proposal.latency_ms)
    assert before_ms - small.latency_ms < STEP_SHARE * before_ms

    def only_that(specs: Sequence[ArchSpec]) -> np.ndarray:
        return np.array([0.0 if spec in (seed, small.spec) else -9.0 for spec in specs])

    _, last = netadapt(seed, small.latency_ms, price=price, estimate=only_that)
    assert last.spec == small.spec


def test_each_step_keeps_the_best_ratio_of_all_proposals(steps: list[Step]) -> None:
    least = STEP_SHARE * steps[0].latency_ms
    for before, after in itertools.pairwise(steps[1:-1]):
        found = proposals(before.spec, least, price)
        saved = before.latency_ms - np.array([proposal.latency_ms for proposal in found])
        gained = estimate([proposal.spec for proposal in found]) - before.top1
        assert (saved >= least).all()
        assert len(found) > 10
        assert after.gained == pytest.approx(after.top1 - before.top1)
        if (gained >= 0).any():
            assert after.gained >= 0
        else:
            assert after.gained / (before.latency_ms - after.latency_ms) == pytest.approx((gained / saved).max())


def test_every_step_is_said(steps: list[Step]) -> None:
    assert steps[1].cut == "wider and faster: block 2: expanded 72 to 80, block 3: expanded 88 to 96, block 7: " + (
        "expanded 120 to 128"
    )
    for before, after in itertools.pairwise(steps[1:]):
        changed = [n for n, (a, b) in enumerate(zip(before.spec.blocks, after.spec.blocks, strict=True), 1) if a != b]
        assert after.cut.startswith((f"block {changed[0]}: expanded ", f"blocks {changed[0]}-{changed[-1]}: out "))


@pytest.fixture(scope="module")
def all_the_way() -> list[Step]:
    seed = published_spec("mobilenet_v3_small@0.35").replace(resolution=32)
    return list(netadapt(seed, 0.0, price=price, estimate=estimate))


def test_ends_where_nothing_is_left_to_cut(all_the_way: list[Step]) -> None:
    last = all_the_way[-1]
    assert last.latency_ms > 0
    assert not proposals(last.spec, STEP_SHARE * all_the_way[0].latency_ms / 2**PATIENCE, price)


def test_less_is_asked_for_where_nothing_saves_as_much(all_the_way: list[Step]) -> None:
    least = STEP_SHARE * all_the_way[0].latency_ms
    small = [one for one, two in itertools.pairwise(all_the_way[1:]) if one.latency_ms - two.latency_ms < least]
    assert small
    assert not any(proposals(step.spec, least, price) for step in small)


def test_a_seed_that_fits_is_left_alone() -> None:
    seed = published_spec("mobilenet_v3_small")
    (only,) = netadapt(seed, price([seed])[0], price=price, estimate=estimate)
    assert only.spec == seed


def test_without_accuracy_in_the_way_it_only_becomes_faster() -> None:
    """Gains are treated on their own: the largest saving, not the smallest."""
    seed = published_spec("mobilenet_v3_small")
    flat = list(netadapt(seed, 0.8 * price([seed])[0], price=price, estimate=lambda specs: np.zeros(len(specs))))
    for before, after in itertools.pairwise(flat[1:]):
        found = proposals(before.spec, STEP_SHARE * flat[0].latency_ms, price)
        assert after.latency_ms == min(proposal.latency_ms for proposal in found)
    assert len(flat) < len(trimmed(seed, 0.8)) / 2


def test_a_training_in_the_estimate_is_no_gain() -> None:
    """Every network, the current one too, is estimated higher each time: only cuts are compared."""
    seed = published_spec("mobilenet_v3_small")
    calls = itertools.count()

    def growing(specs: Sequence[ArchSpec]) -> np.ndarray:
        return estimate(specs) + next(calls)

    plain, grown = (
        list(netadapt(seed, 0.9 * price([seed])[0], price=price, estimate=judge)) for judge in (estimate, growing)
    )
    assert [step.spec for step in plain] == [step.spec for step in grown]


def test_steps_go_on_from_steps(steps: list[Step]) -> None:
    budget_ms = 0.85 * steps[0].latency_ms
    for number in (1, 2, 5):
        again = next_step(steps[:number], budget_ms, price=price, estimate=estimate)
        assert again == steps[number]


def test_the_original_rule_keeps_the_most_accurate() -> None:
    seed = published_spec("mobilenet_v2")
    _, step = itertools.islice(netadapt(seed, 0.5, price=price, estimate=estimate, rules=Rules(metric="accuracy")), 2)
    assert step.top1 == max(estimate([proposal.spec for proposal in cuts(seed)]))


def test_prefers_192_to_184_channels() -> None:
    """A cut to the wide width is never made where the next multiple of 16 is as good and faster."""
    block = BlockSpec(kernel=5, expanded=224, out=80, se=squeezed_channels(224))
    spec = _chain(80, block, BlockSpec(kernel=3, expanded=160, out=80))

    def wider_is_better(specs: Sequence[ArchSpec]) -> np.ndarray:
        # Less with every channel: at so much a channel half of them could go at once, 16 or 32 being no better a ratio.
        return np.array([sum(block.expanded**0.5 for block in spec.blocks) for spec in specs])

    at = {e: price([spec.with_block(1, expanded=e, se=squeezed_channels(e))])[0] for e in (176, 184, 192)}
    assert at[176] < at[192] < at[184]
    expanded = {
        step.spec.blocks[1].expanded
        for target in (at[184], at[192])
        for step in netadapt(spec, target, price=price, estimate=wider_is_better)
    }
    assert 192 in expanded
    assert not {184, 200, 216} & expanded
    found = proposals(spec, price([spec])[0] - at[184], price)
    widths = {width_of(proposal.cut) for proposal in found if place_of(proposal.cut) == "block 2: expanded 224"}
    assert 192 in widths
    assert not {184, 200, 216} & widths


# Wider and faster -------------------------------------------------------------------------------------


def test_what_is_faster_wider_is_widened_for_free() -> None:
    spec = published_spec("mobilenet_v3_large")
    wider = widened(spec, price)
    assert wider is not None
    changed = [(a.expanded, b.expanded) for a, b in zip(spec.blocks, wider.spec.blocks, strict=True) if a != b]
    assert changed == [(72, 80), (120, 128), (120, 128), (200, 208), (184, 192), (184, 192)]
    assert wider.latency_ms == price([wider.spec])[0] < price([spec])[0]
    assert wider.spec.blocks[4].se == squeezed_channels(128)
    assert widened(wider.spec, price) is None
    # Where channels cost what they are, wider is slower.
    assert widened(spec, lambda specs: np.array([sum(b.expanded for b in s.blocks) for s in specs], float)) is None


def test_a_limit_on_the_sum_forbids_widening_all_at_once() -> None:
    spec = published_spec("mobilenet_v3_large")

    def one_at_most(specs: Sequence[ArchSpec]) -> np.ndarray:
        changes = [sum(a != b for a, b in zip(spec.blocks, other.blocks, strict=True)) for other in specs]
        return np.where(np.array(changes) > 1, np.inf, price(specs))

    assert widened(spec, one_at_most) is None


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
    view, latency_ms = fine_view_of(spec), price([spec])[0]
    found = cuts(spec)
    assert len({proposal.spec.id for proposal in found}) == len(found)
    for cut, smaller, ms in found:
        assert view.contains(smaller), cut
        assert ms == price([smaller])[0] <= (1 - STEP_SHARE) * latency_ms
        assert smaller.resolution == spec.resolution
        assert (smaller.stem, smaller.head) == (spec.stem, spec.head)
        pairs = list(zip(spec.blocks, smaller.blocks, strict=True))
        assert all(new.expanded <= old.expanded and new.out <= old.out for old, new in pairs)
        for old, new in pairs:
            same = new.replace(expanded=old.expanded, out=old.out, se=old.se)
            assert same == old, "only channels are cut"
            assert new.se == (squeezed_channels(new.expanded) if old.se else 0)
            assert new.expanded % CHANNEL_STEP == new.out % CHANNEL_STEP == 0


def place_of(cut: str) -> str:
    return cut.partition(" to ")[0]


def width_of(cut: str) -> int:
    return int(cut.rpartition(" ")[2])


@given(networks())
@settings(max_examples=15)
def test_no_proposal_is_slower_than_a_wider_one_at_its_place(spec: ArchSpec) -> None:
    found = cuts(spec)
    for one, other in itertools.permutations(found, 2):
        if place_of(one.cut) == place_of(other.cut) and width_of(one.cut) > width_of(other.cut):
            assert one.latency_ms > other.latency_ms


@given(networks())
@settings(max_examples=15)
def test_dear_estimates_get_one_proposal_a_place(spec: ArchSpec) -> None:
    found, all_found = cuts(spec, rules=Rules(one_each=True)), cuts(spec)
    places = [place_of(proposal.cut) for proposal in found]
    assert sorted(places) == sorted({place_of(proposal.cut) for proposal in all_found})
    before_ms = price([spec])[0]
    for chosen in found:
        rivals = [p for p in all_found if place_of(p.cut) == place_of(chosen.cut)]
        assert chosen in rivals
        saved = before_ms - chosen.latency_ms
        assert saved <= 2 * min(before_ms - rival.latency_ms for rival in rivals)
        if (widest := max(rivals, key=lambda p: width_of(p.cut))) != chosen:
            channels = int(place_of(chosen.cut).rpartition(" ")[2])
            rates = [(before_ms - p.latency_ms) / (channels - width_of(p.cut)) for p in (chosen, widest)]
            assert rates[0] >= (1 - 1e-9) * rates[1]


@given(networks())
@settings(max_examples=15)
def test_residuals_stay_where_they_are(spec: ArchSpec) -> None:
    """What is tied shrinks together; a cut may tie two stages, but never unties."""
    tied = [placed.has_residual for placed in spec.walk()]
    for cut, smaller, _ in cuts(spec):
        after = [placed.has_residual for placed in smaller.walk()]
        assert all(new or not old for old, new in zip(tied, after, strict=True)), cut


def test_what_a_limit_forbids_is_no_proposal() -> None:
    spec = published_spec("mobilenet_v3_small")
    forbidden = {proposal.spec.id for proposal in cuts(spec)[::2]}

    def limited(specs: Sequence[ArchSpec]) -> np.ndarray:
        return np.array([np.inf if s.id in forbidden else network_ms(s) for s in specs])

    found = proposals(spec, STEP_SHARE * price([spec])[0], limited)
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
    every = {p.cut: p.spec for p in cuts(spec, 1e-4, Rules(allow=OPTIONS))}
    assert every["block 4: no SE"] == spec.with_block(3, se=0)
    assert every["block 4: kernel 5 to 3"] == spec.with_block(3, kernel=3)
    assert every["block 4: h-swish to ReLU"] == spec.with_block(3, activation="relu")
    assert every["resolution 224 to 208"] == spec.replace(resolution=208)
    assert every["head: hidden 1024 to 512"].head == HeadSpec(conv=spec.head.conv, hidden=512)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"share": 0.0}, "share of the latency is 0"),
        ({"share": 1.0}, "between 0 and 1"),
        ({"metric": "speed"}, "unknown metric 'speed'; known: ratio, accuracy"),
        ({"allow": ("se", "stem")}, "unknown option to cut 'stem'; known: se, kernel"),
    ],
)
def test_impossible_rules(rules: dict, message: str) -> None:
    with pytest.raises(NasError, match=message):
        Rules(**rules)


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


@given(st.integers(2, 200).map(lambda n: 8 * n), st.floats(0.1, 2000))
def test_widths_that_are_looked_at(channels: int, needed: float) -> None:
    found = near(channels, needed)
    assert found == sorted(set(found))
    assert all(0 < width < channels and width % 8 == 0 for width in found)
    assert len(found) <= 6
    if 16 <= needed <= channels / 2:
        assert any(needed / 2 <= channels - width <= 2 * needed for width in found)


def test_widths_by_hand() -> None:
    assert near(192, 8) == [176, 184]
    assert near(192, 30) == [144, 160, 176]
    assert near(960, 100) == [768, 832, 896]
    assert near(16, 4) == [8]
    assert near(64, 200) == []
    assert [share_of(channels, 3 / 4) for channels in (16, 24, 184, 960)] == [8, 16, 136, 720]
