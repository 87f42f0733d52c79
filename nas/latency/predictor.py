"""What parts and networks take: the table of a search, filled as it is asked."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.arch.parts import NetworkPart, Part, parts_of
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Console, Silent
from nas.errors import NasError
from nas.latency.device import allowed_cores
from nas.latency.measuring import co_run_networks, measure_missing, new_table
from nas.latency.runtimes import RUNTIMES, Runtime
from nas.latency.table import LatencyTable, space_parts
from nas.names import resolve

# A network measured twice differs by one or two percent: what is shipped is measured that much below the budget.
NOISE = 0.0125


@dataclass
class LatencyPredictor:
    """What parts and networks take; what the table does not know is measured, and the table saved.

    Nothing is measured for a table of another device: there a missing row is a NasError that names it.
    """

    table: LatencyTable
    console: Console
    seed: int = 0
    rows_measured: int = 0
    file: str | None = None  # of a table that was never saved; its device's own by default

    def parts(self, specs: Sequence[ArchSpec]) -> list[Part]:
        """What the table has rows for of each network, with its number of classes."""
        return [part for spec in specs for part in parts_of(spec, self.table.num_classes)]

    def network(self, spec: ArchSpec) -> NetworkPart:
        """The whole network, with the table's number of classes."""
        return NetworkPart(spec, self.table.num_classes)

    def measure(self, parts: Sequence[Part], title: str, among: Sequence[ArchSpec] = ()) -> None:
        """Fills the table's rows for `parts`, timed among whole networks."""
        missing = self.table.missing(parts)
        if missing and self.table.other_device:
            raise self.table.lacks(missing[0])
        if missing:
            with self.console.progress(title) as progress:
                rng, before = random.Random(self.seed), len(self.table.rows)
                try:
                    measure_missing(self.table, parts, among=among, rng=rng, on_progress=progress)
                finally:  # what was measured by then is kept when the rest is interrupted
                    if len(self.table.rows) > before:
                        self.rows_measured += len(self.table.rows) - before
                        self.table.save(self.table.path or self.file)

    def measure_space(self, space: SearchSpace, title: str) -> None:
        """Fills the table's rows for a space, variant by variant, so that what is finished is kept."""
        for variant in space.variants:
            at = space.at([variant])
            self.measure(list(space_parts(at, self.table.num_classes)), f"{title} at {variant}", co_run_networks(at))

    def predicted_ms(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """The table's predictions (ms); infinite for what another device's table lacks rows of."""
        if self.table.other_device:
            lacking = np.array([bool(self.table.missing(self.parts([spec]))) for spec in specs])
            known = [spec for spec, lacks in zip(specs, lacking, strict=True) if not lacks]
            prices = np.full(len(specs), np.inf)
            prices[~lacking] = self.table.predict_ms(known)
            return prices
        self.measure(self.parts(specs), "measuring", specs[:1])
        return self.table.predict_ms(specs)

    def whole_ms(self, specs: Sequence[ArchSpec], title: str) -> np.ndarray:
        """Measured latency (ms) of whole networks, remembered in the table; else what another device's predicts."""
        parts = [self.network(spec) for spec in specs]
        if self.table.other_device:
            rows = self.table.rows
            predicted = (part.spec for part in parts if part.key not in rows)
            prices = iter(self.table.predict_ms(list(predicted)))
            return np.array([self.table.part_ms(part) if part.key in rows else next(prices) for part in parts])
        self.measure(parts, title)
        return np.array([self.table.part_ms(part) for part in parts])

    def knows(self, spec: ArchSpec) -> bool:
        """Whether a network can be priced: always, where what the table lacks can be measured."""
        table = self.table
        return not (
            table.other_device and self.network(spec).key not in table.rows and table.missing(self.parts([spec]))
        )


def open_runtime(name: str, threads: int, precision: str, console: Console) -> Runtime:
    """A runtime by name. Raises NasError for what is unknown or not installed; warns of more threads than cores."""
    runtime: Runtime = resolve("runtime", name, RUNTIMES)(threads=threads, precision=precision)
    cores = len(allowed_cores()) or os.cpu_count() or 1
    if threads > cores:
        plural = "s" if cores > 1 else ""
        console.say(
            f"warning: {threads} threads wait for each other on {cores} core{plural}: times will be long and differ "
            f"from run to run; --threads {cores} is the most that makes sense here"
        )
    return runtime


def open_table(
    path: str | None,
    runtime_name: str,
    threads: int = 1,
    console: Console | None = None,
    *,
    precision: str = "float32",
    allow_other_device: bool = False,
) -> LatencyTable:
    """The table to use: the one named, this device's own if there is one, else a new one.

    Raises NasError for a table that is damaged, of another device unless that is allowed, or of another runtime,
    threads or precision. Of another device's the runtime need not be installed here.
    """
    console = console or Silent()
    if path is not None and allow_other_device:
        table = LatencyTable.load(path)
        if table.other_device:
            _check_runtime(table, runtime_name, threads, precision)
            return table
    runtime = open_runtime(runtime_name, threads, precision, console)
    fresh = new_table(runtime)
    default = fresh.default_path()
    if path is None and not default.exists():
        return fresh
    table = LatencyTable.load(path or default)
    table.check_device()
    _check_runtime(table, runtime_name, threads, precision)
    of = table.runtime
    if of.version != runtime.version:
        console.say(
            f"warning: {table.path} was measured with {runtime.name} {of.version}, here is "
            f"{runtime.version}; `python -m nas.measure --check` tells whether it still holds"
        )
    return table


def _check_runtime(table: LatencyTable, name: str, threads: int, precision: str) -> None:
    """Raises NasError, with the flag to give, unless the table is of this runtime."""
    of = table.runtime
    for flag, wanted, has in (
        ("--runtime", name, of.name),
        ("--threads", threads, of.threads),
        ("--precision", precision, of.precision),
    ):
        if wanted != has:
            raise NasError(f"{table.path} is of {of}; ask for that with {flag} {has}, or name another file")
