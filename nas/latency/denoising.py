"""Take noise off the rows of one place: the blocks of one session with the same input, output channels and stride.

A row is known to some 3 %, a place has a hundred options, and a search takes those that were timed too fast. The
logarithms of the rows of a place follow a model of kernel, expanded channels, squeeze-and-excitation, activation, and
of the pairs of expanded channels with kernel and with squeeze-and-excitation, to less than a percent. What is left is
mostly noise. So a row is drawn towards the model by as much as its own error exceeds what the model leaves (empirical
Bayes, Efron and Morris 1973). Only rows that were timed take part, and none is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nas.arch.parts import BlockPart, Part
from nas.arch.spec import BlockSpec
from nas.latency.timing import Timing

FEWEST = 20  # rows of a place; the model of 36 of them has 13 coefficients
SMALLEST_ERROR = 0.005  # relative; rows are not known better, whatever their quartiles say

_CHOICES: Mapping[str, Callable[[BlockSpec], object]] = {
    "kernel": lambda block: block.kernel,
    "expanded": lambda block: block.expanded,
    "se": lambda block: bool(block.se),
    "activation": lambda block: block.activation,
}
_PAIRS = (("kernel", "expanded"), ("expanded", "se"))


def denoised(timings: Mapping[Part, Timing]) -> dict[Part, float]:
    """Return the ratio of each part of a session; only those of blocks in places of many rows are changed."""
    places: dict[tuple[object, ...], list[BlockPart]] = {}
    for part in timings:
        if isinstance(part, BlockPart):
            block = part.block
            kind = block.op, block.start_kernel, block.activate_output
            places.setdefault((part.in_channels, part.in_size, block.out, block.stride, *kind), []).append(part)
    ratios = {part: timing.ratio for part, timing in timings.items()}
    for parts in places.values():
        if len(parts) >= FEWEST:
            logs = np.log([timings[part].ratio for part in parts])
            errors = np.maximum(SMALLEST_ERROR, [timings[part].error for part in parts])
            drawn = _drawn([part.block for part in parts], logs, errors)
            ratios |= {part: float(np.exp(value)) for part, value in zip(parts, drawn, strict=True)}
    return ratios


def _drawn(blocks: Sequence[BlockSpec], logs: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return the logarithms drawn towards the model. All arguments are of shape (n,)."""
    design = _design(blocks)
    coefficients, _, rank, _ = np.linalg.lstsq(design / errors[:, None], logs / errors, rcond=None)
    if rank >= len(blocks):
        return logs
    model = design @ coefficients
    left = float(((logs - model) ** 2).sum()) / (len(blocks) - rank)
    own = max(0.0, left - float((errors**2).mean()))  # variance of what the model does not know
    drawn: np.ndarray = model + own / (own + errors**2) * (logs - model)
    return drawn


def _design(blocks: Sequence[BlockSpec]) -> np.ndarray:
    """Return a constant, and indicators of choices and of pairs: shape (n, coefficients)."""
    indicators = {}
    for name, choice in _CHOICES.items():
        chosen = [choice(block) for block in blocks]
        others = list(dict.fromkeys(chosen))[1:]
        indicators[name] = np.array([[value == other for other in others] for value in chosen], float)
    pairs = [
        (indicators[one][:, :, None] * indicators[other][:, None, :]).reshape(len(blocks), -1) for one, other in _PAIRS
    ]
    return np.hstack([np.ones((len(blocks), 1)), *indicators.values(), *pairs])
