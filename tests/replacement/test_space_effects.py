"""Penalties: sums over blocks, alike for encodings and networks."""

import random

import pytest
from support.replacing import LARGEST, LITTLE

from nas.arch.loading import load_space
from nas.arch.skeleton import Slot
from nas.replacement.choices import LEFT_OUT, Change, Choices
from nas.replacement.effects import Effect
from nas.replacement.space_effects import LEFT_OUT_SHARE, POWER, SpaceEffects, penalty


def effect(rise: float) -> Effect:
    return Effect(rise, 0.01, (rise, rise))


def effects_of(name: str = "") -> tuple:
    """Return a space, and made-up effects of all changes of its largest network."""
    space = load_space(name) if name else LITTLE
    teacher = space.largest(space.variants[-1]) if name else LARGEST
    rng = random.Random(1)
    return space, {change: effect(rng.uniform(-0.1, 1)) for change in Choices(space, teacher).changes()}


def test_a_penalty_is_a_power_of_the_rise() -> None:
    kernel, left_out = Change(Slot(0, 0), "kernel", 3), Change(Slot(0, 1), LEFT_OUT, None)
    assert penalty(kernel, effect(0.5)) == pytest.approx(0.5**POWER)
    assert penalty(left_out, effect(0.5)) == pytest.approx(LEFT_OUT_SHARE * 0.5**POWER)
    assert penalty(kernel, effect(-0.5)) == 0


def test_the_teacher_has_no_penalty_and_one_change_has_its_own() -> None:
    space, effects = effects_of()
    of = SpaceEffects(space, effects)
    assert of.penalty(LARGEST) == 0
    without_the_last = LARGEST.replace(blocks=LARGEST.blocks[:4])  # the second stage has one or three blocks
    left_out = (Change(Slot(1, position), LEFT_OUT, None) for position in (1, 2))
    assert of.penalty(without_the_last) == pytest.approx(sum(penalty(change, effects[change]) for change in left_out))
    kernel, se = Change(Slot(0, 1), "kernel", 3), Change(Slot(1, 0), "se", False)
    changed = LARGEST.with_block(2, kernel=3)
    assert of.penalty(changed) == pytest.approx(penalty(kernel, effects[kernel]))
    both = penalty(kernel, effects[kernel]) + penalty(se, effects[se])
    assert of.penalty(changed.with_block(3, se=0)) == pytest.approx(both)


@pytest.mark.parametrize("name", ["", "mobilenet_v3_small", "mobilenet_v3_small_images"])
def test_encodings_have_the_penalties_of_their_networks(name: str) -> None:
    space, effects = effects_of(name)
    of, rng = SpaceEffects(space, effects), random.Random(0)
    specs = [space.sample(rng) for _ in range(60)]
    model = of.additive_model(space)
    assert model(space.encode(specs)) == pytest.approx([of.penalty(spec) for spec in specs], abs=1e-12)
    assert model.constants.shape == (len(space.variants),)
    some = space.at(space.variants[1:2])
    fitting = [spec for spec in specs if some.contains(spec)]
    assert of.additive_model(some)(some.encode(fitting)) == pytest.approx([of.penalty(spec) for spec in fitting])


def test_between_two_expansions_the_penalty_is_interpolated() -> None:
    space, effects = effects_of()
    change = Change(Slot(0, 1), "expansion", 2)
    effects[change] = effect(0.4)
    of, whole = SpaceEffects(space, effects), penalty(change, effect(0.4))
    for expanded, share in ((64, 0), (48, 0.5), (40, 0.75), (32, 1), (24, 1), (96, 0)):  # of 16 channels
        assert of.penalty(LARGEST.with_block(2, expanded=expanded)) == pytest.approx(share * whole)


def test_a_choice_that_the_space_lacks_is_the_nearest_one() -> None:
    space, effects = effects_of()
    of = SpaceEffects(space, effects)
    assert of.penalty(LARGEST.with_block(2, kernel=7)) == 0
    kernel = penalty(Change(Slot(0, 1), "kernel", 3), effects[Change(Slot(0, 1), "kernel", 3)])
    assert of.penalty(LARGEST.with_block(2, kernel=3, activation="hswish")) == pytest.approx(kernel)


def test_a_network_that_does_not_fit_has_no_penalty() -> None:
    space, effects = effects_of()
    assert SpaceEffects(space, effects).penalty(LARGEST.replace(blocks=LARGEST.blocks[:2])) is None
