"""Write labels beside points so that they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

# A halo around the letters would write the outlines of each label twice into an SVG, ten times its bytes.
_GROUND = {"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
# Where a label may stand, seen from its point, best first: beside, above and below, then the corners.
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_DISTANCES = (9, 16, 27, 42, 60, 84, 115)  # points
_TOUCHING = 300  # the cost of touching something, more than all that is merely ugly
_TOO_UGLY = 100  # for an optional label
_LINE_FROM = 16  # labels this far away get a line to their point
_ALIGN = {1: "left", 0: "center", -1: "right"}
_ALIGN_VERTICAL = {1: "bottom", 0: "center", -1: "top"}


@dataclass(frozen=True, slots=True)
class Label:
    """The name of a point."""

    x: float  # in data coordinates
    y: float
    text: str
    color: str = "black"
    bold: bool = False
    optional: bool = False  # left out where no place near its point is free


class _Position(NamedTuple):
    """A place for a label: `offset` from its point in points, and the pixels that it takes."""

    cost: float
    offset: tuple[float, float]
    direction: tuple[int, int]
    box: Bbox


def place_labels(axes: Axes, labels: Sequence[Label], *, taken: Iterable[Bbox], lines: np.ndarray, size: float) -> None:
    """Write each label at the place near its point that costs least; the first ones choose first.

    `taken` are boxes in pixels that labels must not touch. `lines` are points in pixels, shape (n, 2), that they had
    better not cover; the lines from far labels to their points are added to them. `size` is the font's, in points.
    The limits of the axes must be final.
    """
    frame = axes.get_window_extent()
    occupied = list(taken)
    written: list[Bbox] = []
    for label in labels:
        place = _best_place(axes, label, size, frame, occupied, written, lines)
        if label.optional and place.cost >= _TOO_UGLY:
            continue
        far = _is_far(place.offset)
        axes.annotate(
            label.text,
            (label.x, label.y),
            place.offset,
            textcoords="offset points",
            ha=_ALIGN[place.direction[0]],
            va=_ALIGN_VERTICAL[place.direction[1]],
            color=label.color,
            fontsize=size,
            fontweight="bold" if label.bold else "normal",
            bbox=_GROUND,
            zorder=10,
            arrowprops={"arrowstyle": "-", "color": label.color, "lw": 0.7, "shrinkA": 3, "shrinkB": 5}
            if far
            else None,
        )
        occupied.append(place.box)
        written.append(place.box)
        if far:
            lines = np.concatenate([lines, _leader(axes, label, place.offset)])


def box_around(axes: Axes, x: float, y: float, points: float) -> Bbox:
    """Return a square in pixels around a place in data coordinates, `points` to each side."""
    left, bottom = axes.transData.transform((x, y))
    half = points * _root_figure(axes).dpi / 72
    return Bbox.from_extents(left - half, bottom - half, left + half, bottom + half)


def pixels_along(axes: Axes, x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Return pixels along a line through places in data coordinates, a few apart, shape (n, 2)."""
    corners = axes.transData.transform(np.column_stack([x, y]))
    along = np.arange(len(corners))
    fine = np.linspace(0, len(corners) - 1, max(400, 4 * len(corners)))
    return np.column_stack([np.interp(fine, along, corners[:, 0]), np.interp(fine, along, corners[:, 1])])


def text_size(axes: Axes, text: str, size: float, bold: bool = False) -> tuple[float, float]:
    """Return the width and height in pixels that a text will have in the figure."""
    figure = _root_figure(axes)
    probe = figure.text(0, 0, text, fontsize=size, fontweight="bold" if bold else "normal")
    box = probe.get_window_extent()
    probe.remove()
    return box.width, box.height


def _best_place(
    axes: Axes, label: Label, size: float, frame: Bbox, occupied: list[Bbox], written: list[Bbox], lines: np.ndarray
) -> _Position:
    width, height = text_size(axes, label.text, size, label.bold)
    best = _Position(np.inf, (0.0, 0.0), (1, 0), Bbox.null())
    for distance in _DISTANCES:
        if distance >= best.cost:
            break  # farther ones can only cost more
        for preference, (right, up) in enumerate(_DIRECTIONS):
            reach = distance if not (right and up) else 0.75 * distance
            offset = (right * reach, up * reach)
            box = _box(axes, label, offset, (right, up), width, height)
            cost = _cost(box, frame, occupied, lines) + distance + 0.1 * preference
            if written and _is_far(offset):
                leader = _leader(axes, label, offset)
                cost += 100 * any(_crosses(leader, other) for other in written)
            if cost < best.cost:
                best = _Position(cost, offset, (right, up), box)
    return best


def _is_far(offset: tuple[float, float]) -> bool:
    return max(abs(offset[0]), abs(offset[1])) >= 0.75 * _LINE_FROM


def _leader(axes: Axes, label: Label, offset: tuple[float, float]) -> np.ndarray:
    """Return pixels along the line from a point to its label, shape (n, 2)."""
    start = axes.transData.transform((label.x, label.y))
    return start + np.linspace(0, 1, 40)[:, None] * np.array(offset) * _root_figure(axes).dpi / 72


def _crosses(line: np.ndarray, box: Bbox) -> bool:
    return bool(np.all((line > box.min) & (line < box.max), axis=1).any())


def _root_figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _box(
    axes: Axes, label: Label, offset: tuple[float, float], direction: tuple[int, int], width: float, height: float
) -> Bbox:
    """Return the pixels that a label takes, and a little around them."""
    x, y = axes.transData.transform((label.x, label.y)) + np.array(offset) * _root_figure(axes).dpi / 72
    left, bottom = x - width * (1 - direction[0]) / 2, y - height * (1 - direction[1]) / 2
    return Bbox.from_bounds(left, bottom, width, height).padded(2)


def _cost(box: Bbox, frame: Bbox, occupied: list[Bbox], lines: np.ndarray) -> float:
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    touching = box.count_overlaps(occupied)
    crossed = np.all((lines > box.min) & (lines < box.max), axis=1).sum()
    return 1000 * outside + _TOUCHING * touching + min(4 * crossed, 80)
