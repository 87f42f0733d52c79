"""Sums over blocks, for encoded networks: the form that latency tables and accuracy estimators compile to.

A quantity of this form is a constant a scale plus one value a block, so that an integer program can find its
optimum exactly, and millions of networks a second can be priced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.space import SearchSpace, Slot

_CHUNK = 8_192  # rows of codes that stay in the cache while their columns are read


class BlockSums:
    """`constants[scale] + sum over slots of options[slot][scale, option]`, nothing for an absent block.

    `constants` has shape (scales,), `options[slot]` shape (scales, options of the slot), in the order of
    `space.slots` and `space.options`. Called with codes of shape (n, genes) it gives an array of shape (n,).
    """

    def __init__(self, space: SearchSpace, constants: np.ndarray, options: Sequence[np.ndarray]) -> None:
        assert not space.fine  # there, what a block is depends on its neighbours
        assert len(options) == len(space.slots)
        assert constants.shape == (len(space.scales),)
        self.space = space
        self.constants = np.asarray(constants, float)
        self.options = [np.asarray(values, float) for values in options]
        self._lengths = [_lengths(space, slot) for slot in space.slots]
        for values, (kernels, *lengths) in zip(self.options, self._lengths, strict=True):
            assert values.shape == (len(space.scales), kernels * math.prod(lengths))
        self._columns = [space.slot_column(slot) for slot in space.slots]
        # One value more a scale, 0, for the absent block, in front: option -1 + 1.
        self._flat = [np.pad(values, ((0, 0), (1, 0))).ravel() for values in self.options]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        sums = np.empty(len(codes))
        for start in range(0, len(codes), _CHUNK):
            genes = np.ascontiguousarray(codes[start : start + _CHUNK].T, np.int32)
            scale = genes[0]
            chunk = self.constants[scale]
            for column, (_, expansions, se, activations), flat, values in zip(
                self._columns, self._lengths, self._flat, self.options, strict=True
            ):
                option = ((genes[column] * expansions + genes[column + 1]) * se + genes[column + 2]) * activations
                option += genes[column + 3] + 1
                np.maximum(option, 0, out=option)
                option += scale * (values.shape[1] + 1)
                chunk += flat[option]
            sums[start : start + _CHUNK] = chunk
        return sums


def _lengths(space: SearchSpace, slot: Slot) -> tuple[int, int, int, int]:
    stage = space.stages[slot.stage]
    return len(stage.kernels), len(stage.expansions), len(stage.se), len(stage.activations)
