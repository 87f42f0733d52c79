"""Measuring what a table lacks: the only place that adds rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nas.latency.device import Device
from nas.latency.runtimes import Runtime
from nas.latency.table import LatencyTable, RuntimeId
from nas.latency.timing import GOOD_RUNS, MAX_ROUNDS, time_interleaved
from nas.parts import NetworkPart, Part

BATCH = 500  # programs in memory at once
Progress = Callable[[float, str], None]  # share done, what is being done


def new_table(runtime: Runtime) -> LatencyTable:
    """An empty table of this machine; the sentinel's time is set by the first rows."""
    return LatencyTable(device=Device.this(), runtime=RuntimeId.of(runtime), sentinel_ms=float("inf"))


def measure_missing(
    table: LatencyTable,
    parts: Iterable[Part],
    *,
    rng: random.Random | None = None,
    on_progress: Progress = lambda share, text: None,
) -> int:
    """Measures those of `parts` (and their contexts) that the table has no row for; gives their number.

    While the table was never saved, the sentinel's time becomes the lowest of the batches' undisturbed ones: the
    device's own speed. Raises NasError if the table is of another device or runtime.
    """
    missing = table.missing(parts)
    if not missing:
        return 0
    rng = rng or random.Random(0)
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]

        def report(share: float, done: int = start, size: int = len(batch)) -> None:
            on_progress((done + share * size) / len(missing), f"{len(missing)} rows")

        _measure_batch(table, batch, rng, report)
    return len(missing)


def _measure_batch(
    table: LatencyTable, batch: Sequence[Part], rng: random.Random, report: Callable[[float], None]
) -> None:
    bench, programs = table.bench, []
    for index, part in enumerate(batch):
        programs.append(bench.runtime.compile(part))
        report(0.4 * index / len(batch))
    # Whole networks in a table are landmarks, no sums rest on them: a few runs of each do.
    landmarks = all(isinstance(part, NetworkPart) for part in batch)
    session = time_interleaved(
        programs,
        bench,
        rng=rng,
        undisturbed_ms=table.sentinel_ms if np.isfinite(table.sentinel_ms) else None,
        good_runs=3 if landmarks else GOOD_RUNS,
        max_rounds=5 if landmarks else MAX_ROUNDS,
        on_progress=lambda share: report(0.4 + 0.6 * share),
    )
    if table.path is None:
        table.sentinel_ms = min(table.sentinel_ms, session.sentinel_ms)
    for part, timing in zip(batch, session.timings, strict=True):
        table.add(part, timing)
