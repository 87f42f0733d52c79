"""Measure rows of a table in one session, among whole networks from which the table learns.

This module knows rows by their keys only and needs nothing but numpy, so that a device without the rest of the
package fills a table in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from nas.console import Progress
from nas.latency.timing import Bench, Program, StoppingRule, Timing, time_interleaved


@dataclass(frozen=True, slots=True)
class Measurement:
    """Timings of one session by the keys of their parts, and the reference network's time (ms) meanwhile."""

    timings: dict[str, Timing]
    reference_ms: float


def measure_rows(
    programs: Mapping[str, Program],
    bench: Bench,
    stopping_rule: StoppingRule,
    *,
    co_run: Mapping[str, Program],
    rng: random.Random,
    on_progress: Progress = lambda share, note: None,
) -> Measurement:
    """Time programs by their keys, and the whole networks `co_run` in every round among them."""
    session = time_interleaved(
        list(programs.values()),
        bench,
        stopping_rule,
        rng=rng,
        co_run=list(co_run.values()),
        on_progress=on_progress,
    )
    timings = (*session.timings, *session.co_run)
    return Measurement(dict(zip((*programs, *co_run), timings, strict=True)), session.reference_ms)
