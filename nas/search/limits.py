"""Define the limits that a network must keep, as functions of its encoding: latency, parameters, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.arch.additive import AdditiveModel, PeakModel, values_of_options
from nas.arch.cost import FLOAT_BYTES, NUM_CLASSES, Layer, block_layers, network_layers
from nas.arch.encoding import Encoding
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace

MEGABYTE = 1e6


@dataclass(frozen=True, eq=False)
class Limit:
    """A sum over blocks, plus the largest of `peaks` where there are some, that must be at most `most`.

    Called with encodings of shape (n, decisions) it returns an array of shape (n,), in the unit of `most`.
    """

    name: str  # "latency", "parameters" or "memory"
    most: float
    sums: AdditiveModel
    peaks: PeakModel | None = None
    text: Callable[[float], str] = "{:.4g}".format  # turns a value into text with its unit

    def __call__(self, encodings: np.ndarray) -> np.ndarray:
        sums = self.sums(encodings)
        return sums if self.peaks is None else sums + self.peaks(encodings)

    def value(self, encoding: Encoding) -> float:
        """Return the value of one network."""
        return float(self(np.array([encoding]))[0])

    def least(self) -> np.ndarray:
        """Return the smallest value of any network of each variant; a lower bound where there are pairs."""
        if self.peaks is None:
            return least_sums(self.sums)
        least = np.full(len(self.sums.constants), np.inf)
        for variant in range(len(least)):
            columns = [values[variant] for values in self.peaks.options]
            for peak in np.unique(np.concatenate([self.peaks.constants[variant : variant + 1], *columns])):
                if peak >= self.peaks.constants[variant]:
                    sums = least_sums(self.sums, [column <= peak for column in columns], variant)
                    least[variant] = min(least[variant], sums + peak)
        return least

    def largest(self) -> np.ndarray:
        """Return an upper bound of each variant's networks, shape (variants,)."""
        sums = self.sums.constants + sum(values.max(axis=1).clip(0) for values in self.sums.options)
        sums = sums + sum(values.max(axis=(1, 2)).clip(0) for _, _, values in self.sums.pairs)
        if self.peaks is None:
            return sums
        return sums + np.max([self.peaks.constants, *(values.max(axis=1) for values in self.peaks.options)], axis=0)


def least_sums(sums: AdditiveModel, allowed: list[np.ndarray] | None = None, variant: int | None = None) -> np.ndarray:
    """Return the sum of the smallest options wherever a block must stand: one value a variant, or that of `variant`.

    `allowed` restricts the options of each slot; the sum is infinite where it leaves none. With pairs the sum is a
    lower bound.
    """
    at = slice(None) if variant is None else slice(variant, variant + 1)
    totals = sums.constants[at].copy()
    for index, (slot, values) in enumerate(zip(sums.space.slots, sums.options, strict=True)):
        if slot.position < min(sums.space.stages[slot.stage].depths):
            kept = values[at] if allowed is None else np.where(allowed[index], values[at], np.inf)
            totals += kept.min(axis=1)
    for _, _, values in sums.pairs:
        totals += values[at].min(axis=(1, 2)).clip(max=0)
    return totals if variant is None else totals[0]


def cost_limits(
    space: SearchSpace,
    max_params: float | None = None,
    max_memory_mb: float | None = None,
    num_classes: int = NUM_CLASSES,
) -> tuple[Limit, ...]:
    """Return the limits that are given: on parameters, and on memory (MB, `count_cost(...).memory_bytes`)."""
    limits = []
    if max_params is not None:
        limits.append(Limit("parameters", max_params, _params(space, num_classes, 1), text=_params_text))
    if max_memory_mb is not None:
        sums, peaks = _params(space, num_classes, FLOAT_BYTES), _peaks(space, num_classes)
        limits.append(Limit("memory", max_memory_mb * MEGABYTE, sums, peaks, _bytes_text))
    return tuple(limits)


def _params_text(params: float) -> str:
    return f"{params / 1e6:.4g}M parameters" if params >= 1000 else f"{params:.0f} parameters"


def _bytes_text(count: float) -> str:
    return f"{count / MEGABYTE:.4g} MB of memory"


def _params(space: SearchSpace, num_classes: int, each: int) -> AdditiveModel:
    constants = [each * sum(layer.parameters for layer in _fixed(space, s, num_classes)) for s in space.variants]
    return AdditiveModel(
        space, np.array(constants), values_of_options(space, lambda layers: each * sum(x.parameters for x in layers))
    )


def _peaks(space: SearchSpace, num_classes: int) -> PeakModel:
    def peak(layers: Sequence[Layer]) -> int:
        return FLOAT_BYTES * max(layer.activations for layer in layers)

    constants = [peak(_fixed(space, variant, num_classes)) for variant in space.variants]
    return PeakModel(space, np.array(constants), values_of_options(space, peak))


def _fixed(space: SearchSpace, variant: Variant, num_classes: int) -> list[Layer]:
    """Return the layers that every network of a variant has: those of stem, first block and head."""
    spec = space.smallest(variant)
    layers = list(network_layers(spec, num_classes))
    first, *others = (len(list(block_layers(placed))) for placed in spec.walk())
    return [*layers[: 1 + first], *layers[1 + first + sum(others) :]]
