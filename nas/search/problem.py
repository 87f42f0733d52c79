"""What is searched: the best score of an encoded network under hard limits."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.space import SearchSpace
from nas.errors import NasError
from nas.search.limits import Limit, Row, least_sums
from nas.search.solver import Optimum, ranking, solve

_TRIES = 200  # at a network that is not seen yet
_STEPS = 500  # down to the limits; more are not needed, but for prices in which steps go round in circles


@dataclass(frozen=True, eq=False)
class Problem:
    """Find the network of `space` with the highest `score` (top-1) whose `latency` (ms) is at most `budget_ms`.

    Both price encoded networks: codes of shape (n, decisions) to an array of shape (n,). `additive`, where the
    estimator has it, is a sum over blocks with the same order as `score`. `others` are limits beside the latency's.
    Raises NasError if no network of the space keeps all limits.
    """

    space: SearchSpace
    latency: AdditiveModel
    score: Callable[[np.ndarray], np.ndarray]
    budget_ms: float
    additive: AdditiveModel | None = None
    others: tuple[Limit, ...] = ()
    sweep: tuple[float, ...] = ()  # budgets (ms) that the exact solver goes through; by default from this one down
    start: AdditiveModel | None = (
        None  # roughly in the order of `score`: what a surrogate starts from without `additive`
    )

    def __post_init__(self) -> None:
        where = f"of the space {self.space.name} at {', '.join(map(str, self.space.variants))}"
        check_others(self.others, where)
        fastest = self._fastest_ms.min()
        if fastest > self.budget_ms:
            within = " and ".join(f"at most {limit.said(limit.most)}" for limit in self.others)
            raise NasError(
                f"no network {where} {f'with {within} ' if within else ''}is as fast as {self.budget_ms:g} ms; "
                f"the fastest takes {fastest:.3g} ms"
            )

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        latency = Limit("latency", self.budget_ms, self.latency, said=lambda value: f"{value:.4g} ms")
        return (latency, *self.others)

    @cached_property
    def _fastest(self) -> list[Optimum | None]:
        """The fastest network of each variant within the other limits, its score being minus the latency."""
        return fastest_networks(self.latency, self.others)

    @cached_property
    def _fastest_ms(self) -> np.ndarray:
        return np.array([-found.score if found else np.inf for found in self._fastest])

    def with_budget(self, budget_ms: float) -> Problem:
        return replace(self, budget_ms=budget_ms)

    @cached_property
    def fitting_variants(self) -> list[int]:
        """Codes of the variants that have a network within the limits."""
        return [int(code) for code in np.flatnonzero(self._fastest_ms <= self.budget_ms)]

    def best(self) -> Iterable[Optimum]:
        """The proven optimum, the second best network and so on, each once.

        Raises NasError unless the accuracy is a sum over blocks.
        """
        seen: set[Row] = set()
        for optimum in ranking(self.needed_additive, self.limits, self.fitting_variants):
            row = self.canonical(optimum.row)
            if row not in seen:
                seen.add(row)
                yield Optimum(row, optimum.score)

    @property
    def needed_additive(self) -> AdditiveModel:
        """`additive`. Raises NasError where there is none."""
        if self.additive is None:
            raise NasError("strategy 'exact' needs an estimator that is a sum over blocks, such as imagenet-prior")
        return self.additive

    @property
    def known(self) -> AdditiveModel:
        """What a surrogate starts from. Raises NasError where there is nothing."""
        return self.needed_additive if self.start is None else self.start

    def latency_ms(self, row: Row) -> float:
        return float(self.latency(np.array([row]))[0])

    def fits(self, row: Row) -> bool:
        return all(limit.value(row) <= limit.most for limit in self.limits)

    def random_row(self, rng: random.Random) -> Row:
        """A network that fits: uniform over each choice, then made to fit."""
        return self.fitted(_row(self.space.draw(lambda decision: rng.randrange(len(decision.choices)))), rng)

    def mutated(self, row: Row, rng: random.Random, rate: float) -> Row:
        """A network that fits, each decision of `row` drawn anew with probability `rate`."""
        return self.fitted(_row(self.space.redraw(np.array(row), rng, rate)), rng)

    def unseen(self, row: Row, seen: Collection[Row], rng: random.Random) -> Row:
        """`row`, or a network near it that is not among `seen`; `row` where (almost) all that fit are seen."""
        candidate = row
        for attempt in range(_TRIES):
            if candidate not in seen:
                return candidate
            candidate = self.mutated(candidate, rng, rate=min(1.0, 0.1 + attempt / 50))
        return row

    def fitted(self, row: Row, rng: random.Random) -> Row:
        """`row` if it fits, else made cheaper one random step at a time until it does; in its canonical form.

        A step takes a block to a choice that differs in one decision and is cheaper in the first limit that is not
        kept, or a stage to a smaller depth; where no such step is left, a block to any cheaper choice, and at last
        stages to what they are in the fastest network. A variant at which nothing fits is exchanged first.
        """
        decisions = list(row)
        if decisions[0] not in self.fitting_variants:
            decisions[0] = rng.choice(self.fitting_variants)
        variant = self._variant(decisions[0])
        choice = _Choice.of(self.space, decisions)
        for _ in range(_STEPS):
            broken = variant.broken(choice)
            if broken is None:
                break
            steps = variant.steps(choice, broken, near=True) or variant.steps(choice, broken, near=False)
            if not steps:
                break
            choice.take(rng.choice(steps))
        if variant.broken(choice) is not None:
            fastest = self._fastest[decisions[0]]
            assert fastest is not None
            towards = _Choice.of(self.space, list(fastest.row))
            stages = list(range(len(self.space.stages)))
            rng.shuffle(stages)
            for stage in stages:
                choice.take_stage(stage, towards)
                if variant.broken(choice) is None:
                    break
        return self.canonical(choice.row(decisions[0]))

    def _variant(self, code: int) -> _VariantLimits:
        if code not in self._variants:
            self._variants[code] = _VariantLimits(self.limits, code)
        return self._variants[code]

    @cached_property
    def _variants(self) -> dict[int, _VariantLimits]:
        return {}

    def canonical(self, row: Row) -> Row:
        """The row that `space.encode` gives for the same network, so that no network has two rows."""
        if row[0] not in self._ambiguous:
            return row
        return _row(self.space.encode(self.space.decode([np.array(row)]))[0])

    @cached_property
    def _ambiguous(self) -> set[int]:
        """Variants at which several rows are one network: stages run together, or another width gives the same."""
        space = self.space
        shapes = [
            (variant.resolution, *(space.stage_out(stage, variant.width) for stage in range(-1, len(space.stages))))
            for variant in space.variants
        ]
        return {
            code
            for code, (_, first, *outs) in enumerate(shapes)
            if shapes.count(shapes[code]) > 1
            or any(
                stage.stride == 1 and outs[index - 1] == outs[index]
                for index, stage in enumerate(space.stages)
                if index > 0
            )
        }


class _Choice:
    """A network of one variant as an option a slot (-1: none) and a depth a stage, which is quicker to change."""

    def __init__(self, space: SearchSpace, depths: list[int], options: list[int]) -> None:
        self._space = space
        self.depths = depths  # codes
        self.options = options

    @classmethod
    def of(cls, space: SearchSpace, decisions: Sequence[int]) -> _Choice:
        options = []
        for slot in space.slots:
            column = space.slot_column(slot)
            options.append(
                -1 if decisions[column] < 0 else _option(decisions[column : column + 4], _sizes(space, column))
            )
        return cls(space, [decisions[space.depth_column(stage)] for stage in range(len(space.stages))], options)

    def row(self, variant: int) -> Row:
        space = self._space
        decisions = [-1] * len(space.decisions)
        decisions[0] = variant
        for stage, code in enumerate(self.depths):
            decisions[space.depth_column(stage)] = code
        for slot, option in zip(space.slots, self.options, strict=True):
            if option >= 0:
                column = space.slot_column(slot)
                decisions[column : column + 4] = _codes(option, _sizes(space, column))
        return tuple(decisions)

    def take(self, step: _Step) -> None:
        if step.depth >= 0:
            self.depths[step.place] = step.depth
            for slot in step.gone:
                self.options[slot] = -1
        else:
            self.options[step.place] = step.option

    def take_stage(self, stage: int, other: _Choice) -> None:
        self.depths[stage] = other.depths[stage]
        for index, slot in enumerate(self._space.slots):
            if slot.stage == stage:
                self.options[index] = other.options[index]


class _Step(NamedTuple):
    """An option for the slot `place`, or a depth for the stage `place` with the slots that are gone then."""

    place: int
    option: int = -1
    depth: int = -1
    gone: tuple[int, ...] = ()


class _VariantLimits:
    """The limits at one variant as plain lists, for steps that are taken one at a time."""

    def __init__(self, limits: Sequence[Limit], code: int) -> None:
        space = limits[0].sums.space
        self._most = [limit.most for limit in limits]
        self._constants = [float(limit.sums.constants[code]) for limit in limits]
        self._sums = [[values[code].tolist() for values in limit.sums.options] for limit in limits]
        self._pairs = [[(f, s, values[code].tolist()) for f, s, values in limit.sums.pairs] for limit in limits]
        self._floors = [float(limit.peaks.constants[code]) if limit.peaks else 0.0 for limit in limits]
        self._peaks = [
            [values[code].tolist() for values in limit.peaks.options] if limit.peaks else None for limit in limits
        ]
        self._near = [_near(_sizes(space, space.slot_column(slot))) for slot in space.slots]
        self._lower: dict[tuple[int, int, int, bool], list[_Step]] = {}
        self._shallower = [
            [
                [
                    _Step(stage, depth=code, gone=tuple(i for i in own if smaller <= space.slots[i].position < depth))
                    for code, smaller in enumerate(space.stages[stage].depths)
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

    def broken(self, choice: _Choice) -> int | None:
        """The first limit that is not kept."""
        for number, most in enumerate(self._most):
            if self._spent(choice, number) > most:
                return number
        return None

    def _spent(self, choice: _Choice, number: int) -> float:
        """The limit's own value, to the last bit."""
        peaks = self._peaks[number]
        if peaks is None:
            return self._sum(choice, number)
        own = (values[option] for values, option in zip(peaks, choice.options, strict=True) if option >= 0)
        return self._sum(choice, number) + max(self._floors[number], *own)

    def _sum(self, choice: _Choice, number: int) -> float:
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

    def steps(self, choice: _Choice, number: int, near: bool) -> list[_Step]:
        """Single steps that are cheaper in a limit; where only some blocks' peaks break it, steps of these."""
        peaks = self._peaks[number]
        if peaks is None:
            return self._steps(choice, number, near, range(len(choice.options)))
        room = self._most[number] - self._sum(choice, number)
        high = [i for i, option in enumerate(choice.options) if option >= 0 and peaks[i][option] > room]
        return self._steps(choice, number, near, high) or self._steps(choice, number, near, range(len(choice.options)))

    def _steps(self, choice: _Choice, number: int, near: bool, slots: Sequence[int]) -> list[_Step]:
        steps: list[_Step] = []
        for slot in slots:
            if choice.options[slot] >= 0:
                steps += self._cheaper(number, slot, choice.options[slot], near)
        if near:
            sums = self._sums[number]
            for of_stage, code in zip(self._shallower, choice.depths, strict=True):
                for step in of_stage[code]:
                    saved = sum(sums[slot][choice.options[slot]] for slot in step.gone)
                    if saved > 0 and any(slot in slots for slot in step.gone):
                        steps.append(step)
        return steps

    def _cheaper(self, number: int, slot: int, option: int, near: bool) -> list[_Step]:
        key = (number, slot, option, near)
        if key not in self._lower:
            values, all_peaks = self._sums[number][slot], self._peaks[number]
            peaks = all_peaks[slot] if all_peaks else [0.0] * len(values)
            here = (values[option], peaks[option])
            self._lower[key] = [
                _Step(slot, other)
                for other in (self._near[slot][option] if near else range(len(values)))
                if values[other] <= here[0] and peaks[other] <= here[1] and (values[other], peaks[other]) != here
            ]
        return self._lower[key]


