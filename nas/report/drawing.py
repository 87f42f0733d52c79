"""Draws what `nas.report.figures` holds, with matplotlib's objects and none of its global state.

1200 pixels are the width at which the figures are to be read: 12 inches, no text below 8 points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from nas.files import replacing
from nas.report import figures
from nas.report.figures import (
    Bar,
    Box,
    BreakdownFigure,
    DiagramFigure,
    FrontFigure,
    Point,
    TableFigure,
    budget_text,
    role_text,
)
from nas.report.labels import Label, box_around, place_labels, text_size
from nas.runs.reading import kind_of

DPI = 144
SVG_DPI = 100  # of the images in it, which are most of its bytes
WIDTH_INCHES = 12.0
# Okabe and Ito's palette, which keeps its differences for colour-blind eyes.
BLUE, VERMILION, SKY, ORANGE, PURPLE, GREEN = "#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#CC79A7", "#009E73"
INK, GREY, PALE = "#222222", "#6b6b6b", "#eef0f3"
LIGHT = "#a7adb5"  # of a family's many networks
KIND_COLORS = {"large": BLUE, "small": VERMILION}
KERNEL_COLORS = {3: SKY, 5: ORANGE, 7: PURPLE}
OTHER_KERNEL, NO_KERNEL = GREEN, "#b9bec6"
_STYLE: Any = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that figures are the same everywhere
    "font.size": 10,
    "text.parse_math": False,  # names of devices and networks are not formulas
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#e3e6ea",
    "svg.hashsalt": "nas",  # the same figure gives the same file
    "svg.fonttype": "path",
}


def draw(figure: figures.Figure, stem: Path) -> None:
    """Draws a figure to `stem` + ".png" and ".svg". Raises NasError where they cannot be written."""
    with _style():
        match figure:
            case FrontFigure():
                drawn = draw_front(figure)
            case TableFigure():
                drawn = draw_table(figure)
            case BreakdownFigure():
                drawn = draw_breakdown(figure)
            case DiagramFigure():
                drawn = draw_diagram(figure)
        # Not with_suffix: "large_1.1ms" has none.
        with replacing(stem.with_name(f"{stem.name}.png")) as side:
            drawn.savefig(side, format="png", metadata={"Software": None})
        with replacing(stem.with_name(f"{stem.name}.svg")) as side:
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            drawn.savefig(side, format="svg", dpi=SVG_DPI, metadata=nothing)


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib's defaults and the style above, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _figure(height_inches: float, width_inches: float = WIDTH_INCHES) -> Figure:
    figure = Figure(figsize=(width_inches, height_inches), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _title(axes: Axes, title: str, subtitle: str) -> None:
    """Above the axes, with room for the names of what leaves their upper edge."""
    axes.set_title(title, pad=44)
    axes.annotate(
        subtitle, (0, 1), (0, 27), xycoords="axes fraction", textcoords="offset points", fontsize=10.5, color=GREY
    )


def _plain_ticks(axis: Any) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis, written out, and more of them where it is short."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 20 else (1, 1.5, 2, 3, 4, 5, 7)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _say_nothing_here(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=12, color=GREY)


# Accuracy against latency -----------------------------------------------------------------------------


def draw_front(data: FrontFigure) -> Figure:
    figure = _figure(8.2)
    axes = figure.add_subplot()
    _title(axes, data.title, data.subtitle)
    axes.set_xlabel("latency, ms (found and published networks: measured whole; trials: the table's prediction)")
    axes.set_ylabel("ImageNet top-1, %")
    axes.set_xscale("log")
    axes.grid(zorder=0)
    axes.set_axisbelow(True)
    (left, right), (low, high) = _frame(data)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    _plain_ticks(axes.xaxis)
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))

    for trials in data.trials:
        color = KIND_COLORS[trials.role]
        # Thousands of dots are an image, in the SVG too.
        axes.scatter(
            trials.latency_ms, trials.top1, s=9, color=color, alpha=0.22, linewidths=0, zorder=2, rasterized=True
        )
        axes.step(trials.front_latency_ms, trials.front_top1, where="post", color=color, lw=1.8, zorder=3)
    for point in data.points:
        if point.role:
            _draw_found(axes, point)
        else:
            _draw_published(axes, point)
    # Below the axes, where it covers nothing.
    figure.legend(handles=_front_legend(data), loc="outside lower left", ncols=2, frameon=False)

    figure.draw_without_rendering()  # the layout must be final before texts are measured
    _draw_budgets(axes, data)
    _label_front(axes, data)
    figure.set_layout_engine("none")
    return figure


def _draw_found(axes: Axes, point: Point) -> None:
    color, x, y = _point_color(point), point.latency_ms, point.estimated_top1
    axes.errorbar(x, y, point.estimated_std, color=color, capsize=4, lw=1.4, zorder=7, ls="none")
    axes.plot(x, y, "*", ms=19, color=color, mec="white", mew=1, zorder=8)


def _draw_published(axes: Axes, point: Point) -> None:
    """A diamond as published, a dot as estimated, and a line between the two of a network that has a name."""
    x, y = point.latency_ms, point.estimated_top1
    size, order = (3.5, 4) if point.of_family else (5.5, 6.5)  # seen in its own diamond too
    axes.plot(x, y, "o", ms=size, color=GREY, mec="white", mew=0.4, zorder=order)
    if point.published_top1 is None:
        return
    if point.label:
        axes.plot([x, x], [y, point.published_top1], color=GREY, lw=0.9, zorder=3.5)
    style = _FAMILY_DIAMOND if point.of_family else _DIAMOND
    axes.plot(x, point.published_top1, zorder=5 if point.of_family else 6, **style)


_DIAMOND: Any = {"marker": "D", "ls": "none", "ms": 7, "mfc": "white", "mec": INK, "mew": 1.5}
_FAMILY_DIAMOND: Any = {**_DIAMOND, "ms": 5, "mec": LIGHT, "mew": 1.2}


def _point_color(point: Point) -> str:
    return KIND_COLORS.get(kind_of(point.role or ""), INK)


def _label_top1(point: Point) -> float:
    """Where a point's name points to."""
    return point.estimated_top1 if point.published_top1 is None else point.published_top1


