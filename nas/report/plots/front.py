"""Show accuracy against latency: everything that was tried, found and published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from nas.report.plots.figure import ReportFigure
from nas.report.plots.labels import Label, box_around, pixels_along, place_labels, text_size
from nas.report.plots.steps import FrontStyle, corners, draw_front
from nas.report.plots.style import GREY, INK, LIGHT, SKELETON_COLORS, add_title, new_figure, plain_ticks
from nas.report.texts import budget_text, device_text, display_name, images_text, is_once_for_all
from nas.runs.pareto import front_indices
from nas.runs.reading import Run
from nas.runs.record import NetworkResult, OptimalNetwork

CAPTION = (
    "Up and to the left is better: each point is a network, each stepped line the proven optima of many budgets with a "
    "standard deviation of their estimates, or, of a run that has none, the front of the networks that a search looked "
    "at. Points far below the networks named here are cut off. Compare the stars with the grey dots, not with the "
    "diamonds: the diamonds' trainings differ, and many are longer than the one that the estimates are for."
)
TAIL = 0.4  # of the range of the networks' accuracies: the front is drawn this far below them
NAMED_OF_FAMILY = 5  # of the Once-for-All networks
STYLES = {
    "large": FrontStyle(SKELETON_COLORS["large"], "-", "o", None),
    "small": FrontStyle(SKELETON_COLORS["small"], (0, (5, 1.5)), "^", "////"),
}


@dataclass(frozen=True, slots=True)
class SkeletonTrials:
    """The networks that the searches of a skeleton looked at: predicted ms, estimated top-1 in percent."""

    skeleton: str
    latency_ms: tuple[float, ...]
    top1: tuple[float, ...]
    front_latency_ms: tuple[float, ...]  # fastest first
    front_top1: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NetworkPoint:
    """A network of the comparison; accuracies in percent, the estimated one for the run's training recipe.

    One of a family of many is drawn lightly, and named only if it has a label and there is room for it.
    """

    label: str | None
    latency_ms: float
    estimated_top1: float | None  # None: the estimator cannot judge it
    estimated_std: float | None
    published_top1: float | None
    skeleton: str | None = None  # of a found network
    of_family: bool = False
    name: str = ""  # also where there is no label


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """The budget of a target."""

    skeleton: str
    latency_ms: float


class Front(NamedTuple):
    """The corners of a stepped line, fastest first, and the band around it in points of top-1; () for no band."""

    latency_ms: tuple[float, ...]
    top1: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FrontData:
    """Trials as clouds, proven optima or else the best trials as fronts, networks as points, budgets as lines."""

    title: str
    subtitle: str
    images: str  # that accuracies speak for
    trials: tuple[SkeletonTrials, ...]
    points: tuple[NetworkPoint, ...]
    budgets: tuple[BudgetLine, ...]
    optima: tuple[OptimalNetwork, ...] = ()

    @property
    def skeletons(self) -> tuple[str, ...]:
        """Return the skeletons that have trials or proven optima."""
        names = [trials.skeleton for trials in self.trials] + [one.skeleton for one in self.optima]
        return tuple(dict.fromkeys(names))

    def front_of(self, skeleton: str) -> Front:
        """Return the front of a skeleton: its proven optima, or its best trials where the run has none."""
        optima = sorted((one for one in self.optima if one.skeleton == skeleton), key=lambda one: one.latency_ms)
        if optima:
            return Front(*zip(*((one.latency_ms, one.top1, one.top1_std) for one in optima), strict=True))
        trials = next(one for one in self.trials if one.skeleton == skeleton)
        return Front(trials.front_latency_ms, trials.front_top1, ())


def figures(run: Run) -> Iterator[ReportFigure]:
    """Yield the figure of a run."""
    data = front_data(run)
    yield ReportFigure("front", "Accuracy against latency", CAPTION, partial(draw, data), partial(as_table, data))


# Data -------------------------------------------------------------------------------------------------


def front_data(run: Run) -> FrontData:
    """Collect the trials, the networks and the budgets."""
    targets = [result.target for result in run.record.targets]
    named = _named_of_family(run.record.networks)
    return FrontData(
        title=f"{images_text(run)} accuracy against latency on {'that' if run.table.other_device else 'this'} device",
        subtitle=device_text(run),
        images=images_text(run),
        trials=tuple(_trials(run, skeleton) for skeleton in dict.fromkeys(target.skeleton for target in targets)),
        points=tuple(
            NetworkPoint(
                display_name(run, network) if not is_once_for_all(network) or network.name in named else None,
                network.latency_ms,
                network.estimated_top1,
                network.estimated_std,
                network.published_top1,
                run.result(network.target).target.skeleton if network.found and network.target else None,
                is_once_for_all(network),
                display_name(run, network),
            )
            for network in run.record.networks
            if network.estimate or network.published_top1 is not None
        ),
        budgets=tuple(BudgetLine(target.skeleton, target.budget_ms) for target in targets),
        optima=run.optima,
    )


def _named_of_family(networks: Iterable[NetworkResult]) -> set[str]:
    """Return the names of a few Once-for-All networks, spread over the front of their published accuracies."""
    family = [(n.name, n.latency_ms, n.published_top1) for n in networks if is_once_for_all(n) and n.published_top1]
    if not family:
        return set()
    names, latency_ms, top1 = zip(*family, strict=True)
    front = front_indices(latency_ms, top1)
    spread = np.linspace(0, len(front) - 1, min(NAMED_OF_FAMILY, len(front))).round().astype(int)
    return {names[front[place]] for place in spread}


def _trials(run: Run, skeleton: str) -> SkeletonTrials:
    names = [result.target.name for result in run.record.targets if result.target.skeleton == skeleton]
    trials = run.trials[run.trials.target.isin(names)]
    front = run.front[run.front.target.isin(names)].sort_values("latency_ms", kind="stable")
    columns = (trials.latency_ms, trials.top1, front.latency_ms, front.top1)
    return SkeletonTrials(skeleton, *(tuple(column.tolist()) for column in columns))


_COLUMNS = (
    *("kind", "skeleton", "name", "variant", "limit_ms", "latency_ms", "latency_std_ms"),
    *("estimated_top1_percent", "estimated_std_points", "published_top1_percent", "macs", "params"),
)


def as_table(data: FrontData) -> pd.DataFrame:
    """Return everything that is drawn, one a row; `kind` is optimum, found, published, trial or budget."""
    rows: list[dict[str, object]] = [
        {
            "kind": "optimum",
            "skeleton": one.skeleton,
            "name": one.spec.id,
            "variant": str(one.variant),
            "limit_ms": one.limit_ms,
            "latency_ms": one.latency_ms,
            "latency_std_ms": one.latency_std,
            "estimated_top1_percent": one.top1,
            "estimated_std_points": one.top1_std,
            "macs": one.macs,
            "params": one.params,
        }
        for one in data.optima
    ]
    for point in data.points:
        rows.append(
            {
                "kind": "found" if point.skeleton else "published",
                "skeleton": point.skeleton,
                "name": point.name,
                "latency_ms": point.latency_ms,
                "estimated_top1_percent": point.estimated_top1,
                "estimated_std_points": point.estimated_std,
                "published_top1_percent": point.published_top1,
            }
        )
    for trials in data.trials:
        each = {"kind": "trial", "skeleton": trials.skeleton}
        for latency_ms, top1 in zip(trials.latency_ms, trials.top1, strict=True):
            rows.append({**each, "latency_ms": latency_ms, "estimated_top1_percent": top1})
    rows += [{"kind": "budget", "skeleton": line.skeleton, "latency_ms": line.latency_ms} for line in data.budgets]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype({"macs": "Int64", "params": "Int64"})


# Drawing ----------------------------------------------------------------------------------------------

_DIAMOND: Any = {"marker": "D", "ls": "none", "ms": 7, "mfc": "white", "mec": INK, "mew": 1.5}
_FAMILY_DIAMOND: Any = {**_DIAMOND, "ms": 5, "mec": LIGHT, "mew": 1.2}


def draw(data: FrontData) -> Figure:
    """Draw stars for found networks, diamonds for published ones, and a dot for every estimate."""
    figure = new_figure(7.6)
    axes = figure.add_subplot()
    add_title(axes, data.title, data.subtitle)
    axes.set_xlabel(
        "latency, ms (found and published networks: measured whole; lines and trials: the table's prediction)"
    )
    axes.set_ylabel(f"{data.images} top-1, %")
    axes.set_xscale("log")
    axes.grid(zorder=0)
    axes.set_axisbelow(True)
    (left, right), (low, high) = _frame(data)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    plain_ticks(axes.xaxis)
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))

    for trials in data.trials:
        style = STYLES[trials.skeleton]
        # Thousands of dots are an image, in the SVG too.
        axes.scatter(
            trials.latency_ms, trials.top1, s=9, color=style.color, marker=style.marker, alpha=0.18, linewidths=0,
            zorder=2, rasterized=True,
        )  # fmt: skip
    for skeleton in data.skeletons:
        draw_front(axes, *data.front_of(skeleton), STYLES[skeleton])
    for point in data.points:
        if point.skeleton:
            _draw_found(axes, point)
        else:
            _draw_published(axes, point)
    # Below the axes, where it covers nothing.
    figure.legend(handles=_legend(data), loc="outside lower left", ncols=2, frameon=False)

    figure.draw_without_rendering()  # the layout must be final before texts are measured
    _draw_budgets(axes, data)
    _label_points(axes, data)
    figure.set_layout_engine("none")
    return figure


def _draw_found(axes: Axes, point: NetworkPoint) -> None:
    color, x, y = _point_color(point), point.latency_ms, _named_top1(point)
    axes.errorbar(x, y, point.estimated_std, color=color, capsize=4, lw=1.4, zorder=7, ls="none")
    axes.plot(x, y, "*", ms=19, color=color, mec="white", mew=1, zorder=8)


def _draw_published(axes: Axes, point: NetworkPoint) -> None:
    """Draw a diamond as published, a dot as estimated, and a line between the two of a network that has a name."""
    x, y = point.latency_ms, point.estimated_top1
    size, order = (3.5, 4) if point.of_family else (5.5, 6.5)  # seen in its own diamond too
    if y is not None:
        axes.plot(x, y, "o", ms=size, color=GREY, mec="white", mew=0.4, zorder=order)
    if point.published_top1 is None:
        return
    if point.label and y is not None:
        axes.plot([x, x], [y, point.published_top1], color=GREY, lw=0.9, zorder=3.5)
    style = _FAMILY_DIAMOND if point.of_family else _DIAMOND
    axes.plot(x, point.published_top1, zorder=5 if point.of_family else 6, **style)


def _point_color(point: NetworkPoint) -> str:
    return SKELETON_COLORS.get(point.skeleton or "", INK)


def _named_top1(point: NetworkPoint) -> float:
    """Return the top-1 that the name of a point stands beside."""
    top1 = point.estimated_top1 if point.published_top1 is None else point.published_top1
    assert top1 is not None  # whatever is drawn has one of both
    return top1


def _reach(point: NetworkPoint) -> tuple[float, float]:
    """Return the lowest and the highest top-1 that is drawn of a point."""
    named = _named_top1(point)
    std = point.estimated_std if point.skeleton and point.estimated_std else 0.0
    middle = named if point.estimated_top1 is None else point.estimated_top1
    return min(middle - std, named), max(middle + std, named)


def _frame(data: FrontData) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return limits around the networks, with the fronts above them; the long tail of the trials is cut off."""
    latency = [point.latency_ms for point in data.points]
    right = max(latency)
    # A budget far beyond everything would squeeze all else into a corner: it is named at the edge instead.
    right = max([right, *(b.latency_ms for b in data.budgets if b.latency_ms <= 2 * right)])
    low = min(_reach(point)[0] for point in data.points)
    high = max(_reach(point)[1] for point in data.points)
    left, farthest, floor = min(latency), right, low - TAIL * (high - low)
    for front in map(data.front_of, data.skeletons):
        proven = bool(front.std)  # then all of it is shown, but for a beginning that is far below all networks
        steps = zip(front.latency_ms, front.top1, strict=True)
        shown = [(ms, top1) for ms, top1 in steps if (top1 >= floor if proven else ms <= right)]
        high = max([high, *(top1 for _, top1 in shown)])
        if shown and proven:
            left, farthest, low = min(left, shown[0][0]), max(farthest, shown[-1][0]), min(low, shown[0][1])
    margin = max(0.08 * (high - low), 0.5)
    return (left / 1.5, farthest * 1.35), (low - 2 * margin, high + 1.5 * margin)


