"""Write the report of a run: its figures and one HTML page::

write_report(Path("reports/20ms"))   # writes figures/ and index.html there
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.files import write_text
from nas.report.formats import DEFAULT_FORMATS
from nas.report.page import FIGURES as FIGURES_FOLDER
from nas.report.page import render_page
from nas.report.plots import FIGURES
from nas.runs.reading import load_run


def write_report(run_dir: Path, formats: Sequence[str] = DEFAULT_FORMATS) -> Path:
    """Draw the figures of a finished run, write its page, and return the page's path.

    RUN/figures gets each figure in the `FORMATS` that are asked for, with its data as CSV. Raises NasError for a folder
    that holds no finished run, and for a damaged one.
    """
    run = load_run(run_dir)
    for of_run in FIGURES.values():
        for figure in of_run(run):
            figure.save(run_dir / FIGURES_FOLDER, formats)
    page = run_dir / "index.html"
    write_text(page, render_page(run))  # which names the figures that are there
    return page
