"""What the figures of a report show, as plain numbers and texts; `nas.report.drawing` puts them on paper."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nas.arch.spec import ArchSpec, halved
from nas.errors import NasError
from nas.runs.pareto import front_indices
from nas.runs.reading import Network, Run, TableRow, kind_of

_KIND_NAMES = {"large": "Large", "small": "Small"}
NAMED_OF_FAMILY = 5  # of the Once-for-All networks in the figure
_FAMILY_NAMES = {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "mobilenet_v3_small": "MobileNetV3-Small",
    "mnasnet_a1": "MnasNet-A1",
}


def role_text(role: str) -> str:
    """A role as readers know it: "Large", and "Large at 4 ms" where there are several budgets."""
    kind, _, budget = role.partition("_")
    return _KIND_NAMES[kind] + (f" at {budget.removesuffix('ms')} ms" if budget else "")


def display_name(network: Network) -> str:
    """A network's name as readers know it: "found Large", "MobileNetV3-Large x0.75", "OFA cpu 15ms"."""
    if network.found and network.role:
        return f"found {role_text(network.role)}"
    family, _, width = network.name.partition("@")
    if family in _FAMILY_NAMES:
        return _FAMILY_NAMES[family] + (f" ×{width}" if width else "")
    if family.startswith("hardcorenas_"):
        return "HardCoRe-NAS " + network.name.removeprefix("hardcorenas_").upper()
    if _is_once_for_all(network):
        return "OFA " + network.name.removeprefix("ofa_").replace("_lat-", " ").replace("_", " ")
    return network.name


def _is_once_for_all(network: Network) -> bool:
    return not network.found and network.name.startswith("ofa_")


def budget_text(budget_ms: float) -> str:
    """A budget for people, to hundredths of a millisecond at most: "6", "1.86", "1,000"."""
    text = f"{budget_ms:,.2f}".rstrip("0").rstrip(".")
    return text if text != "0" else f"{budget_ms:.1g}"


# Accuracy against latency -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trials:
    """The networks that the search for Large, or for Small, looked at: predicted ms, estimated top-1 in percent."""

    role: str  # "large" or "small"
    latency_ms: tuple[float, ...]
    top1: tuple[float, ...]
    front_latency_ms: tuple[float, ...]
    front_top1: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A network measured here; accuracies in percent, the estimated one at the run's training effort.

    One of a family of many is drawn lightly, and named only if it has a label and there is room for it.
    """

    label: str | None
    latency_ms: float
    estimated_top1: float
    estimated_std: float
    published_top1: float | None
    role: str | None = None  # of a found network
    of_family: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    role: str
    latency_ms: float


@dataclass(frozen=True, slots=True)
class FrontFigure:
    title: str
    subtitle: str
    trials: tuple[Trials, ...]
    points: tuple[Point, ...]
    budgets: tuple[Budget, ...]


def front_figure(run: Run) -> FrontFigure:
    """Accuracy against latency: everything that was tried, found and published."""
    named = _named_of_family(run.networks)
    return FrontFigure(
        title=f"ImageNet accuracy against latency on {'that' if run.other_device else 'this'} device",
        subtitle=where(run),
        trials=tuple(_trials(run, kind) for kind in dict.fromkeys(map(kind_of, run.roles))),
        points=tuple(
            Point(
                display_name(network) if not _is_once_for_all(network) or network.name in named else None,
                network.latency_ms,
                network.estimated_top1,
                network.estimated_std,
                network.published_top1,
                network.role if network.found else None,
                _is_once_for_all(network),
            )
            for network in run.networks
        ),
        budgets=tuple(Budget(role, limits.budget_ms) for role, limits in run.roles.items()),
    )


def _named_of_family(networks: Iterable[Network]) -> set[str]:
    """Names of a few Once-for-All networks, spread over the front of their published accuracies."""
    family = [(n.name, n.latency_ms, n.published_top1) for n in networks if _is_once_for_all(n) and n.published_top1]
    if not family:
        return set()
    names, latency_ms, top1 = zip(*family, strict=True)
    front = front_indices(latency_ms, top1)
    spread = np.linspace(0, len(front) - 1, min(NAMED_OF_FAMILY, len(front))).round().astype(int)
    return {names[front[place]] for place in spread}


def _trials(run: Run, kind: str) -> Trials:
    trials = [trial for trial in run.trials if kind_of(trial.role) == kind]
    front = sorted((trial for trial in run.front if kind_of(trial.role) == kind), key=lambda trial: trial.latency_ms)
    return Trials(
        kind,
        tuple(trial.latency_ms for trial in trials),
        tuple(trial.top1 for trial in trials),
        tuple(trial.latency_ms for trial in front),
        tuple(trial.top1 for trial in front),
    )


def where(run: Run) -> str:
    """Device, runtime, threads and precision, as every time of the run holds for them."""
    table, threads = run.table, run.table["threads"]
    precision = "" if table["precision"] == "float32" else f", {table['precision']}"
    predicted = " (predicted, not measured: the table is of another device)" if run.other_device else ""
    plural = "s" if threads != 1 else ""
    return f"{table['device']}, {table['runtime']}, {threads} thread{plural}{precision}{predicted}"


# The latency table ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TableFigure:
    title: str
    subtitle: str
    rows: tuple[TableRow, ...]


def table_figure(run: Run) -> TableFigure:
    """Each row's milliseconds against its multiply-accumulates."""
    rows = tuple(row for row in run.table_rows if row.macs > 0 and row.ms > 0)  # both axes are logarithmic
    count = f"{len(rows):,} of its {run.table['rows']:,} rows served this run"
    return TableFigure("What the latency table is made of", f"{where(run)}: {count}", rows)


