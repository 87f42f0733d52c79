"""Take noise off rows whose true times are known."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from nas.arch.parts import BlockPart, ContextPart, Part
from nas.arch.spec import BlockSpec, squeezed_channels
from nas.latency.denoising import FEWEST, denoised
from nas.latency.timing import Timing

NOISE = 0.03
KERNELS, EXPANDED = (3, 5, 7), (120, 160, 240)


def place(kernels: tuple[int, ...] = KERNELS, out: int = 40) -> list[BlockPart]:
    return [
        BlockPart(BlockSpec(kernel=kernel, expanded=expanded, out=out, se=se, activation=activation), 40, 28)
        for kernel in kernels
        for expanded in EXPANDED
        for se in (0, squeezed_channels(expanded))
        for activation in ("relu", "hswish")
    ]


def by_choices(block: BlockSpec) -> float:
    """Return a time in which choices and pairs count, and nothing else: a staircase of expanded channels too."""
    stairs = {120: 1.0, 160: 1.1, 240: 1.7}[block.expanded]
    return 0.02 * stairs * (1 + 0.03 * block.kernel * block.expanded / 240) * (1.2 if block.se else 1.0)


def timed(parts: list[BlockPart], truth: Callable[[BlockSpec], float], seed: int = 0) -> dict[Part, Timing]:
    rng = np.random.default_rng(seed)
    return {
        part: Timing(ratio := truth(part.block) * float(np.exp(NOISE * rng.normal())), (ratio, ratio), 9, NOISE, ratio)
        for part in parts
    }


def errors(ratios: dict[Part, float], truth: Callable[[BlockSpec], float]) -> float:
    logs = [np.log(ratio / truth(part.block)) for part, ratio in ratios.items() if isinstance(part, BlockPart)]
    return float(np.sqrt(np.mean(np.square(logs))))


def test_noise_is_taken_off() -> None:
    before, after = [], []
    for seed in range(20):
        timings = timed(place(), by_choices, seed)
        before.append(errors({part: timing.ratio for part, timing in timings.items()}, by_choices))
        after.append(errors(denoised(timings), by_choices))
    assert np.mean(before) == pytest.approx(NOISE, rel=0.1)
    assert np.mean(after) < 0.7 * np.mean(before)


def test_the_luckiest_of_a_place_is_no_longer_far_too_fast() -> None:
    """A search takes what is timed fastest for its accuracy."""
    lucky = {"timed": 0.0, "denoised": 0.0}
    for seed in range(40):
        timings = timed(place(), lambda block: 0.02, seed)
        drawn = denoised(timings)
        lucky["timed"] += min(timing.ratio for timing in timings.values()) / 0.02 / 40
        lucky["denoised"] += min(drawn.values()) / 0.02 / 40
    assert lucky["timed"] < 0.945
    assert 1 - lucky["denoised"] < 0.7 * (1 - lucky["timed"])


def test_what_the_model_does_not_know_stays() -> None:
    """Here each row has a time of its own, far beyond the noise."""

    def own(block: BlockSpec) -> float:
        return 0.02 * random.Random(str(block)).uniform(0.5, 2.0)

    timings = timed(place(), own)
    for part, ratio in denoised(timings).items():
        assert ratio == pytest.approx(timings[part].ratio, rel=0.02)


def test_a_true_place_stays_as_it_is() -> None:
    timings = {part: Timing(ratio := by_choices(part.block), (ratio, ratio), 9, NOISE, ratio) for part in place()}
    for part, ratio in denoised(timings).items():
        assert ratio == pytest.approx(timings[part].ratio, rel=0.01)


def test_few_rows_contexts_and_other_places_are_left_alone() -> None:
    few = timed(place(kernels=(3,)), by_choices)
    assert len(few) < FEWEST
    context: dict[Part, Timing] = {ContextPart(40, 28): Timing(0.01, (0.01, 0.01), 9, NOISE, 0.01)}
    assert denoised(few | context) == {part: timing.ratio for part, timing in (few | context).items()}
    many = timed(place(), by_choices)
    assert denoised(many | timed(place(out=48), by_choices, 1))[place()[0]] == denoised(many)[place()[0]]


def test_the_order_of_rows_changes_nothing() -> None:
    timings = timed(place(), by_choices)
    turned = dict(reversed(timings.items()))
    drawn = denoised(timings)
    assert {part: pytest.approx(ratio) for part, ratio in denoised(turned).items()} == drawn
