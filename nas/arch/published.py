"""Published networks as specs, and what was published of them.

MobileNetV1, V2, V3 and MnasNet-A1 at any width multiplier; Once-for-All's specialised networks; and the
networks of timm that are made of the same blocks. The figures and their sources are in `nas/data`.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, round_channels, squeezed_channels
from nas.errors import NasError, unknown_name

DATA = files("nas") / "data"

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
    """As published (slim, timm), the expansion is a factor of the scaled input and the stem keeps its channels
    below width 0.75; torchvision multiplies every number by the width.
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
    return _v3(_V3_LARGE, 1280, name, width, scale_head)


def mobilenet_v3_small(name: str, width: float, scale_head: bool) -> ArchSpec:
    return _v3(_V3_SMALL, 1024, name, width, scale_head)


def mobilenet_v2(name: str, width: float, scale_head: bool) -> ArchSpec:
    """The last convolution never shrinks below 1280 (slim and torchvision), unless `scale_head`."""
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
    """There is no head but the classifier, so that `scale_head` changes nothing."""
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
    """SE squeezes to a quarter of the block's *input* channels, with a sigmoid gate."""
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


def published_spec(name: str, width: float | None = None, scale_head: bool = False) -> ArchSpec:
    """A published network by name, `mobilenet_v3_large@0.75` for a width multiplier.

    The head keeps the size it was published with; `scale_head` scales it too, as torchvision does.
    Raises NasError for an unknown name (it lists the known ones) or an impossible width.
    """
    family, at, text = name.partition("@")
    if family in FAMILIES:
        if at:
            if width is not None:
                raise NasError(f"network {name!r}: its name says the width already; leave width={width:g} out")
            try:
                width = float(text)
            except ValueError:
                raise NasError(f"network {name!r}: {text!r} is not a width multiplier such as 0.75") from None
        width = 1.0 if width is None else width
        if not 0.05 <= width <= 10:
            raise NasError(f"network {name!r}: the width multiplier is {width:g}; it must be from 0.05 to 10")
        return FAMILIES[family](family if width == 1 else f"{family}@{width:g}", width, scale_head)
    listed = _listed_specs()
    if name not in listed:
        raise unknown_name("network", name, published_names())
    if width is not None or scale_head:
        raise NasError(f"network {name!r} was published at one width only; leave the width out")
    return listed[name]


def published_names() -> list[str]:
    """Every name that `published_spec` knows, without widths."""
    return [*FAMILIES, *_listed_specs()]


class PublishedResult(NamedTuple):
    """An ImageNet accuracy as it was published."""

    spec: ArchSpec
    top1: float  # percent
    recipe: str  # how it was trained, one word: "slim", "ofa-75", "timm-ra", …
    source: str


@functools.cache
def published_results() -> tuple[PublishedResult, ...]:
    """Every published figure of a network that a spec can express, checkpoint by checkpoint.

    Checkpoints trained on other data than ImageNet-1k are left out, and so are networks with swish, with
    another activation inside SE (FBNetV3) or with two last convolutions (mobilenetv3_large_150d).
    """
    return (*_scaling_results(), *_once_for_all_results(), *_timm_results())


# The data files ---------------------------------------------------------------------------------------

_ACTIVATIONS = {"RE": "relu", "RE6": "relu6", "HS": "hswish"}


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@functools.cache
def _listed_specs() -> Mapping[str, ArchSpec]:
    """Once-for-All's and timm's networks by name, each at the smallest resolution it was published for."""
    results = (*_once_for_all_results(), *_timm_results())
    largest_first = sorted((result.spec for result in results), key=lambda spec: -spec.resolution)
    smallest = {spec.name: spec for spec in largest_first}
    return {result.spec.name: smallest[result.spec.name] for result in results}


@functools.cache
def _once_for_all_results() -> tuple[PublishedResult, ...]:
    results = []
    for row in _rows("once_for_all_networks.jsonl"):
        blocks = []
        v3 = row["family"] == "mobilenet_v3"
        for block in row["blocks"]:
            expanded = block["expanded"]
            blocks.append(
                BlockSpec(
                    op="sepconv" if block["expansion"] == 1 else "mbconv",
                    kernel=block["kernel"],
                    expanded=expanded,
                    out=block["out"],
                    stride=block["stride"],
                    se=squeezed_channels(expanded) if block["se"] else 0,
                    activation=_ACTIVATIONS[block["activation"]],
                )
            )
        activation = "hswish" if v3 else "relu6"
        spec = ArchSpec(
            name="ofa_" + row["name"],
            resolution=row["resolution"],
            stem=StemSpec(out=row["stem"], activation=activation),
            blocks=tuple(blocks),
            head=HeadSpec(conv=row["head"]["conv"], hidden=row["head"]["hidden"] or 0, activation=activation),
        )
        source = f"Once-for-All (arXiv 1908.09791), released network {row['name']}"
        results.append(PublishedResult(spec, row["top1"], f"ofa-{row['finetune_epochs']}", source))
    return tuple(results)


