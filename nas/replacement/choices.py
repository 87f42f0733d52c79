"""List what can stand at each place of a teacher: its blocks with one decision changed, and no block at all."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nas.arch.encoding import encode_network
from nas.arch.skeleton import BLOCK_DECISIONS, Slot
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec
from nas.errors import NasError

LEFT_OUT = "left out"  # in place of a decision


class Replacement(NamedTuple):
    """A block that is to stand at `position` of the teacher, an index of `spec.blocks`; None leaves the block out."""

    position: int
    block: BlockSpec | None


class Change(NamedTuple):
    """One decision of a slot that differs from the teacher's: `value` is the other choice, None for `LEFT_OUT`."""

    slot: Slot
    decision: str  # of `BLOCK_DECISIONS`, or `LEFT_OUT`
    value: Any


class Choices:
    """The choices of a space around a teacher, a network of the space at whatever resolution.

    Raises NasError for a teacher of another space.
    """

    def __init__(self, space: SearchSpace, teacher: ArchSpec) -> None:
        at_home = teacher.replace(resolution=space.resolutions[0])
        if not space.contains(at_home):
            raise NasError(
                f"the teacher {teacher.name} is not a network of the space {space.name}; name one that is, or leave "
                "--teacher out"
            )
        (encoding,) = space.encode([at_home])
        self.space, self.teacher = space, teacher
        self.width = space.variants[encoding[0]].width
        self.options: dict[Slot, tuple[Any, ...]] = {}  # of the teacher's blocks: kernel, expansion, SE, activation
        for slot in space.slots:
            column = space.slot_column(slot)
            if encoding[column] >= 0:
                choices = space.stages[slot.stage].block_choices
                indices = encoding[column : column + len(BLOCK_DECISIONS)]
                self.options[slot] = tuple(known[index] for known, index in zip(choices, indices, strict=True))

    def position(self, slot: Slot) -> int:
        """Return the index of a slot's block among the teacher's blocks. The first block of a network has no slot."""
        return 1 + list(self.options).index(slot)

    def changes(self) -> Iterator[Change]:
        """Yield every change of one decision, slot by slot."""
        for slot, option in self.options.items():
            stage = self.space.stages[slot.stage]
            for decision, choices, own in zip(BLOCK_DECISIONS, stage.block_choices, option, strict=True):
                yield from (Change(slot, decision, choice) for choice in choices if choice != own)
            if slot.position >= min(stage.depths):
                yield Change(slot, LEFT_OUT, None)

    def replacement(self, change: Change) -> Replacement:
        """Return the replacement that makes a change in the teacher."""
        if change.decision == LEFT_OUT:
            return Replacement(self.position(change.slot), None)
        option = dict(zip(BLOCK_DECISIONS, self.options[change.slot], strict=True)) | {change.decision: change.value}
        block = self.space.build_block(change.slot, self.width, **option)
        return Replacement(self.position(change.slot), block)


def slots_of(space: SearchSpace, spec: ArchSpec) -> list[Slot] | None:
    """Return the slot of each block behind the first one, or None if there are no depths of the stages for them.

    For a network of the space they are those of its encoding. The channels of another one may lie between the choices,
    as those of trimmed networks do. Of several ways to divide its blocks that is taken in which all stages have the
    most equal width, and of equal ones that with the shallower early stages.
    """
    encoding = encode_network(space, spec)
    if encoding is not None:
        return [slot for slot in space.slots if encoding[space.slot_column(slot)] >= 0]
    stages = tuple((stage.depths, stage.stride, stage.out) for stage in space.stages)
    return _divided(stages, tuple((block.stride, block.out) for block in spec.blocks[1:]))


@functools.lru_cache(maxsize=4_096)
def _divided(
    stages: tuple[tuple[tuple[int, ...], int, int], ...], blocks: tuple[tuple[int, int], ...]
) -> list[Slot] | None:
    """Return the slots of blocks, given by stride and channels, in stages of depths, stride and channels."""
    found: list[tuple[float, list[Slot]]] = []
    for depths in itertools.product(*(depths for depths, _, _ in stages)):
        if sum(depths) != len(blocks):
            continue
        slots = [Slot(s, position) for s, depth in enumerate(depths) for position in range(depth)]
        if all(
            stride == (1 if slot.position else stages[slot.stage][1])
            for slot, (stride, _) in zip(slots, blocks, strict=True)
        ):
            scales = [math.log(out / stages[slot.stage][2]) for slot, (_, out) in zip(slots, blocks, strict=True)]
            found.append((round(float(np.std(scales)), 9), slots))
    return min(found, key=lambda one: one[0])[1] if found else None
