"""Say in words and rows what two latency tables have in common: names, ranks, and what is relatively faster where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from nas.latency.table import REFERENCE, LatencyTable
from nas.latency.table_comparison import TableComparison, Times
from nas.report.comparison.names import DeviceParts, short_names
from nas.utf8 import as_utf8

LISTED = 10  # networks that are relatively faster on one; at most


class NetworkRow(NamedTuple):
    """A network on both devices."""

    name: str
    spec_id: str
    resolution: int
    source: str  # as in `ComparedNetwork`
    measured: bool
    ms: Times
    shares: Times  # of the time of the reference network
    ranks: tuple[int, int]  # 1 is the fastest
    relative: float  # above 1: relatively slower on the second

    @property
    def difference_percent(self) -> float:
        """Return by how much longer the second takes than the first lets expect, in percent."""
        return 100 * (self.relative - 1)


@dataclass(frozen=True)
class TablesView:
    """A comparison of two tables as readers see it."""

    comparison: TableComparison

    @cached_property
    def names(self) -> tuple[str, str]:
        """Return short names: the processors, and what else differs; the names of the files where nothing does."""
        tables = self.comparison.tables
        first, second = short_names([_parts(table) for table in tables])
        if first == second:
            return as_utf8(tables[0].path.name), as_utf8(tables[1].path.name)
        return first, second

    @property
    def title(self) -> str:
        """Return the heading of page and figure."""
        return f"Fast here, slow there: {self.names[0]} and {self.names[1]}"

    @property
    def reference_text(self) -> str:
        """Return a sentence about the unit of relative times."""
        first, second = self.comparison.references_ms
        here, there = self.names
        return f"The reference network, {REFERENCE}, takes {first:.2f} ms on {here} and {second:.2f} ms on {there}."

    @cached_property
    def rows(self) -> list[NetworkRow]:
        """Return the networks, relatively fastest on the second first."""
        first, second = self.comparison.references_ms
        rows = [
            NetworkRow(
                as_utf8(network.spec.name),
                network.spec.id,
                network.spec.resolution,
                network.source,
                network.measured,
                network.ms,
                (network.ms[0] / first, network.ms[1] / second),
                (int(ranks[0]), int(ranks[1])),
                self.comparison.relative(network.ms),
            )
            for network, ranks in zip(self.comparison.networks, self.comparison.ranks, strict=True)
        ]
        return sorted(rows, key=lambda row: row.relative)

    @cached_property
    def _listed(self) -> list[NetworkRow]:
        """Return the networks that a list names: those that have a name, if they are enough."""
        named = [row for row in self.rows if row.source != "member"]
        return named if len(named) > LISTED else self.rows

    @property
    def faster_on_first(self) -> list[NetworkRow]:
        """Return the networks that are relatively faster on the first, the clearest first."""
        return [row for row in reversed(self._listed) if row.relative > 1][:LISTED]

    @property
    def faster_on_second(self) -> list[NetworkRow]:
        """Return the networks that are relatively faster on the second, the clearest first."""
        return [row for row in self._listed if row.relative < 1][:LISTED]

    @property
    def networks_text(self) -> str:
        """Return a sentence about the networks: how many, and how both tables know them."""
        measured = sum(row.measured for row in self.rows)
        parts = []
        if measured:
            parts.append(f"{measured} measured whole on both")
        if predicted := len(self.rows) - measured:
            parts.append(f"{predicted} predicted by both tables")
        networks = "1 network" if len(self.rows) == 1 else f"{len(self.rows)} networks"
        return f"Both tables know {networks}: {' and '.join(parts)}."

    @property
    def ranks_text(self) -> str:
        """Return a sentence about the order of the networks on both."""
        spearman, kendall = self.comparison.spearman, self.comparison.kendall
        if spearman is None or kendall is None:
            return "These are too few for a rank correlation."
        return (
            f"Spearman's rank correlation of their times is {spearman:.3f}, Kendall's {kendall:.3f}: "
            f"{self.swapped_percent:.1f} % of all pairs change their order from one device to the other."
        )

    @property
    def swapped_percent(self) -> float:
        """Return the percentage of pairs of networks whose order differs."""
        times = np.array([row.ms for row in self.rows])
        pairs = [np.sign(one - other) for one, other in combinations(times, 2)]
        return 100 * float(np.mean([signs[0] * signs[1] < 0 for signs in pairs]))


def _parts(table: LatencyTable) -> DeviceParts:
    runtime = table.runtime
    return DeviceParts(table.device.cpu, f"{runtime.name} {runtime.version}", runtime.threads, runtime.precision)


def signed(share: float, digits: int = 0) -> str:
    """Return a share as a difference in percent: "+12 %", "−3 %"."""
    return f"{100 * share:+.{digits}f} %".replace("-", "−")
