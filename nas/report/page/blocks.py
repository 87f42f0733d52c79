"""Show networks block by block: where their milliseconds go, and what each choice is worth."""

from __future__ import annotations

import itertools
import math
import operator
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nas.arch.parts import BlockPart, HeadPart, StemPart, parts_of
from nas.arch.spec import ACTIVATION_NAMES
from nas.report.page.summary import published_like
from nas.report.page.worth import Change, Worth
from nas.report.texts import display_name
from nas.runs.reading import Run
from nas.runs.record import NetworkResult


@dataclass(frozen=True, slots=True)
class PartRow:
    """A stem, a block or a head."""

    name: str  # "stem", "1", "2", …, "head"
    kernel: int  # the largest, 0 for a head
    shape: str  # "3×3, 40 → 240 → 80"
    traits: str  # "×6 · SE · h-swish · stride 2"
    label: str  # the same as short as can be: "3×3 40→240→80 SE h-swish s2"
    size: int  # side of the map that it hands on
    reduction: int  # of the side of the image
    ms: float | None  # by the table; None where it lacks rows
    share: float  # of the network's time, or of its MACs where no time is known
    macs: int
    params: int
    changes: tuple[Change, ...] = ()  # with what they are worth

    @property
    def title(self) -> str:
        """Return the name for readers: "block 12"."""
        return self.name if self.name in ("stem", "head") else f"block {self.name}"

    @property
    def details(self) -> str:
        """Return all that is known, one fact a line."""
        time = "time unknown" if self.ms is None else f"{self.ms:.3f} ms ({100 * self.share:.1f} % of the network)"
        lines = [f"{self.title}: {self.shape}", *([self.traits] if self.traits else [])]
        lines += [f"hands on {self.size}×{self.size}", time, f"{self.macs / 1e6:.2f} M MACs"]
        lines += [f"{self.params / 1e3:,.1f} k parameters", *(change.text for change in self.changes)]
        return " · ".join(lines)


