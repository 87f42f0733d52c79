"""NetAdapt's steps, on latencies with the stairs of a vector unit and on accuracies made up for one question."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.fine_view import in_fine_view
from support.netadapt import chain, cuts, estimate, place_of, predict_ms, trimmed, width_of

from nas.arch.loading import load_space
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec, BlockSpec, squeezed_channels
from nas.netadapt.algorithm import (
    HALVINGS,
    NetAdaptStep,
    best_proposal,
    first_step,
    latency_of,
    next_step,
    trim_until_measured,
)
from nas.netadapt.proposals import STEP_SHARE, Rules, make_proposals


def trimmed_to(seed: ArchSpec, share: float) -> list[NetAdaptStep]:
    """Return the steps until a share of the seed's latency is left."""
    return list(trimmed(seed, share * predict_ms([seed])[0]))


@pytest.fixture(scope="module")
def steps() -> list[NetAdaptStep]:
    """Return the steps from published V3-Small to 85 % of its latency."""
    return trimmed_to(published_spec("mobilenet_v3_small"), 0.85)


def test_the_first_is_the_seed_and_the_last_fits(steps: list[NetAdaptStep]) -> None:
    seed = published_spec("mobilenet_v3_small")
    budget_ms = 0.85 * predict_ms([seed])[0]
    assert (steps[0].spec, steps[0].cut) == (seed, "")
    assert len(steps) > 5
    assert all(step.predicted_ms > budget_ms for step in steps[:-1])
    assert steps[-1].predicted_ms <= budget_ms
    for step in steps:
        assert step.predicted_ms == predict_ms([step.spec])[0]
        assert step.top1 == pytest.approx(estimate([step.spec])[0])


def test_each_step_saves_at_least_the_share_but_the_last(steps: list[NetAdaptStep]) -> None:
    least = STEP_SHARE * steps[0].predicted_ms
    saved = [one.predicted_ms - two.predicted_ms for one, two in itertools.pairwise(steps)]
    assert all(ms >= least for ms in saved[1:-1])
    assert saved[0] > 0, "wider and faster"
    assert saved[-1] > 0


def test_the_last_step_need_not_save_more_than_is_missing() -> None:
    """A network a little above its limit would lose a whole percent otherwise."""
    seed = published_spec("mobilenet_v2").replace(resolution=32)  # nothing in it is faster wider
    before_ms = predict_ms([seed])[0]
    small = min(cuts(seed, 0.001), key=lambda proposal: before_ms - proposal.predicted_ms)
    assert before_ms - small.predicted_ms < STEP_SHARE * before_ms

    def only_that(specs: Sequence[ArchSpec]) -> np.ndarray:
        return np.array([0.0 if spec in (seed, small.spec) else -9.0 for spec in specs])

    _, last = trimmed(seed, small.predicted_ms, only_that)
    assert last.spec == small.spec


def test_each_step_keeps_the_best_ratio_of_all_proposals(steps: list[NetAdaptStep]) -> None:
    least = STEP_SHARE * steps[0].predicted_ms
    for before, after in itertools.pairwise(steps[1:-1]):
        found = make_proposals(before.spec, least, predict_ms)
        saved = before.predicted_ms - np.array([proposal.predicted_ms for proposal in found])
        gained = estimate([proposal.spec for proposal in found]) - before.top1
        assert (saved >= least).all()
        assert len(found) > 10
        change = after.top1 - before.top1
        if (gained >= 0).any():
            assert change >= 0
        else:
            assert change / (before.predicted_ms - after.predicted_ms) == pytest.approx((gained / saved).max())


def test_every_step_names_its_cut(steps: list[NetAdaptStep]) -> None:
    assert steps[1].cut == "wider and faster: block 2: expanded 72 to 80, block 3: expanded 88 to 96, block 7: " + (
        "expanded 120 to 128"
    )
    for before, after in itertools.pairwise(steps[1:]):
        changed = [n for n, (a, b) in enumerate(zip(before.spec.blocks, after.spec.blocks, strict=True), 1) if a != b]
        assert after.cut.startswith((f"block {changed[0]}: expanded ", f"blocks {changed[0]}-{changed[-1]}: out "))


@pytest.fixture(scope="module")
def all_the_way() -> list[NetAdaptStep]:
    seed = published_spec("mobilenet_v3_small@0.35").replace(resolution=32)
    return list(trimmed(seed, 0.0))


