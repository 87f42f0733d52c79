"""Find the proven optimum of a sum over blocks under hard limits, by an integer program (scipy's HiGHS)."""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from nas.arch.additive import AdditiveModel, Pair
from nas.arch.encoding import Encoding
from nas.search.canonical import CanonicalForm
from nas.search.limits import Limit

Row = tuple[dict[int, float], float, float]  # coefficients by the index of a variable, lower and upper bound

OPTIMAL, INFEASIBLE = 0, 2  # `status` of scipy.optimize.milp


class Solution(NamedTuple):
    """A network that no other beats, and its score."""

    encoding: Encoding
    score: float


class SolverError(RuntimeError):
    """The solver ended without a proof: neither of an optimum, nor that there is none."""


def solve(
    score: AdditiveModel,
    limits: Sequence[Limit],
    variant: int,
    *,
    without: Collection[Encoding] = (),
    gap: float = 1e-9,
) -> Solution | None:
    """Return the network of one variant (its index) with the highest score within all limits; None if none is.

    The encodings of `without` are left out. The score is proven to be the highest within a relative `gap`.
    Raises SolverError where the solver proves nothing.

    There is one binary variable for each option of each slot and for each depth of each stage. A slot has exactly one
    option if its stage is that deep, else none. Sums over pairs are linearised; a largest part is bounded by one
    variable.
    """
    program = _Program(score, limits, variant, spare=len(without))
    for encoding in without:
        program.leave_out(encoding)
    while True:
        found = program.solved(gap)
        if found is None:
            return None
        encodings = np.array([found])
        if all(limit(encodings)[0] <= limit.most for limit in limits):
            return Solution(found, float(score(encodings)[0]))
        program.leave_out(found)  # over a limit by less than the solver's tolerance: the best of all others


def ranking(score: AdditiveModel, limits: Sequence[Limit], variants: Sequence[int]) -> Iterator[Solution]:
    """Yield the proven optimum over these variants, the second best network, and so on, each network once."""
    canonical = CanonicalForm(score.space)
    given: list[Encoding] = []
    seen: set[Encoding] = set()
    best = {variant: solve(score, limits, variant) for variant in variants}
    while any(best.values()):
        optimum = max((found for found in best.values() if found), key=lambda found: found.score)
        encoding = canonical(optimum.encoding)
        if encoding not in seen:
            seen.add(encoding)
            yield Solution(encoding, optimum.score)
        given.append(optimum.encoding)
        variant = optimum.encoding[0]
        best[variant] = solve(score, limits, variant, without=[one for one in given if one[0] == variant])


def maximise(
    gain: Sequence[float], integral: Sequence[bool], rows: Sequence[Row], gap: float, *, name: str
) -> np.ndarray | None:
    """Return the variables, shape (n,), each between 0 and 1, with the highest sum of gains within all rows.

    Those that are `integral` are 0 or 1. The sum is proven within a relative `gap`. Returns None if it is proven that
    nothing keeps the rows. Raises SolverError, with the `name` of what was to be solved, where nothing is proven.
    """
    counts = [len(coefficients) for coefficients, _, _ in rows]
    columns = [column for coefficients, _, _ in rows for column in coefficients]
    values = [value for coefficients, _, _ in rows for value in coefficients.values()]
    matrix = csr_array((values, (np.repeat(np.arange(len(counts)), counts), columns)), shape=(len(counts), len(gain)))
    bounds = [low for _, low, _ in rows], [high for _, _, high in rows]
    # HiGHS's presolve can end with "infeasible or unbounded", which proves nothing; then it is left out.
    for presolve in (True, False):
        with _NO_DEBUG_OUTPUT:
            result = milp(
                -np.array(gain),
                integrality=np.array(integral).astype(int),
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(matrix, *bounds),
                options={"mip_rel_gap": gap, "presolve": presolve},
            )
        if result.status == OPTIMAL:
            assert result.x is not None
            return np.asarray(result.x)
        if result.status == INFEASIBLE:
            return None
    raise SolverError(f"the integer program of {name} was not solved: {result.message}")


