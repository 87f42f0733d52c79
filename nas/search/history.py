"""What a strategy has seen: the finished trials of one search, in order."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nas.search.problem import Problem, Row


class History:
    """Rows with their scores and latencies (ms).

    `seen` are the rows that must not be proposed again: the finished ones, and those that others are evaluating.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.rows: list[Row] = []
        self.seen: set[Row] = set()
        self._codes = np.empty((64, len(problem.space.decisions)), np.int16)
        self._scores = np.empty(64)
        self._latencies = np.empty(64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def codes(self) -> np.ndarray:
        """The rows as an array of shape (n, decisions)."""
        return self._codes[: len(self.rows)]

    @property
    def scores(self) -> np.ndarray:
        return self._scores[: len(self.rows)]

    @property
    def latencies(self) -> np.ndarray:
        return self._latencies[: len(self.rows)]

    def add(self, row: Row, score: float, latency_ms: float) -> None:
        if len(self.rows) == len(self._scores):
            self._codes, self._scores, self._latencies = (
                np.concatenate([values, np.empty_like(values)])
                for values in (self._codes, self._scores, self._latencies)
            )
        self._codes[len(self.rows)] = row
        self._scores[len(self.rows)] = score
        self._latencies[len(self.rows)] = latency_ms
        self.rows.append(row)
        self.seen.add(row)

    def price(self, rows: Iterable[Row]) -> None:
        """Adds rows with what the problem says of them."""
        rows = list(rows)
        if rows:
            codes = np.array(rows)
            for row, score, latency_ms in zip(
                rows, self.problem.score(codes), self.problem.latency(codes), strict=True
            ):
                self.add(row, float(score), float(latency_ms))

    def best(self, number: int, among: int | None = None) -> list[Row]:
        """The rows with the highest scores among the first so many (all by default), best first; the older first."""
        order = np.argsort(-self.scores[:among], kind="stable")
        return [self.rows[index] for index in order[:number]]
