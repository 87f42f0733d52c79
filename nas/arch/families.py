"""Build the published families as specs: MobileNetV1, V2, V3 and MnasNet-A1 at any width multiplier.

Every builder takes the name of the spec, the width multiplier, and whether the head is scaled with the width.
"""

from __future__ import annotations

from collections.abc import Callable

from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, round_channels, squeezed_channels

# MobileNetV3 (arXiv 1905.02244, tables 1 and 2): kernel, expanded, out, SE, activation, stride.
_V3_LARGE = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hswish", 2),
    (3, 200, 80, False, "hswish", 1),
    (3, 184, 80, False, "hswish", 1),
    (3, 184, 80, False, "hswish", 1),
    (3, 480, 112, True, "hswish", 1),
    (3, 672, 112, True, "hswish", 1),
    (5, 672, 160, True, "hswish", 2),
    (5, 960, 160, True, "hswish", 1),
    (5, 960, 160, True, "hswish", 1),
)
_V3_SMALL = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hswish", 2),
    (5, 240, 40, True, "hswish", 1),
    (5, 240, 40, True, "hswish", 1),
    (5, 120, 48, True, "hswish", 1),
    (5, 144, 48, True, "hswish", 1),
    (5, 288, 96, True, "hswish", 2),
    (5, 576, 96, True, "hswish", 1),
    (5, 576, 96, True, "hswish", 1),
)
# MobileNetV2 (arXiv 1801.04381, table 2): expansion, out, repeats, first stride.
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# MobileNetV1 (arXiv 1704.04861, table 1): out, stride.
_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * ((512, 1),), (1024, 2), (1024, 1))
# MnasNet-A1 (arXiv 1807.11626, figure 7): expansion (0: sepconv), kernel, SE, repeats, out, first stride.
_A1 = (
    (0, 3, False, 1, 16, 1),
    (6, 3, False, 2, 24, 2),
    (3, 5, True, 3, 40, 2),
    (6, 3, False, 4, 80, 2),
    (6, 3, True, 2, 112, 1),
    (6, 5, True, 3, 160, 2),
    (6, 3, False, 1, 320, 1),
)


def _v3(
    rows: tuple[tuple[int, int, int, bool, str, int], ...], hidden: int, name: str, width: float, scale_head: bool
) -> ArchSpec:
    """Return a MobileNetV3 at a width.

    As published (slim, timm), expanded channels are a factor of the scaled input, and the stem keeps its channels below
    width 0.75. With `scale_head` every number is multiplied by the width, as torchvision does.
    """
    unscaled_in, stem = 16, 16 if width < 0.75 and not scale_head else round_channels(16 * width)
    in_channels, blocks = stem, []
    for kernel, unscaled_expanded, unscaled_out, se, activation, stride in rows:
        factor = width if scale_head else in_channels / unscaled_in
        expanded, out = round_channels(unscaled_expanded * factor), round_channels(unscaled_out * width)
        blocks.append(
            BlockSpec(
                op="sepconv" if expanded == in_channels else "mbconv",
                kernel=kernel,
                expanded=expanded,
                out=out,
                stride=stride,
                se=squeezed_channels(expanded) if se else 0,
                activation=activation,
            )
        )
        unscaled_in, in_channels = unscaled_out, out
    head = HeadSpec(conv=6 * in_channels, hidden=round_channels(hidden * width) if scale_head else hidden)
    return ArchSpec(name=name, resolution=224, stem=StemSpec(out=stem), blocks=tuple(blocks), head=head)


def mobilenet_v3_large(name: str, width: float, scale_head: bool) -> ArchSpec:
    """Return MobileNetV3-Large."""
    return _v3(_V3_LARGE, 1280, name, width, scale_head)


def mobilenet_v3_small(name: str, width: float, scale_head: bool) -> ArchSpec:
    """Return MobileNetV3-Small."""
    return _v3(_V3_SMALL, 1024, name, width, scale_head)


def mobilenet_v2(name: str, width: float, scale_head: bool) -> ArchSpec:
    """Return MobileNetV2. Unless `scale_head`, the last convolution never shrinks below 1280 (slim, torchvision)."""
    stem = in_channels = round_channels(32 * width)
    blocks = []
    for expansion, out, repeats, first_stride in _V2:
        for stride in (first_stride, *[1] * (repeats - 1)):
            out_channels = round_channels(out * width)
            op = "mbconv" if expansion > 1 else "sepconv"
            blocks.append(
                BlockSpec(
                    op=op,
                    kernel=3,
                    expanded=expansion * in_channels,
                    out=out_channels,
                    stride=stride,
                    activation="relu6",
                )
            )
            in_channels = out_channels
    head = HeadSpec(conv=round_channels(1280 * (width if scale_head else max(1.0, width))), activation="relu6")
    stem_spec = StemSpec(out=stem, activation="relu6")
    return ArchSpec(name=name, resolution=224, stem=stem_spec, blocks=tuple(blocks), head=head, norm_eps=1e-5)


def mobilenet_v1(name: str, width: float, scale_head: bool) -> ArchSpec:
    """Return MobileNetV1. It has no head but the classifier, so that `scale_head` changes nothing."""
    stem = in_channels = round_channels(32 * width)
    blocks = []
    for out, stride in _V1:
        out_channels = round_channels(out * width)
        block = BlockSpec(
            op="sepconv",
            kernel=3,
            expanded=in_channels,
            out=out_channels,
            stride=stride,
            activation="relu6",
            activate_output=True,
        )
        blocks.append(block)
        in_channels = out_channels
    stem_spec = StemSpec(out=stem, activation="relu6")
    return ArchSpec(name=name, resolution=224, stem=stem_spec, blocks=tuple(blocks), head=HeadSpec(conv=0))


def mnasnet_a1(name: str, width: float, scale_head: bool) -> ArchSpec:
    """Return MnasNet-A1. Its SE squeezes to a quarter of the block's *input* channels and has a sigmoid gate."""
    in_channels = round_channels(32 * width)
    stem_spec = StemSpec(out=in_channels, activation="relu")
    blocks = []
    for expansion, kernel, se, repeats, out, first_stride in _A1:
        for stride in (first_stride, *[1] * (repeats - 1)):
            blocks.append(
                BlockSpec(
                    op="mbconv" if expansion else "sepconv",
                    kernel=kernel,
                    expanded=max(1, expansion) * in_channels,
                    out=round_channels(out * width),
                    stride=stride,
                    se=max(1, in_channels // 4) if se else 0,
                    gate="sigmoid",
                )
            )
            in_channels = blocks[-1].out
    head = HeadSpec(conv=round_channels(1280 * width) if scale_head else 1280, activation="relu")
    return ArchSpec(name=name, resolution=224, stem=stem_spec, blocks=tuple(blocks), head=head)


FAMILIES: dict[str, Callable[[str, float, bool], ArchSpec]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mnasnet_a1": mnasnet_a1,
}
