"""Measuring what a table lacks: the only place that adds rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from nas.arch.parts import HeadPart, NetworkPart, Part, context_of, parts_of
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.device import Device
from nas.latency.rows import CoRun, measure_rows
from nas.latency.runtimes import Runtime
from nas.latency.table import LatencyTable, RuntimeId
from nas.latency.timing import ANCHOR, FEW_ROWS, LONG, ROW, SHORT, Program, Visit

BATCH = 500  # programs in memory at once
CO_RUNS = 5
FEW = 100  # rows
Progress = Callable[[float, str], None]  # share done, what is being done


def new_table(runtime: Runtime) -> LatencyTable:
    """An empty table of this machine; the reference's time is set by the first rows."""
    return LatencyTable(device=Device.this(), runtime=RuntimeId.of(runtime), reference_ms=float("inf"))


def co_run_networks(space: SearchSpace) -> list[ArchSpec]:
    """Random networks among which the rows of a space are timed; others than any check draws."""
    rng = random.Random(f"companions of {space.name}")
    return [space.sample(rng) for _ in range(CO_RUNS)]


def visit_of(part: Part) -> Visit:
    """How often a part runs: one with many weights needs more runs until the caches hold them."""
    return LONG if isinstance(part, NetworkPart | HeadPart) else SHORT


def measure_missing(
    table: LatencyTable,
    parts: Iterable[Part],
    *,
    among: Sequence[ArchSpec] = (),
    rng: random.Random | None = None,
    on_progress: Progress = lambda share, text: None,
) -> int:
    """Measures those of `parts` (and their contexts) that the table has no row for; gives their number.

    Rows of blocks are timed `among` whole networks, and multiplied by the factor that makes sums agree with these;
    without enough of these, by what the table's other rows were multiplied by.
    While the table was never saved, the reference's time becomes the lowest of the batches' undisturbed ones: the
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

        _measure_batch(table, batch, among, rng, report)
    return len(missing)


def _measure_batch(
    table: LatencyTable,
    batch: Sequence[Part],
    among: Sequence[ArchSpec],
    rng: random.Random,
    report: Callable[[float], None],
) -> None:
    bench, runtime = table.bench, table.runtime_here()
    whole = [NetworkPart(spec, table.num_classes) for spec in among]
    programs = {}
    for index, part in enumerate([*batch, *whole]):
        programs[part.key] = Program(runtime.compile(part), visit_of(part))
        report(0.4 * index / (len(batch) + len(whole)))
    # Whole networks in a table are anchors, no sums rest on them.
    anchors = all(isinstance(part, NetworkPart) for part in batch)
    effort = ANCHOR if anchors else ROW if len(batch) > FEW else FEW_ROWS
    measured = measure_rows(
        {part.key: programs[part.key] for part in batch},
        bench,
        effort,
        known=table.rows,
        co_runs=[CoRun(programs[part.key], summands(part)) for part in whole],
        rng=rng,
        on_progress=lambda share: report(0.4 + 0.6 * share),
    )
    if measured.factor == 1.0 and not anchors:  # too few networks around the rows to tell one
        measured = measured.scaled(table.usual_factor)
    if table.path is None:
        table.reference_ms = min(table.reference_ms, measured.reference_ms)
    table.add(measured)


def summands(network: NetworkPart) -> list[tuple[str, int]]:
    """The rows whose sum a network is: keys, each with 1, or -1 for what is taken off."""
    parts = list(parts_of(network.spec, network.num_classes))
    contexts = [context for part in parts if (context := context_of(part)) is not None]
    return [*((part.key, 1) for part in parts), *((context.key, -1) for context in contexts)]