@functools.cache
def _timm_results() -> tuple[PublishedResult, ...]:
    results = []
    for row in _rows("timm_networks.jsonl"):
        network, _, recipe = row["name"].partition(".")
        extra_data = "jft" in recipe or "in21k" in recipe
        swish = any(block["activation"] == "SW" for block in row["blocks"])
        rows = row["blocks"]
        two_convolutions = sum(block["op"] == "conv" for block in rows) > 1
        if extra_data or swish or two_convolutions or network.startswith("fbnetv3"):
            continue
        *rows, last = rows if rows[-1]["op"] == "conv" else [*rows, None]
        # timm's V3-type head: a last 1x1 convolution, pooling, and a hidden layer that timm calls head_conv.
        head_conv = last["out"] if last else row["head_conv"] or 0
        activation = _ACTIVATIONS[last["activation"] if last else row["stem_activation"]]
        spec = ArchSpec(
            name=network,
            resolution=row["resolution"],
            stem=StemSpec(out=row["stem"], activation=_ACTIVATIONS[row["stem_activation"]]),
            blocks=tuple(
                BlockSpec(
                    op=block["op"],
                    kernel=block["kernel"],
                    expanded=block["expanded"],
                    out=block["out"],
                    stride=block["stride"],
                    se=block["se"],
                    gate="sigmoid" if network.startswith("semnasnet") else "hard_sigmoid",
                    activation=_ACTIVATIONS[block["activation"]],
                    activate_output=block.get("activation_after", "ID") != "ID",
                )
                for block in rows
            ),
            head=HeadSpec(conv=head_conv, hidden=row["head_conv"] if last else 0, activation=activation),
            norm_eps=1e-5,
        )
        results.append(
            PublishedResult(
                spec, row["top1"], f"timm-{recipe}", f"timm checkpoint {row['name']} at {row['resolution']} px"
            )
        )
    return tuple(results)


@functools.cache
def _scaling_results() -> tuple[PublishedResult, ...]:
    results = []
    with (DATA / "mobilenet_scaling.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            spec = _scaling_spec(row["network"], float(row["width"]), int(row["resolution"]))
            if spec is not None:
                recipe = "torchvision" if row["network"].startswith("torchvision") else "slim"
                results.append(PublishedResult(spec, float(row["top1"]), recipe, row["source"]))
    return tuple(results)


def _scaling_spec(text: str, width: float, resolution: int) -> ArchSpec | None:
    """The network of a row of mobilenet_scaling.csv; None for rows that stand elsewhere too."""
    if text.startswith("timm ") or "(as published)" in text:
        return None
    words = text.split()
    family = next(
        word.removesuffix("_minimalistic") for word in words if word.removesuffix("_minimalistic") in FAMILIES
    )
    spec = published_spec(family, width).replace(resolution=resolution)
    if "minimalistic" in text:
        blocks = tuple(block.replace(kernel=3, se=0, activation="relu") for block in spec.blocks)
        stem, head = (
            StemSpec(out=spec.stem.out, activation="relu"),
            HeadSpec(conv=spec.head.conv, hidden=spec.head.hidden, activation="relu"),
        )
        return spec.replace(name=f"{family}_minimalistic", stem=stem, blocks=blocks, head=head)
    if "h-swish" in text:
        return _h_swish_ablation(spec, text)
    return spec


def _h_swish_ablation(spec: ArchSpec, text: str) -> ArchSpec:
    """V3-Large with h-swish from a given number of channels on (arXiv 1905.02244, table 5)."""
    if "none" in text:
        least: float = float("inf")
    else:
        least = next(int(word) for word in text.split() if word.isdigit())
    blocks = tuple(block.replace(activation="hswish" if block.out >= least else "relu") for block in spec.blocks)
    if "none" in text:
        spec = spec.replace(
            stem=StemSpec(out=spec.stem.out, activation="relu"),
            head=HeadSpec(conv=spec.head.conv, hidden=spec.head.hidden, activation="relu"),
        )
    return spec.replace(name=text.replace("mobilenet_v3_large h-swish", "mobilenet_v3_large, h-swish"), blocks=blocks)
