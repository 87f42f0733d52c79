"""Measure rows of a table in one session, among whole networks whose times the rows' sums are scaled to.

This module knows rows by their keys only and needs nothing but numpy, so that a device without the rest of the
package fills a table in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nas.console import Progress
from nas.latency.calibration import calibration_factor
from nas.latency.table_file import Calibration, Row, date
from nas.latency.timing import Bench, Program, StoppingRule, time_interleaved


class CoRunNetwork(NamedTuple):
    """A whole network among which rows are timed, and the rows whose sum it is: keys, each with 1 or -1."""

    program: Program
    rows: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Rows by their keys, the factor in them (1: none), and the reference network's time (ms) meanwhile."""

    rows: dict[str, Row]
    factor: float
    reference_ms: float

    def scaled(self, factor: float) -> Measurement:
        """Return the measurement with its rows multiplied by a factor."""
        return Measurement({key: row.scaled(factor) for key, row in self.rows.items()}, factor, self.reference_ms)

    @property
    def calibration(self) -> Calibration:
        """Return what a table notes of the factor."""
        return Calibration(date(), len(self.rows), round(self.factor, 5))


def measure_rows(
    programs: Mapping[str, Program],
    bench: Bench,
    stopping_rule: StoppingRule,
    *,
    known: Mapping[str, Row],
    co_run: Sequence[CoRunNetwork] = (),
    rng: random.Random,
    on_progress: Progress = lambda share, note: None,
) -> Measurement:
    """Time the programs of rows, by their keys; `known` are the rows from before.

    The rows are multiplied by the factor that makes sums over new and known rows agree with the co-run networks.
    """
    session = time_interleaved(
        list(programs.values()),
        bench,
        stopping_rule,
        rng=rng,
        co_run=[network.program for network in co_run],
        on_progress=on_progress,
    )
    rows = {key: Row.of(timing) for key, timing in zip(programs, session.timings, strict=True)}
    ratios = [timing.ratio for timing in session.co_run]
    factor = _factor(rows, known, [network.rows for network in co_run], ratios)
    measured = Measurement(rows, 1.0, session.reference_ms)
    return measured if factor == 1.0 else measured.scaled(factor)


def _factor(
    new: Mapping[str, Row],
    known: Mapping[str, Row],
    sums: Sequence[Sequence[tuple[str, int]]],
    ratios: Sequence[float],
) -> float:
    """Return the factor for new rows that makes sums agree with the ratios of the co-run networks.

    A network that lacks a row is left out. Returns 1 where too few are left.
    """
    complete = [
        (
            sum(sign * new[key].ratio for key, sign in rows if key in new),
            sum(sign * known[key].ratio for key, sign in rows if key not in new),
            ratio,
        )
        for rows, ratio in zip(sums, ratios, strict=True)
        if all(key in new or key in known for key, _ in rows)
    ]
    return calibration_factor(*zip(*complete, strict=True)) if complete else 1.0
