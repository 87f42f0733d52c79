"""NetAdapt as MobileNetV3 uses it (arXiv 1804.03230; 1905.02244, section 4.2), on a latency table.

Each step makes proposals, every one of which saves at least a given share of the seed's latency: (a) one block
with fewer expanded channels, (b) all blocks that share a bottleneck with fewer channels there. The proposal with
the best accuracy change per saved millisecond is kept, until the budget holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nas.space import CHANNEL_STEP
from nas.spec import ArchSpec, squeezed_channels

STEP_SHARE = 0.01  # of the seed's latency, that a step saves at least
# Cuts that are looked at, as shares of the channels that stay; the table says which of them pay.
EXPANSION_SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2)
BOTTLENECK_SHARES = (15 / 16, 7 / 8)
VECTOR = 16  # channels a wide vector unit takes at once: of two nearby widths the multiple is often the faster

Price = Callable[[Sequence[ArchSpec]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Step:
    """A network on the way, and the cut that led to it."""

    spec: ArchSpec
    latency_ms: float
    top1: float
    cut: str  # "" for the seed


def netadapt(seed: ArchSpec, budget_ms: float, *, price: Price, estimate: Price) -> Iterator[Step]:
    """Trims `seed` until `price` (ms) is at most `budget_ms`; gives the seed first, then each step.

    `price` and `estimate` (top-1) map networks to arrays of shape (n,). Ends early, over the budget, when no
    proposal saves anything more.
    """
    step = Step(seed, float(price([seed])[0]), float(estimate([seed])[0]), "")
    least = STEP_SHARE * step.latency_ms
    yield step
    while step.latency_ms > budget_ms:
        cuts = list(proposals(step.spec))
        if not cuts:
            return
        specs = [spec for _, spec in cuts]
        latencies = np.asarray(price(specs))
        # The last step need not save more than what is missing.
        saves = step.latency_ms - latencies >= min(least, step.latency_ms - budget_ms)
        if not saves.any():
            return
        chosen = [index for index in range(len(cuts)) if saves[index]]
        top1 = np.asarray(estimate([specs[index] for index in chosen]))
        best = best_proposal(top1 - step.top1, step.latency_ms - latencies[chosen])
        index = chosen[best]
        step = Step(specs[index], float(latencies[index]), float(top1[best]), cuts[index][0])
        yield step


def best_proposal(gained: np.ndarray, saved_ms: np.ndarray) -> int:
    """Index of the best accuracy change per saved millisecond (1905.02244, section 4.2).

    The ratio would prefer the smallest saving where accuracy does not fall, so that such proposals are treated
    on their own: the largest saving among them wins.
    """
    free = gained >= 0
    if free.any():
        return int(np.argmax(np.where(free, saved_ms, -np.inf)))
    return int(np.argmax(gained / saved_ms))


def proposals(spec: ArchSpec) -> Iterator[tuple[str, ArchSpec]]:
    """What is cut, and the network that is left."""
    for index, block in enumerate(spec.blocks):
        if block.op == "mbconv":
            for expanded in fewer(block.expanded, EXPANSION_SHARES):
                yield f"block {index + 1}: expanded {block.expanded} to {expanded}", _narrower(spec, index, expanded)
    for first, last in bottlenecks(spec):
        out = spec.blocks[first].out
        for channels in fewer(out, BOTTLENECK_SHARES):
            blocks = list(spec.blocks)
            blocks[first : last + 1] = [block.replace(out=channels) for block in blocks[first : last + 1]]
            yield f"blocks {first + 1}-{last + 1}: out {out} to {channels}", spec.replace(blocks=tuple(blocks))


def fewer(channels: int, shares: Sequence[float]) -> list[int]:
    """Multiples of 8 near the shares of `channels`, and the next multiples of 16 below them; largest first."""
    near = {round(channels * share / CHANNEL_STEP) * CHANNEL_STEP for share in shares}
    return sorted({c for n in near for c in (n, n // VECTOR * VECTOR) if 0 < c < channels}, reverse=True)


def bottlenecks(spec: ArchSpec) -> list[tuple[int, int]]:
    """Runs of blocks whose outputs are tied by residuals, as (first, last) block.

    A run that a residual ties to the stem is left out, and so is the block that a sepconv follows, whose width
    is its input's.
    """
    runs: list[tuple[int, int]] = []
    for index, placed in enumerate(spec.walk()):
        if placed.has_residual and runs:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    placed_blocks = list(spec.walk())
    followed = {index - 1 for index, placed in enumerate(placed_blocks) if placed.block.op == "sepconv"}
    return [
        (first, last)
        for first, last in runs
        if first > 0 and not any(index in followed for index in range(first, last + 1))
    ]


def _narrower(spec: ArchSpec, index: int, expanded: int) -> ArchSpec:
    """SE, where there is one, keeps its quarter of the expanded channels."""
    block = spec.blocks[index]
    se = squeezed_channels(expanded) if block.se else 0
    return spec.with_block(index, expanded=expanded, se=se)
