"""Additive models: quantities of encoded networks that are sums over blocks.

Latency tables and accuracy estimators compile to this form. It is a constant a variant, a value a block, and a value a
pair of adjacent blocks where neighbours matter. An integer program finds its optimum exactly, and millions of
encodings a second are evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nas.arch.cost import Layer, block_layers
from nas.arch.skeleton import Slot
from nas.arch.space import SearchSpace

_CHUNK = 8_192  # encodings that stay in the cache while their columns are read


class Pair(NamedTuple):
    """The values that two blocks add by following each other, shape (variants, options of first, of second).

    `first` and `second` are indices of `space.slots`: either a slot and the next of its stage, or a slot in which a
    stage can end and the first slot of the next stage. A value counts where one block directly follows the other.
    """

    first: int
    second: int
    values: np.ndarray


class AdditiveModel:
    """A sum: `constants[variant]`, plus `options[slot][variant, option]` for every block, plus `pairs`.

    `constants` has shape (variants,). `options[slot]` has shape (variants, options of the slot), in the order of
    `space.slots` and `space.options`. Called with encodings of shape (n, decisions), the model returns shape (n,).
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
        self._columns = _slot_columns(space)
        # One more value a variant in front, 0 for an absent block: the option -1, counted from 1.
        self._flat = [np.pad(values, ((0, 0), (1, 0))).ravel() for values in self.options]

    def __call__(self, encodings: np.ndarray) -> np.ndarray:
        sums = np.empty(len(encodings))
        for start in range(0, len(encodings), _CHUNK):
            decisions = np.ascontiguousarray(encodings[start : start + _CHUNK].T, np.int32)
            variant = decisions[0]
            chunk = self.constants[variant]
            chosen = []
            for option, flat, values in zip(
                _chosen_options(self._columns, decisions), self._flat, self.options, strict=True
            ):
                if self.pairs:
                    chosen.append(option - 1)
                option += variant * (values.shape[1] + 1)
                chunk += flat[option]
            for first, second, values in self.pairs:
                adjacent = np.flatnonzero(self._are_adjacent(chosen, first, second))
                chunk[adjacent] += values[variant[adjacent], chosen[first][adjacent], chosen[second][adjacent]]
            sums[start : start + _CHUNK] = chunk
        return sums

    def __neg__(self) -> AdditiveModel:
        return AdditiveModel(
            self.space,
            -self.constants,
            [-values for values in self.options],
            [Pair(first, second, -values) for first, second, values in self.pairs],
        )

    def _are_adjacent(self, chosen: Sequence[np.ndarray], first: int, second: int) -> np.ndarray:
        """Return a mask, shape (n,), of the networks in which the block of `second` directly follows that of `first`.

        `chosen` holds the option of each slot, -1 for an absent block.
        """
        adjacent = (chosen[first] >= 0) & (chosen[second] >= 0)
        slots = self.space.slots
        if slots[first].stage != slots[second].stage and slots[first + 1].stage == slots[first].stage:
            adjacent &= chosen[first + 1] < 0  # the stage ends with the first
        return adjacent


class PeakModel:
    """The largest of `constants[variant]` and of `options[slot][variant, option]` for every block.

    Shapes and the call are those of `AdditiveModel`.
    """

    def __init__(self, space: SearchSpace, constants: np.ndarray, options: Sequence[np.ndarray]) -> None:
        self.space = space
        self.constants = np.asarray(constants, float)
        self.options = [np.asarray(values, float) for values in options]
        _check_shapes(space, self.constants, self.options)
        self._columns = _slot_columns(space)
        self._padded = [np.pad(values, ((0, 0), (1, 0)), constant_values=-np.inf) for values in self.options]

    def __call__(self, encodings: np.ndarray) -> np.ndarray:
        decisions = np.ascontiguousarray(encodings.T, np.int32)
        peaks = self.constants[decisions[0]]
        for option, padded in zip(_chosen_options(self._columns, decisions), self._padded, strict=True):
            np.maximum(peaks, padded[decisions[0], option], out=peaks)
        return peaks


def values_of_options(space: SearchSpace, value: Callable[[Sequence[Layer]], float]) -> list[np.ndarray]:
    """Return a value of the layers of every block, one array a slot, shape (variants, options of the slot)."""
    return [
        np.array([[value(list(block_layers(p))) for p in space.options(variant, slot)] for variant in space.variants])
        for slot in space.slots
    ]


def can_follow(space: SearchSpace, first: int, second: int) -> bool:
    """Return whether the block of slot `second` (an index of `space.slots`) can directly follow that of `first`."""
    one, other = space.slots[first], space.slots[second]
    if one.stage == other.stage:
        return other.position == one.position + 1
    return other == Slot(one.stage + 1, 0) and one.position + 1 in space.stages[one.stage].depths


def _check_shapes(space: SearchSpace, constants: np.ndarray, options: Sequence[np.ndarray]) -> None:
    assert len(options) == len(space.slots)
    assert constants.shape == (len(space.variants),)
    for slot, values in zip(space.slots, options, strict=True):
        choices = space.stages[slot.stage].block_choices
        assert values.shape == (len(space.variants), math.prod(map(len, choices)))


class _SlotColumns(NamedTuple):
    """The first of a slot's four columns, and the number of choices in the last three."""

    first: int
    expansions: int
    se: int
    activations: int


def _slot_columns(space: SearchSpace) -> list[_SlotColumns]:
    stages = [space.stages[slot.stage] for slot in space.slots]
    return [
        _SlotColumns(space.slot_column(slot), len(stage.expansions), len(stage.se), len(stage.activations))
        for slot, stage in zip(space.slots, stages, strict=True)
    ]


def _chosen_options(columns: Sequence[_SlotColumns], decisions: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the option in each slot, shape (n,), counted from 1; 0 stands for an absent block.

    `decisions` are encodings with one row a decision, shape (decisions, n).
    """
    for column, expansions, se, activations in columns:
        option = ((decisions[column] * expansions + decisions[column + 1]) * se + decisions[column + 2]) * activations
        option += decisions[column + 3] + 1
        np.maximum(option, 0, out=option)
        yield option
