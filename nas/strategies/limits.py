"""What a network must not exceed: latency, parameters, memory; as functions of encoded networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas.additive import BlockPeaks, BlockSums
from nas.cost import FLOAT_BYTES, NUM_CLASSES, Layer, block_layers, network_layers
from nas.space import Scale, SearchSpace

Row = tuple[int, ...]  # the codes of one network, one a gene, -1 for a gene that does not exist
MEGABYTE = 1e6


@dataclass(frozen=True, eq=False)
class Limit:
    """`sums`, and where there are `peaks` the largest of these on top, must be at most `most`.

    Called with codes of shape (n, genes) it gives an array of shape (n,), in the unit of `most`.
    """

    name: str  # what is limited
    most: float
    sums: BlockSums
    peaks: BlockPeaks | None = None
    said: Callable[[float], str] = "{:.4g}".format  # a value with its unit

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        sums = self.sums(codes)
        return sums if self.peaks is None else sums + self.peaks(codes)

    def value(self, row: Row) -> float:
        return float(self(np.array([row]))[0])

    def least(self) -> np.ndarray:
        """The smallest value that any network of each scale has; a lower bound where there are pairs."""
        if self.peaks is None:
            return least_sums(self.sums)
        least = np.full(len(self.sums.constants), np.inf)
        for scale in range(len(least)):
            columns = [values[scale] for values in self.peaks.options]
            for peak in np.unique(np.concatenate([self.peaks.constants[scale : scale + 1], *columns])):
                if peak >= self.peaks.constants[scale]:
                    sums = least_sums(self.sums, [column <= peak for column in columns], scale)
                    least[scale] = min(least[scale], sums + peak)
        return least

    def largest(self) -> np.ndarray:
        """A bound that no network of each scale is above."""
        sums = self.sums.constants + sum(values.max(axis=1).clip(0) for values in self.sums.options)
        sums = sums + sum(values.max(axis=(1, 2)).clip(0) for _, _, values in self.sums.pairs)
        if self.peaks is None:
            return sums
        return sums + np.max([self.peaks.constants, *(values.max(axis=1) for values in self.peaks.options)], axis=0)


def least_sums(sums: BlockSums, allowed: list[np.ndarray] | None = None, scale: int | None = None) -> np.ndarray:
    """The cheapest option wherever a block must be, for each scale; or for one, among the options that are allowed.

    Infinite where none is. With pairs it is a lower bound.
    """
    at = slice(None) if scale is None else slice(scale, scale + 1)
    totals = sums.constants[at].copy()
    for index, (slot, values) in enumerate(zip(sums.space.slots, sums.options, strict=True)):
        if slot.position < min(sums.space.stages[slot.stage].depths):
            kept = values[at] if allowed is None else np.where(allowed[index], values[at], np.inf)
            totals += kept.min(axis=1)
    for _, _, values in sums.pairs:
        totals += values[at].min(axis=(1, 2)).clip(max=0)
    return totals if scale is None else totals[0]


def cost_limits(
    space: SearchSpace,
    max_params: float | None = None,
    max_memory_mb: float | None = None,
    num_classes: int = NUM_CLASSES,
) -> tuple[Limit, ...]:
    """Limits on parameters, and on memory (MB) as `count_cost(...).memory_bytes` counts it; those that are given."""
    limits = []
    if max_params is not None:
        limits.append(Limit("parameters", max_params, _params(space, num_classes, 1), said=_said_params))
    if max_memory_mb is not None:
        sums, peaks = _params(space, num_classes, FLOAT_BYTES), _peaks(space, num_classes)
        limits.append(Limit("memory", max_memory_mb * MEGABYTE, sums, peaks, _said_bytes))
    return tuple(limits)


def _said_params(params: float) -> str:
    return f"{params / 1e6:.4g}M parameters" if params >= 1000 else f"{params:.0f} parameters"


def _said_bytes(count: float) -> str:
    return f"{count / MEGABYTE:.4g} MB of memory"


def _params(space: SearchSpace, num_classes: int, each: int) -> BlockSums:
    constants = [each * sum(layer.parameters for layer in _fixed(space, s, num_classes)) for s in space.scales]
    return BlockSums(
        space, np.array(constants), _of_options(space, lambda layers: each * sum(x.parameters for x in layers))
    )


def _peaks(space: SearchSpace, num_classes: int) -> BlockPeaks:
    def peak(layers: list[Layer]) -> int:
        return FLOAT_BYTES * max(layer.activations for layer in layers)

    constants = [peak(_fixed(space, scale, num_classes)) for scale in space.scales]
    return BlockPeaks(space, np.array(constants), _of_options(space, peak))


def _of_options(space: SearchSpace, value: Callable[[list[Layer]], float]) -> list[np.ndarray]:
    return [
        np.array([[value(list(block_layers(p))) for p in space.options(scale, slot)] for scale in space.scales])
        for slot in space.slots
    ]


def _fixed(space: SearchSpace, scale: Scale, num_classes: int) -> list[Layer]:
    """The layers that every network of a scale has: of stem, first block and head."""
    spec = space.smallest(scale)
    layers = list(network_layers(spec, num_classes))
    first, *others = (len(list(block_layers(placed))) for placed in spec.walk())
    return [*layers[: 1 + first], *layers[1 + first + sum(others) :]]
