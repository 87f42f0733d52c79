"""Show a found network block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from nas.arch.spec import ArchSpec, BlockSpec
from nas.report.plots.figure import ReportFigure
from nas.report.plots.style import BLUE, GREEN, GREY, INK, PALE, WIDTH_INCHES, kernel_color, new_figure
from nas.report.texts import display_name
from nas.runs.reading import Run

CAPTION = (
    "A box is a block, as high as it has channels inside (by the square root), coloured by its kernel; the bands "
    "between are the channels handed on, ÷2 is a stride of 2, and the last row is the table's time."
)
_NO_KERNEL = "#b9bec6"
_ROWS = ("block", "expanded", "out", "SE", "h-swish", "residual", "µs")


@dataclass(frozen=True, slots=True)
class Box:
    """One column of a diagram: stem, block, or a layer of the head."""

    name: str  # "stem", "1", "2", ..., "conv", "FC"
    kernel: int  # the largest; 1 for the layers of the head
    label: str  # its kernels, one a line, or its name
    inner: int  # channels inside, where it is widest
    out: int  # channels it hands on
    size: int  # side of the map it hands on
    stride: int
    se: int  # squeezed channels, 0 for none
    activation: str | None
    residual: bool
    ms: float | None  # of its row in the latency table, where known


@dataclass(frozen=True, slots=True)
class DiagramData:
    """A network from left to right, as data flows."""

    title: str
    subtitle: str
    resolution: int
    boxes: tuple[Box, ...]


def figures(run: Run) -> Iterator[ReportFigure]:
    """Yield a figure for each target of a run, named like the target."""
    for result in run.record.targets:
        name, heading = result.target.name, f"Found {result.target.title}, block by block"
        data = diagram_data(run, name)
        yield ReportFigure(name, heading, CAPTION, partial(draw, data), partial(as_table, data))


# Data -------------------------------------------------------------------------------------------------


def diagram_data(run: Run, target: str) -> DiagramData:
    """Collect the boxes of the network that was found for the target of that name."""
    network = run.found(target)
    spec, (top1, std) = network.spec, network.own_estimate
    subtitle = (
        f"{network.latency_ms:.2f} ms {'predicted' if network.measured_ms is None else 'measured'} · "
        f"{top1:.1f} ± {std:.1f} % top-1 "
        f"{'extrapolated' if network.extrapolated else 'estimated'} · {network.macs / 1e6:.0f} M MACs · "
        f"{network.params / 1e6:.2f} M parameters · {spec.resolution}×{spec.resolution} px"
    )
    rows = [ms for name, ms in network.breakdown if name.startswith("block")]
    known = len(rows) == len(spec.blocks)
    ends = dict(network.breakdown)
    stem, size = spec.stem, spec.stem.out_size(spec.resolution)
    boxes = [
        Box("stem", 3, "3×3", stem.out, stem.out, size, stem.stride, 0, stem.activation, False, ends.get("stem")),
        *(
            Box(
                str(number),
                placed.block.largest_kernel,
                _kernels_of(placed.block),
                placed.block.expanded,
                placed.block.out,
                placed.out_size,
                placed.block.stride,
                placed.block.se,
                placed.block.activation,
                placed.has_residual,
                rows[number - 1] if known else None,
            )
            for number, placed in enumerate(spec.walk(), 1)
        ),
        *_head_boxes(spec, run.table.num_classes, ends.get("head")),
    ]
    return DiagramData(f"{display_name(run, network)} ({spec.id})", subtitle, spec.resolution, tuple(boxes))


def _kernels_of(block: BlockSpec) -> str:
    """Return the kernels of a block, one a line. Those of a universal one are before and behind its expansion."""
    if block.op == "uib" and (block.kernel or block.start_kernel):
        return "\n".join(f"{kernel}×{kernel}" if kernel else "–" for kernel in (block.start_kernel, block.kernel))
    side = block.largest_kernel
    return f"{side}×{side}" + ("\nfull" if block.op == "fused" else "")


def _head_boxes(spec: ArchSpec, num_classes: int, ms: float | None) -> Iterator[Box]:
    """Yield the layers of the head; the milliseconds of the whole head stand at its first."""
    _, size = spec.head_input
    head = spec.head
    layers = [("conv", head.conv, size), ("FC", head.hidden, 1)]
    for name, channels, side in layers:
        if channels:
            yield Box(name, 1, name, channels, channels, side, 1, 0, head.activation, False, ms)
            ms = None
    yield Box("FC", 1, "FC", num_classes, num_classes, 1, 1, 0, None, False, ms)  # no choice of a search


def as_table(data: DiagramData) -> pd.DataFrame:
    """Return the layers, one a row; the time of the whole head stands at its first layer."""
    units = {"inner": "inner_channels", "out": "out_channels", "size": "map_px", "se": "se_channels", "ms": "time_ms"}
    return pd.DataFrame([asdict(box) for box in data.boxes]).drop(columns="label").rename(columns=units)


# Drawing ----------------------------------------------------------------------------------------------


def draw(data: DiagramData) -> Figure:
    """Draw the boxes from left to right: their height is the channels, the narrow bands are those handed on."""
    columns = len(data.boxes)
    margin = 1.75  # of columns, for the names of the rows
    figure = new_figure(6.0, max(WIDTH_INCHES, 0.52 * (columns + margin)))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.008, 0.01, 0.984, 0.98))
    axes.set_axis_off()
    axes.set_xlim(-margin, columns + 0.1)
    axes.set_ylim(-3.65, 4.75)
    axes.text(-margin + 0.05, 4.62, data.title, fontsize=13, fontweight="bold", va="top")
    axes.text(-margin + 0.05, 4.2, data.subtitle, fontsize=10.5, va="top", color=GREY)
    widest = max(box.inner for box in data.boxes)

    def height(channels: int) -> float:
        """Return the height by the square root, so that 16 channels can be seen beside 960."""
        return 2.9 * (channels / widest) ** 0.5

    _draw_map_sizes(axes, data, columns)
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
        axes.text(column + 0.5, center, box.label, ha="center", va="center", fontsize=9, fontweight="bold", zorder=4)
    _draw_numbers(axes, data)
    return figure


def _box_color(box: Box) -> str:
    return kernel_color(box.kernel) if box.kernel > 1 else _NO_KERNEL


def _draw_map_sizes(axes: Axes, data: DiagramData, columns: int) -> None:
    """Draw one shade a size of the feature map behind the blocks, and an arrow where a stride halves it."""
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


def _draw_numbers(axes: Axes, data: DiagramData) -> None:
    """Write the numbers of each box under it, one row a property."""
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
    """Return the text of a cell and its colour."""
    match row:
        case "block":
            return (box.name if box.name == "stem" or box.name.isdecimal() else ""), GREY
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