def _reach(point: Point) -> tuple[float, float]:
    """Lowest and highest top-1 of what is drawn of a point."""
    std = point.estimated_std if point.role else 0.0
    low, high = point.estimated_top1 - std, point.estimated_top1 + std
    return min(low, _label_top1(point)), max(high, _label_top1(point))


def _frame(data: FrontFigure) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits around what was measured, with the fronts above it; the cloud's long tail is cut."""
    latency = [point.latency_ms for point in data.points]
    right = max(latency)
    # A budget far beyond everything would squeeze all else into a corner: it is named at the edge instead.
    right = max([right, *(b.latency_ms for b in data.budgets if b.latency_ms <= 2 * right)])
    low = min(_reach(point)[0] for point in data.points)
    high = max(_reach(point)[1] for point in data.points)
    for trials in data.trials:
        high = max(
            [high, *(a for ms, a in zip(trials.front_latency_ms, trials.front_top1, strict=True) if ms <= right)]
        )
    margin = max(0.08 * (high - low), 0.5)
    return (min(latency) / 1.5, right * 1.35), (low - 2 * margin, high + 1.5 * margin)


def _front_legend(data: FrontFigure) -> list[Line2D]:
    found = Line2D(
        [], [], marker="*", ls="none", ms=15, color=GREY, label="found: measured, accuracy estimated (± std)"
    )
    handles = [found]
    published = [point for point in data.points if not point.role]
    family = sum(point.of_family for point in published)
    if len(published) > family:
        handles.append(Line2D([], [], **_DIAMOND, label="published: measured, accuracy as published"))
    if family:
        handles.append(Line2D([], [], **_FAMILY_DIAMOND, label=f"Once-for-All, {family} networks"))
    if published:
        name = "same network estimated at the run's training effort: compare stars with this"
        handles.append(Line2D([], [], marker="o", ls="none", ms=5.5, color=GREY, label=name))
    for trials in data.trials:
        if trials.latency_ms:
            count = f"{len(trials.latency_ms):,}"
            name = f"{role_text(trials.role)}: {count} trials and their front, predicted and estimated"
            color = KIND_COLORS[trials.role]
            handles.append(Line2D([], [], marker="o", ms=4, color=color, mfc=color, alpha=0.8, label=name))
    return handles


