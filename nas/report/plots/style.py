"""Give all figures one style, with matplotlib's objects and none of its global state.

Figures are 10 inches wide with no text below 8 points: to be read on a screen, and over both columns of a paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

DPI = 144
WIDTH_INCHES = 10.0
# Okabe and Ito's palette, whose colours are told apart by colour-blind eyes too.
BLUE, VERMILION, SKY, ORANGE, PURPLE, GREEN = "#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#CC79A7", "#009E73"
INK, GREY, PALE = "#222222", "#6b6b6b", "#eef0f3"
LIGHT = "#a7adb5"  # of the many networks of a family
SKELETON_COLORS = {"large": BLUE, "small": VERMILION}
# From light to dark, so that they differ in grey, too; dark text can be read on all of them.
KERNEL_COLORS = {3: "#BFE3F7", 5: "#E69F00", 7: "#B5709C"}
KERNEL_POINTS = {3: ("o", "#5BB5EA"), 5: ("s", "#B36A00"), 7: ("D", "#6B2358")}  # darker, to be seen on white
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
    "pdf.fonttype": 42,  # text that can be searched, in fonts that journals accept
    "hatch.linewidth": 0.5,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Set matplotlib's defaults and the style above for a while, whatever the user's matplotlibrc sets."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(height_inches: float, width_inches: float = WIDTH_INCHES) -> Figure:
    """Return an empty figure that lays itself out."""
    figure = Figure(figsize=(width_inches, height_inches), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_title(axes: Axes, title: str, subtitle: str) -> None:
    """Write a title above the axes, with room below it for the names of lines that leave their upper edge."""
    axes.set_title(title, pad=44)
    axes.annotate(
        subtitle, (0, 1), (0, 27), xycoords="axes fraction", textcoords="offset points", fontsize=10.5, color=GREY
    )


def plain_ticks(axis: Axis) -> None:
    """Write 1, 2, 5, 10, ... on a logarithmic axis, and more of them where it is short."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 20 else (1, 1.5, 2, 3, 4, 5, 7)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def write_in_the_middle(axes: Axes, text: str) -> None:
    """Write a text into empty axes."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=12, color=GREY)


def kernel_color(kernel: int) -> str:
    """Return the colour of blocks with a kernel of that side."""
    return KERNEL_COLORS.get(kernel, GREEN)


def kernel_point(kernel: int) -> tuple[str, str]:
    """Return the shape and the colour of points of blocks with a kernel of that side."""
    return KERNEL_POINTS.get(kernel, ("v", GREEN))
