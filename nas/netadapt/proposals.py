"""Make NetAdapt's proposals: networks with one cut more than the current one (arXiv 1804.03230).

A proposal takes channels away at one place: at the expansion of a block, or at the bottleneck that a run of blocks
shares. The predicted latency decides how many channels go. On the staircase of a vector unit the next width down may
save nothing, or even take longer.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from nas.arch.spec import CHANNEL_STEP, MIN_RESOLUTION, ArchSpec, BlockSpec, squeezed_channels
from nas.errors import NasError, unknown_name

STEP_SHARE = 0.01
# Shares of a place's channels that are always tried. The first also tells how much a channel saves there, and so which
# widths are tried beside it.
PROBED_SHARE, HALF_SHARE = 3 / 4, 1 / 2
MOST_WIDTHS = 4  # widths that are tried beside these two at one place, or one more
VECTOR_CHANNELS = 16  # channels that a wide vector unit takes at once: multiples of this are often the faster widths
RESOLUTION_STEP = 16  # pixels
METRICS = ("ratio", "accuracy")
EXTRA_CUTS = ("stem", "head", "se", "kernel", "activation", "resolution")  # beside expansions and bottlenecks

Predict = Callable[[Sequence[ArchSpec]], np.ndarray]  # of n networks: an array of shape (n,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules by which proposals are made and one of them is kept. Raises NasError for impossible values.

    A step saves at least `step_share` of the seed's latency. `metric` decides which proposal is kept: "ratio" is the
    accuracy change per millisecond saved, as in MobileNetV3, and "accuracy" is that of the original NetAdapt. `allow`
    lists what may be cut beyond the paper: the bottleneck of the "stem" and of the first block, the layers of the
    "head", "se" of a block, "kernel" to the next smaller one, "activation" from h-swish to ReLU, and "resolution".
    """

    step_share: float = STEP_SHARE
    metric: str = "ratio"
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.step_share < 1:
            raise NasError(f"a step's share of the latency is {self.step_share:g}; it must be between 0 and 1")
        for label, names, known in (("metric", (self.metric,), METRICS), ("option to cut", self.allow, EXTRA_CUTS)):
            for name in names:
                if name not in known:
                    raise unknown_name(label, name, known)


PAPER_RULES = Rules()


class Proposal(NamedTuple):
    """A network that may be kept next."""

    cut: str  # the difference to the current network, for readers
    spec: ArchSpec
    predicted_ms: float


def make_proposals(
    spec: ArchSpec, least_saving_ms: float, predict_ms: Predict, rules: Rules = PAPER_RULES
) -> list[Proposal]:
    """Return networks that are predicted to save at least `least_saving_ms` against `spec`.

    None of them is slower than a wider one at the same place.
    """
    places = places_of(spec, rules.allow)
    probes = [place.narrowed(spec, rounded_share(place.channels, PROBED_SHARE)) for place in places]
    before_ms, *probed_ms = map(float, predict_ms([spec, *(probe.spec for probe in probes)]))
    groups = []
    for place, probe, ms in zip(places, probes, probed_ms, strict=True):
        saving_per_channel = (before_ms - ms) / probe.removed
        needed = least_saving_ms / saving_per_channel if saving_per_channel > 0 else place.channels / 2
        widths = {
            rounded_share(place.channels, PROBED_SHARE),
            rounded_share(place.channels, HALF_SHARE),
            *widths_near(place.channels, needed),
        }
        groups.append([place.narrowed(spec, width) for width in sorted(widths)])
    groups.append(list(_extra_cuts(spec, rules.allow)))
    cuts = list(itertools.chain(*groups))
    if not cuts:
        return []
    predicted_ms = map(float, predict_ms([cut.spec for cut in cuts]))
    times = dict(zip((cut.name for cut in cuts), predicted_ms, strict=True))
    *at_places, extra = [[cut for cut in group if before_ms - times[cut.name] >= least_saving_ms] for group in groups]
    found = extra
    for saving in at_places:
        found += [cut for cut in saving if not _beaten(cut, saving, times)]
    return [Proposal(cut.name, cut.spec, times[cut.name]) for cut in found]