def _near(sizes: tuple[int, ...]) -> list[list[int]]:
    """For each option those that differ in one decision."""
    codes = [_codes(option, sizes) for option in range(int(np.prod(sizes)))]
    return [
        [option for option, new in enumerate(codes) if sum(a != b for a, b in zip(new, old, strict=True)) == 1]
        for old in codes
    ]


def _sizes(space: SearchSpace, column: int) -> tuple[int, ...]:
    """How many choices a slot's four decisions have."""
    return tuple(len(decision.choices) for decision in space.decisions[column : column + 4])


def check_others(limits: Iterable[Limit], where: str) -> None:
    """Raises NasError for a limit that no network keeps, naming the smallest value that one has."""
    for limit in limits:
        least = float(limit.least().min())
        if least > limit.most:
            raise NasError(
                f"no network {where} has at most {limit.said(limit.most)}; the smallest has {limit.said(least)}"
            )


def fastest_networks(latency: AdditiveModel, others: Sequence[Limit] = ()) -> list[Optimum | None]:
    """The fastest network of each variant within the other limits; `score` is minus its latency (ms)."""
    largest = [limit.largest() for limit in others]
    found: list[Optimum | None] = []
    for variant in range(len(latency.constants)):
        binding = [limit for limit, most in zip(others, largest, strict=True) if most[variant] > limit.most]
        if binding or latency.pairs:
            found.append(solve(-latency, binding, variant))
        else:
            row = _cheapest(latency, variant)
            found.append(Optimum(row, -float(latency(np.array([row]))[0])))
    return found


