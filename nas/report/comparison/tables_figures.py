"""Draw what two latency tables have in common: networks, and kinds of blocks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.report.comparison.tables import NetworkRow, TablesView
from nas.report.plots.figure import ReportFigure
from nas.report.plots.labels import Label, box_around, place_labels
from nas.report.plots.style import BLUE, GREEN, GREY, INK, VERMILION, new_figure, plain_ticks, write_in_the_middle

NETWORKS_CAPTION = (
    "Each point is a network. Left its time on both devices, as a share of the reference network's there; right by how "
    "much longer the second device takes than one expects who knows its time on the first, and the reference network's "
    "on both. Filled points were measured whole on both, hollow "
    "ones are predicted by both tables."
)
BLOCKS_CAPTION = (
    "Left the relative time of the blocks that both tables have a row of, by kind: median and quartiles; right of the "
    "line the second device is slower than the first lets expect. Right what a choice adds to the time of a block in "
    "which nothing else changes, as a median, on both devices."
)
NAMED = 4  # networks that are relatively fastest, and as many that are slowest
_SOURCES = {  # with shape, colour and words
    "published": ("D", INK, "published"),
    "measured": ("s", GREEN, "measured on both"),
    "member": ("o", BLUE, "random, of the search spaces"),
}
_DEVICES = (("o", BLUE, "white"), ("^", VERMILION, VERMILION))  # shape, edge, face: hollow and filled


def figures(view: TablesView) -> Iterator[ReportFigure]:
    """Yield the figure of networks and that of blocks."""
    yield ReportFigure(
        "networks", view.title, NETWORKS_CAPTION, partial(draw_networks, view), partial(networks_table, view)
    )
    title = f"Blocks on {view.names[0]} and {view.names[1]}"
    yield ReportFigure("blocks", title, BLOCKS_CAPTION, partial(draw_blocks, view, title), partial(blocks_table, view))


# Data -------------------------------------------------------------------------------------------------


def networks_table(view: TablesView) -> pd.DataFrame:
    """Return the networks, one a row."""
    first, second = view.names
    rows = [
        {
            "name": row.name,
            "spec_id": row.spec_id,
            "resolution_px": row.resolution,
            "source": row.source,
            "latency": "measured" if row.measured else "predicted",
            "first_device": first,
            "second_device": second,
            "first_ms": row.ms[0],
            "second_ms": row.ms[1],
            "first_share_of_reference": row.shares[0],
            "second_share_of_reference": row.shares[1],
            "first_rank": row.ranks[0],
            "second_rank": row.ranks[1],
            "relative_time": row.relative,
        }
        for row in view.rows
    ]
    return pd.DataFrame(rows)


def blocks_table(view: TablesView) -> pd.DataFrame:
    """Return the kinds of blocks and the prices of choices, one a row."""
    first, second = view.names
    devices = {"first_device": first, "second_device": second}
    rows: list[dict[str, object]] = []
    for kind in view.comparison.kinds:
        low, median, high = kind.quartiles
        quartiles = {"relative_time_q1": low, "relative_time_median": median, "relative_time_q3": high}
        rows.append(devices | {"of": kind.decision, "name": kind.name, "blocks": kind.blocks} | quartiles)
    for price in view.comparison.prices:
        added = {"first_added_percent": 100 * price.added[0], "second_added_percent": 100 * price.added[1]}
        rows.append(devices | {"of": "choice", "name": price.name, "blocks": price.pairs} | added)
    columns = [*devices, "of", "name", "blocks", "relative_time_q1", "relative_time_median", "relative_time_q3"]
    return pd.DataFrame(rows, columns=[*columns, "first_added_percent", "second_added_percent"])


# Drawing: networks ------------------------------------------------------------------------------------


def draw_networks(view: TablesView) -> Figure:
    """Draw both times on the left, and the relative time on the right."""
    figure = new_figure(6.6)
    figure.suptitle(view.title, x=0.005, ha="left", fontsize=13, fontweight="bold")
    both, relative = figure.subplots(1, 2)
    spearman, kendall = view.comparison.spearman, view.comparison.kendall
    if spearman is not None and kendall is not None:
        note = f"{len(view.rows)} networks: Spearman {spearman:.3f}, Kendall {kendall:.3f}"
        both.set_title(note, fontsize=10.5, fontweight="normal", color=GREY)
    first, second = view.names
    for axes in (both, relative):
        axes.set_xlabel(_wrapped(f"time on {first}\n(reference network: 1)"))
        axes.grid(zorder=0)
        axes.set_axisbelow(True)
    both.set_ylabel(_wrapped(f"time on {second}\n(reference network: 1)"))
    relative.set_ylabel(_wrapped(f"longer on {second} than expected, %"))
    if not view.rows:
        for axes in (both, relative):
            axes.set_xticks([])
            axes.set_yticks([])
        write_in_the_middle(both, "both tables know no network")
        return figure
    shares = np.array([row.shares for row in view.rows])
    limits = shares.min() / 1.2, shares.max() * 1.2
    both.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    both.plot(limits, limits, color=GREY, lw=1, zorder=1)
    relative.set(xscale="log", xlim=limits)
    relative.axhline(0, color=GREY, lw=1, zorder=1)
    for axis in (both.xaxis, both.yaxis, relative.xaxis):
        plain_ticks(axis)
    for source, measured in _groups(view.rows):
        chosen = [row for row in view.rows if (row.source, row.measured) == (source, measured)]
        _draw_points(both, relative, chosen, source, measured)
    figure.legend(handles=_legend(view.rows), loc="outside lower left", ncols=3, frameon=False)
    figure.draw_without_rendering()  # the layout must be final before texts are measured
    _name_extremes(relative, view)
    figure.set_layout_engine("none")
    return figure


def _name_extremes(axes: Axes, view: TablesView) -> None:
    """Write the names of the published networks that differ most, where there is room."""
    published = [row for row in view.rows if row.source == "published"]
    extremes = dict.fromkeys([*published[:NAMED], *published[: -NAMED - 1 : -1]])
    labels = [
        Label(row.shares[0], row.difference_percent, f"{row.name}, {row.resolution} px", INK, optional=True)
        for row in extremes
    ]
    taken = [box_around(axes, row.shares[0], row.difference_percent, 4) for row in view.rows]
    place_labels(axes, labels, taken=taken, lines=np.empty((0, 2)), size=8.5)


def _groups(rows: list[NetworkRow]) -> list[tuple[str, bool]]:
    """Return the sources of the networks, each measured and predicted, those that are drawn first first."""
    present = {(row.source, row.measured) for row in rows}
    order = [(source, measured) for source in reversed(_SOURCES) for measured in (False, True)]
    return [one for one in order if one in present]


def _draw_points(both: Axes, relative: Axes, rows: list[NetworkRow], source: str, measured: bool) -> None:
    marker, color, _ = _SOURCES[source]
    x = [row.shares[0] for row in rows]
    for axes, y in ((both, [row.shares[1] for row in rows]), (relative, [row.difference_percent for row in rows])):
        axes.scatter(x, y, marker=marker, s=26, facecolors=color if measured else "none", edgecolors=color, zorder=3)


def _legend(rows: list[NetworkRow]) -> list[Line2D]:
    handles = []
    for source, measured in reversed(_groups(rows)):
        marker, color, words = _SOURCES[source]
        number = sum((row.source, row.measured) == (source, measured) for row in rows)
        label = f"{words}, {'measured' if measured else 'predicted'}: {number}" if source != "measured" else words
        face = color if measured else "white"
        handles.append(Line2D([], [], marker=marker, ls="none", ms=6, mec=color, mfc=face, label=label))
    return handles


def _wrapped(text: str) -> str:
    """Return the label of an axis in lines that fit beside it."""
    return "\n".join(textwrap.fill(line, 46) for line in text.split("\n"))


# Drawing: blocks --------------------------------------------------------------------------------------


def draw_blocks(view: TablesView, title: str) -> Figure:
    """Draw the kinds of blocks on the left, and the prices of choices on the right."""
    kinds, prices = view.comparison.kinds, view.comparison.prices
    figure = new_figure(max(4.5, 1.6 + 0.3 * len(kinds)))
    figure.suptitle(title, x=0.005, ha="left", fontsize=13, fontweight="bold")
    left, right = figure.subplots(1, 2, width_ratios=(1, 0.9))
    _draw_kinds(left, view)
    right.set_xlabel("median time added to a block, %")
    right.axvline(0, color=GREY, lw=1, zorder=1)
    for row, price in enumerate(prices):
        right.plot([100 * share for share in price.added], [row, row], color=GREY, lw=1, zorder=2)
        for share, (marker, edge, face) in zip(price.added, _DEVICES, strict=True):
            right.plot(100 * share, row, marker, ms=8, mec=edge, mfc=face, mew=1.5, zorder=3)
    right.set_yticks(range(len(prices)), [f"{price.name} ({price.pairs:,})" for price in prices])
    right.set_ylim(max(1, len(prices)) - 0.5, -0.5)
    right.grid(axis="x")
    handles = [
        Line2D([], [], marker=marker, ls="none", ms=8, mec=edge, mfc=face, mew=1.5, label=name)
        for name, (marker, edge, face) in zip(view.names, _DEVICES, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=1, frameon=False)
    return figure


def _draw_kinds(axes: Axes, view: TablesView) -> None:
    kinds = view.comparison.kinds
    axes.set_xlabel(_wrapped(f"time on {view.names[1]} relative to that on {view.names[0]}\n(reference network: 1)"))
    axes.axvline(1, color=GREY, lw=1, zorder=1)
    places, before, place = [], None, -1.0
    for kind in kinds:
        place += 1 if kind.decision == before else 1.6  # a gap between decisions
        places.append(place)
        before = kind.decision
    for place, kind in zip(places, kinds, strict=True):
        low, median, high = kind.quartiles
        axes.plot([low, high], [place, place], color=GREY, lw=2, zorder=2)
        axes.plot(median, place, "o", ms=7, color=INK, zorder=3)
    axes.set_yticks(places, [f"{_kind_name(kind.decision, kind.name)} ({kind.blocks:,})" for kind in kinds])
    axes.set_ylim(max(places, default=0) + 0.7, -0.1)
    axes.grid(axis="x")


def _kind_name(decision: str, name: str) -> str:
    """Return a kind as it is called where its decision does not stand beside it."""
    return {"kernel": f"kernel {name}", "map": f"map of {name}"}.get(decision, name)
