"""The figures of a report, one file each.

A file holds a data class with all that its figure shows, a function that collects it from a run, a function that
draws it, one that returns it as a table, and `figures`, which gives what the report needs of all. To add a figure,
write such a file and list it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nas.report.plots import breakdown, diagram, front, latency_table, measured
from nas.report.plots.figure import ReportFigure
from nas.runs.reading import Run

# In the order of the page.
FIGURES: dict[str, Callable[[Run], Iterable[ReportFigure]]] = {
    "front": front.figures,
    "breakdown": breakdown.figures,
    "diagram": diagram.figures,
    "measured": measured.figures,
    "latency_table": latency_table.figures,
}