def fastest_ms(latency: AdditiveModel, others: Sequence[Limit] = ()) -> float:
    """The latency (ms) of the fastest network of a space within the other limits; infinite where there is none."""
    if not others and not latency.pairs:
        return float(least_sums(latency).min())
    return min((-found.score for found in fastest_networks(latency, others) if found), default=np.inf)


def slowest_ms(latency: AdditiveModel, others: Sequence[Limit] = ()) -> float:
    """A latency (ms) that no network of a space within the other limits is above."""
    bounds = Limit("latency", np.inf, latency).largest()
    largest = [limit.largest() for limit in others]
    for variant in range(len(bounds)):
        binding = [limit for limit, most in zip(others, largest, strict=True) if most[variant] > limit.most]
        if binding:
            found = solve(latency, binding, variant)
            bounds[variant] = found.score if found else 0.0
    return float(bounds.max())


def _cheapest(sums: AdditiveModel, variant: int) -> Row:
    """The cheapest option wherever a block must be."""
    space = sums.space
    options = [
        int(values[variant].argmin()) if slot.position < min(space.stages[slot.stage].depths) else -1
        for slot, values in zip(space.slots, sums.options, strict=True)
    ]
    return _Choice(space, [stage.depths.index(min(stage.depths)) for stage in space.stages], options).row(variant)


def _option(codes: Sequence[int], sizes: tuple[int, ...]) -> int:
    return ((codes[0] * sizes[1] + codes[1]) * sizes[2] + codes[2]) * sizes[3] + codes[3]


def _codes(option: int, sizes: tuple[int, ...]) -> list[int]:
    """Inverse of `_option`."""
    codes = []
    for size in reversed(sizes):
        option, code = divmod(option, size)
        codes.append(code)
    return codes[::-1]


def _row(codes: np.ndarray) -> Row:
    return tuple(int(code) for code in codes)
