"""Measure whole networks on this machine, in the unit of a table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from nas.arch.parts import NetworkPart
from nas.arch.spec import ArchSpec
from nas.console import Progress
from nas.latency.table import LatencyTable
from nas.latency.timing import NETWORK_ITERATIONS, NETWORK_RULE, Program, StoppingRule, time_interleaved

UNCERTAIN = 0.02  # relative standard error
SLOWED = 1.5  # times as slow as when the table was measured


@dataclass(frozen=True, slots=True)
class Measured:
    """Latency of one whole network: raw, and normalised to the speed at which the table was measured."""

    median_ms: float
    normalised_ms: float
    quartiles_ms: tuple[float, float]  # normalised
    error: float  # standard error of `normalised_ms`, relative

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
    bench, runtime = table.bench, table.runtime_here()
    with bench.compiling():
        programs = [
            Program(runtime.compile(NetworkPart(spec, table.num_classes)), NETWORK_ITERATIONS) for spec in specs
        ]
    session = time_interleaved(programs, bench, stopping_rule, rng=rng or random.Random(0), on_progress=on_progress)
    ms = table.reference_ms
    return [
        Measured(t.median_ms, t.ratio * ms, (t.quartiles[0] * ms, t.quartiles[1] * ms), t.error)
        for t in session.timings
    ]
