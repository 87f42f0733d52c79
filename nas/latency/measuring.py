"""Measure the rows that a table lacks. No other module adds rows to a table."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from nas.arch.cost import NUM_CLASSES
from nas.arch.parts import HeadPart, NetworkPart, Part
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Progress
from nas.latency.device import Device
from nas.latency.landmarks import landmarks
from nas.latency.rows import measure_rows
from nas.latency.runtimes import Runtime
from nas.latency.table import LatencyTable, RuntimeId, default_path
from nas.latency.timing import (
    ANCHOR_RULE,
    BLOCK_ITERATIONS,
    FEW_ROWS_RULE,
    NETWORK_ITERATIONS,
    ROW_RULE,
    Iterations,
    Program,
)

BATCH = 500  # programs in memory at once
CO_RUN_NETWORKS = 5
COMPILING = 0.4  # share of the time that a batch takes


def new_table(runtime: Runtime, num_classes: int = NUM_CLASSES, path: str | Path | None = None) -> LatencyTable:
    """Return an empty table of this machine. The first rows set its reference time.

    `path` is where the table will be saved: by default its device's own file in `latency_tables/`.
    """
    device, runtime_id = Device.this(), RuntimeId.of(runtime)
    path = Path(path) if path is not None else default_path(device, runtime_id, num_classes)
    return LatencyTable(device, runtime_id, reference_ms=float("inf"), path=path, num_classes=num_classes)


def co_run_networks(space: SearchSpace) -> list[ArchSpec]:
    """Return random networks among which the rows of a space are timed. No check of a table draws the same."""
    rng = random.Random(f"co-run networks of {space.name}")
    return [space.sample(rng) for _ in range(CO_RUN_NETWORKS)]


def iterations_of(part: Part) -> Iterations:
    """Return how often a part runs in its turn: many weights take more iterations until the caches hold them."""
    return NETWORK_ITERATIONS if isinstance(part, NetworkPart | HeadPart) else BLOCK_ITERATIONS


def measure_missing(
    table: LatencyTable,
    parts: Iterable[Part],
    *,
    co_run: Sequence[ArchSpec] = (),
    rng: random.Random | None = None,
    on_progress: Progress = lambda share, note: None,
) -> int:
    """Measure those of `parts` (and their contexts) that the table has no row for, and return their number.

    Rows of blocks are timed among the whole networks `co_run`, from which the table learns. Until its reference time
    is settled, it becomes the lowest undisturbed time of the batches: the device's own speed.
    Raises NasError if the table is of another device, or if its runtime is not installed here.
    """
    missing = table.missing(parts)
    if not missing:
        return 0
    rng = rng or random.Random(0)
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]

        def report(share: float, note: str, done: int = start, size: int = len(batch)) -> None:
            on_progress((done + share * size) / len(missing), f"{len(missing)} rows")

        _measure_batch(table, batch, co_run, rng, report)
    return len(missing)


def _measure_batch(
    table: LatencyTable,
    batch: Sequence[Part],
    co_run: Sequence[ArchSpec],
    rng: random.Random,
    report: Progress,
) -> None:
    bench, runtime = table.bench, table.runtime_here()
    # Whole networks that are asked for like rows are anchor networks, and need only be roughly right.
    anchors = all(isinstance(part, NetworkPart) for part in batch)
    # Without networks nothing is learned, and the predictions between two steps of trimming stay of one kind.
    companions = (*co_run, *landmarks()) if co_run or anchors else ()
    networks = [NetworkPart(spec, table.num_classes) for spec in companions]
    programs = {}
    with bench.compiling():
        for index, part in enumerate([*batch, *networks]):
            programs[part.key] = Program(runtime.compile(part), iterations_of(part))
            report(COMPILING * index / (len(batch) + len(networks)), "")
    measured = measure_rows(
        {part.key: programs[part.key] for part in batch},
        bench,
        ANCHOR_RULE if anchors else ROW_RULE if co_run else FEW_ROWS_RULE,
        co_run={part.key: programs[part.key] for part in networks},
        rng=rng,
        on_progress=lambda share, note: report(COMPILING + (1 - COMPILING) * share, note),
    )
    if not table.settled:
        table.reference_ms = min(table.reference_ms, measured.reference_ms)
    table.add({part: measured.timings[part.key] for part in (*batch, *networks)})
