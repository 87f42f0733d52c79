"""Write the report of a run: its figures and one HTML page::

write_report(Path("reports/20ms"))   # writes figures/ and index.html there
"""

from __future__ import annotations

from pathlib import Path

from nas.files import read_text, write_text
from nas.report.page import DrawnFigure, render_page
from nas.report.plots import FIGURES
from nas.runs.reading import load_run


def write_report(run_dir: Path) -> Path:
    """Draw the figures of a finished run (PNG and SVG in RUN/figures), write its page, and return the page's path.

    Raises NasError for a folder that holds no finished run, and for a damaged one.
    """
    run = load_run(run_dir)
    figures = [figure for of_run in FIGURES.values() for figure in of_run(run)]
    drawn = []
    for figure in figures:
        _, svg = figure.save(run_dir / "figures")
        drawn.append(DrawnFigure(figure.name, figure.heading, figure.caption, read_text(svg)))
    page = run_dir / "index.html"
    write_text(page, render_page(run, drawn))
    return page
