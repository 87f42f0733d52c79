"""What is searched: the best score of an encoded network under a hard limit on a sum over blocks."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nas.additive import BlockSums
from nas.errors import NasError
from nas.space import SearchSpace

Row = tuple[int, ...]  # the codes of one network, one a gene, -1 for a gene that does not exist


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
        """The latency of the fastest network of each scale: the cheapest option wherever a block must be."""
        totals = self.latency.constants.copy()
        for slot, values in zip(self.space.slots, self.latency.options, strict=True):
            if slot.position < min(self.space.stages[slot.stage].depths):
                totals += values.min(axis=1)
        return totals

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

    def unseen(self, row: Row, seen: Collection[Row], rng: random.Random, rate: float = 0.1) -> Row:
        """`row`, or a neighbour of it that is not among `seen`; `row` after 50 tries in a space that is used up."""
        candidate = row
        for _ in range(50):
            if candidate not in seen:
                return candidate
            candidate = self.mutated(candidate, rng, rate)
        return row

    def fitted(self, row: Row, rng: random.Random) -> Row:
        """`row` if it fits, else made cheaper one random step at a time until it does.

        A step takes a block to a cheaper choice that differs in one gene, or a stage's last block away; a scale
        at which nothing fits is exchanged first.
        """
        if self.fits(row):
            return row
        genes = list(row)
        if genes[0] not in self.fitting_scales:
            genes[0] = rng.choice(self.fitting_scales)
        spent = self.latency_ms(tuple(genes))
        while spent > self.budget_ms:
            steps = self._cheaper(genes)
            saved, columns = rng.choice(steps)
            for column, code in columns:
                genes[column] = code
            spent -= saved
        return tuple(genes)

    def _cheaper(self, genes: list[int]) -> list[tuple[float, list[tuple[int, int]]]]:
        """Single steps down from here: what each saves (ms), and the columns it changes with their new codes."""
        steps: list[tuple[float, list[tuple[int, int]]]] = []
        for slot, (column, sizes, values) in zip(self.space.slots, self._lists[genes[0]], strict=True):
            codes = genes[column : column + 4]
            if codes[0] < 0:
                continue
            here = values[_option(codes, sizes)]
            for gene in range(4):
                for code in range(sizes[gene]):
                    saved = here - values[_option([*codes[:gene], code, *codes[gene + 1 :]], sizes)]
                    if saved > 0:
                        steps.append((saved, [(column + gene, code)]))
            depth_column = self.space.depth_column(slot.stage)
            depths = self.space.stages[slot.stage].depths
            if slot.position == depths[genes[depth_column]] - 1 and slot.position in depths and here > 0:
                gone = [(column + gene, -1) for gene in range(4)]
                steps.append((here, [(depth_column, depths.index(slot.position)), *gone]))
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


def _option(codes: list[int], sizes: tuple[int, ...]) -> int:
    return ((codes[0] * sizes[1] + codes[1]) * sizes[2] + codes[2]) * sizes[3] + codes[3]


def _row(codes: np.ndarray) -> Row:
    return tuple(int(code) for code in codes)
