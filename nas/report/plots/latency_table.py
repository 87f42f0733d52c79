"""Show the rows of the latency table: milliseconds against multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.report.plots.figure import ReportFigure
from nas.report.plots.style import (
    GREY,
    INK,
    PALE,
    add_title,
    kernel_point,
    new_figure,
    plain_ticks,
    write_in_the_middle,
)
from nas.report.texts import device_text
from nas.runs.reading import Run

CAPTION = (
    "Each point is one block as it stands in a network: between the dotted lines, equal arithmetic takes more or "
    "less time by its kernel and its squeeze-and-excitation (SE)."
)
_ENDS = {"stem": "P", "head": "X"}  # with their markers


@dataclass(frozen=True, slots=True)
class RowPoint:
    """A row of the latency table."""

    op: str  # "stem", "head", or that of a block
    kernel: int  # 0 for the head
    se: bool
    macs: int
    ms: float


@dataclass(frozen=True, slots=True)
class TableData:
    """The rows that served a run."""

    title: str
    subtitle: str
    rows: tuple[RowPoint, ...]


def figures(run: Run) -> Iterator[ReportFigure]:
    """Yield the figure of a run."""
    data = table_data(run)
    yield ReportFigure("latency_table", "The latency table", CAPTION, partial(draw, data), partial(as_table, data))


# Data -------------------------------------------------------------------------------------------------


def table_data(run: Run) -> TableData:
    """Collect the rows that logarithmic axes can show."""
    rows = run.table_rows[(run.table_rows.macs > 0) & (run.table_rows.ms > 0)]
    kernels, squeezed = (rows[column].fillna(0).tolist() for column in ("kernel", "se"))
    points = tuple(
        RowPoint(op, kernel, se > 0, macs, ms)
        for op, kernel, se, macs, ms in zip(
            rows.op.tolist(), kernels, squeezed, rows.macs.tolist(), rows.ms.tolist(), strict=True
        )
    )
    count = f"{len(points):,} of its {run.table.rows:,} rows served this run"
    return TableData("The rows of the latency table", f"{device_text(run)}: {count}", points)


def as_table(data: TableData) -> pd.DataFrame:
    """Return the rows, one a row; the kernel of a head is 0."""
    columns = ["op", "kernel", "se", "macs", "ms"]
    return pd.DataFrame([asdict(row) for row in data.rows], columns=columns).rename(columns={"ms": "time_ms"})


# Drawing ----------------------------------------------------------------------------------------------


def draw(data: TableData) -> Figure:
    """Draw a point a row: its shape and colour are the kernel, and it is filled where the block has SE."""
    figure = new_figure(6.6)
    axes = figure.add_subplot()
    add_title(axes, data.title, data.subtitle)
    axes.set_xlabel("million multiply-accumulates of the row")
    axes.set_ylabel("ms of the row")
    if not data.rows:
        axes.set_xticks([])
        axes.set_yticks([])
        write_in_the_middle(axes, "this run used no rows of the table")
        return figure
    axes.set_xscale("log")
    axes.set_yscale("log")
    macs = np.array([row.macs for row in data.rows]) / 1e6
    ms = np.array([row.ms for row in data.rows])
    axes.set_xlim(macs.min() / 1.3, macs.max() * 1.3)
    axes.set_ylim(ms.min() / 1.3, ms.max() * 1.3)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.grid(zorder=0)
    axes.set_axisbelow(True)

    blocks = [(index, row) for index, row in enumerate(data.rows) if row.op not in _ENDS]
    kernels = sorted({row.kernel for _, row in blocks})
    handles = []
    # Large kernels first, so that the many cheap rows of small ones stay in sight. All are an image in the SVG too.
    for kernel in reversed(kernels):
        marker, color = kernel_point(kernel)
        for se in (True, False):
            chosen = [index for index, row in blocks if (row.kernel, row.se) == (kernel, se)]
            axes.scatter(
                macs[chosen], ms[chosen], s=26, marker=marker, **_fill(color, se),
                alpha=0.7, zorder=3, rasterized=True,
            )  # fmt: skip
    for kernel in kernels:
        marker, color = kernel_point(kernel)
        label = f"{kernel}×{kernel} kernel"
        handles.append(Line2D([], [], marker=marker, ls="none", ms=8, color=color, label=label))
    handles.append(Line2D([], [], marker="o", ls="none", ms=7, mfc="white", mec=GREY, label="hollow: without SE"))
    handles.append(Line2D([], [], marker="o", ls="none", ms=8, color=GREY, label="filled: with SE"))
    for part, marker in _ENDS.items():
        chosen = [index for index, row in enumerate(data.rows) if row.op == part]
        if chosen:
            axes.scatter(macs[chosen], ms[chosen], s=80, marker=marker, color=INK, edgecolors="white", zorder=4)
            handles.append(Line2D([], [], marker=marker, ls="none", ms=9, color=INK, label=part))
    axes.legend(handles=handles, loc="upper left", frameon=True, framealpha=0.95, edgecolor=PALE)
    _draw_throughputs(axes)
    return figure


def _fill(color: str, se: bool) -> dict[str, Any]:
    """Return the look of a point: filled with SE, hollow without."""
    if se:
        return {"facecolors": color, "edgecolors": "white", "linewidths": 0.4}
    return {"facecolors": "none", "edgecolors": color, "linewidths": 1.0}


def _draw_throughputs(axes: Axes) -> None:
    """Draw lines of equal MACs a second, with their names at the edge of the frame."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for giga in (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000):
        ends = np.array([left, right])
        axes.plot(ends, ends / giga, color=GREY, lw=0.8, ls=":", zorder=1, scalex=False, scaley=False)
        name = f"{giga:g} GMAC/s"
        if low < right / giga < high:
            axes.annotate(
                name, (right, right / giga), (4, 0), textcoords="offset points", va="center", color=GREY, fontsize=9
            )
        elif left * 1.1 < high * giga < right:
            axes.annotate(
                name, (high * giga, high), (0, 4), textcoords="offset points", ha="center", color=GREY, fontsize=9
            )
