"""The proven optimum of a sum over blocks under a budget, as an integer program (scipy's HiGHS)."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from nas.additive import BlockSums
from nas.space import SearchSpace
from nas.strategies.problem import Row


class Optimum(NamedTuple):
    row: Row
    score: float
    latency_ms: float


def solve(latency: BlockSums, score: BlockSums, budget_ms: float, scale: int, gap: float = 1e-9) -> Optimum | None:
    """The network of one scale (its code) with the highest score within the budget; None if none fits.

    The score is proven to be the highest within a relative `gap`.

    One binary variable for each option of each slot and each depth of each stage: a slot has exactly one option
    if its stage is that deep, else none.
    """
    space = latency.space
    variables: list[tuple[int, int]] = []  # (slot, option); then (-1 - stage, depth)
    gain: list[float] = []
    cost: list[float] = []
    for slot in range(len(space.slots)):
        prices, scores = latency.options[slot][scale], score.options[slot][scale]
        for option in _undominated(prices, scores):
            variables.append((slot, option))
            gain.append(scores[option])
            cost.append(prices[option])
    for s, stage in enumerate(space.stages):
        variables += [(-1 - s, code) for code in range(len(stage.depths))]
        gain += [0.0] * len(stage.depths)
        cost += [0.0] * len(stage.depths)
    left = budget_ms - float(latency.constants[scale])
    constraints = [LinearConstraint(csr_array(np.array([cost])), -np.inf, left), _structure(space, variables)]
    while True:
        with _nothing_printed():
            result = milp(
                -np.array(gain),
                integrality=np.ones(len(variables), int),
                bounds=Bounds(0, 1),
                constraints=constraints,
                options={"mip_rel_gap": gap},
            )
        if result.x is None:
            return None
        on = result.x > 0.5
        row = _row(space, scale, list(itertools.compress(variables, on)))
        codes = np.array([row])
        optimum = Optimum(row, float(score(codes)[0]), float(latency(codes)[0]))
        if optimum.latency_ms <= budget_ms:
            return optimum
        # Over the budget by less than the solver's tolerance: the best of all others.
        constraints.append(LinearConstraint(csr_array([on.astype(float)]), -np.inf, on.sum() - 1))


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """HiGHS 1.12 prints a line of its debugging now and then, past Python and whatever it is told."""
    library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
    library.fflush(None)
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 1)
        yield
    finally:
        library.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _undominated(prices: np.ndarray, scores: np.ndarray) -> list[int]:
    """Options that no other option beats in both price and score."""
    kept: list[int] = []
    for option in np.lexsort((-scores, prices)):
        if not kept or scores[option] > scores[kept[-1]]:
            kept.append(int(option))
    return kept


def _structure(space: SearchSpace, variables: list[tuple[int, int]]) -> LinearConstraint:
    """One depth a stage; one option in each slot that this depth reaches, none in the others."""
    rows, columns, values = [], [], []
    for column, (slot, code) in enumerate(variables):
        if slot >= 0:
            rows.append(slot)
            columns.append(column)
            values.append(1.0)
            continue
        stage = -1 - slot
        rows.append(len(space.slots) + stage)
        columns.append(column)
        values.append(1.0)
        for index, place in enumerate(space.slots):
            if place.stage == stage and place.position < space.stages[stage].depths[code]:
                rows.append(index)
                columns.append(column)
                values.append(-1.0)
    right = np.array([0.0] * len(space.slots) + [1.0] * len(space.stages))
    matrix = csr_array((values, (rows, columns)), shape=(len(right), len(variables)))
    return LinearConstraint(matrix, right, right)


def _row(space: SearchSpace, scale: int, chosen: list[tuple[int, int]]) -> Row:
    row = [-1] * len(space.genes)
    row[0] = scale
    for slot, code in chosen:
        if slot < 0:
            row[space.depth_column(-1 - slot)] = code
            continue
        column = space.slot_column(space.slots[slot])
        for gene in range(column + 3, column - 1, -1):
            code, row[gene] = divmod(code, len(space.genes[gene].choices))
    return tuple(row)
