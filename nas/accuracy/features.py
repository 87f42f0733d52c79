"""Describe a network by the features of the ImageNet prior.

The score of a network is `coefficients @ features`. Every feature belongs to one block in its place or to the variant,
so that the score is a sum over blocks. A *segment* is a run of blocks that share output channels and stride. It is
named by its output stride, with a and b for the two segments that MobileNets have at strides 16 and 32. A block's
*position* counts from 0 within its segment. Sizes are relative to those of MobileNetV3-Large.

No fitted network has a stem of stride 1. What is behind one is described as what it is behind a stem of stride 2, on
images of twice the side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from nas.arch.spec import ArchSpec, PlacedBlock

# Channels of each segment in MobileNetV3-Large. Stride 32 ends with MobileNetV2's block of 320 channels.
REFERENCE_OUT = {"s2": 16, "s4": 24, "s8": 40, "s16a": 80, "s16b": 112, "s32a": 160, "s32b": 320}
REFERENCE_IN = {"s2": 16, "s4": 16, "s8": 24, "s16a": 40, "s16b": 80, "s32a": 112, "s32b": 160}
REFERENCE_HEAD = 1280
POSITIONS = 4  # of a segment with coefficients of their own; deeper blocks share the last one's, shrunk
DEEPER_WEIGHT = 0.6  # of each position beyond the last
MERGED = "s16"  # the segment at stride 16 of a network that has one instead of two
# A block of a merged segment could be of either of the two, at any position. All but the first count alike, as deep
# blocks. The greater value of the three others in `MAIN`, at a small expansion, counts for the network as a whole.
# The expansion is chosen so that stages that come to be equal mostly lose a little: a search must not gain by that.
MERGED_EXPANSION = 2
MAIN = (("s16a", 1), ("s16b", 0), ("s16b", 1))
DEEP = (("s16a", 2), ("s16a", 3), ("s16b", 2), ("s16b", 3))

# Shapes of the curves, chosen by leave-one-out error on the published networks.
WIDTH_POWER = 0.5
RESOLUTION_POWER = 0.75
EXPANSION_HALF = 2.5

Features = list[tuple[str, float]]  # name and value; the values of one name add up


class SegmentPlace(NamedTuple):
    """The place of a block in a network: its segment and its position within it."""

    segment: str
    position: int
    small: bool = False  # MobileNetV3-Small's skeleton, which has no blocks at stride 2


def segment_places(spec: ArchSpec) -> list[SegmentPlace]:
    """Return the place of each block."""
    segments: list[tuple[int, int]] = []  # output stride, blocks
    stride = 2  # of the stem
    for index, placed in enumerate(spec.walk()):
        stride *= placed.block.stride
        if index == 0 or placed.block.stride == 2 or placed.in_channels != placed.block.out:
            segments.append((stride, 0))
        segments[-1] = (stride, segments[-1][1] + 1)
    names = segment_names([stride for stride, _ in segments])
    small = segments[0][0] > 2
    return [
        SegmentPlace(name, p, small) for name, (_, blocks) in zip(names, segments, strict=True) for p in range(blocks)
    ]


def segment_names(strides: list[int]) -> list[str]:
    """Return the names of segments with these output strides. Strides over 32 count as 32."""
    strides = [min(stride, 32) for stride in strides]
    names = []
    for index, stride in enumerate(strides):
        second = index > 0 and strides[index - 1] == stride
        if stride == 16 and strides.count(16) == 1:
            names.append(MERGED)
        else:
            names.append(f"s{stride}" + ("" if stride < 16 else "b" if second else "a"))
    return names


def width_curve(ratio: float) -> float:
    """Return the value of a stage's channels: 0 at the reference, concave, steeper for narrow stages."""
    return (1 - ratio**-WIDTH_POWER) / WIDTH_POWER


def resolution_curve(resolution: int) -> float:
    """Return the value of the resolution (pixels): 0 at 224, concave."""
    return (1 - (resolution / 224) ** -RESOLUTION_POWER) / RESOLUTION_POWER


def described_resolution(spec: ArchSpec) -> int:
    """Return the resolution (pixels) at which a stem of stride 2 gives the maps of this network."""
    return 2 // spec.stem.stride * spec.resolution


def expansion_curve(ratio: float) -> float:
    """Return the value of `ratio` times the reference's input channels: 0 at 0, saturating."""
    return ratio / (ratio + EXPANSION_HALF)


