"""Measure the networks of a bundle on this device, and write a latency table.

    python measure.pyz --threads 4

writes a table for `python -m nas.search --table FILE`. The same command resumes a run that was interrupted.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from nas.cpu import quota_warning, usable_cores
from nas.errors import NasError
from nas.files import write_text
from nas.latency.bundle.archive import Batch, Bundle
from nas.latency.bundle.measurement_log import LogHead, MeasurementLog
from nas.latency.device import Device
from nas.latency.rows import measure_rows
from nas.latency.runtimes import FileRuntime, make_runtime
from nas.latency.table_file import NOISY, Reference, RuntimeId, date, noisy_rows, table_file, table_text
from nas.latency.throttling import Throttling
from nas.latency.timing import Bench, Iterations, Program, StoppingRule
from nas.utf8 import escape_on_console

PROGRAM = "measure.pyz"
COMPILING = 0.4  # share of the time that a batch takes


class ProgressLine:
    """One line on stderr that says how much is done and how long the rest takes.

    Where stderr is no terminal, it is a line a tenth.
    """

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._begun = time.monotonic()
        self._shown = -1

    def __call__(self, share: float, note: str) -> None:
        left = (time.monotonic() - self._begun) * (1 / share - 1) if share else float("nan")
        if self._out.isatty():
            self._out.write(f"\r{share:4.0%}  {note}, {duration(left)} left \033[K" + "\n" * (share >= 1))
        elif int(10 * share) > self._shown:
            self._shown = int(10 * share)
            self._out.write(f"{share:4.0%}  {note}, {duration(left)} left\n")
        self._out.flush()

    def say(self, text: str) -> None:
        """Print a line in place of the progress, which is drawn again below it."""
        self._out.write(f"\r\033[K{text}\n" if self._out.isatty() else f"{text}\n")
        self._out.flush()


def duration(seconds: float) -> str:
    """Return a time for people: "12 s", "3 min", "? s" where it is not known."""
    if seconds != seconds:
        return "? s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def measure(bundle: Bundle, runtime: FileRuntime, log: MeasurementLog, progress: ProgressLine) -> None:
    """Measure the batches of the bundle that the log lacks, and add them to it."""

    def program(key: str) -> Program:
        return Program(runtime.load(bundle.model(key)), Iterations(*bundle.graphs[key].iterations))

    reference = bundle.reference["key"]
    bench = Bench.of(runtime.clock, runtime.threads, lambda: runtime.load(bundle.model(reference)))
    bench = replace(bench, throttling=Throttling(say=progress.say))
    missing = [batch for batch in bundle.batches if not log.has(batch.keys)]
    total, done = sum(work(bundle, batch) for batch in missing), 0.0
    for batch in missing:
        programs: dict[str, Program] = {}
        share_of_all, rows = work(bundle, batch) / total, f"{rows_done(bundle, log)} of {bundle.rows} rows"

        def report(share: float, note: str, done: float = done, weight: float = share_of_all, rows: str = rows) -> None:
            progress(done + share * weight, rows)

        needed = [*batch.keys, *batch.co_run]
        with bench.compiling():
            for number, key in enumerate(needed):
                programs[key] = program(key)
                report(COMPILING * (number + 1) / len(needed), "")
        measured = measure_rows(
            {key: programs[key] for key in batch.keys},
            bench,
            StoppingRule(*batch.stopping_rule),
            co_run={key: programs[key] for key in batch.co_run},
            rng=random.Random(0),
            on_progress=lambda share, note, report=report: report(  # type: ignore[misc]
                COMPILING + (1 - COMPILING) * share, note
            ),
        )
        log.add(measured)
        done += share_of_all
    progress(1.0, f"{rows_done(bundle, log)} of {bundle.rows} rows")


def rows_done(bundle: Bundle, log: MeasurementLog) -> int:
    """Return how many of the bundle's rows are measured."""
    return sum(log.has([key]) for batch in bundle.batches for key in batch.keys)


def work(bundle: Bundle, batch: Batch) -> float:
    """Return an estimate, without a unit, of the time it takes to load and to time a batch.

    A layer costs time besides its arithmetic.
    """
    _, min_rounds, *_ = batch.stopping_rule
    graphs = [bundle.graphs[key] for key in (*batch.keys, *batch.co_run)]
    return sum(min_rounds * sum(graph.iterations) / 3 * (20e6 + graph.macs) + 20 * graph.size for graph in graphs)


def run(folder: Path, argv: Sequence[str] | None = None) -> Path:
    """Measure the bundle that was unzipped into `folder`, and return the table's file. Raises NasError."""
    bundle = Bundle.open(folder)
    arguments = _parser(bundle).parse_args(argv)
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # before a runtime flushes denormals to zero: some versions of numpy warn of that
    runtime, device = make_runtime(bundle.runtime, arguments.threads, bundle.precision), Device.this()
    assert isinstance(runtime, FileRuntime)
    name = RuntimeId.of(runtime)
    out = Path(arguments.out or table_file(device, name))
    if out.exists():
        raise NasError(f"{out} exists already; remove it, or name another file with --out")
    if name.version != bundle.runtime_version:
        print(f"note: the bundle was made beside {name.name} {bundle.runtime_version}; the table says {name.version}")
    cores = usable_cores()
    if warning := quota_warning(name.threads):
        print(warning, file=sys.stderr)
    elif name.threads > cores:
        print(f"warning: {name.threads} threads share {cores} cores; times will be long and restless", file=sys.stderr)
    print(f"device: {device.cpu}, {name}")
    head = LogHead(date(), bundle.id, device, name)
    log = MeasurementLog.open(out.with_name(f"{out.name}.log"), head, bundle.networks)
    if log.sessions:
        print(f"resuming {log.path}: {rows_done(bundle, log)} of {bundle.rows} rows are measured")
    measure(bundle, runtime, log, ProgressLine(sys.stderr))
    text = table_text(
        created=log.head.created,
        device=device,
        runtime=name,
        reference=Reference(bundle.reference["network"], bundle.reference["spec_id"], log.reference_ms),
        num_classes=bundle.num_classes,
        fidelity=(),
        networks=log.networks,
        rows=log.rows,
    )
    write_text(out, text)
    log.path.unlink()
    if noisy := noisy_rows(log.rows):
        print(f"{len(noisy)} rows are uncertain by over {NOISY:.0%}, for example {noisy[0]!r}")
    reference = f"{bundle.reference['network']} {log.reference_ms:.2f} ms"
    print(f"{out}: {len(log.rows)} rows, {len(log.networks)} networks, reference {reference}")
    print(f"next, where nas is: {name.search_command(out)}")
    return out


def main(folder: Path) -> None:
    """Call `run` as a command: a NasError becomes one line on stderr and status 2, Ctrl-C status 130."""
    escape_on_console()
    try:
        run(folder)
    except NasError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted; the same command resumes", file=sys.stderr)
        sys.exit(130)


def _parser(bundle: Bundle) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"python {PROGRAM}", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--threads", metavar="N", type=_threads, default=bundle.threads, help="of the runtime (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", help="the table (default: named after this device, in this folder)")
    return parser


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
