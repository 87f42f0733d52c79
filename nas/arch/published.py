"""Published networks as specs, and their published ImageNet accuracies.

These are the families of `nas.arch.families`, Once-for-All's specialised networks, the networks of timm that are
made of the same blocks, and MobileNetV4's. The figures and their sources are in `nas/data`.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from nas.arch.families import FAMILIES
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, squeezed_channels
from nas.errors import NasError, unknown_name

DATA = files("nas") / "data"


def published_spec(name: str, width: float | None = None, scale_head: bool = False) -> ArchSpec:
    """Return a published network by name, `mobilenet_v3_large@0.75` for a width multiplier.

    The head keeps its published size, unless `scale_head` scales it as torchvision does. Raises NasError for an unknown
    name, with the known ones, and for an impossible width.
    """
    family, at, text = name.partition("@")
    if family in FAMILIES:
        if at:
            if width is not None:
                raise NasError(f"network {name!r}: the name says the width already; leave width={width:g} out")
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
    """Return every name that `published_spec` knows, without widths."""
    return [*FAMILIES, *_listed_specs()]


class PublishedResult(NamedTuple):
    """A published ImageNet accuracy of a network."""

    spec: ArchSpec
    top1: float  # percent
    recipe: str  # the training recipe in one word: "slim", "ofa-75", "timm-ra", …
    source: str


@functools.cache
def published_results() -> tuple[PublishedResult, ...]:
    """Return every published accuracy of a network that a spec can express, checkpoint by checkpoint.

    Checkpoints that saw other data than ImageNet-1k are left out. So are networks with swish, with another activation
    inside SE (FBNetV3) or with two last convolutions (mobilenetv3_large_150d).
    """
    return (*_scaling_results(), *_once_for_all_results(), *_timm_results(), *_v4_results())


# The data files ---------------------------------------------------------------------------------------

ACTIVATIONS_OF_FILES = {"RE": "relu", "RE6": "relu6", "HS": "hswish"}


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@functools.cache
def _listed_specs() -> Mapping[str, ArchSpec]:
    """Return the networks of the data files by name, each at the smallest of its published resolutions."""
    results = (*_once_for_all_results(), *_timm_results(), *_v4_results())
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
                    activation=ACTIVATIONS_OF_FILES[block["activation"]],
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
        activation = ACTIVATIONS_OF_FILES[last["activation"] if last else row["stem_activation"]]
        spec = ArchSpec(
            name=network,
            resolution=row["resolution"],
            stem=StemSpec(out=row["stem"], activation=ACTIVATIONS_OF_FILES[row["stem_activation"]]),
            blocks=tuple(
                BlockSpec(
                    op=block["op"],
                    kernel=block["kernel"],
                    expanded=block["expanded"],
                    out=block["out"],
                    stride=block["stride"],
                    se=block["se"],
                    gate="sigmoid" if network.startswith("semnasnet") else "hard_sigmoid",
                    activation=ACTIVATIONS_OF_FILES[block["activation"]],
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
def _v4_results() -> tuple[PublishedResult, ...]:
    """Return the MobileNetV4 networks of convolutions (arXiv 2404.10518) as timm trained them."""
    results = []
    for row in _rows("mobilenet_v4.jsonl"):
        *rows, last = row["blocks"]
        spec = ArchSpec(
            name=row["name"],
            resolution=row["results"][0]["resolution"],
            stem=StemSpec(out=row["stem"], activation=ACTIVATIONS_OF_FILES[row["stem_activation"]]),
            blocks=tuple(_v4_blocks(rows)),
            # timm's head_conv comes after pooling: it is a hidden layer with batch norm.
            head=HeadSpec(
                conv=last["out"],
                hidden=row["head_conv"],
                activation=ACTIVATIONS_OF_FILES[last["activation"]],
                hidden_norm=True,
            ),
            norm_eps=1e-5,
        )
        for result in row["results"]:
            recipe, resolution = result["recipe"], result["resolution"]
            source = f"timm checkpoint {row['name']}.{recipe} at {resolution} px"
            results.append(
                PublishedResult(spec.replace(resolution=resolution), result["top1"], f"timm-{recipe}", source)
            )
    return tuple(results)


def _v4_blocks(rows: list[dict[str, Any]]) -> Iterator[BlockSpec]:
    """Yield the blocks of MobileNetV4's rows.

    Conv-S begins with two pairs of a full convolution and a 1x1, both with an activation: fused blocks that activate
    their output.
    """
    remaining = iter(rows)
    for row in remaining:
        pair = next(remaining) if row["op"] == "conv" else None
        start_kernel = row.get("start_kernel", 0)
        op = "fused" if row["op"] != "uib" else "mbconv" if row["kernel"] and not start_kernel else "uib"
        yield BlockSpec(
            op=op,
            kernel=row["kernel"],
            expanded=row["out" if pair else "expanded"],
            out=(pair or row)["out"],
            stride=row["stride"],
            activation=ACTIVATIONS_OF_FILES[row["activation"]],
            activate_output=pair is not None,
            start_kernel=start_kernel,
        )


@functools.cache
def _scaling_results() -> tuple[PublishedResult, ...]:
    results = []
    with (DATA / "mobilenet_scaling.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            spec = _scaling_spec(row["network"], float(row["width"]), int(row["resolution"]))
            if spec is not None:
                torchvision = "torchvision-2" if "IMAGENET1K_V2" in row["network"] else "torchvision"
                recipe = torchvision if row["network"].startswith("torchvision") else "slim"
                results.append(PublishedResult(spec, float(row["top1"]), recipe, row["source"]))
    return tuple(results)


def _scaling_spec(text: str, width: float, resolution: int) -> ArchSpec | None:
    """Return the network of a row of mobilenet_scaling.csv, or None for a row that another file repeats."""
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
    """Return V3-Large with h-swish from a given number of channels on (arXiv 1905.02244, table 5)."""
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
