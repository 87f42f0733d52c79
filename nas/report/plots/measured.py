"""Show predicted against measured latency, for all networks that were measured whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.report.plots.figure import ReportFigure
from nas.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    new_figure,
    plain_ticks,
    write_in_the_middle,
)
from nas.report.texts import device_text
from nas.runs.reading import Run
from nas.runs.record import POPULATIONS

CAPTION = (
    "Each point is a network that was measured whole, beside what the latency table predicts for it from all other "
    "measurements. Left both times, on the diagonal where they agree; right the error of the prediction, with the mean "
    "error of each population."
)
_MARKERS: dict[str, tuple[str, str]] = {  # by the population: shape and colour
    "found": ("*", VERMILION),
    "finalist": ("P", ORANGE),
    "published": ("D", INK),
    "near-optimal": ("^", BLUE),
    "random": ("o", SKY),
    "anchor": ("s", GREEN),
    "other": ("X", PURPLE),
}
_SIZES = {"*": 110, "D": 20, "X": 26}  # of markers, in square points; others have 24
_SMALLEST_RANGE = 6.0  # percent of error that the right axes show at least


@dataclass(frozen=True, slots=True)
class Population:
    """Networks that were measured for one reason, in normalised milliseconds."""

    name: str
    names: tuple[str, ...]
    spec_ids: tuple[str, ...]
    measured_ms: tuple[float, ...]
    predicted_ms: tuple[float, ...]

    @property
    def errors_percent(self) -> np.ndarray:
        """Return how much too long each prediction is, shape (n,); negative where it is too short."""
        return 100 * (np.array(self.predicted_ms) / np.array(self.measured_ms) - 1)


@dataclass(frozen=True, slots=True)
class MeasuredData:
    """The populations that have networks."""

    title: str
    subtitle: str
    populations: tuple[Population, ...]


def figures(run: Run) -> Iterator[ReportFigure]:
    """Yield the figure of a run."""
    data = measured_data(run)
    yield ReportFigure("measured", "Predicted against measured", CAPTION, partial(draw, data), partial(as_table, data))


# Data -------------------------------------------------------------------------------------------------


def measured_data(run: Run) -> MeasuredData:
    """Collect the networks that logarithmic axes can show, by their populations."""
    rows = run.measured[(run.measured.measured_ms > 0) & (run.measured.predicted_ms > 0)]
    columns = ["name", "spec_id", "measured_ms", "predicted_ms"]
    known = [*POPULATIONS, *sorted(set(rows.population) - set(POPULATIONS))]
    populations = tuple(
        Population(name, *(tuple(those[column].tolist()) for column in columns))
        for name in known
        if len(those := rows[rows.population == name])
    )
    return MeasuredData("Predicted against measured latency", device_text(run), populations)


def as_table(data: MeasuredData) -> pd.DataFrame:
    """Return the networks, one a row."""
    frames = [
        pd.DataFrame(
            {
                "population": one.name,
                "name": one.names,
                "spec_id": one.spec_ids,
                "measured_ms": one.measured_ms,
                "predicted_ms": one.predicted_ms,
                "error_percent": one.errors_percent,
            }
        )
        for one in data.populations
    ]
    columns = ["population", "name", "spec_id", "measured_ms", "predicted_ms", "error_percent"]
    return pd.concat(frames) if frames else pd.DataFrame(columns=columns)


# Drawing ----------------------------------------------------------------------------------------------


def draw(data: MeasuredData) -> Figure:
    """Draw both times on the left, and the error of each prediction on the right."""
    figure = new_figure(6.4)
    figure.suptitle(data.title, x=0.005, ha="left", fontsize=13, fontweight="bold")
    both, errors = figure.subplots(1, 2)
    both.set_title(data.subtitle, fontsize=10.5, fontweight="normal", color=GREY)
    if not data.populations:
        for axes in (both, errors):
            axes.set_xticks([])
            axes.set_yticks([])
        write_in_the_middle(both, "no network was measured whole")
        return figure
    times = np.concatenate([[*one.measured_ms, *one.predicted_ms] for one in data.populations])
    limits = times.min() / 1.2, times.max() * 1.2
    _draw_times(both, data, limits)
    _draw_errors(errors, data, limits)
    figure.legend(handles=_legend(data), loc="outside lower left", ncols=2, frameon=False)
    return figure


def _draw_times(axes: Axes, data: MeasuredData, limits: tuple[float, float]) -> None:
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axes.set_xlabel("measured latency, ms")
    axes.set_ylabel("predicted latency, ms")
    axes.plot(limits, limits, color=GREY, lw=1, zorder=1)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    for one in reversed(data.populations):
        axes.scatter(one.measured_ms, one.predicted_ms, **_look(one.name))


def _draw_errors(axes: Axes, data: MeasuredData, limits: tuple[float, float]) -> None:
    reach = max(_SMALLEST_RANGE, *(1.1 * float(np.abs(one.errors_percent).max()) for one in data.populations))
    axes.set(xscale="log", xlim=limits, ylim=(-reach, reach))
    axes.set_xlabel("measured latency, ms")
    axes.set_ylabel("error of the prediction, %")
    plain_ticks(axes.xaxis)
    axes.axhspan(-5, 5, color=GREY, alpha=0.1, lw=0, zorder=0)
    axes.axhline(0, color=GREY, lw=1, zorder=1)
    axes.annotate(
        "within 5 %", (1, 5), (-4, -3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
        va="top", fontsize=9, color=GREY,
    )  # fmt: skip
    for one in reversed(data.populations):
        axes.scatter(one.measured_ms, one.errors_percent, **_look(one.name))


def _look(population: str) -> dict[str, Any]:
    marker, color = _MARKERS.get(population, _MARKERS["other"])
    order = 4 if population in ("found", "finalist") else 3
    size = _SIZES.get(marker, 24)
    return {"marker": marker, "color": color, "s": size, "edgecolors": "white", "linewidths": 0.5, "zorder": order}


def _legend(data: MeasuredData) -> list[Line2D]:
    handles = []
    for one in data.populations:
        marker, color = _MARKERS.get(one.name, _MARKERS["other"])
        mean = float(np.abs(one.errors_percent).mean())
        label = f"{one.name}: {len(one.measured_ms):,}, mean error {mean:.1f} %"
        handles.append(
            Line2D([], [], marker=marker, ls="none", ms=10 if marker == "*" else 6, color=color, label=label)
        )
    return handles