class _Program:
    """The integer program of one variant.

    It leaves out options that more than `spare` others beat in every respect.
    """

    def __init__(self, score: AdditiveModel, limits: Sequence[Limit], variant: int, spare: int) -> None:
        self._space = space = score.space
        self._variant = variant
        self._option_columns: list[dict[int, int]] = []
        self._depth_columns: list[list[int]] = []
        self._gain: list[float] = []
        self._integral: list[bool] = []
        self._rows: list[Row] = []
        paired = {slot for sums in (score, *(limit.sums for limit in limits)) for p in sums.pairs for slot in p[:2]}
        for slot in range(len(space.slots)):
            kept = _useful_options(score, limits, variant, slot, np.inf if slot in paired else spare)
            scores = score.options[slot][variant]
            self._option_columns.append({option: self._variable(scores[option]) for option in kept})
        for stage in space.stages:
            self._depth_columns.append([self._variable(0.0) for _ in stage.depths])
        self._add_structure()
        for limit in limits:
            self._add_limit(limit)
        for coefficients in self._paired(score):
            for column, value in coefficients.items():
                self._gain[column] += value

    def _variable(self, gain: float, integral: bool = True) -> int:
        self._gain.append(float(gain))
        self._integral.append(integral)
        return len(self._gain) - 1

    def _add_structure(self) -> None:
        """Demand one depth a stage, one option in each slot that this depth reaches, and none in the others."""
        for depths in self._depth_columns:
            self._rows.append((dict.fromkeys(depths, 1.0), 1.0, 1.0))
        for slot, columns in zip(self._space.slots, self._option_columns, strict=True):
            reached = self._deeper(slot.stage, slot.position)
            self._rows.append((dict.fromkeys(columns.values(), 1.0) | dict.fromkeys(reached, -1.0), 0.0, 0.0))

    def _deeper(self, stage: int, position: int) -> list[int]:
        """Return the columns of the depths that reach a position."""
        depths = self._space.stages[stage].depths
        return [c for c, depth in zip(self._depth_columns[stage], depths, strict=True) if depth > position]

    def _add_limit(self, limit: Limit) -> None:
        """Add a limit, divided by its bound, so that the solver's tolerance is alike for milliseconds and bytes."""
        total: dict[int, float] = {}
        unit = abs(limit.most) or 1.0
        for columns, values in zip(self._option_columns, limit.sums.options, strict=True):
            total |= {column: values[self._variant, option] / unit for option, column in columns.items()}
        for coefficients in self._paired(limit.sums):
            for column, value in coefficients.items():
                total[column] = total.get(column, 0.0) + value / unit
        if limit.peaks is not None:
            peak = self._variable(0.0, integral=False)
            total[peak] = 1.0
            for columns, values in zip(self._option_columns, limit.peaks.options, strict=True):
                own = {column: values[self._variant, option] / unit for option, column in columns.items()}
                self._rows.append((own | {peak: -1.0}, -np.inf, 0.0))
            self._rows.append(({peak: 1.0}, float(limit.peaks.constants[self._variant]) / unit, np.inf))
        self._rows.append((total, -np.inf, (limit.most - float(limit.sums.constants[self._variant])) / unit))

    def _paired(self, sums: AdditiveModel) -> list[dict[int, float]]:
        return [coefficients for pair in sums.pairs if (coefficients := self._pair(pair))]

    def _pair(self, pair: Pair) -> dict[int, float]:
        """Return the value of a pair as a sum over new variables, one for each two classes of options."""
        first, second = self._option_columns[pair.first], self._option_columns[pair.second]
        values = pair.values[self._variant][np.ix_(list(first), list(second))]
        if not values.any():
            return {}
        rows, row_of = np.unique(values, axis=0, return_inverse=True)
        table, column_of = np.unique(rows, axis=1, return_inverse=True)
        cells = np.array([[self._variable(0.0, integral=False) for _ in row] for row in table])
        # The cells are the product of the two choices where the blocks meet, and 0 elsewhere.
        for lines, columns, class_of in ((cells, first, row_of), (cells.T, second, column_of)):
            for number, line in enumerate(lines):
                members = [
                    column for column, of in zip(columns.values(), class_of.ravel(), strict=True) if of == number
                ]
                self._rows.append((dict.fromkeys(line.tolist(), 1.0) | dict.fromkeys(members, -1.0), -np.inf, 0.0))
        one, other = self._space.slots[pair.first], self._space.slots[pair.second]
        meeting = self._deeper(one.stage, one.position if one.stage != other.stage else other.position)
        if one.stage != other.stage:  # where the first is the last of its stage
            meeting = sorted(set(meeting) - set(self._deeper(one.stage, one.position + 1)))
        self._rows.append((dict.fromkeys(cells.ravel().tolist(), 1.0) | dict.fromkeys(meeting, -1.0), 0.0, 0.0))
        return dict(zip(cells.ravel().tolist(), table.ravel().tolist(), strict=True))

    def leave_out(self, encoding: Encoding) -> None:
        """Forbid one network."""
        chosen: list[int | None] = []
        for s, columns in enumerate(self._depth_columns):
            chosen.append(columns[encoding[self._space.depth_column(s)]])
        for slot, options in zip(self._space.slots, self._option_columns, strict=True):
            column = self._space.slot_column(slot)
            if encoding[column] >= 0:
                option = 0
                for decision in range(column, column + 4):
                    option = option * len(self._space.decisions[decision].choices) + encoding[decision]
                chosen.append(options.get(option))
        if None not in chosen:  # an option outside the program cannot be chosen anyway
            self._rows.append((dict.fromkeys(chosen, 1.0), -np.inf, len(chosen) - 1.0))  # type: ignore[arg-type]

    def solved(self, gap: float) -> Encoding | None:
        """Return the optimum; None if it is proven that there is none. Raises SolverError otherwise."""
        found = maximise(self._gain, self._integral, self._rows, gap, name=self._space.name)
        return None if found is None else self._encoding(found > 0.5)

    def _encoding(self, on: np.ndarray) -> Encoding:
        encoding = [-1] * len(self._space.decisions)
        encoding[0] = self._variant
        for s, depths in enumerate(self._depth_columns):
            encoding[self._space.depth_column(s)] = next(d for d, column in enumerate(depths) if on[column])
        for slot, options in zip(self._space.slots, self._option_columns, strict=True):
            first = self._space.slot_column(slot)
            for option, column in options.items():
                if on[column]:
                    for decision in range(first + 3, first - 1, -1):
                        choices = len(self._space.decisions[decision].choices)
                        option, encoding[decision] = divmod(option, choices)
        return tuple(encoding)


