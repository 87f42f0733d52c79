"""Translate between the networks of a search space and their encodings.

An encoding is one integer a decision: the index of the choice, or -1 where the decision does not exist because its
block is beyond the stage's depth. The first decision is the variant. Each stage then has a depth, and each of its
slots has a kernel, an expansion, SE and an activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas.arch.skeleton import BLOCK_DECISIONS, Skeleton, Slot
from nas.arch.spec import ArchSpec, BlockSpec

DEFAULT_GATE = "hard_sigmoid"
NORM_EPS = 1e-3  # of batch norm in every space: MobileNetV3's

Encoding = tuple[int, ...]


def decode_network(space: Skeleton, encoding: Sequence[int]) -> ArchSpec:
    """Return the network that an encoding (one integer a decision) stands for."""
    assert len(encoding) == len(space.decisions)
    width, resolution = space.variants[encoding[0]]
    stem, first, head = space.fixed_parts[width]
    blocks = [first]
    for slot in space.slots:
        column = space.slot_column(slot)
        if encoding[column] >= 0:
            indices = encoding[column : column + len(BLOCK_DECISIONS)]
            choices: tuple[tuple[Any, ...], ...] = space.stages[slot.stage].block_choices
            option = [known[index] for known, index in zip(choices, indices, strict=True)]
            blocks.append(space.build_block(slot, width, *option))
    return ArchSpec(
        name=f"{space.name}@{width:g}",
        resolution=resolution,
        stem=stem,
        blocks=tuple(blocks),
        head=head,
        norm_eps=NORM_EPS,
    )


def encode_network(space: Skeleton, spec: ArchSpec) -> Encoding | None:
    """Return the encoding of a network, or None if it is not of this space.

    Two encodings can describe one network where stages come to have equal channels. The one with the shallower early
    stages is returned.
    """
    first = _without_idle_gate(spec.blocks[0])
    for index, (width, resolution) in enumerate(space.variants):
        stem, known_first, head = space.fixed_parts[width]
        known = (resolution, NORM_EPS, stem, _without_idle_gate(known_first), head)
        if (spec.resolution, spec.norm_eps, spec.stem, first, spec.head) == known:
            stages = _encode_stages(space, spec.blocks[1:], width, 0)
            if stages is not None:
                return (index, *stages)
    return None


def _encode_stages(space: Skeleton, blocks: Sequence[BlockSpec], width: float, stage: int) -> list[int] | None:
    """Return the encoding of the stages from number `stage` on, to which all of `blocks` must belong."""
    if stage == len(space.stages):
        return None if blocks else []
    slots = [slot for slot in space.slots if slot.stage == stage]
    for index, depth in enumerate(space.stages[stage].depths):
        if depth > len(blocks):
            continue
        encoding = [index]
        for slot, block in zip(slots, blocks[:depth], strict=False):
            indices = _encode_block(space, slot, block, width)
            if indices is None:
                break
            encoding += indices
        else:
            rest = _encode_stages(space, blocks[depth:], width, stage + 1)
            if rest is not None:
                absent = [-1] * len(BLOCK_DECISIONS) * (len(slots) - depth)
                return [*encoding, *absent, *rest]
    return None


def _encode_block(space: Skeleton, slot: Slot, block: BlockSpec, width: float) -> list[int] | None:
    """Return the indices of a block's four choices, or None if it cannot stand in the slot."""
    if block.out != space.stage_out(slot.stage, width):  # the usual reason: the block is of the next stage
        return None
    option = (block.kernel, block.expanded // space.in_channels(slot, width), block.se > 0, block.activation)
    choices = space.stages[slot.stage].block_choices
    if any(chosen not in known for chosen, known in zip(option, choices, strict=True)):
        return None
    if _without_idle_gate(block) != space.build_block(slot, width, *option):
        return None
    return [known.index(chosen) for chosen, known in zip(option, choices, strict=True)]


def _without_idle_gate(block: BlockSpec) -> BlockSpec:
    """Return the block with the default gate if it has no SE, so that the gate does not tell networks apart."""
    return block if block.se or block.gate == DEFAULT_GATE else block.replace(gate=DEFAULT_GATE)
