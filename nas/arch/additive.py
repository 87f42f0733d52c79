"""Sums over blocks, for encoded networks: the form that latency tables and accuracy estimators compile to.

A quantity of this form is a constant a variant plus one value a block (and, where neighbours matter, one a pair of
adjacent blocks), so that an integer program can find its optimum exactly, and millions of networks a second can
be priced.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nas.arch.space import SearchSpace, Slot

_CHUNK = 8_192  # rows of codes that stay in the cache while their columns are read


class Pair(NamedTuple):
    """What two blocks add by following each other: `values` of shape (variants, options of first, of second).

    `first` and `second` are indices of `space.slots`: a slot and the next of its stage, or any slot in which a
    stage can end and the first slot of the next stage. It counts where the one block directly follows the other.
    """

    first: int
    second: int
    values: np.ndarray


class AdditiveModel:
    """`constants[variant] + sum over slots of options[slot][variant, option]` (0 for an absent block) + `pairs`.

    `constants` has shape (variants,), `options[slot]` shape (variants, options of the slot), in the order of
    `space.slots` and `space.options`. Called with codes of shape (n, decisions) it gives an array of shape (n,).
    """

    def __init__(
        self, space: SearchSpace, constants: np.ndarray, options: Sequence[np.ndarray], pairs: Sequence[Pair] = ()
    ) -> None:
        self.space = space
        self.constants = np.asarray(constants, float)
        self.options = [np.asarray(values, float) for values in options]
        self.pairs = tuple(Pair(first, second, np.asarray(values, float)) for first, second, values in pairs)
        _check_shapes(space, self.constants, self.options)
        for first, second, values in self.pairs:
            assert can_follow(space, first, second)
            assert values.shape == (
                len(space.variants),
                self.options[first].shape[1],
                self.options[second].shape[1],
            )
        self._columns = _columns(space)
        # One value more a variant, 0, for the absent block, in front: option -1 + 1.
        self._flat = [np.pad(values, ((0, 0), (1, 0))).ravel() for values in self.options]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        sums = np.empty(len(codes))
        for start in range(0, len(codes), _CHUNK):
            decisions = np.ascontiguousarray(codes[start : start + _CHUNK].T, np.int32)
            variant = decisions[0]
            chunk = self.constants[variant]
            chosen = []
            for option, flat, values in zip(_chosen(self._columns, decisions), self._flat, self.options, strict=True):
                if self.pairs:
                    chosen.append(option - 1)
                option += variant * (values.shape[1] + 1)
                chunk += flat[option]
            for first, second, values in self.pairs:
                met = np.flatnonzero(self._adjacent(chosen, first, second))
                chunk[met] += values[variant[met], chosen[first][met], chosen[second][met]]
            sums[start : start + _CHUNK] = chunk
        return sums

    def __neg__(self) -> AdditiveModel:
        return AdditiveModel(
            self.space,
            -self.constants,
            [-values for values in self.options],
            [Pair(first, second, -values) for first, second, values in self.pairs],
        )

    def _adjacent(self, chosen: Sequence[np.ndarray], first: int, second: int) -> np.ndarray:
        """Where the block of one slot directly follows that of another."""
        met = (chosen[first] >= 0) & (chosen[second] >= 0)
        slots = self.space.slots
        if slots[first].stage != slots[second].stage and slots[first + 1].stage == slots[first].stage:
            met &= chosen[first + 1] < 0  # the stage ends with the first
        return met


class PeakModel:
    """The largest of `constants[variant]` and `options[slot][variant, option]` of the blocks that are there.

    Shapes, and what it is called with, as for `AdditiveModel`.
    """

    def __init__(self, space: SearchSpace, constants: np.ndarray, options: Sequence[np.ndarray]) -> None:
        self.space = space
        self.constants = np.asarray(constants, float)
        self.options = [np.asarray(values, float) for values in options]
        _check_shapes(space, self.constants, self.options)
        self._columns = _columns(space)
        self._padded = [np.pad(values, ((0, 0), (1, 0)), constant_values=-np.inf) for values in self.options]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        decisions = np.ascontiguousarray(codes.T, np.int32)
        peaks = self.constants[decisions[0]]
        for option, padded in zip(_chosen(self._columns, decisions), self._padded, strict=True):
            np.maximum(peaks, padded[decisions[0], option], out=peaks)
        return peaks


def can_follow(space: SearchSpace, first: int, second: int) -> bool:
    """Whether the block of one slot (an index of `space.slots`) can directly follow that of another."""
    one, other = space.slots[first], space.slots[second]
    if one.stage == other.stage:
        return other.position == one.position + 1
    return other == Slot(one.stage + 1, 0) and one.position + 1 in space.stages[one.stage].depths


def _check_shapes(space: SearchSpace, constants: np.ndarray, options: Sequence[np.ndarray]) -> None:
    assert not space.fine  # there, what a block is depends on its neighbours
    assert len(options) == len(space.slots)
    assert constants.shape == (len(space.variants),)
    for slot, values in zip(space.slots, options, strict=True):
        stage = space.stages[slot.stage]
        choices = (len(stage.kernels), len(stage.expansions), len(stage.se), len(stage.activations))
        assert values.shape == (len(space.variants), math.prod(choices))


class _Columns(NamedTuple):
    """Where a slot's option is read from: the first of four columns, and how many choices the last three have."""

    first: int
    expansions: int
    se: int
    activations: int


def _columns(space: SearchSpace) -> list[_Columns]:
    stages = [space.stages[slot.stage] for slot in space.slots]
    return [
        _Columns(space.slot_column(slot), len(stage.expansions), len(stage.se), len(stage.activations))
        for slot, stage in zip(space.slots, stages, strict=True)
    ]


def _chosen(columns: Sequence[_Columns], decisions: np.ndarray) -> Iterator[np.ndarray]:
    """For each slot the option that stands in it, counted from 1; 0 where there is no block."""
    for column, expansions, se, activations in columns:
        option = ((decisions[column] * expansions + decisions[column + 1]) * se + decisions[column + 2]) * activations
        option += decisions[column + 3] + 1
        np.maximum(option, 0, out=option)
        yield option
