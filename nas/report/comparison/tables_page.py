"""Write the page that compares two latency tables. Its text is in `tables.html.j2`, its charts are in `tables.js`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.pages.document import render_document
from nas.report.comparison.tables import TablesView, signed

_FOLDER = Path(__file__).parent


def render_tables(view: TablesView, files: Sequence[str], command: str) -> str:
    """Return the page, which will lie beside its figures `files`; `command` makes it again."""
    kinds = view.comparison.kinds
    return render_document(
        _FOLDER,
        "tables.html.j2",
        styles=["comparison.css"],
        scripts=["tables.js"],
        data={
            "devices": list(view.names),
            "networks": [
                [row.name, row.resolution, row.source, row.measured, *row.ms, *row.shares, *row.ranks, row.relative]
                for row in view.rows
            ],
            "kinds": [[kind.decision, kind.name, kind.blocks, *kind.quartiles] for kind in kinds],
        },
        charts=True,
        title=view.title,
        view=view,
        signed=signed,
        files=files,
        command=command,
    )