def _useful_options(score: AdditiveModel, limits: Sequence[Limit], variant: int, slot: int, spare: float) -> list[int]:
    """Return the options that no limit forbids, without those that more than `spare` others dominate."""
    worse = [-score.options[slot][variant]]
    allowed = np.ones(len(worse[0]), bool)
    for limit in limits:
        worse.append(limit.sums.options[slot][variant])
        if limit.peaks is not None:
            worse.append(limit.peaks.options[slot][variant])
            allowed &= worse[-1] + limit.sums.constants[variant] <= limit.most
    respects = np.array(worse)
    beats = (respects[:, :, None] <= respects[:, None, :]).all(axis=0)
    alike = beats & beats.T
    beats &= ~alike | (np.arange(len(allowed))[:, None] < np.arange(len(allowed)))  # of two that are equal, the first
    return [int(option) for option in np.flatnonzero((beats.sum(axis=0) <= spare) & allowed)]


class _NoDebugOutput:
    """A context that swallows what C code prints; several threads can be in it.

    HiGHS 1.12 prints a line of its debugging now and then, whatever it is told. C's own standard output is exchanged,
    not the file descriptor, so that what Python prints meanwhile comes through. Elsewhere than on glibc and macOS the
    stream cannot be exchanged, and the line appears.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: int | None = None
        self._nowhere: int | None = None  # opened once and never closed: C flushes its streams when the process ends

    def __enter__(self) -> None:
        with self._lock:
            stream = _c_stdout()
            if stream is not None and self._users == 0:
                self._nowhere = self._nowhere or _open_nowhere()
                self._before, stream.value = stream.value, self._nowhere
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            stream = _c_stdout()
            self._users -= 1
            if stream is not None and self._users == 0:
                stream.value = self._before


_NO_DEBUG_OUTPUT = _NoDebugOutput()


def _c_stdout() -> ctypes.c_void_p | None:
    """Return the variable that holds C's standard output, or None where there is no such variable."""
    name = {"linux": "stdout", "darwin": "__stdoutp"}.get(sys.platform)
    if name is None or (sys.platform == "linux" and platform.libc_ver()[0] != "glibc"):
        return None
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), name)


def _open_nowhere() -> int | None:
    library = ctypes.CDLL(None)
    library.fopen.restype = ctypes.c_void_p
    stream: int | None = library.fopen(b"/dev/null", b"w")
    return stream
