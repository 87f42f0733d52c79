"""Measure whole networks on this machine, in the unit of a table. The table does not remember them by itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from nas.arch.parts import NetworkPart
from nas.arch.spec import ArchSpec
from nas.console import Progress
from nas.latency.landmarks import landmarks
from nas.latency.table import LatencyTable
from nas.latency.timing import NETWORK_ITERATIONS, NETWORK_RULE, Program, StoppingRule, Timing, time_interleaved

UNCERTAIN = 0.02  # relative standard error
SLOWED = 1.5  # times as slow as when the table was measured


@dataclass(frozen=True, slots=True)
class Measured:
    """Latency of one whole network: raw, and normalised to the speed at which the table was measured."""

    median_ms: float
    normalised_ms: float
    quartiles_ms: tuple[float, float]  # normalised
    error: float  # standard error of `normalised_ms`, relative

    @classmethod
    def of(cls, timing: Timing, reference_ms: float) -> Measured:
        """Return a timing in the unit of a table with this reference time."""
        q1, q3 = (quartile * reference_ms for quartile in timing.quartiles)
        return cls(timing.median_ms, timing.ratio * reference_ms, (q1, q3), timing.error)

    @property
    def disturbed(self) -> bool:
        """Return whether the machine was too restless, or too slow, for a figure that is right within a few percent.

        A disturbance that slows a machine by half slows different networks by different shares.
        """
        return self.error > UNCERTAIN or self.median_ms > SLOWED * self.normalised_ms


def measure_latency(
    specs: Sequence[ArchSpec],
    *,
    table: LatencyTable,
    rng: random.Random | None = None,
    stopping_rule: StoppingRule = NETWORK_RULE,
    on_progress: Progress = lambda share, note: None,
) -> list[Measured]:
    """Measure whole networks on this machine, interleaved with the table's reference network.

    Normalised milliseconds compare with the table's predictions and with budgets; raw ones are what a clock shows
    this minute. Raises NasError if the table is of another device, or if its runtime is not installed here.
    """
    timings = time_networks(specs, table=table, rng=rng, stopping_rule=stopping_rule, on_progress=on_progress)
    parts = (NetworkPart(spec, table.num_classes) for spec in specs)
    return [Measured.of(timings[part], table.reference_ms) for part in parts]


def time_networks(
    specs: Sequence[ArchSpec],
    *,
    table: LatencyTable,
    rng: random.Random | None = None,
    stopping_rule: StoppingRule = NETWORK_RULE,
    on_progress: Progress = lambda share, note: None,
) -> dict[NetworkPart, Timing]:
    """Time whole networks and the landmarks as `measure_latency` does, for `LatencyTable.remember`."""
    bench, runtime = table.bench, table.runtime_here()
    wanted = {NetworkPart(spec, table.num_classes): None for spec in (*specs, *landmarks())}
    with bench.compiling():
        programs = [Program(runtime.compile(network), NETWORK_ITERATIONS) for network in wanted]
    session = time_interleaved(programs, bench, stopping_rule, rng=rng or random.Random(0), on_progress=on_progress)
    return table.without_tilt(dict(zip(wanted, session.timings, strict=True)))
