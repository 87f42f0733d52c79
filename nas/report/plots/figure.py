"""Describe a figure of a report, and save it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from nas.files import replacing
from nas.report.plots.style import figure_style

SVG_DPI = 100  # of the images in it, which are most of its bytes


class ReportFigure(NamedTuple):
    """A figure that is not drawn yet, with its words for the page."""

    name: str  # of its files, without a suffix
    heading: str
    caption: str
    draw: Callable[[], Figure]

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Draw the figure, and return its PNG and its SVG. Raises NasError where they cannot be written."""
        # Not with_suffix: "large_1.1ms" has none.
        png, svg = (folder / f"{self.name}.{suffix}" for suffix in ("png", "svg"))
        with figure_style():
            drawn = self.draw()
            with replacing(png) as side:
                drawn.savefig(side, format="png", metadata={"Software": None})
            with replacing(svg) as side:
                nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
                drawn.savefig(side, format="svg", dpi=SVG_DPI, metadata=nothing)
        return png, svg
