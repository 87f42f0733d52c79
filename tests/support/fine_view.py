"""The fine view of a search space: the networks that NetAdapt reaches from the networks of the space.

A stage's channels are any multiple of 8 up to the skeleton's. Expanded channels are any multiple of 8 up to those of
the largest expansion in the skeleton. Everything else is as in the space.
"""

import itertools
import random

from nas.arch.skeleton import Slot, Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import CHANNEL_STEP, ArchSpec, BlockSpec, squeezed_channels


def in_fine_view(space: SearchSpace, spec: ArchSpec) -> bool:
    """Return whether a network is of the fine view of a space."""
    return any(
        _has_the_fixed_parts(space, spec, width, resolution) and _has_such_stages(space, spec.blocks[1:], width)
        for width, resolution in space.variants
    )


def sample_fine_view(space: SearchSpace, rng: random.Random) -> ArchSpec:
    """Return a random network of the fine view."""
    spec = space.sample(rng)
    encoding = space.encode([spec])[0]
    width = space.variants[encoding[0]].width
    outs = [rng.randrange(CHANNEL_STEP, space.stage_out(s, width) + 1, CHANNEL_STEP) for s in range(len(space.stages))]
    slots = [slot for slot in space.slots if encoding[space.slot_column(slot)] >= 0]
    for index, slot in enumerate(slots, start=1):
        expanded = rng.randrange(CHANNEL_STEP, _largest_expanded(space, slot, width) + 1, CHANNEL_STEP)
        se = squeezed_channels(expanded) if spec.blocks[index].se else 0
        spec = spec.with_block(index, out=outs[slot.stage], expanded=expanded, se=se)
    return spec


def _has_the_fixed_parts(space: SearchSpace, spec: ArchSpec, width: float, resolution: int) -> bool:
    first = space.first_at(width)
    gate = first.gate if first.se else spec.blocks[0].gate
    return (spec.stem, spec.blocks[0], spec.head, spec.resolution, spec.norm_eps) == (
        space.stem_at(width),
        first.replace(gate=gate),
        space.head_at(width),
        resolution,
        1e-3,
    )


def _has_such_stages(space: SearchSpace, blocks: tuple[BlockSpec, ...], width: float) -> bool:
    for depths in itertools.product(*(stage.depths for stage in space.stages)):
        if sum(depths) == len(blocks):
            slots = [Slot(s, p) for s, depth in enumerate(depths) for p in range(depth)]
            firsts = [blocks[sum(depths[: slot.stage])] for slot in slots]
            if all(
                _may_stand(space, slot, block, width) and block.out == first.out
                for slot, block, first in zip(slots, blocks, firsts, strict=True)
            ):
                return True
    return False


def _may_stand(space: SearchSpace, slot: Slot, block: BlockSpec, width: float) -> bool:
    stage: Stage = space.stages[slot.stage]
    return (
        (block.op, block.activate_output) == ("mbconv", False)
        and block.stride == (1 if slot.position else stage.stride)
        and block.kernel in stage.kernels
        and block.activation in stage.activations
        and (block.se > 0) in stage.se
        and block.se in (0, squeezed_channels(block.expanded))
        and (block.gate == "hard_sigmoid" or not block.se)
        and block.out % CHANNEL_STEP == block.expanded % CHANNEL_STEP == 0
        and block.out <= space.stage_out(slot.stage, width)
        and block.expanded <= _largest_expanded(space, slot, width)
    )


def _largest_expanded(space: SearchSpace, slot: Slot, width: float) -> int:
    return max(space.stages[slot.stage].expansions) * space.in_channels(slot, width)
