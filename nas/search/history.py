"""Hold the finished trials of one search, in order, for a strategy to learn from."""

from __future__ import annotations

import numpy as np

from nas.arch.encoding import Encoding
from nas.runs.record import Trial
from nas.search.problem import Problem


class History:
    """The finished trials of a search, each network once.

    `seen` holds the encodings that must not be proposed again: those of finished trials, and those that are being
    evaluated.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.trials: list[Trial] = []
        self.seen: set[Encoding] = set()
        self._encodings = np.empty((64, len(problem.space.decisions)), np.int16)
        self._scores = np.empty(64)
        self._latencies = np.empty(64)
        self._diverged = np.empty(64, bool)

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def encodings(self) -> np.ndarray:
        """Return the encodings as an array of shape (n, decisions)."""
        return self._encodings[: len(self)]

    @property
    def scores(self) -> np.ndarray:
        """Return the scores, shape (n,)."""
        return self._scores[: len(self)]

    @property
    def latencies(self) -> np.ndarray:
        """Return the predicted latencies (ms), shape (n,)."""
        return self._latencies[: len(self)]

    @property
    def diverged(self) -> np.ndarray:
        """Return which trainings diverged, shape (n,): their scores say nothing of their networks."""
        return self._diverged[: len(self)]

    def add(self, trial: Trial) -> None:
        """Add a finished trial, which must have an encoding."""
        assert trial.encoding is not None
        at = len(self)
        if at == len(self._scores):
            for name in ("_encodings", "_scores", "_latencies", "_diverged"):
                values = getattr(self, name)
                setattr(self, name, np.concatenate([values, np.empty_like(values)]))
        self._encodings[at] = trial.encoding
        self._scores[at], self._latencies[at], self._diverged[at] = trial.score, trial.latency_ms, trial.diverged
        self.trials.append(trial)
        self.seen.add(trial.encoding)

    def best(self, number: int, among: int | None = None) -> list[Encoding]:
        """Return the encodings with the highest scores among the first `among` (all by default), the best first.

        Of equal scores the older comes first.
        """
        order = np.argsort(-self.scores[:among], kind="stable")
        return [tuple(map(int, self._encodings[index])) for index in order[:number]]
