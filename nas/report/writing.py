"""Write a report: the figures and the page of a run, of several runs, or of two latency tables::

write_report(Path("reports/20ms"))   # writes figures/ and index.html there
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from nas.errors import NasError
from nas.files import write_text
from nas.report.formats import DEFAULT_FORMATS
from nas.report.page import FIGURES as FIGURES_FOLDER
from nas.report.page import render_page
from nas.report.plots import FIGURES
from nas.report.plots.figure import ReportFigure
from nas.report.texts import with_uv
from nas.runs.reading import load_run
from nas.runs.record import RECORD

PAGE = "index.html"
RUNS_FOLDER, TABLES_FOLDER = Path("reports/comparison"), Path("reports/devices")  # unless another one is named


def write_asked(paths: Sequence[Path], out: Path | None = None, formats: Sequence[str] = DEFAULT_FORMATS) -> Path:
    """Write the report of a run, the comparison of several, or that of two latency tables; return the page's path.

    A path that ends in .json and is no folder is a table. `out` is the folder of a comparison. Raises NasError for
    paths of both kinds, for one table or more than two, and as the functions below do.
    """
    for path in paths:
        if path.name == RECORD and not path.is_dir():
            raise NasError(f"{path} is the record of a run; name its folder, {path.parent}")
    tables = [path for path in paths if path.suffix == ".json" and not path.is_dir()]
    if tables and len(tables) < len(paths):
        run = next(path for path in paths if path not in tables)
        raise NasError(f"{run} is a run and {tables[0]} a latency table; compare runs, or two tables")
    if len(tables) == 1:
        raise NasError(f"{tables[0]} is a latency table; name a second one to compare it with")
    if len(tables) > 2:
        raise NasError(f"{len(tables)} latency tables are named; compare two at a time")
    if tables:
        return write_tables(tables[0], tables[1], out, formats)
    if len(paths) > 1:
        return write_runs(paths, out, formats)
    if out is not None:
        raise NasError("--out names the folder of a comparison; the report of one run goes into the run's own folder")
    return write_report(paths[0], formats)


def write_report(run_dir: Path, formats: Sequence[str] = DEFAULT_FORMATS) -> Path:
    """Draw the figures of a finished run, write its page, and return the page's path.

    RUN/figures gets each figure in the `FORMATS` that are asked for, with its data as CSV. Raises NasError for a folder
    that holds no finished run, and for a damaged one.
    """
    run = load_run(run_dir)
    _save((figure for of_run in FIGURES.values() for figure in of_run(run)), run_dir, formats)
    return _write_page(run_dir, render_page(run))  # which names the figures that are there


def write_runs(paths: Sequence[Path], out: Path | None = None, formats: Sequence[str] = DEFAULT_FORMATS) -> Path:
    """Write one page about several runs, with its figures beside it, and return the page's path.

    Raises NasError for a run that is named twice, as `load_run` does, and for a folder that holds a run itself.
    """
    from nas.report.comparison.runs import compare_runs
    from nas.report.comparison.runs_figure import figures
    from nas.report.comparison.runs_page import render_runs

    folder = _folder(out, RUNS_FOLDER)
    comparison = compare_runs(paths)
    files = _save(figures(comparison), folder, formats)
    return _write_page(folder, render_runs(comparison, folder, files, _command(paths, out, formats)))


def write_tables(first: Path, second: Path, out: Path | None = None, formats: Sequence[str] = DEFAULT_FORMATS) -> Path:
    """Write one page about two latency tables, with its figures beside it, and return the page's path.

    Raises NasError for a table that cannot be read, as `compare_tables` does, and for a folder that holds a run.
    """
    from nas.latency.table import LatencyTable
    from nas.latency.table_comparison import compare_tables
    from nas.report.comparison.tables import TablesView
    from nas.report.comparison.tables_figures import figures
    from nas.report.comparison.tables_page import render_tables

    folder = _folder(out, TABLES_FOLDER)
    view = TablesView(compare_tables(LatencyTable.load(first), LatencyTable.load(second)))
    files = _save(figures(view), folder, formats)
    return _write_page(folder, render_tables(view, files, _command([first, second], out, formats)))


def _folder(out: Path | None, default: Path) -> Path:
    """Return the folder of a comparison. Raises NasError for one that holds a run, whose page would be lost."""
    folder = out or default
    if (folder / RECORD).exists():
        raise NasError(f"{folder} holds a run, whose page would be overwritten; name another folder with --out")
    return folder


def _command(paths: Sequence[Path], out: Path | None, formats: Sequence[str]) -> str:
    """Return the command that writes a comparison again."""
    words = ["python", "-m", "nas.report", *map(str, paths)]
    if out is not None:
        words += ["--out", str(out)]
    if tuple(formats) != DEFAULT_FORMATS:
        words += ["--format", ",".join(formats)]
    return with_uv(shlex.join(words))


def _save(figures: Iterable[ReportFigure], folder: Path, formats: Sequence[str]) -> list[str]:
    """Save figures beside a page, and return the names of their files."""
    return [file.name for figure in figures for file in figure.save(folder / FIGURES_FOLDER, formats)]


def _write_page(folder: Path, text: str) -> Path:
    page = folder / PAGE
    write_text(page, text)
    return page