def wider_and_faster(spec: ArchSpec, predict_ms: Predict) -> Proposal | None:
    """Return `spec` with every expansion widened that is faster at the next multiple of 16 channels.

    Returns None if there is no such expansion.
    """
    places = [
        Place("expanded", block.expanded, index, index)
        for index, block in enumerate(spec.blocks)
        if block.op != "sepconv" and block.expanded % VECTOR_CHANNELS
    ]
    if not places:
        return None
    wider = [place.narrowed(spec, -(-place.channels // VECTOR_CHANNELS) * VECTOR_CHANNELS) for place in places]
    before_ms, *each_ms = predict_ms([spec, *(cut.spec for cut in wider)])
    faster = [(place, cut) for place, cut, ms in zip(places, wider, each_ms, strict=True) if ms < before_ms]
    if not faster:
        return None
    blocks = list(spec.blocks)
    for place, cut in faster:
        blocks[place.first] = cut.spec.blocks[place.first]
    together = spec.replace(blocks=tuple(blocks))
    together_ms = float(predict_ms([together])[0])
    # Not faster where a limit beside latency, which each alone keeps, makes the prediction of all of them infinite.
    if together_ms >= before_ms:
        return None
    return Proposal("wider and faster: " + ", ".join(cut.name for _, cut in faster), together, together_ms)


def rounded_share(channels: int, share: float) -> int:
    """Return the largest multiple of 8 that is at most that share of the channels, but at least 8."""
    return max(CHANNEL_STEP, int(share * channels) // CHANNEL_STEP * CHANNEL_STEP)


def widths_near(channels: int, needed: float) -> list[int]:
    """Return a few widths that lack half of `needed` to twice `needed` channels.

    They are multiples of 8, and of as high a power of two as there are.
    """
    low = max(CHANNEL_STEP, min(channels - 2 * needed, channels - 2 * CHANNEL_STEP))
    high = min(channels - needed / 2, channels - 1)
    step = CHANNEL_STEP
    while (high - low) / step > MOST_WIDTHS:
        step *= 2
    return [width for width in range(step, channels, step) if low <= width <= high]


# Cuts at one place ------------------------------------------------------------------------------------


class _Cut(NamedTuple):
    """A network with one cut, and the name of the cut, of which a network has no two alike."""

    name: str
    spec: ArchSpec
    removed: int = 0  # channels


def _beaten(cut: _Cut, rivals: Iterable[_Cut], times: dict[str, float]) -> bool:
    """Return whether a wider network at the same place is as fast."""
    return any(times[rival.name] <= times[cut.name] and rival.removed < cut.removed for rival in rivals)


class Place(NamedTuple):
    """Channels that can be cut together: one field of the blocks `first` to `last` (from 0), or of the head.

    The stem, where a residual ties it to a block, is -1.
    """

    field: Literal["expanded", "out", "conv", "hidden"]
    channels: int
    first: int = -1
    last: int = -1

    @property
    def name(self) -> str:
        if self.field == "expanded":
            return f"block {self.first + 1}: expanded"
        if self.field == "out":
            return f"{f'blocks {self.first + 1}-' if self.first >= 0 else 'stem to block '}{self.last + 1}: out"
        return f"head: {self.field}"

    def channels_in(self, spec: ArchSpec) -> int:
        """Return how many channels a network that was cut from this place's has here."""
        if self.field == "expanded":
            return spec.blocks[self.first].expanded
        if self.field == "out":
            return spec.blocks[self.last].out
        return spec.head.conv if self.field == "conv" else spec.head.hidden

    def narrowed(self, spec: ArchSpec, width: int) -> _Cut:
        """Return `spec` with `width` channels at this place."""
        return _Cut(f"{self.name} {self.channels} to {width}", self.cut(spec, width), self.channels - width)

    def cut(self, spec: ArchSpec, width: int) -> ArchSpec:
        """Return a network with `width` channels at this place."""
        if self.field == "expanded":
            # SE, where there is one, keeps its quarter of the expanded channels, or the fewer that it has.
            se = squeezed_channels(width) if spec.blocks[self.first].se else 0
            if width < spec.blocks[self.first].expanded:
                se = min(se, spec.blocks[self.first].se)
            return spec.with_block(self.first, expanded=width, se=se)
        if self.field == "out":
            blocks = list(spec.blocks)
            run = slice(max(0, self.first), self.last + 1)
            blocks[run] = [block.replace(out=width) for block in blocks[run]]
            stem = spec.stem if self.first >= 0 else dataclasses.replace(spec.stem, out=width)
            return spec.replace(stem=stem, blocks=tuple(blocks))
        conv, hidden = (width, spec.head.hidden) if self.field == "conv" else (spec.head.conv, width)
        return spec.replace(head=dataclasses.replace(spec.head, conv=conv, hidden=hidden))


def places_of(spec: ArchSpec, allow: Sequence[str] = ()) -> list[Place]:
    """Return the places of a network that have channels to spare."""
    places = [
        Place("expanded", block.expanded, index, index)
        for index, block in enumerate(spec.blocks)
        if block.op != "sepconv"
    ]
    runs = [(first, last) for first, last in bottlenecks(spec) if first > 0 or "stem" in allow]
    places += [Place("out", spec.blocks[last].out, first, last) for first, last in runs]
    if "head" in allow:
        places += [Place("conv", spec.head.conv), Place("hidden", spec.head.hidden)]
    return [place for place in places if place.channels > CHANNEL_STEP]


def _extra_cuts(spec: ArchSpec, allow: Sequence[str]) -> Iterator[_Cut]:
    """Yield the cuts beyond the paper that are not of channels."""
    for index, block in enumerate(spec.blocks):
        for name, change in changes_of(block, allow):
            yield _Cut(f"block {index + 1}: {name}", spec.with_block(index, **change))
    if lower := resolutions_below(spec, allow):
        yield _Cut(f"resolution {spec.resolution} to {lower[-1]}", spec.replace(resolution=lower[-1]))


def changes_of(block: BlockSpec, allow: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the cuts of one block that are not of channels: the name for readers, and the fields that change."""
    if "se" in allow and block.se:
        yield "no SE", {"se": 0}
    for field in ("kernel", "start_kernel"):
        if "kernel" in allow and (kernel := getattr(block, field)) > 3:
            yield f"{field} {kernel} to {kernel - 2}", {field: kernel - 2}
    if "activation" in allow and block.activation == "hswish":
        yield "h-swish to ReLU", {"activation": "relu"}


def resolutions_below(spec: ArchSpec, allow: Sequence[str]) -> list[int]:
    """Return the lower resolutions (pixels) to which a network may be cut, in rising order."""
    if "resolution" not in allow:
        return []
    return [side for side in range(RESOLUTION_STEP, spec.resolution, RESOLUTION_STEP) if side >= MIN_RESOLUTION]


def bottlenecks(spec: ArchSpec) -> list[tuple[int, int]]:
    """Return the runs of blocks whose outputs are tied by residuals, as (first, last) block, counted from 0.

    A run that a residual ties to the stem begins with -1; a stem by itself is left out. So is a run with a block that a
    sepconv follows, whose width is that of its input.
    """
    runs = [(-1, -1)]  # the stem's
    placed_blocks = list(spec.walk())
    for index, placed in enumerate(placed_blocks):
        if placed.has_residual:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    followed = {index - 1 for index, placed in enumerate(placed_blocks) if placed.block.op == "sepconv"}
    return [
        (first, last)
        for first, last in runs
        if last >= 0 and not any(index in followed for index in range(first, last + 1))
    ]
