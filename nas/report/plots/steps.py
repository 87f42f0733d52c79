"""Draw a front: a stepped line, with a band of its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike


class FrontStyle(NamedTuple):
    """The look of a front, which its line, marker and hatch tell without colour, too."""

    color: str
    line: Any
    marker: str
    hatch: str | None

    def handle(self, label: str) -> Line2D:
        """Return the entry of a legend."""
        return Line2D([], [], color=self.color, ls=self.line, lw=1.8, marker=self.marker, ms=5, label=label)


def draw_front(
    axes: Axes,
    latency_ms: Sequence[float],
    top1: Sequence[float],
    std: Sequence[float],
    style: FrontStyle,
    *,
    marked: bool = False,
) -> None:
    """Draw a step at each network, fastest first; `std` (points of top-1) is empty where there is no band.

    `marked` puts the marker of the style at each network.
    """
    marker = style.marker if marked else None
    axes.step(latency_ms, top1, where="post", color=style.color, ls=style.line, lw=1.8, marker=marker, ms=4, zorder=3)
    if len(std):
        low, high = np.asarray(top1) - std, np.asarray(top1) + std
        axes.fill_between(latency_ms, low, high, step="post", color=style.color, alpha=0.13, lw=0, zorder=1.2)
        if style.hatch:
            axes.fill_between(
                latency_ms, low, high, step="post", facecolor="none", edgecolor=style.color, alpha=0.3, lw=0,
                hatch=style.hatch, zorder=1.2,
            )  # fmt: skip


def corners(latency_ms: ArrayLike, top1: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a front's line, for labels that had better not cover it."""
    return np.repeat(latency_ms, 2)[1:], np.repeat(top1, 2)[:-1]