def test_trimming_ends_where_no_cut_saves_anything(all_the_way: list[NetAdaptStep]) -> None:
    last = all_the_way[-1]
    assert last.predicted_ms > 0
    assert not make_proposals(last.spec, STEP_SHARE * all_the_way[0].predicted_ms / 2**HALVINGS, predict_ms)


def test_a_smaller_saving_is_asked_for_where_no_cut_saves_as_much(all_the_way: list[NetAdaptStep]) -> None:
    least = STEP_SHARE * all_the_way[0].predicted_ms
    small = [one for one, two in itertools.pairwise(all_the_way[1:]) if one.predicted_ms - two.predicted_ms < least]
    assert small
    assert not any(make_proposals(step.spec, least, predict_ms) for step in small)


def test_a_seed_that_fits_is_left_alone() -> None:
    seed = published_spec("mobilenet_v3_small")
    (only,) = trimmed(seed, predict_ms([seed])[0])
    assert only.spec == seed


def test_without_a_loss_of_accuracy_the_largest_saving_is_kept() -> None:
    """The ratio alone would prefer the smallest saving."""
    seed = published_spec("mobilenet_v3_small")
    flat = list(trimmed(seed, 0.8 * predict_ms([seed])[0], lambda specs: np.zeros(len(specs))))
    for before, after in itertools.pairwise(flat[1:]):
        found = make_proposals(before.spec, STEP_SHARE * flat[0].predicted_ms, predict_ms)
        assert after.predicted_ms == min(proposal.predicted_ms for proposal in found)
    assert len(flat) < len(trimmed_to(seed, 0.8)) / 2


def test_a_training_in_the_estimate_is_no_gain() -> None:
    """Only cuts are compared where every network, the current one too, is estimated higher each time."""
    seed = published_spec("mobilenet_v3_small")
    calls = itertools.count()

    def growing(specs: Sequence[ArchSpec]) -> np.ndarray:
        return estimate(specs) + next(calls)

    plain, grown = (list(trimmed(seed, 0.9 * predict_ms([seed])[0], accuracy)) for accuracy in (estimate, growing))
    assert [step.spec for step in plain] == [step.spec for step in grown]


def test_the_next_step_depends_on_the_steps_so_far_alone(steps: list[NetAdaptStep]) -> None:
    budget_ms = 0.85 * steps[0].predicted_ms
    for number in (1, 2, 5):
        again = next_step(steps[:number], budget_ms, predict_ms=predict_ms, estimate=estimate)
        assert again == steps[number]


def test_the_original_rule_keeps_the_most_accurate() -> None:
    seed = published_spec("mobilenet_v2")
    _, step = itertools.islice(trimmed(seed, 0.5, rules=Rules(metric="accuracy")), 2)
    assert step.top1 == max(estimate([proposal.spec for proposal in cuts(seed)]))


def test_prefers_192_to_184_channels() -> None:
    """A cut is never made to a width that is slower than the next wider multiple of 16."""
    block = BlockSpec(kernel=5, expanded=224, out=80, se=squeezed_channels(224))
    spec = chain(80, block, BlockSpec(kernel=3, expanded=160, out=80))

    def wider_is_better(specs: Sequence[ArchSpec]) -> np.ndarray:
        # The square root makes each further channel cost more, so that small cuts have the better ratio.
        return np.array([sum(block.expanded**0.5 for block in spec.blocks) for spec in specs])

    at = {e: predict_ms([spec.with_block(1, expanded=e, se=squeezed_channels(e))])[0] for e in (176, 184, 192)}
    assert at[176] < at[192] < at[184]
    expanded = {
        step.spec.blocks[1].expanded for target in (at[184], at[192]) for step in trimmed(spec, target, wider_is_better)
    }
    assert 192 in expanded
    assert not {184, 200, 216} & expanded
    found = make_proposals(spec, predict_ms([spec])[0] - at[184], predict_ms)
    widths = {width_of(proposal.cut) for proposal in found if place_of(proposal.cut) == "block 2: expanded 224"}
    assert 192 in widths
    assert not {184, 200, 216} & widths


def test_many_steps_stay_in_the_space() -> None:
    home = load_space("mobilenet_v3_small")
    space = home.at([(0.5, 96)])
    for seed in range(2):
        path = trimmed_to(space.sample(random.Random(seed)), 0.6)
        assert len(path) > 10
        assert all(in_fine_view(home, step.spec) for step in path)


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


