"""Draw the fronts of several runs into one figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nas.report.comparison.runs import ComparedRun, Group, RunsComparison
from nas.report.plots.figure import ReportFigure
from nas.report.plots.labels import Label, box_around, pixels_along, place_labels
from nas.report.plots.steps import FrontStyle, corners, draw_front
from nas.report.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, add_title, new_figure, plain_ticks
from nas.runs.record import NetworkResult

CAPTION = (
    "Up and to the left is better. Each stepped line is the front of a run over all its skeletons, with a standard "
    "deviation of its estimates; stars are the networks that the runs found, measured whole, and diamonds are "
    "MobileNetV3, estimated for the same training recipe."
)
REFERENCES = ("mobilenet_v3_large", "mobilenet_v3_small")
TAIL = 0.4  # of the range of the networks' accuracies: fronts are drawn this far below them
STYLES = (
    FrontStyle(BLUE, "-", "o", None),
    FrontStyle(VERMILION, (0, (5, 1.5)), "^", "////"),
    FrontStyle(GREEN, (0, (1, 1)), "s", "\\\\\\\\"),
    FrontStyle(PURPLE, (0, (6, 1.5, 1, 1.5)), "D", "...."),
    FrontStyle(ORANGE, (0, (3, 1, 1, 1, 1, 1)), "v", "||||"),
    FrontStyle(INK, (0, (10, 2)), "P", "----"),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A network that a run found, or MobileNetV3 as the run knows it; percent and normalised milliseconds."""

    label: str
    latency_ms: float
    top1: float
    std: float
    found: bool
    style: FrontStyle


@dataclass(frozen=True, slots=True)
class FrontsData:
    """The runs of a group with their styles, and the networks among them."""

    title: str
    subtitle: str
    images: str
    fronts: tuple[tuple[str, ComparedRun, FrontStyle], ...]  # with the name in the legend
    marks: tuple[Mark, ...]


def figures(comparison: RunsComparison) -> Iterator[ReportFigure]:
    """Yield a figure for each group: "fronts", and "fronts_2", … where there are several."""
    for number, group in enumerate(comparison.groups, 1):
        data = fronts_data(comparison, group)
        name = "fronts" if number == 1 else f"fronts_{number}"
        yield ReportFigure(name, data.title, CAPTION, partial(draw, data), partial(as_table, group))


# Data -------------------------------------------------------------------------------------------------


def fronts_data(comparison: RunsComparison, group: Group) -> FrontsData:
    """Collect the fronts and the networks of a group."""
    places = [comparison.runs.index(run) for run in group.runs]
    styles = [STYLES[place % len(STYLES)] for place in places]
    devices = {run.parts: run.device for run in group.runs}
    names = [
        (comparison.label(run) if len(devices) > 1 else run.name) + ("" if run.proven else " (best trials)")
        for run in group.runs
    ]
    return FrontsData(
        title=f"{group.title} accuracy against latency, {len(group.runs)} run{'s' if len(group.runs) > 1 else ''}",
        subtitle=group.runs[0].device if len(devices) == 1 else f"{len(devices)} devices or runtimes",
        images=group.title,
        fronts=tuple(zip(names, group.runs, styles, strict=True)),
        marks=tuple(
            mark
            for run, style in zip(group.runs, styles, strict=True)
            for mark in _marks(run, style, first=run is group.runs[0], apart=len(devices) > 1)
        ),
    )


def references(run: ComparedRun) -> list[NetworkResult]:
    """Return MobileNetV3-Large and -Small as a run knows them."""
    return [one for one in run.run.record.networks if not one.found and one.name in REFERENCES]


def _marks(run: ComparedRun, style: FrontStyle, first: bool, apart: bool) -> Iterator[Mark]:
    """Yield the networks of a run. Those that were published stand once for each device, or once for all runs."""
    for network in run.found:
        label = f"{run.name}: {run.display_name(network).removeprefix('found ')}"
        yield Mark(label, network.latency_ms, *network.own_estimate, True, style)
    if first or apart:
        for network in references(run):
            label = run.display_name(network) + (f", {run.name}" if apart else "")
            yield Mark(label, network.latency_ms, *network.own_estimate, False, style)


