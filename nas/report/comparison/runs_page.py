"""Write the page that puts several runs together. Its text is in `runs.html.j2`, its charts are in `runs.js`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nas.pages.document import render_document
from nas.report.comparison.runs import ComparedRun, Group, RunsComparison
from nas.report.comparison.runs_figure import references
from nas.report.texts import budget_text
from nas.runs.record import NetworkResult

_FOLDER = Path(__file__).parent


def render_runs(comparison: RunsComparison, folder: Path, files: Sequence[str], command: str) -> str:
    """Return the page, which will lie in `folder`, beside its figures `files`; `command` makes it again."""
    styles = {run.name: number % 6 for number, run in enumerate(comparison.runs)}  # as many as the style sheet has
    return render_document(
        _FOLDER,
        "runs.html.j2",
        styles=["comparison.css"],
        scripts=["runs.js"],
        data={"groups": [_group_data(comparison, group, styles) for group in comparison.groups]},
        charts=True,
        title=f"{len(comparison.runs)} runs compared",
        comparison=comparison,
        styles_of=styles,
        addresses=[_address(run, folder) for run in comparison.runs],
        published=_published(comparison),
        budget_text=budget_text,
        files=files,
        command=command,
    )


def _address(run: ComparedRun, folder: Path) -> str:
    """Return the address of a run's own page, seen from a folder."""
    path = os.path.relpath(run.run.path.resolve() / "index.html", folder.resolve())
    return quote(os.fsencode(path).replace(os.fsencode(os.sep), b"/"))


def _published(comparison: RunsComparison) -> list[tuple[str, int, list[NetworkResult]]]:
    """Return the published networks that every run has, with their name, their resolution, and a result a run."""
    by_run = [{one.spec.id: one for one in run.run.record.networks if not one.found} for run in comparison.runs]
    first = comparison.runs[0]
    shared = [one for key, one in by_run[0].items() if all(key in others for others in by_run)]
    return [
        (first.display_name(one), one.spec.resolution, [networks[one.spec.id] for networks in by_run])
        for one in sorted(shared, key=lambda network: network.latency_ms)
    ]


def _group_data(comparison: RunsComparison, group: Group, styles: dict[str, int]) -> dict[str, Any]:
    """Return what the chart of a group shows."""
    several = len({run.parts for run in group.runs}) > 1
    return {
        "images": group.title,
        "runs": [
            {
                "short": run.name,
                "device": [comparison.short_device(run)] if several else [],
                "style": styles[run.name],
                "proven": run.proven,
                "front": [list(one) for one in run.front],
                "found": [_point(run, network) for network in run.found],
                # Once for all runs of a device: they would lie on each other.
                "published": [_point(run, one) for one in references(run)] if several or run is group.runs[0] else [],
            }
            for run in group.runs
        ],
    }


def _point(run: ComparedRun, network: NetworkResult) -> dict[str, Any]:
    top1, std = network.own_estimate
    return {
        "name": run.display_name(network),
        "ms": network.latency_ms,
        "measured": network.measured_ms is not None,
        "top1": top1,
        "std": std,
        "px": network.spec.resolution,
        "macs": network.macs,
        "params": network.params,
    }