def _legend(data: FrontData) -> list[Line2D]:
    found = Line2D(
        [], [], marker="*", ls="none", ms=15, color=GREY, label="found: measured, accuracy estimated (± std)"
    )
    handles = [found]
    published = [point for point in data.points if not point.skeleton]
    family = sum(point.of_family for point in published)
    if len(published) > family:
        handles.append(Line2D([], [], **_DIAMOND, label="published: measured, accuracy as published"))
    if family:
        handles.append(Line2D([], [], **_FAMILY_DIAMOND, label=f"Once-for-All, {family} networks"))
    if published:
        name = "the same, estimated as the stars are: compare these"
        handles.append(Line2D([], [], marker="o", ls="none", ms=5.5, color=GREY, label=name))
    for skeleton in data.skeletons:
        trials = sum(len(one.latency_ms) for one in data.trials if one.skeleton == skeleton)
        optima = sum(one.skeleton == skeleton for one in data.optima)
        if optima:
            text = f"{optima} proven optima, ± std" + (f"; behind them {trials:,} trials" if trials else "")
        else:
            text = f"{trials:,} trials and their front, predicted and estimated"
        if optima or trials:
            handles.append(STYLES[skeleton].handle(f"{skeleton.capitalize()}: {text}"))
    return handles


def _draw_budgets(axes: Axes, data: FrontData) -> None:
    """Draw vertical lines with their names above the frame; two names that are close move apart."""
    right = axes.get_xlim()[1]
    budgets = sorted(data.budgets, key=lambda budget: budget.latency_ms)
    texts = []
    for budget in budgets:
        beyond = budget.latency_ms > right
        # More names than two have no room.
        named = f"budget of {budget.skeleton.capitalize()}: " if len(budgets) <= 2 else ""
        name = f"{named}{budget_text(budget.latency_ms)} ms" + (" →" if beyond else "")
        x = min(budget.latency_ms, right)
        if not beyond:
            axes.axvline(x, color=SKELETON_COLORS[budget.skeleton], lw=1.4, ls=(0, (1, 2)), zorder=1.5)
        pixel = float(axes.transData.transform((x, axes.get_ylim()[0]))[0])
        texts.append((name, pixel, text_size(axes, name, 10)[0], SKELETON_COLORS[budget.skeleton]))
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


