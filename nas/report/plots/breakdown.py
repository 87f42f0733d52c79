"""Show where the milliseconds go: a bar a network, a segment a stage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.report.plots.figure import ReportFigure
from nas.report.plots.labels import text_size
from nas.report.plots.style import GREY, INK, new_figure, write_in_the_middle
from nas.report.texts import display_name
from nas.runs.reading import Run
from nas.runs.record import RECORD, NetworkResult

CAPTION = (
    "The table's rows added up by stage, for the networks found and, where the table has all their rows, the "
    "published ones of the same size."
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a network and its time by the latency table."""

    part: str  # "stem", "first", "stage 1", ..., "head"
    ms: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A network."""

    label: str
    segments: tuple[Segment, ...]

    @property
    def total_ms(self) -> float:
        """Return the time of the whole network by the latency table."""
        return sum(segment.ms for segment in self.segments)


@dataclass(frozen=True, slots=True)
class BreakdownData:
    """One panel a target, with its title: the found network and the published one of its size."""

    title: str
    panels: tuple[tuple[str, tuple[Bar, ...]], ...]


def figures(run: Run) -> Iterator[ReportFigure]:
    """Yield the figure of a run."""
    data = breakdown_data(run)
    yield ReportFigure("breakdown", "Where the milliseconds go", CAPTION, partial(draw, data), partial(as_table, data))


# Data -------------------------------------------------------------------------------------------------


def breakdown_data(run: Run) -> BreakdownData:
    """Collect the bars. Raises NasError for a breakdown that is of another network."""
    panels = []
    for result in run.record.targets:
        target = result.target
        published = [n for n in run.record.networks if not n.found and n.name == f"mobilenet_v3_{target.skeleton}"]
        bars = tuple(
            Bar(display_name(run, network), _segments(network))
            for network in (run.found(target.name), *published)
            if network.breakdown
        )
        panels.append((target.title, bars))
    return BreakdownData("Where the milliseconds go, by the latency table", tuple(panels))


def _segments(network: NetworkResult) -> tuple[Segment, ...]:
    """Return the breakdown summed by part; rows that are no blocks keep their names."""
    blocks = iter(_stage_names(network.spec))
    parts = []
    for name, ms in network.breakdown:
        part = next(blocks, None) if name.startswith("block") else name
        if part is None:
            raise NasError(
                f"{RECORD}: the breakdown of {network.name} has more blocks than its spec "
                f"({len(network.spec.blocks)}); restore the file"
            )
        parts.append((part, ms))
    grouped = itertools.groupby(parts, key=lambda row: row[0])
    return tuple(Segment(part, sum(ms for _, ms in rows)) for part, rows in grouped)


def _stage_names(spec: ArchSpec) -> Iterator[str]:
    """Yield the stage of each block, counted as in a space: the fixed first block, then a stage at every change."""
    stage = -1
    for placed in spec.walk():
        if stage < 0 or placed.block.stride > 1 or placed.block.out != placed.in_channels:
            stage += 1
        yield f"stage {stage}" if stage else "first"


def as_table(data: BreakdownData) -> pd.DataFrame:
    """Return the segments, one a row."""
    rows = [
        {"target": title, "network": bar.label, "part": segment.part, "time_ms": segment.ms}
        for title, bars in data.panels
        for bar in bars
        for segment in bar.segments
    ]
    return pd.DataFrame(rows, columns=["target", "network", "part", "time_ms"])


# Drawing ----------------------------------------------------------------------------------------------


def draw(data: BreakdownData) -> Figure:
    """Draw one panel below the other, all bars equally high."""
    heights = [max(1, len(bars)) for _, bars in data.panels]
    figure = new_figure(1.3 + sum(0.85 * height + 0.75 for height in heights))
    figure.suptitle(data.title, x=0.005, ha="left", fontsize=13, fontweight="bold")
    all_axes = figure.subplots(len(heights), 1, height_ratios=[0.85 * h + 0.75 for h in heights], squeeze=False)[:, 0]
    for axes, (title, bars) in zip(all_axes, data.panels, strict=True):
        axes.set_title(title, fontsize=11, fontweight="normal", color=GREY)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("ms")
        if not bars:
            axes.set_yticks([])
            axes.set_xticks([])
            write_in_the_middle(axes, "the table has no rows for these networks")
            continue
        axes.set_xlim(0, 1.1 * max(bar.total_ms for bar in bars))
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.tick_params(axis="y", length=0, labelsize=11)
    figure.draw_without_rendering()  # the layout must be final before texts are measured
    for axes, (_, bars) in zip(all_axes, data.panels, strict=True):
        for row, bar in enumerate(bars):
            _draw_bar(axes, row, bar)
    figure.set_layout_engine("none")
    return figure


def _draw_bar(axes: Axes, row: int, bar: Bar) -> None:
    """Draw a bar; a segment is named, if need be upright, where it has room for its name."""
    pixels_a_ms = axes.get_window_extent().width / axes.get_xlim()[1]
    start = 0.0
    for segment in bar.segments:
        color, ink = _part_colors(segment.part)
        axes.barh(row, segment.ms, left=start, height=0.72, color=color, edgecolor="white", lw=1.2)
        level, upright = f"{segment.part}\n{segment.ms:.2f}", f"{segment.part} {segment.ms:.2f}"
        width = segment.ms * pixels_a_ms
        for text, rotation, needed in (
            (level, 0, text_size(axes, level, 9)[0] + 4),
            (upright, 90, text_size(axes, upright, 9)[1] + 4),
        ):
            if needed < width:
                axes.text(
                    start + segment.ms / 2, row, text, ha="center", va="center", fontsize=9, color=ink,
                    rotation=rotation,
                )  # fmt: skip
                break
        start += segment.ms
    axes.annotate(
        f"{bar.total_ms:.2f} ms", (start, row), (6, 0), textcoords="offset points", va="center", fontsize=10,
        fontweight="bold",
    )  # fmt: skip


def _part_colors(part: str) -> tuple[str, str]:
    """Return the colours of a part and of the text on it: grey for the ends, darker stage by stage between them."""
    if part in ("stem", "head"):
        return "#c9cdd3", INK
    words = part.split()
    stage = int(words[1]) if words[0] == "stage" else 0
    shade = mpl.colormaps["YlGnBu"](min(0.2 + 0.14 * stage, 1.0))
    return mpl.colors.to_hex(shade), "white" if stage >= 3 else INK
