"""List the networks of the comparison, each once under all of its names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas.report.page.summary import Result
from nas.report.texts import display_name
from nas.runs.reading import Run
from nas.runs.record import NetworkResult


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """A network with the name that readers know best, and its other names with the figures published under them."""

    name: str
    network: NetworkResult
    also: tuple[str, ...] = ()


def main_rows(run: Run, results: Sequence[Result]) -> list[NetworkRow]:
    """Return the found networks, and what was measured in the same rounds: the found first, then by latency.

    The published networks that the results name stand beside them: the MobileNetV3s of the searched skeletons, and
    those that are better within a budget.
    """
    named = [network for result in results for network in (result.published, result.rival)]
    kept = [n for n in run.record.networks if n.found or n.raw_ms is not None or n in named]
    rows = _once(run, kept)
    return [row for row in rows if row.network.found] + sorted(
        (row for row in rows if not row.network.found), key=lambda row: row.network.latency_ms
    )


def all_rows(run: Run) -> list[NetworkRow]:
    """Return every network of the comparison, the fastest first."""
    return sorted(_once(run, run.record.networks), key=lambda row: row.network.latency_ms)


def _once(run: Run, networks: Iterable[NetworkResult]) -> list[NetworkRow]:
    """Return one row a network. Networks of one id are the same, whatever their names."""
    same: dict[str, list[NetworkResult]] = {}
    for network in networks:
        same.setdefault(network.spec.id, []).append(network)
    return [_row(run, group) for group in same.values()]


def _row(run: Run, group: list[NetworkResult]) -> NetworkRow:
    """Return the row of a network's names; a found network and its published twin are one row, too."""
    first, *others = group
    also = []
    for other in others:
        published = "" if other.published_top1 is None else f" ({other.published_top1:.1f} % published)"
        if (name := display_name(run, other) + published) not in also:
            also.append(name)
    return NetworkRow(display_name(run, first), first, tuple(also))
