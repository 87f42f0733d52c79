"""Predict latencies with a table, and measure, refuse or count as infinite what it has no rows for."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from nas.arch.cost import NUM_CLASSES
from nas.arch.parts import NetworkPart, Part, parts_of
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Console, Silent
from nas.cpu import quota_warning, usable_cores
from nas.errors import NasError
from nas.latency.landmarks import landmarks
from nas.latency.measuring import co_run_networks, measure_missing, new_table
from nas.latency.networks import UNCERTAIN, Measured, time_networks
from nas.latency.runtimes import Runtime, make_runtime
from nas.latency.table import LatencyTable, space_parts
from nas.latency.timing import NETWORK_RULE, StoppingRule, Timing

NAMED_ROWS = 3  # in an error about many missing ones

OnMissing = Literal["fill", "refuse", "infinite"]


@dataclass
class LatencyPredictor:
    """A latency table with its policy for missing rows, `on_missing`.

    "fill" measures them and saves the table, "refuse" raises NasError, "infinite" predicts infinity. Nothing can be
    measured here for a table of another device: for that, "fill" refuses.
    """

    table: LatencyTable
    console: Console = field(default_factory=Silent)
    seed: int = 0
    on_missing: OnMissing = "fill"
    rows_measured: int = field(default=0, init=False)

    @property
    def fills(self) -> bool:
        """Return whether missing rows are measured."""
        return self.on_missing == "fill" and not self.table.other_device

    def parts(self, specs: Sequence[ArchSpec]) -> list[Part]:
        """Return the parts of all networks, with the table's number of classes."""
        return [part for spec in specs for part in parts_of(spec, self.table.num_classes)]

    def space_parts(self, space: SearchSpace) -> list[Part]:
        """Return every part that a network of a space can have, with the table's number of classes."""
        return list(space_parts(space, self.table.num_classes))

    def network(self, spec: ArchSpec) -> NetworkPart:
        """Return the whole network as a part, with the table's number of classes."""
        return NetworkPart(spec, self.table.num_classes)

    def knows(self, spec: ArchSpec) -> bool:
        """Return whether `measured_ms` has a finite figure for a network, or can measure it."""
        return self.fills or self.table.knows(self.network(spec)) or not self.table.missing(self.parts([spec]))

    def is_sure(self, spec: ArchSpec) -> bool:
        """Return whether the table knows a whole network by measurements that do not leave it uncertain."""
        network = self.network(spec)
        return self.table.knows(network) and self.table.measurement(network).error <= UNCERTAIN

    def predict_ms(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Return the predicted latency of each network: array of shape (n,), normalised milliseconds.

        Raises NasError that names some of the missing rows where `on_missing` refuses them.
        """
        if self.fills:
            self.fill(self.parts(specs), "measuring")
        elif self.on_missing == "infinite":
            known = np.array([not self.table.missing(self.parts([spec])) for spec in specs], bool)
            times = np.full(len(specs), np.inf)
            times[known] = self.table.predict_ms([spec for spec, knows in zip(specs, known, strict=True) if knows])
            return times
        elif missing := self.table.missing(self.parts(specs)):
            raise self.refusal(missing)
        return self.table.predict_ms(specs)

    def measured_ms(self, specs: Sequence[ArchSpec], title: str) -> np.ndarray:
        """Return the measured latency of each whole network: array of shape (n,), normalised milliseconds.

        A network is measured once, and the table remembers it. Where `fills` is false, a network that was never
        measured gets its prediction.
        """
        networks = [self.network(spec) for spec in specs]
        if self.fills:
            self.fill(networks, title)
            self._settle(title)
        unknown = [network for network in networks if not self.table.knows(network)]
        predicted = dict(zip(unknown, self.predict_ms([network.spec for network in unknown]), strict=True))
        return np.array([predicted[part] if part in predicted else self.table.part_ms(part) for part in networks])

    def measure(
        self, specs: Sequence[ArchSpec], title: str, stopping_rule: StoppingRule = NETWORK_RULE
    ) -> list[Measured]:
        """Measure whole networks now, in the same rounds, and let the table learn from them.

        A network that was measured before has one time: the combination of all its measurements. Raises NasError if
        the table is of another device.
        """
        self._settle(title)
        with self.console.progress(title) as progress:
            timings = time_networks(specs, table=self.table, stopping_rule=stopping_rule, on_progress=progress)
        self.table.remember(timings)
        self.table.save()
        return [self._combined(self.network(spec), timings[self.network(spec)]) for spec in specs]

    def _settle(self, title: str) -> None:
        """See that a new table has a reference time: the one of its first session."""
        if not math.isfinite(self.table.reference_ms):
            self.fill([self.network(spec) for spec in landmarks()], title)

    def _combined(self, network: NetworkPart, timing: Timing) -> Measured:
        """Return what is known of a network after a timing: all its measurements together, and its raw time now."""
        measured, known = Measured.of(timing, self.table.reference_ms), self.table.measurement(network)
        ms = known.ratio * self.table.reference_ms
        low, high = (quartile * ms / measured.normalised_ms for quartile in measured.quartiles_ms)
        return Measured(measured.median_ms, ms, (low, high), known.error)

    def fill(self, parts: Sequence[Part], title: str, co_run: Sequence[ArchSpec] = ()) -> None:
        """Measure the table's missing rows for `parts`, among the whole networks `co_run`, and save the table.

        What was measured is saved also where the rest is interrupted. Raises NasError if the table is of another
        device and lacks a row.
        """
        missing = self.table.missing(parts)
        if not missing:
            return
        if self.table.other_device:
            raise self.refusal(missing)
        rng, rows = random.Random(self.seed), len(self.table.rows)
        with self.console.progress(title) as progress:
            try:
                measure_missing(self.table, parts, co_run=co_run, rng=rng, on_progress=progress)
            finally:
                if len(self.table.missing(missing)) < len(missing):
                    self.rows_measured += len(self.table.rows) - rows
                    self.table.save()

    def fill_space(self, space: SearchSpace, title: str) -> None:
        """Measure the table's missing rows for a space, and save the table after each variant."""
        for variant in space.variants:
            at = space.at([variant])
            self.fill(self.space_parts(at), f"{title} at {variant}", co_run_networks(at))

    def refusal(self, missing: Sequence[Part]) -> NasError:
        """Return the error that names some of the missing rows."""
        names = "; ".join([*(part.key for part in missing[:NAMED_ROWS]), *["…"][: len(missing) - NAMED_ROWS]])
        if self.table.other_device:
            return NasError(
                f"{self.table.path} is of another device ({self.table.device.cpu}) and lacks {len(missing)} rows that "
                f"are asked for: {names}. Run the same command on that device, which measures them, or leave --table "
                "out to measure a table of this device"
            )
        return NasError(
            f"{self.table.path} lacks {len(missing)} rows that are asked for: {names}. "
            "`nas.LatencyPredictor(table).predict_ms(specs)` in Python measures and saves them"
        )


def open_runtime(name: str, threads: int, precision: str, console: Console) -> Runtime:
    """Return a runtime by its name, and warn of more threads than cores, or than a CPU quota lets run.

    Raises NasError for a runtime that is unknown or not installed.
    """
    runtime = make_runtime(name, threads, precision)
    cores = usable_cores()
    if warning := quota_warning(threads):
        console.say(warning)
    elif threads > cores:
        plural = "s" if cores > 1 else ""
        console.say(
            f"warning: {threads} threads wait for each other on {cores} core{plural}: times will be long and differ "
            f"from run to run; --threads {cores} is the most that makes sense here"
        )
    return runtime


def open_table(
    path: str | Path | None,
    runtime_name: str,
    threads: int = 1,
    console: Console | None = None,
    *,
    precision: str = "float32",
    num_classes: int | None = None,
    allow_other_device: bool = False,
) -> LatencyTable:
    """Return the table to use: the one at `path`; by default this device's own, or a new one where there is none.

    `num_classes` is that of the networks: by default whatever the table at `path` has, else 1000. Raises NasError
    for a table that is damaged, of another device unless that is allowed, or of another runtime, number of threads,
    precision or number of classes. Of another device's table the runtime need not be installed here.
    """
    console = console or Silent()
    if path is not None and allow_other_device:
        table = LatencyTable.load(path)
        if table.other_device:
            check_made_for(table, runtime_name, threads, precision, num_classes)
            return table
    runtime = open_runtime(runtime_name, threads, precision, console)
    new = new_table(runtime, num_classes or NUM_CLASSES)
    if path is None and not new.path.exists():
        return new
    table = LatencyTable.load(path or new.path)
    table.check_device()
    check_made_for(table, runtime_name, threads, precision, num_classes)
    of = table.runtime
    if of.version != runtime.version:
        console.say(
            f"warning: {table.path} was measured with {runtime.name} {of.version}, here is "
            f"{runtime.version}; `python -m nas.measure --check` tells whether it still holds"
        )
    return table


def check_made_for(table: LatencyTable, name: str, threads: int, precision: str, num_classes: int | None) -> None:
    """Raise NasError, with what to do, unless the table is of this runtime and of this number of classes, if any."""
    of = table.runtime
    for flag, wanted, has in (
        ("--runtime", name, of.name),
        ("--threads", threads, of.threads),
        ("--precision", precision, of.precision),
    ):
        if wanted != has:
            raise NasError(f"{table.path} is of {of}; ask for that with {flag} {has}, or name another file")
    if num_classes not in (None, table.num_classes):
        raise NasError(
            f"{table.path} is of networks with {table.num_classes} classes, and these have {num_classes}; leave "
            "--table out to measure a table for them"
        )
