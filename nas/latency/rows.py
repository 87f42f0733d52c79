"""One session of a table: rows timed among whole networks, and made to agree with these.

It knows rows by their keys only and needs nothing but numpy, so that a device without the rest of the package fills
a table in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nas.latency.calibration import factor
from nas.latency.table_file import Row, date
from nas.latency.timing import Bench, Effort, Program, time_interleaved


class CoRun(NamedTuple):
    """A whole network that rows are timed among, and what it is the sum of: keys of rows, each with 1 or -1."""

    program: Program
    rows: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Rows by their keys, the factor in them (1: none), and the reference's time (ms) meanwhile."""

    rows: dict[str, Row]
    factor: float
    reference_ms: float

    def scaled(self, factor: float) -> Measurement:
        return Measurement({key: row.scaled(factor) for key, row in self.rows.items()}, factor, self.reference_ms)

    @property
    def calibration(self) -> dict[str, Any]:
        """What a table notes of the factor."""
        return {"date": date(), "rows": len(self.rows), "factor": round(self.factor, 5)}


def measure_rows(
    programs: Mapping[str, Program],
    bench: Bench,
    effort: Effort,
    *,
    known: Mapping[str, Row],
    co_runs: Sequence[CoRun] = (),
    rng: random.Random,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Measurement:
    """Times the programs of rows, by their keys; `known` are the rows from before.

    The rows are multiplied by the factor that makes sums over new and known rows agree with the co_runs.
    """
    session = time_interleaved(
        list(programs.values()),
        bench,
        effort,
        rng=rng,
        co_runs=[co_run.program for co_run in co_runs],
        on_progress=on_progress,
    )
    rows = {key: Row.of(timing) for key, timing in zip(programs, session.timings, strict=True)}
    ratios = [timing.ratio for timing in session.co_runs]
    common = _factor(rows, known, [co_run.rows for co_run in co_runs], ratios)
    measured = Measurement(rows, 1.0, session.reference_ms)
    return measured if common == 1.0 else measured.scaled(common)


def _factor(
    new: Mapping[str, Row],
    known: Mapping[str, Row],
    sums: Sequence[Sequence[tuple[str, int]]],
    ratios: Sequence[float],
) -> float:
    """The factor for the new rows that makes sums agree with the co_runs' ratios; 1 where rows are missing."""
    told = [
        (
            sum(sign * new[key].ratio for key, sign in rows if key in new),
            sum(sign * known[key].ratio for key, sign in rows if key not in new),
            ratio,
        )
        for rows, ratio in zip(sums, ratios, strict=True)
        if all(key in new or key in known for key, _ in rows)
    ]
    return factor(*zip(*told, strict=True)) if told else 1.0
