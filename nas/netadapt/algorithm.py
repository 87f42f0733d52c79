"""NetAdapt as MobileNetV3 uses it (arXiv 1804.03230; 1905.02244, section 4.2), on a latency table.

Each step makes proposals, every one of which saves at least a given share of the seed's latency: (a) one block
with fewer expanded channels, (b) all blocks that share a bottleneck with fewer channels there. The proposal with
the best accuracy change per saved millisecond is kept, until the budget holds.

How many channels a proposal takes away the table says: on a staircase the next width down may save nothing, or
take longer. Layers that are slower than the next wider ones are widened before anything is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nas.arch.space import CHANNEL_STEP
from nas.arch.spec import MIN_RESOLUTION, ArchSpec, squeezed_channels
from nas.errors import NasError, unknown_name

STEP_SHARE = 0.01  # of the seed's latency, that a step saves at least
PATIENCE = 4  # times that half as much is asked for where no cut saves so much any more
PROBE = 3 / 4  # of a place's channels: what that saves tells which widths are looked at beside it and
HALF = 1 / 2
LOOKED_AT = 4  # widths, or one more
VECTOR = 16  # channels a wide vector unit takes at once: of two nearby widths the multiple is often the faster
RESOLUTION_STEP = 16  # pixels
METRICS = ("ratio", "accuracy")
# What may be cut beside expansions and bottlenecks.
OPTIONS = ("se", "kernel", "activation", "resolution", "head")

Price = Callable[[Sequence[ArchSpec]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Step:
    """A network on the way, and the cut that led to it."""

    spec: ArchSpec
    latency_ms: float
    top1: float  # as estimated, percent
    cut: str  # "" for the seed
    gained: float = 0.0  # against the network before, estimated along with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How proposals are made, and which of them is kept. Raises NasError for impossible values.

    `metric` is "ratio" (accuracy change per millisecond saved, MobileNetV3's) or "accuracy" (NetAdapt's own).
    `allow` lists what may be cut beyond the paper: "se" of a block, "kernel" to the next smaller, "activation"
    from h-swish to ReLU, "resolution", and the layers of the "head". With `one_each` there is one proposal a place,
    the one that saves most for its channels: for estimates that take their time.
    """

    share: float = STEP_SHARE
    metric: str = "ratio"
    allow: tuple[str, ...] = ()
    one_each: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise NasError(f"a step's share of the latency is {self.share:g}; it must be between 0 and 1")
        for kind, names, known in (("metric", (self.metric,), METRICS), ("option to cut", self.allow, OPTIONS)):
            for name in names:
                if name not in known:
                    raise unknown_name(kind, name, known)


PAPER = Rules()


class Proposal(NamedTuple):
    """A network that might be next."""

    cut: str
    spec: ArchSpec
    latency_ms: float


def netadapt(
    seed: ArchSpec, budget_ms: float, *, price: Price, estimate: Price, rules: Rules = PAPER
) -> Iterator[Step]:
    """Trims `seed` until `price` (ms) is at most `budget_ms`; gives the seed first, then each step.

    `price` and `estimate` (accuracy, percent) map networks to arrays of shape (n,). Ends early, over the budget,
    when no proposal saves anything more.
    """
    steps = [first_step(seed, price, estimate)]
    yield steps[0]
    while steps[-1].latency_ms > budget_ms:
        step = next_step(steps, budget_ms, price=price, estimate=estimate, rules=rules)
        if step is None:
            return
        steps.append(step)
        yield step


def first_step(seed: ArchSpec, price: Price, estimate: Price) -> Step:
    return Step(seed, float(price([seed])[0]), float(estimate([seed])[0]), "")


def next_step(
    steps: Sequence[Step], budget_ms: float, *, price: Price, estimate: Price, rules: Rules = PAPER
) -> Step | None:
    """The step after `steps`, whose last is over the budget; None if nothing saves anything more.

    Accuracies are compared with the current network's, estimated along with the proposals: an estimate that
    trains a little would count its training as a gain otherwise.
    """
    last = steps[-1]
    if len(steps) == 1:
        wider = widened(last.spec, price)
        if wider is not None:
            before, after = map(float, estimate([last.spec, wider.spec]))
            return Step(wider.spec, wider.latency_ms, after, wider.cut, after - before)
    # The last step need not save more than what is missing.
    least_ms = min(rules.share * steps[0].latency_ms, last.latency_ms - budget_ms)
    halvings = range(1 + PATIENCE)
    found = next(filter(None, (proposals(last.spec, least_ms / 2**n, price, rules) for n in halvings)), [])
    if not found:
        return None
    accuracy = np.asarray(estimate([last.spec, *(proposal.spec for proposal in found)]))
    gained, saved = accuracy[1:] - accuracy[0], last.latency_ms - np.array([p.latency_ms for p in found])
    best = int(np.argmax(gained)) if rules.metric == "accuracy" else best_proposal(gained, saved)
    cut, spec, latency_ms = found[best]
    return Step(spec, latency_ms, float(accuracy[1 + best]), cut, float(gained[best]))


