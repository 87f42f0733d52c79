"""Measuring what a table lacks: the only place that adds rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from nas.latency.device import Device, pinned
from nas.latency.runtimes import Runtime
from nas.latency.table import LatencyTable, RuntimeId
from nas.latency.timing import fastest_cores, time_interleaved
from nas.parts import Part

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

    While the table was never saved, the sentinel's time becomes the lowest lower quartile seen: the device's
    undisturbed speed. Raises NasError if the table is of another device or runtime.
    """
    missing = table.missing(parts)
    if not missing:
        return 0
    runtime = table.runtime_here()
    rng = rng or random.Random(0)
    sentinel = runtime.compile(table.sentinel)
    cores = fastest_cores(runtime, sentinel)
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]

        def report(share: float, done: int = start, size: int = len(batch)) -> None:
            on_progress((done + share * size) / len(missing), f"{len(missing)} rows")

        with pinned(cores):
            _measure_batch(table, batch, runtime, sentinel, rng, report)
    return len(missing)


def _measure_batch(
    table: LatencyTable,
    batch: Sequence[Part],
    runtime: Runtime,
    sentinel: Callable[[], None],
    rng: random.Random,
    report: Callable[[float], None],
) -> None:
    programs = []
    for index, part in enumerate(batch):
        programs.append(runtime.compile(part))
        report(0.4 * index / len(batch))
    session = time_interleaved(programs, sentinel, rng=rng, on_progress=lambda share: report(0.4 + 0.6 * share))
    if table.path is None:
        table.sentinel_ms = min(table.sentinel_ms, session.sentinel_ms)
    for part, timing in zip(batch, session.timings, strict=True):
        table.add(part, timing)
