"""The terms of the ImageNet prior: what it sees of a network, as a linear sum.

A network's score is `coefficients @ features`. Every feature belongs to one block (given its role) or to the
variant, so that the score is a sum over blocks. A *segment* is a run of blocks that share output channels and
stride; its *role* is its output stride, with a and b for the two segments that MobileNets have at stride 16
and 32; a block's *position* counts within the segment. Sizes are relative to MobileNetV3-Large's, which is
1.0 everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from nas.arch.spec import ArchSpec, PlacedBlock

# Output channels of each role in MobileNetV3-Large; stride 32 ends with MobileNetV2's 320-channel block.
REFERENCE_OUT = {"s2": 16, "s4": 24, "s8": 40, "s16a": 80, "s16b": 112, "s32a": 160, "s32b": 320}
REFERENCE_IN = {"s2": 16, "s4": 16, "s8": 24, "s16a": 40, "s16b": 80, "s32a": 112, "s32b": 160}
REFERENCE_HEAD = 1280
POSITIONS = 4  # of the segments with coefficients of their own; deeper blocks have the last one's, shrunk
DEEPER = 0.6
POOLED = "s16"  # the only segment at stride 16, where a network has one instead of two
# Which of the two a block belongs to is then open, and so is its position: all count alike, as deep ones, and what
# the other three are worth more, at a small expansion, counts for the network as a whole. So chosen that stages
# that come to be equal mostly lose a little: a search must not gain by that.
POOLED_EXPANSION = 2
_MAIN = (("s16a", 1), ("s16b", 0), ("s16b", 1))
_DEEP = (("s16a", 2), ("s16a", 3), ("s16b", 2), ("s16b", 3))

# Shapes of the curves, chosen by leave-one-out error on the published networks.
WIDTH_POWER = 0.5
RESOLUTION_POWER = 0.75
EXPANSION_HALF = 2.5
SE_BY_POSITION = (1.0, 0.75, 0.55, 0.4)

Terms = list[tuple[str, float]]


class Role(NamedTuple):
    """Where a block stands: the role of its segment and its position within it."""

    segment: str
    position: int
    small: bool = False  # MobileNetV3-Small's skeleton, which has no blocks at stride 2


def roles(spec: ArchSpec) -> list[Role]:
    """The role of each block."""
    segments: list[tuple[int, int]] = []  # output stride, blocks
    stride = 2
    for index, placed in enumerate(spec.walk()):
        stride *= placed.block.stride
        if index == 0 or placed.block.stride == 2 or placed.in_channels != placed.block.out:
            segments.append((stride, 0))
        segments[-1] = (stride, segments[-1][1] + 1)
    names = segment_names([stride for stride, _ in segments])
    small = segments[0][0] > 2
    return [Role(name, p, small) for name, (_, blocks) in zip(names, segments, strict=True) for p in range(blocks)]


def segment_names(strides: list[int]) -> list[str]:
    """Roles of segments from their output strides; strides over 32 count as 32."""
    strides = [min(stride, 32) for stride in strides]
    names = []
    for index, stride in enumerate(strides):
        second = index > 0 and strides[index - 1] == stride
        if stride == 16 and strides.count(16) == 1:
            names.append(POOLED)
        else:
            names.append(f"s{stride}" + ("" if stride < 16 else "b" if second else "a"))
    return names


def width_curve(ratio: float) -> float:
    """Worth of a stage's channels: 0 at the reference, concave, steeper when narrow."""
    return (1 - ratio**-WIDTH_POWER) / WIDTH_POWER


def resolution_curve(resolution: int) -> float:
    """Worth of the resolution: 0 at 224 px, concave."""
    return (1 - (resolution / 224) ** -RESOLUTION_POWER) / RESOLUTION_POWER


def expansion_curve(ratio: float) -> float:
    """Worth of `ratio` times the reference's input channels: 0 at 0, saturating."""
    return ratio / (ratio + EXPANSION_HALF)


