"""Write the page of the playground: its template, its scripts and the data in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.files import write_text
from nas.latency.table import LatencyTable
from nas.pages.document import render_document
from nas.playground.data import Coverage, Start, measuring_command, page_data, published_starts

SCRIPTS = ("model.js", "space.js", "solver.js", "state.js", "front.js", "editor.js", "playground.js")


def write_playground(
    path: Path, table: LatencyTable, coverages: Sequence[Coverage], prior: ImageNetPrior, starts: Sequence[Start] = ()
) -> None:
    """Write the page of a table to `path`. `starts` are the user's own networks, listed before published ones.

    Raises NasError for a path that cannot be written, and for a space whose blocks the prior cannot place.
    """
    missing = [coverage for coverage in coverages if not coverage.variants]
    page = render_document(
        Path(__file__).parent,
        "page.html.j2",
        styles=["page.css"],
        scripts=SCRIPTS,
        data=page_data(table, coverages, prior, [*starts, *published_starts()]),
        charts=True,
        title=f"Playground: networks on {table.device.cpu}",
        device=table.device.cpu,
        runtime=str(table.runtime),
        other_device=table.other_device,
        table=str(table.path),
        created=table.created[:10],
        recipe=prior.training_recipe,
        fidelity=table.fidelity,
        missing=[(coverage.space.name, measuring_command(table, coverage)) for coverage in missing],
    )
    write_text(path, page)
