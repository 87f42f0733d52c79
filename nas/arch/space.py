"""Search spaces: one row a stage, and everything a search does with them.

A network of a space is a row of small integers, one a decision, each the index of a choice (-1: the decision does
not exist, because its block is beyond the stage's depth). The first decision is the variant, a pair of width
multiplier and resolution; each stage then has a depth (in the fine view also its channels), and each of its
blocks a kernel, an expansion, SE and an activation.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from nas.arch.spec import (
    ArchSpec,
    BlockSpec,
    HeadSpec,
    PlacedBlock,
    StemSpec,
    halved,
    round_channels,
    squeezed_channels,
)
from nas.errors import NasError

# The multipliers and resolutions of the MobileNet papers (arXiv 1704.04861, 1801.04381, 1905.02244).
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.25, 1.4)
RESOLUTIONS = (96, 128, 160, 192, 224, 256, 288)
CHANNEL_STEP = 8  # of the fine view
NORM_EPS = 1e-3  # of batch norm in every space: MobileNetV3's


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks that share their output channels; the first of them has the stride.

    Each of the other fields lists what may be chosen. Raises NasError for a stage that cannot be built.
    """

    out: int
    stride: int
    depths: tuple[int, ...] = (2, 3, 4)
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 4, 6)
    se: tuple[bool, ...] = (False, True)
    activations: tuple[str, ...] = ("relu", "hswish")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self)[2:]:
            _check_choices(f"stage of {self.out} channels: {field.name}", getattr(self, field.name))
        if min(self.depths) < 1 or min(self.expansions) < 1:
            raise NasError(f"stage of {self.out} channels: depths and expansions must be 1 or more")
        for kernel, activation in itertools.product(self.kernels, self.activations):
            BlockSpec(kernel=kernel, expanded=1, out=self.out, stride=self.stride, activation=activation)


Encoding = tuple[int, ...]  # a network of a space: the index of a choice for each decision, -1 where there is none


class Variant(NamedTuple):
    """Width multiplier and resolution (pixels)."""

    width: float
    resolution: int

    def __str__(self) -> str:
        return f"{self.width:g}@{self.resolution}"


class Decision(NamedTuple):
    """One choice of a space; `choices` are the values, a code is an index into them."""

    name: str
    choices: tuple[Any, ...]