def _shares(place: SegmentPlace) -> list[tuple[str, int, float]]:
    """Return segment, position and weight of each coefficient that counts for a place."""
    if place.segment == MERGED:
        if place.position == 0:
            return [("s16a", 0, 1.0)]
        return [(*deep, 0.25) for deep in DEEP]
    if place.segment in ("s2", "s32b"):
        return [(place.segment, 0, 1.0)]
    last = POSITIONS - 1
    return [(place.segment, min(place.position, last), DEEPER_WEIGHT ** max(0, place.position - last))]


def block_features(placed: PlacedBlock, place: SegmentPlace) -> Features:
    """Return the features of one block, without its segment's width."""
    block, features = placed.block, []
    for segment, position, weight in _shares(place):
        reference = REFERENCE_IN[segment] if place.position == 0 else REFERENCE_OUT[segment]
        name = f"{segment}.{position}"
        # The first block is in every network, so that its value is a part of the intercept.
        if not (segment == "s2" and place.position == 0):
            features.append((f"expansion {name}", weight * expansion_curve(block.expanded / reference)))
        if block.kernel != 3:
            steps = (block.kernel - 3) / 2
            features.append((f"kernel5 {name}", weight * min(1.0, steps)))
            if steps > 1:
                features.append((f"kernel7 {name}", weight))
            if block.kernel not in (3, 5, 7):
                features.append((f"kernel {block.kernel}", 1.0))  # no fitted network has it
        if block.se:
            features.append((f"se {name}", weight))
            if place.small:
                features.append(("se small", weight))
            if block.gate == "sigmoid":
                features.append(("sigmoid gate", weight))
            if block.activate_output:
                features.append((f"se plain {segment.rstrip('ab')}", weight))
        if block.activation == "hswish":
            features.append((f"hswish {segment}", weight))
    return features


def skeleton_features(spec: ArchSpec) -> Features:
    """Return the features of all but the blocks: intercept, resolution, stem, head, width of each segment."""
    placed_blocks = zip(spec.walk(), segment_places(spec), strict=True)
    firsts = {place.segment: placed.block.out for placed, place in placed_blocks if place.position == 0}
    head = spec.head.hidden or spec.head.conv or spec.blocks[-1].out
    features = [
        ("level", 1.0),  # the intercept
        ("resolution", resolution_curve(described_resolution(spec))),
        ("stem", width_curve(spec.stem.out / 16)),
        ("head", math.log(head / REFERENCE_HEAD)),
    ]
    if spec.stem.stride == 1:
        features.append(("stem stride 1", 1.0))  # no fitted network has it
    for segment, out in firsts.items():
        for name in ("s16a", "s16b") if segment == MERGED else (segment,):
            features.append((f"width {name}", width_curve(out / REFERENCE_OUT[name])))
    if any(block.activate_output for block in spec.blocks):
        # MobileNetV1 has no bottlenecks and no residuals, so that its widths mean something else.
        features += [("plain", 1.0), ("plain width", math.log(spec.blocks[-1].out / 1024))]
    if MERGED in firsts:
        value = expansion_curve(MERGED_EXPANSION)
        features += [(f"expansion {segment}.{position}", value) for segment, position in MAIN]
        features += [(f"expansion {segment}.{position}", -0.75 * value) for segment, position in DEEP]
    # MobileNetV3-Small has no blocks at stride 2. No fitted network lacks those of a later stride.
    strides = {segment.strip("sab") for segment in firsts}
    features += [(f"no stride {stride}", 1.0) for stride in ("2", "4", "8", "16", "32") if stride not in strides]
    if spec.head.hidden:
        features.append(("hidden layer", 1.0))
        if spec.head.conv:
            features.append(("head conv", math.log(spec.head.conv / 960)))
    for part, activation in (("stem", spec.stem.activation), ("head", spec.head.activation)):
        if activation == "hswish":
            features.append((f"hswish {part}", 1.0))
    return features


def network_features(spec: ArchSpec) -> Iterator[tuple[str, float]]:
    """Yield all features of a network. The values of a name that comes more than once add up."""
    yield from skeleton_features(spec)
    for placed, place in zip(spec.walk(), segment_places(spec), strict=True):
        yield from block_features(placed, place)
