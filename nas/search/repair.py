"""Repair an encoding that breaks a limit: make it cheaper, one small step at a time, until it keeps all limits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas.arch.encoding import Encoding
from nas.arch.space import SearchSpace
from nas.search.limits import Limit

_STEPS = 500  # down to the limits; more are not needed, except for a latency in which steps go round in circles


class Repair:
    """A function that makes an encoding keep all limits.

    `fastest` holds a network of each feasible variant that keeps them.
    """

    def __init__(
        self, limits: Sequence[Limit], feasible_variants: Sequence[int], fastest: Sequence[Encoding | None]
    ) -> None:
        self._space = limits[0].sums.space
        self._limits, self._feasible, self._fastest = limits, feasible_variants, fastest
        self._of_variant: dict[int, _LimitsOfVariant] = {}

    def __call__(self, encoding: Encoding, rng: random.Random) -> Encoding:
        """Return the encoding if it keeps all limits, else one that random steps lead to.

        A step takes a block to an option that differs in one choice and is cheaper in the first limit that is broken,
        or a stage to a smaller depth. Where no such step is left, it takes a block to any cheaper option, and at last
        stages to their form in the fastest network. A variant at which nothing fits is exchanged first.
        """
        variant = encoding[0] if encoding[0] in self._feasible else rng.choice(self._feasible)
        limits = self._limits_of(variant)
        choice = OptionChoice.of(self._space, encoding)
        for _ in range(_STEPS):
            broken = limits.broken(choice)
            if broken is None:
                break
            steps = limits.steps(choice, broken, near=True) or limits.steps(choice, broken, near=False)
            if not steps:
                break
            choice.take(rng.choice(steps))
        if limits.broken(choice) is not None:
            fastest = self._fastest[variant]
            assert fastest is not None
            towards = OptionChoice.of(self._space, fastest)
            stages = list(range(len(self._space.stages)))
            rng.shuffle(stages)
            for stage in stages:
                choice.take_stage(stage, towards)
                if limits.broken(choice) is None:
                    break
        return choice.encoding(variant)

    def _limits_of(self, variant: int) -> _LimitsOfVariant:
        if variant not in self._of_variant:
            self._of_variant[variant] = _LimitsOfVariant(self._limits, variant)
        return self._of_variant[variant]


class OptionChoice:
    """A network of one variant as one option a slot (-1: no block) and one depth a stage. Changing it is cheap."""

    def __init__(self, space: SearchSpace, depths: list[int], options: list[int]) -> None:
        self._space = space
        self.depths = depths  # indices of `stage.depths`
        self.options = options

    @classmethod
    def of(cls, space: SearchSpace, encoding: Encoding) -> OptionChoice:
        """Return the network of an encoding."""
        options = []
        for slot in space.slots:
            column = space.slot_column(slot)
            options.append(
                -1 if encoding[column] < 0 else _option(encoding[column : column + 4], _sizes(space, column))
            )
        return cls(space, [encoding[space.depth_column(stage)] for stage in range(len(space.stages))], options)

    def encoding(self, variant: int) -> Encoding:
        """Return the network's encoding at a variant."""
        space = self._space
        decisions = [-1] * len(space.decisions)
        decisions[0] = variant
        for stage, depth in enumerate(self.depths):
            decisions[space.depth_column(stage)] = depth
        for slot, option in zip(space.slots, self.options, strict=True):
            if option >= 0:
                column = space.slot_column(slot)
                decisions[column : column + 4] = _choices(option, _sizes(space, column))
        return tuple(decisions)

    def take(self, step: _RepairStep) -> None:
        """Change the network by a step."""
        if step.depth >= 0:
            self.depths[step.place] = step.depth
            for slot in step.gone:
                self.options[slot] = -1
        else:
            self.options[step.place] = step.option

    def take_stage(self, stage: int, other: OptionChoice) -> None:
        """Give a stage the depth and the options that it has in another network."""
        self.depths[stage] = other.depths[stage]
        for index, slot in enumerate(self._space.slots):
            if slot.stage == stage:
                self.options[index] = other.options[index]


class _RepairStep(NamedTuple):
    """An option for the slot `place`, or a depth for the stage `place` with the slots that it removes."""

    place: int
    option: int = -1
    depth: int = -1
    gone: tuple[int, ...] = ()