def _label_points(axes: Axes, data: FrontData) -> None:
    """Write the names of the points; the found ones choose their places first, those of a family last."""
    taken = []
    for point in data.points:
        x = point.latency_ms
        if point.skeleton:
            bottom, top = (axes.transData.transform((x, y)) for y in _reach(point))
            taken.append(Bbox.from_extents(bottom[0] - 8, bottom[1] - 2, top[0] + 8, top[1] + 2))
        if point.estimated_top1 is not None:
            taken.append(box_around(axes, x, point.estimated_top1, 9 if point.skeleton else 3))
        if point.published_top1 is not None:
            taken.append(box_around(axes, x, point.published_top1, 4 if point.of_family else 6))
    fronts = [data.front_of(skeleton) for skeleton in data.skeletons]
    lines = [pixels_along(axes, *corners(front.latency_ms, front.top1)) for front in fronts if front.latency_ms]
    lines += [pixels_along(axes, [b.latency_ms] * 2, axes.get_ylim()) for b in data.budgets]
    lines += [pixels_along(axes, [p.latency_ms] * 2, _reach(p)) for p in data.points if p.label and not p.skeleton]
    points = sorted(data.points, key=lambda point: (point.skeleton is None, point.of_family))
    labels = [
        Label(p.latency_ms, _named_top1(p), p.label, _point_color(p), bold=bool(p.skeleton), optional=p.of_family)
        for p in points
        if p.label
    ]
    place_labels(axes, labels, taken=taken, lines=np.concatenate(lines), size=10)
