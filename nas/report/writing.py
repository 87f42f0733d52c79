"""Write the report of a run: its figures and one HTML page::

write_report(Path("reports/20ms"))   # writes figures/ and index.html there
"""

from __future__ import annotations

from pathlib import Path

from nas.files import write_text
from nas.report.page import render_page
from nas.report.plots import FIGURES
from nas.runs.reading import load_run


def write_report(run_dir: Path) -> Path:
    """Draw the figures of a finished run (PNG and SVG in RUN/figures), write its page, and return the page's path.

    Raises NasError for a folder that holds no finished run, and for a damaged one.
    """
    run = load_run(run_dir)
    for of_run in FIGURES.values():
        for figure in of_run(run):
            figure.save(run_dir / "figures")
    page = run_dir / "index.html"
    write_text(page, render_page(run))
    return page