def _draw_budgets(axes: Axes, data: FrontFigure) -> None:
    """Vertical lines with their names above the frame; two that are close lean away from each other."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    right = axes.get_xlim()[1]
    budgets = sorted(data.budgets, key=lambda budget: budget.latency_ms)
    texts = []
    for budget in budgets:
        beyond = budget.latency_ms > right
        kind = kind_of(budget.role)
        named = f"budget of {role_text(kind)}: " if len(budgets) <= 2 else ""  # more names than that have no room
        name = f"{named}{budget_text(budget.latency_ms)} ms" + (" →" if beyond else "")
        x = min(budget.latency_ms, right)
        if not beyond:
            axes.axvline(x, color=KIND_COLORS[kind], lw=1.4, ls=(0, (6, 3)), zorder=1.5)
        pixel = float(axes.transData.transform((x, axes.get_ylim()[0]))[0])
        texts.append((name, pixel, text_size(axes, name, 10)[0], KIND_COLORS[kind]))
    frame = axes.get_window_extent()
    spans: list[list[float]] = []
    for _, pixel, width, _ in texts:
        start = min(max(pixel - width / 2, frame.x0), frame.x1 - width)
        spans.append([start, start + width])
    if len(spans) == 2 and spans[0][1] + 12 > spans[1][0]:
        middle = (texts[0][1] + texts[1][1]) / 2
        middle = min(max(middle, frame.x0 + texts[0][2] + 6), frame.x1 - texts[1][2] - 6)
        spans = [[middle - 6 - texts[0][2], middle - 6], [middle + 6, middle + 6 + texts[1][2]]]
    for (name, _, _, color), (start, _) in zip(texts, spans, strict=True):
        x = (start - frame.x0) / frame.width
        axes.text(x, 1.012, name, transform=axes.transAxes, color=color, fontsize=10, va="bottom")


def _label_front(axes: Axes, data: FrontFigure) -> None:
    taken = []
    for point in data.points:
        x = point.latency_ms
        if point.role:
            bottom, top = (axes.transData.transform((x, y)) for y in _reach(point))
            taken.append(Bbox.from_extents(bottom[0] - 8, bottom[1] - 2, top[0] + 8, top[1] + 2))
        taken.append(box_around(axes, x, point.estimated_top1, 9 if point.role else 3))
        if point.published_top1 is not None:
            taken.append(box_around(axes, x, point.published_top1, 4 if point.of_family else 6))
    lines = [
        _dense(axes, np.repeat(trials.front_latency_ms, 2)[1:], np.repeat(trials.front_top1, 2)[:-1])
        for trials in data.trials
        if trials.front_latency_ms
    ]
    lines += [_dense(axes, [b.latency_ms] * 2, axes.get_ylim()) for b in data.budgets]
    lines += [_dense(axes, [p.latency_ms] * 2, _reach(p)) for p in data.points if p.label and not p.role]
    # The found ones choose first, a family's last.
    points = sorted(data.points, key=lambda point: (point.role is None, point.of_family))
    labels = [
        Label(p.latency_ms, _label_top1(p), p.label, _point_color(p), bold=bool(p.role), optional=p.of_family)
        for p in points
        if p.label
    ]
    place_labels(axes, labels, taken=taken, lines=np.concatenate(lines), size=10)


def _dense(axes: Axes, x: Any, y: Any) -> np.ndarray:
    """Pixels along a line, a few apart, shape (n, 2)."""
    corners = axes.transData.transform(np.column_stack([x, y]))
    along = np.arange(len(corners))
    fine = np.linspace(0, len(corners) - 1, max(400, 4 * len(corners)))
    return np.column_stack([np.interp(fine, along, corners[:, 0]), np.interp(fine, along, corners[:, 1])])


# The latency table ------------------------------------------------------------------------------------


def _kernel_color(kernel: int) -> str:
    return KERNEL_COLORS.get(kernel, OTHER_KERNEL)


def draw_table(data: TableFigure) -> Figure:
    figure = _figure(6.6)
    axes = figure.add_subplot()
    _title(axes, data.title, data.subtitle)
    axes.set_xlabel("million multiply-accumulates of the row")
    axes.set_ylabel("ms of the row")
    if not data.rows:
        axes.set_xticks([])
        axes.set_yticks([])
        _say_nothing_here(axes, "this run used no rows of the table")
        return figure
    axes.set_xscale("log")
    axes.set_yscale("log")
    macs = np.array([row.macs for row in data.rows]) / 1e6
    ms = np.array([row.ms for row in data.rows])
    axes.set_xlim(macs.min() / 1.3, macs.max() * 1.3)
    axes.set_ylim(ms.min() / 1.3, ms.max() * 1.3)
    _plain_ticks(axes.xaxis)
    _plain_ticks(axes.yaxis)
    axes.grid(zorder=0)
    axes.set_axisbelow(True)

    kernels = sorted({row.kernel for row in data.rows if row.op not in ("stem", "head")})
    handles = []
    # Large kernels first, so that the many cheap rows of small ones stay in sight. All are an image in the SVG too.
    for kernel in reversed(kernels):
        for se, marker in ((False, "o"), (True, "^")):
            chosen = [
                i for i, r in enumerate(data.rows) if r.op not in ("stem", "head") and (r.kernel, r.se) == (kernel, se)
            ]
            axes.scatter(
                macs[chosen], ms[chosen], s=26, marker=marker, color=_kernel_color(kernel), alpha=0.65,
                edgecolors="white", linewidths=0.4, zorder=3, rasterized=True,
            )  # fmt: skip
    for kernel in kernels:
        label = f"{kernel}×{kernel} kernel"
        handles.append(Line2D([], [], marker="s", ls="none", ms=9, color=_kernel_color(kernel), label=label))
    handles.append(Line2D([], [], marker="o", ls="none", ms=7, color=GREY, label="without SE"))
    handles.append(Line2D([], [], marker="^", ls="none", ms=8, color=GREY, label="with SE"))
    for part, marker in (("stem", "P"), ("head", "X")):
        chosen = [i for i, row in enumerate(data.rows) if row.op == part]
        if chosen:
            axes.scatter(macs[chosen], ms[chosen], s=80, marker=marker, color=INK, edgecolors="white", zorder=4)
            handles.append(Line2D([], [], marker=marker, ls="none", ms=9, color=INK, label=part))
    axes.legend(handles=handles, loc="upper left", frameon=True, framealpha=0.95, edgecolor=PALE)
    _draw_throughputs(axes)
    return figure


def _draw_throughputs(axes: Axes) -> None:
    """Lines of equal MACs a second, named where they leave the frame."""
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


# Where the milliseconds go ----------------------------------------------------------------------------


def draw_breakdown(data: BreakdownFigure) -> Figure:
    heights = [max(1, len(bars)) for _, bars in data.panels]
    figure = _figure(1.3 + sum(0.85 * height + 0.75 for height in heights))
    figure.suptitle(data.title, x=0.005, ha="left", fontsize=13, fontweight="bold")
    all_axes = figure.subplots(len(heights), 1, height_ratios=[0.85 * h + 0.75 for h in heights], squeeze=False)[:, 0]
    for axes, (title, bars) in zip(all_axes, data.panels, strict=True):
        axes.set_title(title, fontsize=11, fontweight="normal", color=GREY)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("ms")
        if not bars:
            axes.set_yticks([])
            axes.set_xticks([])
            _say_nothing_here(axes, "the table has no rows for these networks")
            continue
        axes.set_xlim(0, 1.1 * max(bar.total_ms for bar in bars))
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.tick_params(axis="y", length=0, labelsize=11)
    figure.draw_without_rendering()
    for axes, (_, bars) in zip(all_axes, data.panels, strict=True):
        for row, bar in enumerate(bars):
            _draw_bar(axes, row, bar)
    figure.set_layout_engine("none")
    return figure


def _draw_bar(axes: Axes, row: int, bar: Bar) -> None:
    pixels_a_ms = axes.get_window_extent().width / axes.get_xlim()[1]
    start = 0.0
    for segment in bar.segments:
        color, ink = _part_colors(segment.part)
        axes.barh(row, segment.ms, left=start, height=0.72, color=color, edgecolor="white", lw=1.2)
        upright, turned = f"{segment.part}\n{segment.ms:.2f}", f"{segment.part} {segment.ms:.2f}"
        width = segment.ms * pixels_a_ms
        for text, rotation, needed in (
            (upright, 0, text_size(axes, upright, 9)[0] + 4),
            (turned, 90, text_size(axes, turned, 9)[1] + 4),
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
    """Colour of a part and of the text on it: grey for the ends, darker stage by stage between them."""
    if part in ("stem", "head"):
        return "#c9cdd3", INK
    words = part.split()
    stage = int(words[1]) if words[0] == "stage" else 0
    shade = mpl.colormaps["YlGnBu"](min(0.2 + 0.14 * stage, 1.0))
    return mpl.colors.to_hex(shade), "white" if stage >= 3 else INK


# Architecture diagrams --------------------------------------------------------------------------------

_ROWS = ("block", "expanded", "out", "SE", "h-swish", "residual", "µs")


def draw_diagram(data: DiagramFigure) -> Figure:
    """Left to right, as data flows: height is the channels, the narrow bands are what blocks hand on."""
    columns = len(data.boxes)
    margin = 1.75  # of columns, for the names of the rows
    figure = _figure(6.0, max(WIDTH_INCHES, 0.46 * (columns + margin)))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.008, 0.01, 0.984, 0.98))
    axes.set_axis_off()
    axes.set_xlim(-margin, columns + 0.1)
    axes.set_ylim(-3.65, 4.75)
    axes.text(-margin + 0.05, 4.62, data.title, fontsize=13, fontweight="bold", va="top")
    axes.text(-margin + 0.05, 4.2, data.subtitle, fontsize=10.5, va="top", color=GREY)
    widest = max(box.inner for box in data.boxes)

    def height(channels: int) -> float:
        """By the square root, so that 16 channels can be seen beside 960."""
        return 2.9 * (channels / widest) ** 0.5

    _draw_bands(axes, data, columns)
    center = 1.62
    for column, box in enumerate(data.boxes):
        out = height(box.out) / 2
        if column + 1 < columns:
            band = Rectangle((column + 0.83, center - out), 0.34, 2 * out, color="#cfd4da", zorder=2, lw=0)
            axes.add_patch(band)
        inner = height(box.inner)
        axes.add_patch(
            FancyBboxPatch(
                (column + 0.17, center - inner / 2), 0.66, inner, boxstyle="round,pad=0,rounding_size=0.07",
                fc=_box_color(box), ec="white", lw=1.2, zorder=3, mutation_aspect=0.6,
            )
        )  # fmt: skip
        text = f"{box.kernel}×{box.kernel}" if box.kernel > 1 else box.name
        axes.text(column + 0.5, center, text, ha="center", va="center", fontsize=9, fontweight="bold", zorder=4)
    _draw_strip(axes, data)
    return figure


def _box_color(box: Box) -> str:
    return _kernel_color(box.kernel) if box.kernel > 1 else NO_KERNEL


def _draw_bands(axes: Axes, data: DiagramFigure, columns: int) -> None:
    """Behind the blocks, one band a size of the feature map; an arrow where a stride halves it."""
    axes.text(-0.12, 3.42, "feature map", ha="right", va="center", fontsize=9, color=GREY)
    start, shaded = 0, False
    for column in range(1, columns + 1):
        if column < columns and data.boxes[column].size == data.boxes[start].size:
            continue
        size = data.boxes[start].size
        axes.add_patch(
            Rectangle((start, -3.6), column - start, 7.2, color=PALE if shaded else "#f8f9fb", zorder=0, lw=0)
        )
        axes.text((start + column) / 2, 3.42, f"{size}²", ha="center", va="center", fontsize=9.5, color=INK)
        start, shaded = column, not shaded
    for column, box in enumerate(data.boxes):
        if box.stride > 1:
            axes.add_patch(
                Polygon([(column - 0.1, 3.62), (column + 0.1, 3.62), (column, 3.5)], color=INK, zorder=4, lw=0)
            )
            axes.text(column, 3.66, f"÷{box.stride}", ha="center", va="bottom", fontsize=8, color=INK)


def _draw_strip(axes: Axes, data: DiagramFigure) -> None:
    """The numbers under each box, one row a property."""
    boxes = data.boxes
    known_ms = any(box.ms is not None for box in boxes)
    for row, name in enumerate(_ROWS if known_ms else _ROWS[:-1]):
        y = -0.2 - 0.52 * row
        axes.text(-0.12, y, name, ha="right", va="center", fontsize=9, color=GREY)
        for column, box in enumerate(boxes):
            text, color = _cell(name, box)
            if text == "●":
                axes.plot(column + 0.5, y, "o", ms=8, color=color, zorder=4)
            elif text:
                axes.text(column + 0.5, y, text, ha="center", va="center", fontsize=8.5, color=color, zorder=4)


def _cell(row: str, box: Box) -> tuple[str, str]:
    match row:
        case "block":
            return (box.name if box.kernel > 1 else ""), GREY
        case "expanded":
            return (str(box.inner) if box.name.isdecimal() else ""), INK
        case "out":
            return str(box.out), INK
        case "SE":
            return ("●" if box.se else ""), GREEN
        case "h-swish":
            return ("●" if box.activation == "hswish" else ""), BLUE
        case "residual":
            return ("+" if box.residual else ""), INK
        case _:
            return (f"{1000 * box.ms:.0f}" if box.ms is not None else ""), INK