def _spread(role: Role) -> list[tuple[str, int, float]]:
    """(segment, position, weight) of the coefficients that speak for a role."""
    if role.segment == POOLED:
        if role.position == 0:
            return [("s16a", 0, 1.0)]
        return [(*slot, 0.25) for slot in _DEEP]
    if role.segment in ("s2", "s32b"):
        return [(role.segment, 0, 1.0)]
    last = POSITIONS - 1
    return [(role.segment, min(role.position, last), DEEPER ** max(0, role.position - last))]


def block_terms(placed: PlacedBlock, role: Role) -> Terms:
    """Features of one block, without its segment's width."""
    block, terms = placed.block, []
    for segment, position, weight in _spread(role):
        reference = REFERENCE_IN[segment] if role.position == 0 else REFERENCE_OUT[segment]
        name = f"{segment}.{position}"
        # The very first block is in every network: what it is worth is in the level.
        if not (segment == "s2" and role.position == 0):
            terms.append((f"expansion {name}", weight * expansion_curve(block.expanded / reference)))
        if block.kernel != 3:
            steps = (block.kernel - 3) / 2
            terms.append((f"kernel5 {name}", weight * min(1.0, steps)))
            if steps > 1:
                terms.append((f"kernel7 {name}", weight))
            if block.kernel not in (3, 5, 7):
                terms.append((f"kernel {block.kernel}", 1.0))  # no fitted network has it
        share = weight * SE_BY_POSITION[min(position, len(SE_BY_POSITION) - 1)]
        if block.se:
            # Stages in which no hand-made network has SE speak for themselves; in Small's skeleton, where its
            # published place is further back, it is worth more there.
            early = "s4" if role.small and segment == "s8" else segment
            terms.append((f"se {early}" if early in ("s2", "s4", "s16a") else "se", share))
            if role.small and segment not in ("s4", "s8"):
                terms.append(("se small", share))
        if block.activation == "hswish":
            terms.append((f"hswish {segment}", weight))
    return terms


def skeleton_terms(spec: ArchSpec) -> Terms:
    """Features of everything but the blocks: level, resolution, stem, head, width of each segment."""
    placed_roles = list(zip(spec.walk(), roles(spec), strict=True))
    firsts = {role.segment: placed.block.out for placed, role in placed_roles if role.position == 0}
    head = spec.head.hidden or spec.head.conv or spec.blocks[-1].out
    terms = [
        ("level", 1.0),
        ("resolution", resolution_curve(spec.resolution)),
        ("stem", width_curve(spec.stem.out / 16)),
        ("head", math.log(head / REFERENCE_HEAD)),
    ]
    for segment, out in firsts.items():
        for name in ("s16a", "s16b") if segment == POOLED else (segment,):
            terms.append((f"width {name}", width_curve(out / REFERENCE_OUT[name])))
    if any(block.activate_output for block in spec.blocks):
        # MobileNetV1: no bottlenecks and no residuals, so that its widths mean something else.
        terms += [("plain", 1.0), ("plain width", math.log(spec.blocks[-1].out / 1024))]
    if POOLED in firsts:
        worth = expansion_curve(POOLED_EXPANSION)
        terms += [(f"expansion {segment}.{position}", worth) for segment, position in _MAIN]
        terms += [(f"expansion {segment}.{position}", -0.75 * worth) for segment, position in _DEEP]
    # MobileNetV3-Small has no blocks at stride 2; no fitted network lacks those of a later stride.
    strides = {segment.strip("sab") for segment in firsts}
    terms += [(f"no stride {stride}", 1.0) for stride in ("2", "4", "8", "16", "32") if stride not in strides]
    if spec.head.hidden:
        terms.append(("hidden layer", 1.0))
        terms.append(("head conv", math.log(max(1, spec.head.conv) / 960)))
    for part, activation in (("stem", spec.stem.activation), ("head", spec.head.activation)):
        if activation == "hswish":
            terms.append((f"hswish {part}", 1.0))
    return terms


def network_terms(spec: ArchSpec) -> Iterator[tuple[str, float]]:
    """All features of a network; a name may come more than once, its values add."""
    yield from skeleton_terms(spec)
    for placed, role in zip(spec.walk(), roles(spec), strict=True):
        yield from block_terms(placed, role)