# Where the milliseconds go ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    part: str  # "stem", "first", "stage 1", ..., "head"
    ms: float


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    segments: tuple[Segment, ...]

    @property
    def total_ms(self) -> float:
        return sum(segment.ms for segment in self.segments)


@dataclass(frozen=True, slots=True)
class BreakdownFigure:
    """One panel a role, for the found network and the published one of its size."""

    title: str
    panels: tuple[tuple[str, tuple[Bar, ...]], ...]


def breakdown_figure(run: Run) -> BreakdownFigure:
    panels = []
    for role in run.roles:
        published = [n for n in run.networks if not n.found and n.name == f"mobilenet_v3_{kind_of(role)}"]
        bars = tuple(
            Bar(display_name(network), _segments(network))
            for network in (run.found(role), *published)
            if network.breakdown
        )
        panels.append((role_text(role), bars))
    return BreakdownFigure("Where the milliseconds go, by the latency table", tuple(panels))


def _segments(network: Network) -> tuple[Segment, ...]:
    """The breakdown summed by part; rows that are no blocks keep their names."""
    blocks = iter(_stage_names(network.spec))
    parts = []
    for name, ms in network.breakdown:
        part = next(blocks, None) if name.startswith("block") else name
        if part is None:
            raise NasError(
                f"run.json: the breakdown of {network.name} has more blocks than its spec ({len(network.spec.blocks)})"
            )
        parts.append((part, ms))
    grouped = itertools.groupby(parts, key=lambda row: row[0])
    return tuple(Segment(part, sum(ms for _, ms in rows)) for part, rows in grouped)


def _stage_names(spec: ArchSpec) -> Iterator[str]:
    """The stage of each block, counted like a space's: the fixed first block, then a stage at every change."""
    stage = -1
    for placed in spec.walk():
        if stage < 0 or placed.block.stride > 1 or placed.block.out != placed.in_channels:
            stage += 1
        yield f"stage {stage}" if stage else "first"


# Architecture diagrams --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Box:
    """One column of a diagram: stem, block, or a layer of the head."""

    name: str  # "stem", "1", "2", ..., "conv", "FC"
    kernel: int  # 1 for the head's layers
    inner: int  # channels inside, where it is widest
    out: int  # channels it hands on
    size: int  # side of the map it hands on
    stride: int
    se: int  # squeezed channels, 0 for none
    activation: str | None
    residual: bool
    ms: float | None  # of its row in the latency table, where known


@dataclass(frozen=True, slots=True)
class DiagramFigure:
    title: str
    subtitle: str
    resolution: int
    boxes: tuple[Box, ...]


def diagram_figure(run: Run, role: str) -> DiagramFigure:
    """The network found for a role, block by block."""
    network, spec = run.found(role), run.roles[role].spec
    subtitle = (
        f"{network.latency_ms:.2f} ms {'predicted' if network.measured_ms is None else 'measured'} · "
        f"{network.estimated_top1:.1f} ± {network.estimated_std:.1f} % top-1 "
        f"{'extrapolated' if network.extrapolated else 'estimated'} · {network.macs / 1e6:.0f} M MACs · "
        f"{network.params / 1e6:.2f} M parameters · {spec.resolution}×{spec.resolution} px"
    )
    rows = [ms for name, ms in network.breakdown if name.startswith("block")]
    known = len(rows) == len(spec.blocks)
    ends = dict(network.breakdown)
    size = halved(spec.resolution, 2)
    boxes = [
        Box("stem", 3, spec.stem.out, spec.stem.out, size, 2, 0, spec.stem.activation, False, ends.get("stem")),
        *(
            Box(
                str(number),
                placed.block.kernel,
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
        *_head_boxes(spec, run.table["classes"], ends.get("head")),
    ]
    return DiagramFigure(f"{display_name(network)} ({spec.id})", subtitle, spec.resolution, tuple(boxes))


def _head_boxes(spec: ArchSpec, classes: int, ms: float | None) -> Iterator[Box]:
    """The head's layers; the milliseconds of the whole head stand at its first."""
    _, size = spec.head_input
    head = spec.head
    layers = [("conv", head.conv, size), ("FC", head.hidden, 1)]
    for name, channels, side in layers:
        if channels:
            yield Box(name, 1, channels, channels, side, 1, 0, head.activation, False, ms)
            ms = None
    yield Box("FC", 1, classes, classes, 1, 1, 0, None, False, ms)  # no choice of a search


Figure = FrontFigure | TableFigure | BreakdownFigure | DiagramFigure
