"""The mixture of what a teacher says with the prior and multiply-accumulates: a sum over blocks, in points of top-1."""

import dataclasses
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.replacing import LARGEST, LITTLE, SIDE, learned_folder, lessons

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.accuracy.learned_space import SPREAD, LearnedSpace
from nas.arch.skeleton import Slot, Variant
from nas.replacement.choices import Change, Choices
from nas.replacement.effects import Effect
from nas.replacement.learning import Lessons

__all__ = ["learned_folder", "lessons"]


@pytest.fixture
def learned(lessons: Lessons) -> LearnedSpace:
    return LearnedSpace(LITTLE, lessons, ImageNetPrior())


def with_effect(lessons: Lessons, change: Change, rise: float) -> LearnedSpace:
    """Return the space as if a change had another effect."""
    effects = {**lessons.effects, change: Effect(rise, 0.001, (rise, rise))}
    return LearnedSpace(LITTLE, dataclasses.replace(lessons, effects=effects), ImageNetPrior())


def test_encodings_are_estimated_like_networks_at_every_variant(learned: LearnedSpace) -> None:
    rng = random.Random(0)
    specs = [LITTLE.sample(rng) for _ in range(40)]
    assert {spec.resolution for spec in specs} == {32, 48}
    found = learned.additive_model(LITTLE)(LITTLE.encode(specs))
    assert found == pytest.approx([learned.estimate(spec)[0] for spec in specs], abs=1e-9)
    some = LITTLE.at([(0.5, 48), (1.0, 32)])
    fitting = [spec for spec in specs if some.contains(spec)]
    assert len(fitting) > 5
    expected = [learned.estimate(spec)[0] for spec in fitting]
    assert learned.additive_model(some)(some.encode(fitting)) == pytest.approx(expected, abs=1e-9)


def test_networks_whose_rounded_channels_are_nearer_to_another_width_have_their_own(lessons: Lessons) -> None:
    """At width 0.75 three quarters of 24 channels are 24, as they are rounded to multiples of 8."""
    early, late = LITTLE.stages
    stages = (dataclasses.replace(early, out=24, depths=(1, 3)), dataclasses.replace(late, out=40))
    space = dataclasses.replace(LITTLE, stages=stages, widths=(0.75, 1.0), variants=())
    choices, rng = Choices(space, space.largest((1.0, SIDE))), random.Random(0)
    effects = {change: Effect(rng.uniform(0, 1), 0.01, (0.5, 0.5)) for change in choices.changes()}
    teacher: Any = SimpleNamespace(spec=choices.teacher)
    made_up = dataclasses.replace(lessons, choices=choices, teacher=teacher, effects=effects)
    learned = LearnedSpace(space, made_up, ImageNetPrior())
    specs = [space.sample(rng) for _ in range(40)]
    expected = [learned.estimate(spec)[0] for spec in specs]
    assert learned.additive_model(space)(space.encode(specs)) == pytest.approx(expected, abs=1e-9)


def test_the_variant_of_a_network_is_its_own_or_the_nearest_one(learned: LearnedSpace) -> None:
    rng = random.Random(0)
    for variant in LITTLE.variants:
        assert learned.variant_of(LITTLE.at([variant]).sample(rng)) == variant
    trimmed = LARGEST.with_block(2, expanded=LARGEST.blocks[2].expanded - 8)
    assert not learned.contains(trimmed)
    assert learned.variant_of(trimmed) == Variant(1.0, SIDE)
    of_none = LARGEST.replace(blocks=LARGEST.blocks[:2])
    assert learned.estimate(of_none)[2]
    assert learned.variant_of(of_none) == Variant(1.0, SIDE)


@pytest.mark.parametrize(
    ("variants", "nearest"),
    [
        ([(0.5, 32), (1.0, 48), (1.0, 32)], (1.0, 32)),
        ([(0.5, 32), (1.0, 48)], (1.0, 48)),
        ([(0.35, 32), (0.5, 96), (0.5, 64)], (0.5, 64)),
    ],
)
def test_the_width_and_then_the_resolution_is_nearest_to_the_teachers(
    learned: LearnedSpace, variants: list[tuple[float, int]], nearest: tuple[float, int]
) -> None:
    assert learned.nearest_to_teacher([Variant(*variant) for variant in variants]) == nearest


def test_the_teacher_has_the_top1_that_it_reached(learned: LearnedSpace, lessons: Lessons) -> None:
    top1, std, outside = learned.estimate(LARGEST)
    assert top1 == pytest.approx(lessons.top1, abs=1e-9)
    assert std > 0
    assert not outside