# Measured on the way ------------------------------------------------------------------------------------


class Device:
    """Whole networks that take longer than predicted, by a ratio that grows as they shrink; and the measured ones."""

    def __init__(self, ratio: float, growth: float = 0.0) -> None:
        self.ratio, self.growth = ratio, growth
        self.measured: list[str] = []

    def latency_ms(self, spec: ArchSpec) -> float:
        predicted_ms = float(predict_ms([spec])[0])
        return predicted_ms * (self.ratio + self.growth / predicted_ms)

    def measure_ms(self, spec: ArchSpec) -> float:
        self.measured.append(spec.id)
        return self.latency_ms(spec)


SEED = published_spec("mobilenet_v3_small")
SEED_MS = float(predict_ms([SEED])[0])


def trimmed_on(device: Device, limit_ms: float, measure_every: int | None = None) -> list[NetAdaptStep]:
    first = first_step(SEED, predict_ms, estimate, device.latency_ms(SEED))
    steps = trim_until_measured(
        [first],
        limit_ms,
        predict_ms=predict_ms,
        measure_ms=device.measure_ms,
        estimate=estimate,
        measure_every=measure_every,
    )
    return [first, *steps]


@pytest.mark.parametrize("growth", [0.0, 0.5])
def test_a_measurement_keeps_the_limit_in_the_end(growth: float) -> None:
    device, limit_ms = Device(1.1, growth), 0.9 * SEED_MS
    steps = trimmed_on(device, limit_ms)
    last = steps[-1]
    assert last.measured_ms == device.latency_ms(last.spec)
    assert 0.97 * limit_ms < last.measured_ms <= limit_ms
    assert latency_of(steps) == last.measured_ms
    for number in range(1, len(steps)):
        assert latency_of(steps[:number]) > limit_ms
        # A network is measured only where its prediction, corrected by the last measurement, keeps the limit.
        before = [step for step in steps[:number] if step.measured_ms is not None][-1]
        assert before.measured_ms is not None
        expected_ms = steps[number].predicted_ms * before.measured_ms / before.predicted_ms
        assert (steps[number].measured_ms is not None) == (expected_ms <= limit_ms)
    assert device.measured == [step.spec.id for step in steps[1:] if step.measured_ms is not None]
    assert len(device.measured) == 1 if growth == 0 else len(device.measured) > 1


def test_networks_are_measured_every_few_steps() -> None:
    steps = trimmed_on(Device(1.1), 0.9 * SEED_MS, measure_every=3)
    assert len(steps) > 7
    assert [number for number, step in enumerate(steps[:-1]) if step.measured_ms is not None] == list(
        range(0, len(steps) - 1, 3)
    )


def test_a_limit_that_no_cut_reaches_ends_above_it() -> None:
    seed = published_spec("mobilenet_v3_small@0.35").replace(resolution=32)
    first = first_step(seed, predict_ms, estimate)
    steps = [first]
    steps += trim_until_measured(
        [first], 1e-3, predict_ms=predict_ms, measure_ms=Device(1.0).measure_ms, estimate=estimate
    )
    assert len(steps) > 5
    assert latency_of(steps) > 1e-3
    assert all(step.measured_ms is None for step in steps)


def test_a_stopped_run_goes_on_alike() -> None:
    limit_ms = 0.9 * SEED_MS
    whole = trimmed_on(Device(1.1, 0.5), limit_ms, measure_every=3)
    for number in (1, 2, 4, len(whole) - 1, len(whole)):
        rest = trim_until_measured(
            whole[:number],
            limit_ms,
            predict_ms=predict_ms,
            measure_ms=Device(1.1, 0.5).measure_ms,
            estimate=estimate,
            measure_every=3,
        )
        assert [*whole[:number], *rest] == whole


def test_without_measurements_predictions_keep_the_limit(steps: list[NetAdaptStep]) -> None:
    rest = trim_until_measured(steps[:1], 0.85 * steps[0].predicted_ms, predict_ms=predict_ms, estimate=estimate)
    assert [*steps[:1], *rest] == steps
    assert latency_of([replace(steps[0], measured_ms=2.0), steps[1]]) == pytest.approx(
        2.0 * steps[1].predicted_ms / steps[0].predicted_ms
    )
