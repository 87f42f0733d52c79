"""The report of a run: figures and one HTML page::

write_report(Path("reports/20ms"))   # writes figures/ and index.html there
"""

from __future__ import annotations

from pathlib import Path

from nas.files import read_text, write_text
from nas.report.drawing import draw
from nas.report.figures import Figure, breakdown_figure, diagram_figure, front_figure, table_figure
from nas.report.page import render_page
from nas.runs.reading import load_run


def write_report(run_dir: Path) -> Path:
    """Draws a finished run's figures (PNG and SVG in RUN/figures) and writes its page; the page's path.

    Raises NasError for what is no run folder, or a broken one.
    """
    run = load_run(run_dir)
    figures: dict[str, Figure] = {
        "front": front_figure(run),
        "breakdown": breakdown_figure(run),
        **{role: diagram_figure(run, role) for role in run.roles},
        "latency_table": table_figure(run),
    }
    folder = run_dir / "figures"
    for name, figure in figures.items():
        draw(figure, folder / name)
    page = run_dir / "index.html"
    write_text(page, render_page(run, {name: read_text(folder / f"{name}.svg") for name in figures}))
    return page