class _LimitsOfVariant:
    """The limits of one variant as lists, which are faster than arrays for single steps."""

    def __init__(self, limits: Sequence[Limit], variant: int) -> None:
        space = limits[0].sums.space
        self._most = [limit.most for limit in limits]
        self._constants = [float(limit.sums.constants[variant]) for limit in limits]
        self._sums = [[values[variant].tolist() for values in limit.sums.options] for limit in limits]
        self._pairs = [[(f, s, values[variant].tolist()) for f, s, values in limit.sums.pairs] for limit in limits]
        self._floors = [float(limit.peaks.constants[variant]) if limit.peaks else 0.0 for limit in limits]
        self._peaks = [
            [values[variant].tolist() for values in limit.peaks.options] if limit.peaks else None for limit in limits
        ]
        self._near = [_near(_sizes(space, space.slot_column(slot))) for slot in space.slots]
        self._lower: dict[tuple[int, int, int, bool], list[_RepairStep]] = {}
        self._shallower = [
            [
                [
                    _RepairStep(
                        stage, depth=index, gone=tuple(i for i in own if smaller <= space.slots[i].position < depth)
                    )
                    for index, smaller in enumerate(space.stages[stage].depths)
                    if smaller < depth
                ]
                for depth in space.stages[stage].depths
            ]
            for stage in range(len(space.stages))
            for own in [[index for index, slot in enumerate(space.slots) if slot.stage == stage]]
        ]
        self._ends = [
            index + 1 == len(space.slots) or space.slots[index + 1].stage != slot.stage
            for index, slot in enumerate(space.slots)
        ]
        self._stages = [slot.stage for slot in space.slots]

    def broken(self, choice: OptionChoice) -> int | None:
        """Return the index of the first limit that is broken; None if all are kept."""
        for number, most in enumerate(self._most):
            if self._spent(choice, number) > most:
                return number
        return None

    def _spent(self, choice: OptionChoice, number: int) -> float:
        """Return the value of a limit, equal to the limit's own to the last bit."""
        peaks = self._peaks[number]
        if peaks is None:
            return self._sum(choice, number)
        own = (values[option] for values, option in zip(peaks, choice.options, strict=True) if option >= 0)
        return self._sum(choice, number) + max(self._floors[number], *own)

    def _sum(self, choice: OptionChoice, number: int) -> float:
        options = choice.options
        spent = self._constants[number]
        for values, option in zip(self._sums[number], options, strict=True):
            if option >= 0:
                spent += values[option]
        for first, second, values in self._pairs[number]:
            if options[first] >= 0 and options[second] >= 0:
                next_stage = self._stages[first] != self._stages[second]
                if not (next_stage and not self._ends[first] and options[first + 1] >= 0):
                    spent += values[options[first]][options[second]]
        return spent

    def steps(self, choice: OptionChoice, number: int, near: bool) -> list[_RepairStep]:
        """Return the steps that are cheaper in a limit; where the peaks of some blocks break it, the steps of these."""
        peaks = self._peaks[number]
        if peaks is None:
            return self._steps(choice, number, near, range(len(choice.options)))
        room = self._most[number] - self._sum(choice, number)
        high = [i for i, option in enumerate(choice.options) if option >= 0 and peaks[i][option] > room]
        return self._steps(choice, number, near, high) or self._steps(choice, number, near, range(len(choice.options)))

    def _steps(self, choice: OptionChoice, number: int, near: bool, slots: Sequence[int]) -> list[_RepairStep]:
        steps: list[_RepairStep] = []
        for slot in slots:
            if choice.options[slot] >= 0:
                steps += self._cheaper(number, slot, choice.options[slot], near)
        if near:
            sums = self._sums[number]
            for of_stage, index in zip(self._shallower, choice.depths, strict=True):
                for step in of_stage[index]:
                    saved = sum(sums[slot][choice.options[slot]] for slot in step.gone)
                    if saved > 0 and any(slot in slots for slot in step.gone):
                        steps.append(step)
        return steps

    def _cheaper(self, number: int, slot: int, option: int, near: bool) -> list[_RepairStep]:
        key = (number, slot, option, near)
        if key not in self._lower:
            values, all_peaks = self._sums[number][slot], self._peaks[number]
            peaks = all_peaks[slot] if all_peaks else [0.0] * len(values)
            here = (values[option], peaks[option])
            self._lower[key] = [
                _RepairStep(slot, other)
                for other in (self._near[slot][option] if near else range(len(values)))
                if values[other] <= here[0] and peaks[other] <= here[1] and (values[other], peaks[other]) != here
            ]
        return self._lower[key]


def _near(sizes: tuple[int, ...]) -> list[list[int]]:
    """Return for each option those that differ from it in one choice."""
    of_options = [_choices(option, sizes) for option in range(int(np.prod(sizes)))]
    return [
        [option for option, new in enumerate(of_options) if sum(a != b for a, b in zip(new, old, strict=True)) == 1]
        for old in of_options
    ]


def _sizes(space: SearchSpace, column: int) -> tuple[int, ...]:
    """Return how many choices each of the four decisions of a slot has."""
    return tuple(len(decision.choices) for decision in space.decisions[column : column + 4])


def _option(choices: Sequence[int], sizes: tuple[int, ...]) -> int:
    """Return the index of the option with these four choices."""
    return ((choices[0] * sizes[1] + choices[1]) * sizes[2] + choices[2]) * sizes[3] + choices[3]


def _choices(option: int, sizes: tuple[int, ...]) -> list[int]:
    """Return the four choices of an option: the inverse of `_option`."""
    choices = []
    for size in reversed(sizes):
        option, choice = divmod(option, size)
        choices.append(choice)
    return choices[::-1]