class Slot(NamedTuple):
    """A place for a block: `position` counts from 0 within its stage."""

    stage: int
    position: int


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A skeleton and what may be chosen around it.

    Channels are given for width 1. `first` is the fixed sepconv behind the stem; the last convolution has
    `head_expansion` times the channels of the last stage. The hidden layer keeps its size at every width, as
    published, unless `scale_head`. `fine` is the view in which channels are free (see `fine_view`).
    """

    name: str
    stem: StemSpec
    first: BlockSpec
    stages: tuple[Stage, ...]
    head: HeadSpec
    head_expansion: int = 6
    scale_head: bool = False
    widths: tuple[float, ...] = WIDTHS
    resolutions: tuple[int, ...] = RESOLUTIONS
    variants: tuple[Variant, ...] = ()  # filled with every pair of the two above
    fine: bool = False

    def __post_init__(self) -> None:
        for name in ("stages", "widths", "resolutions"):
            _check_choices(f"space {self.name}: {name}", getattr(self, name), distinct=name != "stages")
        if not self.variants:
            object.__setattr__(
                self, "variants", tuple(itertools.starmap(Variant, itertools.product(self.widths, self.resolutions)))
            )

    # Views --------------------------------------------------------------------------------------------

    def at(self, variants: Sequence[tuple[float, int]]) -> SearchSpace:
        """The same space with these pairs of width and resolution only. Raises NasError for a foreign pair."""
        for width, resolution in variants:
            if width not in self.widths:
                raise NasError(f"space {self.name} has no width {width:g}; it has {_listed(self.widths)}")
            if resolution not in self.resolutions:
                raise NasError(f"space {self.name} has no resolution {resolution}; it has {_listed(self.resolutions)}")
        if not variants:
            raise NasError(f"space {self.name} needs at least one pair of width and resolution")
        return dataclasses.replace(self, variants=tuple(dict.fromkeys(itertools.starmap(Variant, variants))))

    @property
    def fine_view(self) -> SearchSpace:
        """The view that NetAdapt walks.

        Expanded channels are any multiple of 8 up to the largest expansion of the skeleton, a stage's
        channels any multiple of 8 up to the skeleton's.
        """
        return dataclasses.replace(self, fine=True)

    # Skeleton -----------------------------------------------------------------------------------------

    def stage_out(self, stage: int, width: float) -> int:
        """Output channels of a stage, -1 being the first block."""
        return round_channels((self.first.out if stage < 0 else self.stages[stage].out) * width)

    def stem_at(self, width: float) -> StemSpec:
        """Below width 0.75 the stem keeps its channels, as in the published MobileNetV3s."""
        return dataclasses.replace(
            self.stem, out=self.stem.out if width < 0.75 else round_channels(self.stem.out * width)
        )

    def first_at(self, width: float) -> BlockSpec:
        expanded = self.stem_at(width).out
        return self.first.replace(
            expanded=expanded, out=self.stage_out(-1, width), se=squeezed_channels(expanded) if self.first.se else 0
        )

    def head_at(self, width: float) -> HeadSpec:
        hidden = round_channels(self.head.hidden * width) if self.scale_head else self.head.hidden
        return dataclasses.replace(
            self.head, conv=self.head_expansion * self.stage_out(len(self.stages) - 1, width), hidden=hidden
        )

    def largest_expanded(self, slot: Slot, width: float) -> int:
        source = slot.stage if slot.position else slot.stage - 1
        return max(self.stages[slot.stage].expansions) * self.stage_out(source, width)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Every place where a block can be, in the order of the network."""
        return tuple(Slot(s, p) for s, stage in enumerate(self.stages) for p in range(max(stage.depths)))

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        widest = max(self.widths)
        decisions = [Decision("variant", self.variants)]
        for s, stage in enumerate(self.stages):
            decisions.append(Decision(f"stage{s + 1}.depth", stage.depths))
            if self.fine:
                decisions.append(Decision(f"stage{s + 1}.out", _steps(self.stage_out(s, widest))))
            for p in range(max(stage.depths)):
                expansions = _steps(self.largest_expanded(Slot(s, p), widest)) if self.fine else stage.expansions
                block = f"stage{s + 1}.block{p + 1}"
                decisions += [
                    Decision(f"{block}.kernel", stage.kernels),
                    Decision(f"{block}.expanded" if self.fine else f"{block}.expansion", expansions),
                    Decision(f"{block}.se", stage.se),
                    Decision(f"{block}.activation", stage.activations),
                ]
        return tuple(decisions)

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {decision.name: column for column, decision in enumerate(self.decisions)}

    @property
    def size(self) -> int:
        """How many rows of codes there are (networks, but for the few that two rows describe)."""
        return sum(
            math.prod(self._stage_size(s, variant.width) for s in range(len(self.stages))) for variant in self.variants
        )

    def _stage_size(self, s: int, width: float) -> int:
        stage = self.stages[s]
        blocks = [
            len(stage.kernels)
            * (self.largest_expanded(Slot(s, p), width) // CHANNEL_STEP if self.fine else len(stage.expansions))
            * len(stage.se)
            * len(stage.activations)
            for p in range(max(stage.depths))
        ]
        outs = self.stage_out(s, width) // CHANNEL_STEP if self.fine else 1
        return outs * sum(math.prod(blocks[:depth]) for depth in stage.depths)

    def depth_column(self, stage: int) -> int:
        """The column of `encode` with a stage's depth."""
        return self._columns[f"stage{stage + 1}.depth"]

    def slot_column(self, slot: Slot) -> int:
        """The first of the four columns (kernel, expansion, SE, activation) of a slot."""
        return self._columns[f"stage{slot.stage + 1}.block{slot.position + 1}.kernel"]

    def options(self, variant: Variant, slot: Slot) -> list[PlacedBlock]:
        """Every block that can stand in a slot, in the order of its four decisions, the last running fastest.

        Not for the fine view, in which a block's shape depends on its neighbours.
        """
        assert not self.fine
        stage = self.stages[slot.stage]
        source = slot.stage if slot.position else slot.stage - 1
        in_channels = self.stage_out(source, variant.width)
        size = halved(halved(variant.resolution, 2), self.first.stride)
        for before in self.stages[: slot.stage]:
            size = halved(size, before.stride)
        if slot.position:
            size = halved(size, stage.stride)
        choices = itertools.product(stage.kernels, stage.expansions, stage.se, stage.activations)
        return [
            PlacedBlock(
                self._block(slot, self.stage_out(slot.stage, variant.width), k, e * in_channels, se, activation),
                in_channels,
                size,
            )
            for k, e, se, activation in choices
        ]

    def _block(self, slot: Slot, out: int, kernel: int, expanded: int, se: bool, activation: str) -> BlockSpec:
        return BlockSpec(
            kernel=kernel,
            expanded=expanded,
            out=out,
            stride=1 if slot.position else self.stages[slot.stage].stride,
            se=squeezed_channels(expanded) if se else 0,
            activation=activation,
        )

    # Drawing ------------------------------------------------------------------------------------------

    def draw(self, choose: Callable[[Decision], int]) -> np.ndarray:
        """One row of codes, each existing decision asked of `choose` in order (choices it cannot have are gone)."""
        row = np.full(len(self.decisions), -1, np.int16)
        row[0] = choose(self.decisions[0])
        width = self.variants[row[0]].width
        column = 1
        for s, stage in enumerate(self.stages):
            row[column] = choose(self.decisions[column])
            depth = stage.depths[row[column]]
            column += 1
            if self.fine:
                row[column] = choose(self._capped(column, self.stage_out(s, width)))
                column += 1
            for p in range(max(stage.depths)):
                if p < depth:
                    for decision in range(column, column + 4):
                        capped = self.fine and decision == column + 1
                        row[decision] = choose(
                            self._capped(decision, self.largest_expanded(Slot(s, p), width))
                            if capped
                            else self.decisions[decision]
                        )
                column += 4
        return row

    def _capped(self, column: int, cap: int) -> Decision:
        decision = self.decisions[column]
        return Decision(decision.name, decision.choices[: cap // CHANNEL_STEP])

    def smallest(self, variant: tuple[float, int]) -> ArchSpec:
        """The network with the first choice of every decision: shallow, thin, plain."""
        at = self.at([variant])
        return at.decode([at.draw(lambda decision: 0)])[0]

    def largest(self, variant: tuple[float, int]) -> ArchSpec:
        """The network with the last choice of every decision."""
        at = self.at([variant])
        return at.decode([at.draw(lambda decision: len(decision.choices) - 1)])[0]

    def sample(self, rng: random.Random) -> ArchSpec:
        """A network of the space, uniform over each choice."""
        return self.decode([self.draw(lambda decision: rng.randrange(len(decision.choices)))])[0]

    def mutate(self, spec: ArchSpec, rng: random.Random, rate: float = 0.1) -> ArchSpec:
        """A neighbour of `spec`: each decision drawn anew with probability `rate`; never `spec` itself.

        Raises NasError if `spec` is not of this space, or its only network.
        """
        assert rate > 0
        parent = self.encode([spec])[0]
        if all(len(decision.choices) == 1 for decision in self.decisions):
            raise NasError(f"space {self.name} has one network only, which cannot be mutated")
        while True:
            child = self.decode([self.redraw(parent, rng, rate)])[0]
            if child.id != spec.id:
                return child

    def redraw(self, row: np.ndarray, rng: random.Random, rate: float) -> np.ndarray:
        """`row` with each decision drawn anew with probability `rate`; decisions that did not exist are drawn."""

        def choose(decision: Decision) -> int:
            kept = int(row[self._columns[decision.name]])
            if 0 <= kept < len(decision.choices) and rng.random() >= rate:
                return kept
            return rng.randrange(len(decision.choices))

        return self.draw(choose)

    # Codes --------------------------------------------------------------------------------------------

    def decode(self, codes: np.ndarray | Sequence[np.ndarray]) -> list[ArchSpec]:
        """The networks of an integer array of shape (n, decisions)."""
        return [self._decode_row([int(code) for code in row]) for row in codes]

    def _decode_row(self, row: list[int]) -> ArchSpec:
        value = {
            decision.name: decision.choices[code]
            for decision, code in zip(self.decisions, row, strict=True)
            if code >= 0
        }
        width, resolution = value["variant"]
        blocks = [self.first_at(width)]
        for s in range(len(self.stages)):
            out = value[f"stage{s + 1}.out"] if self.fine else self.stage_out(s, width)
            for p in range(value[f"stage{s + 1}.depth"]):
                decision = f"stage{s + 1}.block{p + 1}"
                expanded = (
                    value[f"{decision}.expanded"] if self.fine else value[f"{decision}.expansion"] * blocks[-1].out
                )
                chosen = (
                    value[f"{decision}.kernel"],
                    expanded,
                    value[f"{decision}.se"],
                    value[f"{decision}.activation"],
                )
                blocks.append(self._block(Slot(s, p), out, *chosen))
        return ArchSpec(
            name=f"{self.name}@{width:g}",
            resolution=resolution,
            stem=self.stem_at(width),
            blocks=tuple(blocks),
            head=self.head_at(width),
            norm_eps=NORM_EPS,
        )

    def encode(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Integer array of shape (n, decisions), -1 where a decision does not exist.

        Where two rows describe one network (stages whose channels came to be equal), the one with the
        shallower early stages is given. Raises NasError for a network that is not of this space.
        """
        rows = np.full((len(specs), len(self.decisions)), -1, np.int16)
        for row, spec in zip(rows, specs, strict=True):
            codes = self._encode_one(spec)
            if codes is None:
                view = f"{self.name}, fine view" if self.fine else self.name
                raise NasError(f"{spec.name} ({spec.id}) is not a network of the space {view}")
            row[:] = codes
        return rows

    def contains(self, spec: ArchSpec) -> bool:
        return self._encode_one(spec) is not None

    def _encode_one(self, spec: ArchSpec) -> list[int] | None:
        fixed = (spec.stem, _plain(spec.blocks[0]), spec.head, spec.resolution, spec.norm_eps)
        for code, width in self._variants_of.get(fixed, []):
            row = self._encode_stages(spec, width, 0, 1)
            if row is not None:
                return [code, *row]
        return None

    @cached_property
    def _variants_of(self) -> dict[tuple[Any, ...], list[tuple[int, float]]]:
        """Codes and widths of the variants by what a network of theirs cannot choose."""
        variants: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
        for code, (width, resolution) in enumerate(self.variants):
            fixed = (self.stem_at(width), _plain(self.first_at(width)), self.head_at(width), resolution, NORM_EPS)
            variants.setdefault(fixed, []).append((code, width))
        return variants

    def _encode_stages(self, spec: ArchSpec, width: float, s: int, index: int) -> list[int] | None:
        """Codes of the stages from `s` on, of which the first block is `index`."""
        if s == len(self.stages):
            return [] if index == len(spec.blocks) else None
        for code, depth in enumerate(self.stages[s].depths):
            row = self._encode_stage(spec, width, s, index, depth)
            rest = None if row is None else self._encode_stages(spec, width, s + 1, index + depth)
            if row is not None and rest is not None:
                return [code, *row, *rest]
        return None

    def _encode_stage(self, spec: ArchSpec, width: float, s: int, index: int, depth: int) -> list[int] | None:
        if index + depth > len(spec.blocks):
            return None
        row: list[int] = []
        out, cap = spec.blocks[index].out, self.stage_out(s, width)
        if self.fine:
            if out % CHANNEL_STEP or out > cap:
                return None
            row.append(out // CHANNEL_STEP - 1)
        elif out != cap:
            return None
        for p in range(depth):
            codes = self._encode_block(Slot(s, p), spec.blocks[index + p], spec.blocks[index + p - 1].out, out, width)
            if codes is None:
                return None
            row += codes
        return row + [-1] * 4 * (max(self.stages[s].depths) - depth)

    def _encode_block(self, slot: Slot, block: BlockSpec, in_channels: int, out: int, width: float) -> list[int] | None:
        stage = self.stages[slot.stage]
        expanded, has_se = block.expanded, block.se > 0
        if self.fine:
            if expanded % CHANNEL_STEP or expanded > self.largest_expanded(slot, width):
                return None
            expansion = expanded // CHANNEL_STEP - 1
        else:
            if expanded % in_channels or expanded // in_channels not in stage.expansions:
                return None
            expansion = stage.expansions.index(expanded // in_channels)
        if (
            block.kernel not in stage.kernels
            or has_se not in stage.se
            or block.activation not in stage.activations
            or _plain(block) != self._block(slot, out, block.kernel, expanded, has_se, block.activation)
        ):
            return None
        return [
            stage.kernels.index(block.kernel),
            expansion,
            stage.se.index(has_se),
            stage.activations.index(block.activation),
        ]


def _plain(block: BlockSpec) -> BlockSpec:
    """The gate of a block without SE does not exist, so that it does not tell networks apart."""
    return block if block.se else block.replace(gate="hard_sigmoid")


def _check_choices(what: str, choices: Any, distinct: bool = True) -> None:
    if not isinstance(choices, tuple) or not choices:
        raise NasError(f"{what} is {choices!r}; it must be a tuple of at least one choice")
    if distinct and len(set(choices)) < len(choices):
        raise NasError(f"{what} is {choices!r}; it holds a choice twice")


def _steps(largest: int) -> tuple[int, ...]:
    return tuple(range(CHANNEL_STEP, largest + 1, CHANNEL_STEP))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
