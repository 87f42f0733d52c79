"""What is searched: the best score of an encoded network under a hard limit on a sum over blocks."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nas.additive import BlockSums
from nas.errors import NasError
from nas.space import SearchSpace, Slot

Row = tuple[int, ...]  # the codes of one network, one a gene, -1 for a gene that does not exist
_TRIES = 200  # at a network that is not seen yet


@dataclass(frozen=True)
class Problem:
    """Find the network of `space` with the highest `score` (top-1) whose `latency` (ms) is at most `budget_ms`.

    Both price encoded networks: codes of shape (n, genes) to an array of shape (n,). `additive`, where the
    estimator has it, is a sum over blocks with the same order as `score`. Raises NasError if no network of the
    space fits.
    """

    space: SearchSpace
    latency: BlockSums
    score: Callable[[np.ndarray], np.ndarray]
    budget_ms: float
    additive: BlockSums | None = None

    def __post_init__(self) -> None:
        fastest = self._fastest.min()
        if fastest > self.budget_ms:
            raise NasError(
                f"no network of the space {self.space.name} at {', '.join(map(str, self.space.scales))} is as fast "
                f"as {self.budget_ms:g} ms; the fastest takes {fastest:.3g} ms"
            )

    @cached_property
    def _fastest(self) -> np.ndarray:
        """The latency of the fastest network of each scale."""
        return _fastest(self.latency)

    def with_budget(self, budget_ms: float) -> Problem:
        return replace(self, budget_ms=budget_ms)

    @cached_property
    def fitting_scales(self) -> list[int]:
        """Codes of the scales that have a network within the budget."""
        return [int(code) for code in np.flatnonzero(self._fastest <= self.budget_ms)]

    def latency_ms(self, row: Row) -> float:
        return float(self.latency(np.array([row]))[0])

    def fits(self, row: Row) -> bool:
        return self.latency_ms(row) <= self.budget_ms

    def random_row(self, rng: random.Random) -> Row:
        """A network that fits: uniform over each choice, then made to fit."""
        return self.fitted(_row(self.space.draw(lambda gene: rng.randrange(len(gene.choices)))), rng)

    def mutated(self, row: Row, rng: random.Random, rate: float) -> Row:
        """A network that fits, each gene of `row` drawn anew with probability `rate`."""
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

        A step takes a block to a cheaper choice that differs in one gene, or a stage to a smaller depth; where
        no such step is left, a block to any cheaper choice. A scale at which nothing fits is exchanged first.
        """
        genes = list(row)
        if genes[0] not in self.fitting_scales:
            genes[0] = rng.choice(self.fitting_scales)
        while self._spent(genes) > self.budget_ms:
            steps = self._steps(genes, genes_at_once=1) or self._steps(genes, genes_at_once=4)
            for column, code in rng.choice(steps):
                genes[column] = code
        return self.canonical(tuple(genes))

    def canonical(self, row: Row) -> Row:
        """The row that `space.encode` gives for the same network, so that no network has two rows."""
        if row[0] not in self._ambiguous:
            return row
        return _row(self.space.encode(self.space.decode([np.array(row)]))[0])

    @cached_property
    def _ambiguous(self) -> set[int]:
        """Scales at which several rows are one network: stages run together, or another width gives the same."""
        space = self.space
        shapes = [
            (scale.resolution, *(space.stage_out(stage, scale.width) for stage in range(-1, len(space.stages))))
            for scale in space.scales
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

    def _spent(self, genes: list[int]) -> float:
        """`latency_ms`, to the last bit, many times faster."""
        spent = float(self.latency.constants[genes[0]])
        for column, sizes, values in self._lists[genes[0]]:
            if genes[column] >= 0:
                spent += values[_option(genes[column : column + 4], sizes)]
        return spent

    def _steps(self, genes: list[int], genes_at_once: int) -> list[list[tuple[int, int]]]:
        """Single steps down from here: the columns that each changes, with their new codes."""
        steps: list[list[tuple[int, int]]] = []
        spent: dict[Slot, float] = {}
        for slot, (column, sizes, values) in zip(self.space.slots, self._lists[genes[0]], strict=True):
            codes = genes[column : column + 4]
            if codes[0] < 0:
                continue
            here = spent[slot] = values[_option(codes, sizes)]
            for option, value in enumerate(values):
                if value < here:
                    new = _codes(option, sizes)
                    if sum(one != other for one, other in zip(new, codes, strict=True)) <= genes_at_once:
                        steps.append([(column + gene, code) for gene, code in enumerate(new)])
        for index, stage in enumerate(self.space.stages):
            depth_column = self.space.depth_column(index)
            depth = stage.depths[genes[depth_column]]
            for code, smaller in enumerate(stage.depths):
                gone = [Slot(index, position) for position in range(smaller, depth)]
                if gone and sum(spent[slot] for slot in gone) > 0:
                    columns = [self.space.slot_column(slot) + gene for slot in gone for gene in range(4)]
                    steps.append([(depth_column, code), *((column, -1) for column in columns)])
        return steps

    @cached_property
    def _lists(self) -> list[list[tuple[int, tuple[int, ...], list[float]]]]:
        """For each scale and slot: first column, number of choices of its four genes, latencies of its options."""
        space = self.space
        shapes = []
        for slot in space.slots:
            column = space.slot_column(slot)
            shapes.append((column, tuple(len(space.genes[column + gene].choices) for gene in range(4))))
        return [
            [(*shape, values[scale].tolist()) for shape, values in zip(shapes, self.latency.options, strict=True)]
            for scale in range(len(space.scales))
        ]


def fastest_ms(latency: BlockSums) -> float:
    """The latency (ms) of the fastest network of a space."""
    return float(_fastest(latency).min())


def _fastest(latency: BlockSums) -> np.ndarray:
    """The same for each scale: the cheapest option wherever a block must be."""
    space, totals = latency.space, latency.constants.copy()
    for slot, values in zip(space.slots, latency.options, strict=True):
        if slot.position < min(space.stages[slot.stage].depths):
            totals += values.min(axis=1)
    return totals


def _option(codes: list[int], sizes: tuple[int, ...]) -> int:
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
