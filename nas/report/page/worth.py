"""Tell what a block's choices are worth: its milliseconds and the network's accuracy with one choice changed."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nas.arch.spec import ArchSpec, PlacedBlock
from nas.runs.blocks import blocks_text
from nas.runs.changes import ChangedChoice, changed_choices
from nas.runs.reading import Run
from nas.runs.record import NetworkResult

ALIKE = 1.35  # a block of other channels says something of a block if none of its widths differs by a larger factor

_Kind = tuple[Any, ...]  # all of a block but its channels
_Channels = tuple[int, int, int]  # in, expanded, out


class Change(NamedTuple):
    """One choice of a block changed, and by how much the network changes with it."""

    decision: str  # "SE", "kernel" or "activation"
    to: str  # "without SE"
    ms: float | None  # by the rows of the table; None where it has none
    exact: bool  # whether the rows are those of the block itself, and not of one with nearly its channels
    top1: float | None  # percentage points; None where the run has no estimate of that network

    @property
    def ms_text(self) -> str:
        """Return the milliseconds with their sign: "−0.12 ms", "about +0.05 ms", "–" where unknown."""
        if self.ms is None:
            return "–"
        return f"{'' if self.exact else 'about '}{signed(self.ms, 3)} ms"

    @property
    def top1_text(self) -> str:
        """Return the percentage points with their sign, nothing where they are unknown."""
        return "" if self.top1 is None else signed(self.top1, 2)

    @property
    def text(self) -> str:
        """Return the change for readers: "without SE: −0.12 ms, −0.3 points"."""
        points = f", {self.top1_text} points" if self.top1_text else ""
        return f"{self.to}: {'time unknown' if self.ms is None else self.ms_text}{points}"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Worth:
    """The rows of a run's table and its trials, ordered so that a changed choice is looked up at once."""

    rows: dict[_Kind, dict[_Channels, float]] = field(default_factory=lambda: defaultdict(dict))  # ms
    top1: dict[tuple[int, str], float] = field(default_factory=dict)  # by resolution and blocks

    @classmethod
    def of(cls, run: Run) -> Worth:
        """Return what a run knows."""
        worth = cls()
        blocks = run.table_rows[run.table_rows.op.isin(("mbconv", "sepconv"))]
        columns = ("op", "kernel", "stride", "se", "activation", "in_size", "in_channels", "expanded", "out", "ms")
        for op, kernel, stride, se, activation, size, *channels, ms in zip(
            *(blocks[column].tolist() for column in columns), strict=True
        ):
            worth.rows[op, kernel, stride, se > 0, activation, size][tuple(channels)] = ms
        for known in (run.trials, run.changes):
            cells = (known[column].tolist() for column in ("resolution", "blocks", "top1"))
            worth.top1.update({(resolution, text): top1 for resolution, text, top1 in zip(*cells, strict=True)})
        return worth

    def changes(self, network: NetworkResult, number: int) -> tuple[Change, ...]:
        """Return the changes of one block, which counts from 0: those of which the table or the trials say something.

        The first block has no choices of SE, kernel and activation in the spaces of this project, and is left out.
        """
        placed = list(network.spec.walk())[number]
        found = (self._change(network, number, placed, changed) for changed in changed_choices(network.spec, number))
        return tuple(change for change in found if change.ms is not None or change.top1 is not None)

    def _change(self, network: NetworkResult, number: int, placed: PlacedBlock, changed: ChangedChoice) -> Change:
        after = PlacedBlock(changed.spec.blocks[number], placed.in_channels, placed.in_size)
        ms, exact = self._difference(placed, after)
        top1 = self._top1(changed.spec)
        points = None if top1 is None else top1 - network.own_estimate[0]
        return Change(changed.decision, changed.to, ms, exact, points)

    def _difference(self, before: PlacedBlock, after: PlacedBlock) -> tuple[float | None, bool]:
        """Return the difference of two rows in ms, and whether they are of the very block; None without rows.

        Trimmed channels are in no row of a space. There the block whose channels are nearest speaks.
        """
        here, there = self.rows.get(_kind(before)), self.rows.get(_kind(after))
        if not here or not there:
            return None, False
        wanted = (before.in_channels, before.block.expanded, before.block.out)
        both = (channels for channels in here if channels in there)
        nearest = min(both, key=lambda channels: _distances(channels, wanted), default=None)
        if nearest is None or max(_distances(nearest, wanted)) > math.log(ALIKE):
            return None, False
        return there[nearest] - here[nearest], nearest == wanted

    def _top1(self, spec: ArchSpec) -> float | None:
        return self.top1.get((spec.resolution, blocks_text(spec)))


def _kind(placed: PlacedBlock) -> _Kind:
    block = placed.block
    return block.op, block.kernel, block.stride, block.se > 0, block.activation, placed.in_size


def _distances(one: _Channels, other: _Channels) -> tuple[float, ...]:
    """Return how far apart channels are, as logarithms of their ratios, the largest first."""
    return tuple(sorted((abs(math.log(a / b)) for a, b in zip(one, other, strict=True)), reverse=True))