def best_proposal(gained: np.ndarray, saved_ms: np.ndarray) -> int:
    """Index of the best accuracy change per saved millisecond (1905.02244, section 4.2).

    The ratio would prefer the smallest saving where accuracy does not fall, so that such proposals are treated
    on their own: the largest saving among them wins.
    """
    free = gained >= 0
    if free.any():
        return int(np.argmax(np.where(free, saved_ms, -np.inf)))
    return int(np.argmax(gained / saved_ms))


def widened(spec: ArchSpec, price: Price) -> Proposal | None:
    """`spec` with every expansion that is faster at the next multiple of 16 channels; None if there is none."""
    blocks = list(spec.blocks)
    places = [
        _Place(f"block {index + 1}: expanded", block.expanded, index, index)
        for index, block in enumerate(blocks)
        if block.op == "mbconv" and block.expanded % VECTOR
    ]
    if not places:
        return None
    widths = [-(-place.channels // VECTOR) * VECTOR for place in places]
    latency_ms, *each_ms = price([spec, *(_narrowed(spec, p, w) for p, w in zip(places, widths, strict=True))])
    said = []
    for place, width, ms in zip(places, widths, each_ms, strict=True):
        if ms < latency_ms:
            blocks[place.first] = _narrowed(spec, place, width).blocks[place.first]
            said.append(place.cut(width))
    if not said:
        return None
    wider = spec.replace(blocks=tuple(blocks))
    wider_ms = float(price([wider])[0])
    # Not so where a limit of another kind, which each alone keeps, makes the price of all of them infinite.
    return Proposal("wider and faster: " + ", ".join(said), wider, wider_ms) if wider_ms < latency_ms else None


# Proposals --------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """Where channels can be taken away: the expansion of a block, the bottleneck of a run of them, the head."""

    name: str  # "block 3: expanded", "blocks 4-6: out", "head: conv"
    channels: int
    first: int
    last: int

    def cut(self, width: int) -> str:
        return f"{self.name} {self.channels} to {width}"


def proposals(spec: ArchSpec, least_ms: float, price: Price, rules: Rules = PAPER) -> list[Proposal]:
    """Networks that save at least `least_ms` against `spec`, none of them slower than a wider one at its place."""
    places = list(_places(spec, rules.allow))
    probes = [share_of(place.channels, PROBE) for place in places]
    before_ms, *probed_ms = map(float, price([spec, *map(_narrowed, [spec] * len(places), places, probes)]))
    cuts: list[tuple[int, str, ArchSpec, int]] = []  # place, what is cut, what is left, channels less
    for index, (place, probe, ms) in enumerate(zip(places, probes, probed_ms, strict=True)):
        slope = (before_ms - ms) / (place.channels - probe)
        needed = least_ms / slope if slope > 0 else place.channels / 2
        for width in sorted({probe, share_of(place.channels, HALF), *near(place.channels, needed)}):
            cuts.append((index, place.cut(width), _narrowed(spec, place, width), place.channels - width))
    cuts += [(-1, cut, smaller, 0) for cut, smaller in _options(spec, rules.allow)]
    if not cuts:
        return []
    after_ms = np.asarray(price([smaller for _, _, smaller, _ in cuts]), float)
    found: list[Proposal] = []
    for index in range(-1, len(places)):
        here = [n for n, cut in enumerate(cuts) if cut[0] == index and before_ms - after_ms[n] >= least_ms]
        if index >= 0:
            here = [n for n in here if not any(after_ms[o] <= after_ms[n] and cuts[o][3] < cuts[n][3] for o in here)]
        if index >= 0 and rules.one_each and here:
            here = [_best_width(here, [before_ms - float(after_ms[n]) for n in here], [cuts[n][3] for n in here])]
        found += [Proposal(cuts[n][1], cuts[n][2], float(after_ms[n])) for n in here]
    return found


def _best_width(numbers: Sequence[int], saved_ms: Sequence[float], channels: Sequence[int]) -> int:
    """Of cuts at one place: the one that saves most a channel, among those that save less than twice the least."""
    limit = 2 * min(saved_ms)
    rates = [ms / less if ms < limit else 0.0 for ms, less in zip(saved_ms, channels, strict=True)]
    return numbers[int(np.argmax(rates))]


def share_of(channels: int, share: float) -> int:
    """A multiple of 8 of at most that share of the channels, at least 8."""
    return max(CHANNEL_STEP, int(share * channels) // CHANNEL_STEP * CHANNEL_STEP)


def near(channels: int, needed: float) -> list[int]:
    """A few multiples of 8, as round ones as there are, from which half to twice `needed` channels are missing."""
    low = max(CHANNEL_STEP, min(channels - 2 * needed, channels - 2 * CHANNEL_STEP))
    high = min(channels - needed / 2, channels - 1)
    step = CHANNEL_STEP
    while (high - low) / step > LOOKED_AT:
        step *= 2
    return [width for width in range(step, channels, step) if low <= width <= high]


def _places(spec: ArchSpec, allow: Sequence[str]) -> Iterator[_Place]:
    for index, block in enumerate(spec.blocks):
        if block.op == "mbconv":
            yield from _wide_enough(_Place(f"block {index + 1}: expanded", block.expanded, index, index))
    for first, last in bottlenecks(spec):
        yield from _wide_enough(_Place(f"blocks {first + 1}-{last + 1}: out", spec.blocks[first].out, first, last))
    if "head" in allow:
        for part in ("conv", "hidden"):
            yield from _wide_enough(_Place(f"head: {part}", getattr(spec.head, part), -1, -1))


def _wide_enough(place: _Place) -> Iterator[_Place]:
    if place.channels > CHANNEL_STEP:
        yield place


def _narrowed(spec: ArchSpec, place: _Place, width: int) -> ArchSpec:
    """`spec` with `width` channels at a place. SE, where there is one, keeps its quarter of the expanded ones."""
    kind = place.name.rpartition(" ")[2]
    if kind == "expanded":
        se = squeezed_channels(width) if spec.blocks[place.first].se else 0
        return spec.with_block(place.first, expanded=width, se=se)
    if kind == "out":
        blocks = list(spec.blocks)
        run = slice(place.first, place.last + 1)
        blocks[run] = [block.replace(out=width) for block in blocks[run]]
        return spec.replace(blocks=tuple(blocks))
    conv, hidden = (width, spec.head.hidden) if kind == "conv" else (spec.head.conv, width)
    return spec.replace(head=type(spec.head)(conv=conv, hidden=hidden, activation=spec.head.activation))


def _options(spec: ArchSpec, allow: Sequence[str]) -> Iterator[tuple[str, ArchSpec]]:
    """What may be cut beyond the paper, channels apart."""
    for index, block in enumerate(spec.blocks):
        name = f"block {index + 1}"
        if "se" in allow and block.se:
            yield f"{name}: no SE", spec.with_block(index, se=0)
        if "kernel" in allow and block.kernel > 3:
            yield (
                f"{name}: kernel {block.kernel} to {block.kernel - 2}",
                spec.with_block(index, kernel=block.kernel - 2),
            )
        if "activation" in allow and block.activation == "hswish":
            yield f"{name}: h-swish to ReLU", spec.with_block(index, activation="relu")
    lower = (spec.resolution - 1) // RESOLUTION_STEP * RESOLUTION_STEP
    if "resolution" in allow and lower >= MIN_RESOLUTION:
        yield f"resolution {spec.resolution} to {lower}", spec.replace(resolution=lower)


def bottlenecks(spec: ArchSpec) -> list[tuple[int, int]]:
    """Runs of blocks whose outputs are tied by residuals, as (first, last) block.

    A run that a residual ties to the stem is left out, and so is the block that a sepconv follows, whose width
    is its input's.
    """
    runs: list[tuple[int, int]] = []
    for index, placed in enumerate(spec.walk()):
        if placed.has_residual and runs:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    placed_blocks = list(spec.walk())
    followed = {index - 1 for index, placed in enumerate(placed_blocks) if placed.block.op == "sepconv"}
    return [
        (first, last)
        for first, last in runs
        if first > 0 and not any(index in followed for index in range(first, last + 1))
    ]
