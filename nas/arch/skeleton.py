"""Describe what a search space fixes and what it leaves open: a skeleton with one row a stage, and its decisions."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from nas.arch.spec import BlockSpec, HeadSpec, PlacedBlock, StemSpec, halved, round_channels, squeezed_channels
from nas.errors import NasError

# The multipliers and resolutions of the MobileNet papers (arXiv 1704.04861, 1801.04381, 1905.02244).
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.25, 1.4)
RESOLUTIONS = (96, 128, 160, 192, 224, 256, 288)
BLOCK_DECISIONS = ("kernel", "expansion", "se", "activation")  # of one slot, in the order of their columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of blocks that share their output channels. The first block has the stride.

    Every field but `out` and `stride` lists choices. Raises NasError for a stage that cannot be built.
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

    @property
    def block_choices(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...], tuple[str, ...]]:
        """Return the choices of a block's four decisions, in the order of `BLOCK_DECISIONS`."""
        return self.kernels, self.expansions, self.se, self.activations


class Variant(NamedTuple):
    """A pair of width multiplier and resolution (pixels)."""

    width: float
    resolution: int

    def __str__(self) -> str:
        return f"{self.width:g}@{self.resolution}"


class Slot(NamedTuple):
    """A place where a block can stand. `position` counts from 0 within its stage."""

    stage: int
    position: int


class Decision(NamedTuple):
    """One open question of a space. An encoding holds the index of one of its `choices`."""

    name: str
    choices: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """The fixed parts of a search space, and the choices at each place around them.

    Channels are given for width 1. `first` is the fixed sepconv behind the stem. The last convolution has
    `head_expansion` times the channels of the last stage. The hidden layer keeps its size at every width, as
    published, unless `scale_head` is true. `variants` is filled with every pair of width and resolution.
    `first.expanded` and `head.conv` follow from the stem and the last stage; their values are not used, nor is the size
    of the first block's SE.
    Raises NasError for a space without choices.
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
    variants: tuple[Variant, ...] = ()

    def __post_init__(self) -> None:
        for name in ("stages", "widths", "resolutions"):
            _check_choices(f"space {self.name}: {name}", getattr(self, name), distinct=name != "stages")
        if not self.variants:
            pairs = itertools.product(self.widths, self.resolutions)
            object.__setattr__(self, "variants", tuple(itertools.starmap(Variant, pairs)))

    # Fixed parts -----------------------------------------------------------------------------------------

    def stage_out(self, stage: int, width: float) -> int:
        """Return the output channels of a stage; stage -1 is the first block."""
        return round_channels((self.first.out if stage < 0 else self.stages[stage].out) * width)

    def stem_at(self, width: float) -> StemSpec:
        """Return the stem. Below width 0.75 it keeps its channels, as in the published MobileNetV3s."""
        return dataclasses.replace(
            self.stem, out=self.stem.out if width < 0.75 else round_channels(self.stem.out * width)
        )

    def first_at(self, width: float) -> BlockSpec:
        """Return the fixed first block."""
        expanded = self.stem_at(width).out
        return self.first.replace(
            expanded=expanded, out=self.stage_out(-1, width), se=squeezed_channels(expanded) if self.first.se else 0
        )

    def head_at(self, width: float) -> HeadSpec:
        """Return the head."""
        hidden = round_channels(self.head.hidden * width) if self.scale_head else self.head.hidden
        return dataclasses.replace(
            self.head, conv=self.head_expansion * self.stage_out(len(self.stages) - 1, width), hidden=hidden
        )

    @cached_property
    def fixed_parts(self) -> dict[float, tuple[StemSpec, BlockSpec, HeadSpec]]:
        """Return the stem, the first block and the head of each width that a variant has."""
        widths = dict.fromkeys(variant.width for variant in self.variants)
        return {width: (self.stem_at(width), self.first_at(width), self.head_at(width)) for width in widths}

    # Slots and the blocks that can stand in them ------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Return every slot, in the order of the network."""
        return tuple(Slot(s, p) for s, stage in enumerate(self.stages) for p in range(max(stage.depths)))

    def in_channels(self, slot: Slot, width: float) -> int:
        """Return the input channels of a slot's block."""
        return self.stage_out(slot.stage if slot.position else slot.stage - 1, width)

    def build_block(
        self, slot: Slot, width: float, kernel: int, expansion: int, se: bool, activation: str
    ) -> BlockSpec:
        """Return the block that one option (kernel, expansion, SE, activation) puts into a slot."""
        expanded = expansion * self.in_channels(slot, width)
        return BlockSpec(
            kernel=kernel,
            expanded=expanded,
            out=self.stage_out(slot.stage, width),
            stride=1 if slot.position else self.stages[slot.stage].stride,
            se=squeezed_channels(expanded) if se else 0,
            activation=activation,
        )

    def options(self, variant: Variant, slot: Slot) -> list[PlacedBlock]:
        """Return the block of every option of a slot, in the order of its four decisions, the last running fastest."""
        stage = self.stages[slot.stage]
        size = halved(self.stem.out_size(variant.resolution), self.first.stride)
        for before in self.stages[: slot.stage]:
            size = halved(size, before.stride)
        if slot.position:
            size = halved(size, stage.stride)
        in_channels = self.in_channels(slot, variant.width)
        return [
            PlacedBlock(self.build_block(slot, variant.width, *option), in_channels, size)
            for option in itertools.product(*stage.block_choices)
        ]

    # Decisions ----------------------------------------------------------------------------------------

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Return every decision, in the order of the columns of an encoding."""
        decisions = [Decision("variant", self.variants)]
        for s, stage in enumerate(self.stages):
            decisions.append(Decision(f"stage{s + 1}.depth", stage.depths))
            for p in range(max(stage.depths)):
                named = zip(BLOCK_DECISIONS, stage.block_choices, strict=True)
                decisions += [Decision(f"stage{s + 1}.block{p + 1}.{name}", choices) for name, choices in named]
        return tuple(decisions)

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {decision.name: column for column, decision in enumerate(self.decisions)}

    def depth_column(self, stage: int) -> int:
        """Return the column of an encoding that holds a stage's depth."""
        return self._columns[f"stage{stage + 1}.depth"]

    def slot_column(self, slot: Slot) -> int:
        """Return the first of the four columns (kernel, expansion, SE, activation) of a slot."""
        return self._columns[f"stage{slot.stage + 1}.block{slot.position + 1}.{BLOCK_DECISIONS[0]}"]


def _check_choices(name: str, choices: Any, distinct: bool = True) -> None:
    if not isinstance(choices, tuple) or not choices:
        raise NasError(f"{name} is {choices!r}; it must be a tuple of at least one choice")
    if distinct and len(set(choices)) < len(choices):
        raise NasError(f"{name} is {choices!r}; it holds a choice twice")