@dataclass(frozen=True, slots=True)
class NetworkBlocks:
    """A network block by block."""

    name: str
    network: NetworkResult
    parts: tuple[PartRow, ...]
    timed: bool  # whether the table has all its rows; shares are of MACs else

    @property
    def groups(self) -> list[tuple[int, list[PartRow]]]:
        """Return the parts that hand on maps of one size, with the size."""
        return [(size, list(parts)) for size, parts in itertools.groupby(self.parts, key=lambda part: part.size)]

    @property
    def largest_ms(self) -> float:
        """Return the time of the slowest part, 0 where none is known."""
        return max((part.ms or 0.0 for part in self.parts), default=0.0)

    @property
    def has_changes(self) -> bool:
        """Return whether anything is known of changed choices."""
        return any(part.changes for part in self.parts)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A found network, and the published one of its size, if the run compared with it."""

    target: str
    title: str
    networks: tuple[NetworkBlocks, ...]

    @property
    def found(self) -> NetworkBlocks:
        """Return the network that was found."""
        return self.networks[0]

    @property
    def largest_ms(self) -> float:
        """Return the time of the slowest part of both, 0 where none is known."""
        return max(network.largest_ms for network in self.networks)

    @property
    def timed(self) -> bool:
        """Return whether any time is known."""
        return any(network.timed for network in self.networks)

    @property
    def longest_stage_ms(self) -> float:
        """Return the longest time of `stages`."""
        return max(time or 0.0 for _, times in self.stages for time in times)

    @property
    def stages(self) -> list[tuple[str, tuple[float | None, ...]]]:
        """Return what each network spends at every size of the feature map, in ms, from the image to the classes."""
        spent: list[dict[float, float]] = [defaultdict(float) for _ in self.networks]
        for stages, network in zip(spent, self.networks, strict=True):
            for part in network.parts:
                if part.ms is not None:
                    stages[_stage_of(part)] += part.ms
        order = sorted({stage for stages in spent for stage in stages})
        return [(_stage_name(stage), tuple(stages.get(stage) for stages in spent)) for stage in order]


def compare_blocks(run: Run) -> list[Comparison]:
    """Return one comparison a target."""
    worth = Worth.of(run)
    comparisons = []
    for result in run.record.targets:
        published = published_like(run, result.target.skeleton)
        found = _network(run, run.found(result.target.name), worth)
        others = (_network(run, published, None),) if published else ()
        comparisons.append(Comparison(result.target.name, result.target.title, (found, *others)))
    return comparisons


class _Words(NamedTuple):
    """A part in words."""

    name: str
    kernel: int
    shape: str
    traits: tuple[str, ...]
    label: str
    size: int


def _network(run: Run, network: NetworkResult, worth: Worth | None) -> NetworkBlocks:
    spec = network.spec
    parts = list(parts_of(spec, run.table.num_classes))
    timed = len(network.breakdown) == len(parts)
    times: Sequence[float | None] = [ms for _, ms in network.breakdown] if timed else [None] * len(parts)
    macs = [sum(layer.macs for layer in part.layers()) for part in parts]
    weights = [max(0.0, ms or 0.0) for ms in times] if timed else macs
    reductions = itertools.accumulate((spec.stem.stride, *(block.stride for block in spec.blocks), 1), operator.mul)
    rows = []
    for number, (part, reduction) in enumerate(zip(parts, reductions, strict=True)):
        words = _words(part, number, spec.resolution)
        rows.append(
            PartRow(
                name=words.name,
                kernel=words.kernel,
                shape=words.shape,
                traits=" · ".join(words.traits),
                label=words.label,
                size=words.size,
                reduction=reduction,
                ms=times[number],
                share=weights[number] / (sum(weights) or 1),
                macs=macs[number],
                params=sum(layer.parameters for layer in part.layers()),
                changes=worth.changes(network, number - 1) if worth and isinstance(part, BlockPart) else (),
            )
        )
    return NetworkBlocks(display_name(run, network), network, tuple(rows), timed)


def _words(part: StemPart | BlockPart | HeadPart, number: int, resolution: int) -> _Words:
    """Return a part in words; it is the `number`-th of its network, and the stem's number is 0."""
    if isinstance(part, StemPart):
        stem = part.stem
        stem_traits = (ACTIVATION_NAMES[stem.activation], f"stride {stem.stride}")
        return _Words("stem", 3, f"3×3, 3 → {stem.out}", stem_traits, f"3×3 3→{stem.out}", stem.out_size(resolution))
    if isinstance(part, HeadPart):
        head = part.head
        channels = [part.in_channels, *filter(None, (head.conv, head.hidden)), part.num_classes]
        activation = (ACTIVATION_NAMES[head.activation],) if len(channels) > 2 else ()
        return _Words("head", 0, " → ".join(map(str, channels)), activation, "→".join(map(str, channels)), 1)
    block, kernel = part.block, part.block.kernels_text
    channels = [part.in_channels, block.expanded, block.out]
    choices = (*(["SE"] if block.se else []), ACTIVATION_NAMES[block.activation])
    traits = (
        "separable" if block.op == "sepconv" else f"×{block.expanded / part.in_channels:.3g}",
        *choices,
        *(["stride 2"] if block.stride == 2 else []),
        *(["residual"] if part.placed.has_residual else []),
    )
    label = " ".join([kernel, "→".join(map(str, channels)), *choices, *(["s2"] if block.stride == 2 else [])])
    shape = f"{kernel}, {' → '.join(map(str, channels))}"
    return _Words(str(number), block.largest_kernel, shape, traits, label, part.placed.out_size)


def _stage_of(part: PartRow) -> float:
    """Return by how much the side of the image is reduced; the stem comes before all of it, the head after."""
    return {"stem": 0.0, "head": math.inf}.get(part.name, float(part.reduction))


def _stage_name(stage: float) -> str:
    return {0.0: "stem", math.inf: "head"}.get(stage, f"1/{stage:.0f} of the image")