def test_a_harmful_choice_lowers_the_estimate(lessons: Lessons) -> None:
    change, spec = Change(Slot(0, 1), "kernel", 3), LARGEST.with_block(2, kernel=3)
    top1 = [with_effect(lessons, change, rise).estimate(spec)[0] for rise in (0.0, 0.1, 0.5)]
    assert top1[0] > top1[1] > top1[2]
    unlike = [with_effect(lessons, change, rise).estimate(LARGEST)[0] for rise in (0.0, 0.5)]
    assert unlike == pytest.approx([lessons.top1] * 2)


def test_fewer_channels_lower_the_estimate(lessons: Lessons, learned: LearnedSpace) -> None:
    """Also where they harm nothing: the prior and the multiply-accumulates tell."""
    expansion = Change(Slot(0, 1), "expansion", 2)
    harmless = with_effect(lessons, expansion, 0.0)
    top1 = [harmless.estimate(LARGEST.with_block(2, expanded=channels))[0] for channels in (64, 48, 32)]
    assert top1[0] > top1[1] > top1[2]
    assert learned.estimate(LITTLE.smallest((1.0, SIDE)))[0] < learned.estimate(LARGEST)[0]


def test_from_one_width_to_another_the_prior_tells_the_difference(lessons: Lessons, learned: LearnedSpace) -> None:
    for resolution in LITTLE.resolutions:
        narrow, wide = (LITTLE.largest((width, resolution)) for width in LITTLE.widths)
        prior = ImageNetPrior().estimate([narrow, wide]).top1
        difference = learned.estimate(wide)[0] - learned.estimate(narrow)[0]
        assert difference == pytest.approx(SPREAD * (prior[1] - prior[0]))


def test_estimates_speak_for_the_teachers_training_at_any_resolution(lessons: Lessons, learned: LearnedSpace) -> None:
    for resolution in LITTLE.resolutions:
        assert learned.estimate(LARGEST.replace(resolution=resolution))[0] == pytest.approx(lessons.top1)


def test_a_trimmed_network_lies_between_those_around_it(learned: LearnedSpace) -> None:
    more, trimmed, less = (learned.estimate(LARGEST.with_block(1, expanded=channels)) for channels in (32, 24, 16))
    assert less[0] < trimmed[0] < more[0]
    assert [outside for *_, outside in (more, trimmed, less)] == [False] * 3


def test_a_network_that_does_not_fit_is_marked_and_less_certain(learned: LearnedSpace) -> None:
    inside, outside = learned.estimate(LARGEST), learned.estimate(LARGEST.replace(blocks=LARGEST.blocks[:2]))
    assert outside[2]
    assert outside[1] == 2 * inside[1]
    assert outside[0] < inside[0]


def test_what_was_learned_is_said_in_words(lessons: Lessons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.accuracy.learned_space.TOLD", 100)
    harmful = {change: Effect(0.5, 0.01, (0.4 + 0.01 * n, 0.6)) for n, change in enumerate(lessons.effects)}
    first, *lines = LearnedSpace(LITTLE, dataclasses.replace(lessons, effects=harmful), ImageNetPrior()).in_words()
    count = len(harmful)
    assert first.startswith(f"replacement blocks: {count} of {count} effects are above the noise (2 standard errors)")
    assert not any("warning" in line for line in lines)
    assert sum(line.startswith("  stage 1: kernel 3: -") for line in lines) == 1
    assert sum(line.startswith("  stage 2: without one of the later blocks: -") for line in lines) == 1
    assert all("(log-loss +0.5000 ± 0.0" in line for line in lines)
    monkeypatch.setattr("nas.accuracy.learned_space.TOLD", 2)
    shortened = LearnedSpace(LITTLE, dataclasses.replace(lessons, effects=harmful), ImageNetPrior()).in_words()
    assert shortened == [first, *lines[:2]]


def test_effects_that_are_noise_are_warned_of(lessons: Lessons) -> None:
    rng = np.random.default_rng(0)
    noise = {change: Effect(0.01, 1.0, tuple(rng.normal(size=2))) for change in lessons.effects}
    lines = LearnedSpace(LITTLE, dataclasses.replace(lessons, effects=noise), ImageNetPrior()).in_words()
    assert lines[0].startswith(f"replacement blocks: 0 of {len(noise)} effects")
    assert lines[1].startswith("warning: nearly all effects are noise")