def as_table(group: Group) -> pd.DataFrame:
    """Return the fronts, the found networks and MobileNetV3, one network a row."""
    rows: list[dict[str, object]] = []
    for run in group.runs:
        base: dict[str, object] = {"run": run.name, "device": run.device}
        kind = "front" if run.proven else "best trial"
        for one in run.front:
            place = base | {"kind": kind, "skeleton": one.skeleton, "name": one.spec_id, "variant": one.variant}
            top1 = {"estimated_top1_percent": one.top1, "estimated_std_points": one.std}
            rows.append(place | {"latency_ms": one.latency_ms} | top1 | {"macs": one.macs, "params": one.params})
        for network in (*run.found, *references(run)):
            place = base | {"kind": network.kind, "name": run.display_name(network), "latency_ms": network.latency_ms}
            top1 = dict(zip(("estimated_top1_percent", "estimated_std_points"), network.own_estimate, strict=True))
            if network.found and network.target:
                place["skeleton"] = run.run.result(network.target).target.skeleton
            rows.append(place | top1 | {"macs": network.macs, "params": network.params})
    columns = ["run", "device", "kind", "skeleton", "name", "variant", "latency_ms", "estimated_top1_percent"]
    return pd.DataFrame(rows, columns=[*columns, "estimated_std_points", "macs", "params"])


# Drawing ----------------------------------------------------------------------------------------------


def draw(data: FrontsData) -> Figure:
    """Draw a stepped line a run, stars for found networks, diamonds for published ones."""
    figure = new_figure(7.2)
    axes = figure.add_subplot()
    add_title(axes, data.title, data.subtitle)
    axes.set_xlabel("latency, ms (networks: measured whole; lines: predicted)")
    axes.set_ylabel(f"{data.images} top-1, %")
    axes.set_xscale("log")
    axes.grid(zorder=0)
    axes.set_axisbelow(True)
    _set_frame(axes, data)
    plain_ticks(axes.xaxis)
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    for _, run, style in data.fronts:
        front = run.front
        times, accuracies = [one.latency_ms for one in front], [one.top1 for one in front]
        draw_front(axes, times, accuracies, [one.std for one in front], style, marked=True)
    for mark in data.marks:
        _draw_mark(axes, mark)
    handles = [style.handle(name) for name, _, style in data.fronts]
    handles.append(Line2D([], [], marker="*", ls="none", ms=13, color=GREY, label="found, measured (± std)"))
    handles.append(Line2D([], [], marker="D", ls="none", ms=6, mfc="white", mec=GREY, label="MobileNetV3, estimated"))
    figure.legend(handles=handles, loc="outside lower left", ncols=2 if len(data.fronts) > 2 else 1, frameon=False)
    figure.draw_without_rendering()  # the layout must be final before texts are measured
    _label(axes, data)
    figure.set_layout_engine("none")
    return figure


def _set_frame(axes: Axes, data: FrontsData) -> None:
    """Set limits around the networks and the fronts; beginnings far below all networks are cut off."""
    tops = [mark.top1 for mark in data.marks]
    floor = min(tops) - max(TAIL * (max(tops) - min(tops)), 1.0)
    points = [(one.latency_ms, one.top1) for _, run, _ in data.fronts for one in run.front if one.top1 >= floor]
    points += [(mark.latency_ms, mark.top1 + sign * mark.std) for mark in data.marks for sign in (-1, 1)]
    latency, top1 = np.array(points).T
    margin = max(0.08 * (top1.max() - top1.min()), 0.5)
    axes.set_xlim(latency.min() / 1.4, latency.max() * 1.35)
    axes.set_ylim(top1.min() - margin, top1.max() + margin)


def _draw_mark(axes: Axes, mark: Mark) -> None:
    color = mark.style.color if mark.found else INK
    if mark.found:
        axes.errorbar(mark.latency_ms, mark.top1, mark.std, color=color, capsize=4, lw=1.4, zorder=7, ls="none")
        axes.plot(mark.latency_ms, mark.top1, "*", ms=16, color=color, mec="white", mew=1, zorder=8)
    else:
        axes.plot(mark.latency_ms, mark.top1, "D", ms=6, mfc="white", mec=color, mew=1.5, zorder=6)


def _label(axes: Axes, data: FrontsData) -> None:
    taken = [box_around(axes, mark.latency_ms, mark.top1, 9 if mark.found else 6) for mark in data.marks]
    lines = [
        pixels_along(axes, *corners([one.latency_ms for one in run.front], [one.top1 for one in run.front]))
        for _, run, _ in data.fronts
        if run.front
    ]
    labels = [
        Label(mark.latency_ms, mark.top1, mark.label, mark.style.color if mark.found else INK, bold=mark.found)
        for mark in sorted(data.marks, key=lambda mark: not mark.found)
    ]
    place_labels(axes, labels, taken=taken, lines=np.concatenate([*lines, np.empty((0, 2))]), size=9.5)
