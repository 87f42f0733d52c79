"""Collect the published results that the ImageNet prior is fitted to, and the published pairs that it is tested by.

The evidence is more than `judged_results()`: it also holds networks that a spec expresses only nearly (its *kin*),
and networks that were published to show what one choice is worth. Of kin, each difference from its spec has an addend
of its own in the fit, which no estimate uses. This module needs neither torch nor scipy.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from nas.accuracy.imagenet_prior import judged_results, recipe_level_of
from nas.arch.published import ACTIVATIONS_OF_FILES, DATA, PublishedResult
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError

_RELATED_LEVELS = {
    "efficientnet_b0.ra_in1k": "timm-ra",
    "efficientnet_b0.ra4_e3600_r224_in1k": "timm-ra4",
    "tf_efficientnet_b0.in1k": "tensorflow-port",
    "mobilenetv3_large_150d.ra4_e3600_r256_in1k": "timm-ra4",
    "tinynet_a.in1k": "tinynet",
    "tinynet_b.in1k": "tinynet",
    "tinynet_d.in1k": "tinynet",
    "tinynet_e.in1k": "tinynet",
}
_ACTIVATIONS = ACTIVATIONS_OF_FILES | {"SW": "hswish"}
_SIGMOID_GATES = ("efficientnet", "tf_efficientnet", "tinynet")  # of timm_networks.jsonl, which does not say
# The recipes of more_networks.jsonl that are recipe levels by another name.
_LEVEL_OF_RECIPE = {
    "torchvision-v1": "torchvision",
    "torchvision-new": "torchvision-2",
    "ra2_in1k": "timm-ra2",
    "hardcore-kd": "distilled",
    "binas-kd": "binas",
}


class Evidence(NamedTuple):
    """A published result, the addends of what its spec does not express, and the key of its network.

    Networks that differ in nothing but kernels, SE, activations and resolution share a key, and so do the checkpoints
    of one network.
    """

    result: PublishedResult
    kin: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        return recipe_level_of(self.result)

    @property
    def network(self) -> tuple[Any, ...]:
        return skeleton_key(self.result.spec)


class Pair(NamedTuple):
    """Two published results of one training. The second network is the first with a `change`."""

    change: str
    without: Evidence
    with_it: Evidence
    source: str

    @property
    def points(self) -> float:
        """Return by how many points of top-1 the second is above the first."""
        return self.with_it.result.top1 - self.without.result.top1


def skeleton_key(spec: ArchSpec) -> tuple[Any, ...]:
    """Return what remains of a network without its kernels, SE, activations and resolution."""
    blocks = tuple((block.expanded, block.out, block.stride) for block in spec.blocks)
    return (spec.stem.out, spec.stem.stride, blocks, spec.head.conv, spec.head.hidden)


@functools.cache
def evidence() -> tuple[Evidence, ...]:
    """Return all published results to which the prior is fitted. Checkpoints with extra data are left out."""
    return (*map(Evidence, judged_results()), *related_evidence(), *further_evidence())


@functools.cache
def related_evidence() -> tuple[Evidence, ...]:
    """Return the results of timm networks that a spec nearly expresses: EfficientNet-B0, TinyNets, V3-Large-150d.

    mobilenetv3_large_150d has two last convolutions, of which the spec has the second.
    """
    found = []
    for row in _rows("timm_networks.jsonl"):
        if level := _RELATED_LEVELS.get(row["name"]):
            found.append(_evidence(row, level, f"timm checkpoint {row['name']}"))
    return tuple(found)


@functools.cache
def further_evidence() -> tuple[Evidence, ...]:
    """Return the networks of more_networks.jsonl. Checkpoints that timm_networks.jsonl holds too are left out.

    FBNetV2's 1x1 convolutions between blocks, skips that change the number of channels, are left out of the specs.
    """
    return tuple(
        _evidence(row, _LEVEL_OF_RECIPE.get(row["recipe"], row["recipe"]), row["source"])
        for row in _rows("more_networks.jsonl")
        if "same_checkpoint_as" not in row
    )


@functools.cache
def pairs() -> tuple[Pair, ...]:
    """Return the published pairs. Raises NasError for a pair of which a network is not among the evidence."""
    known = {(one.result.spec.name, one.level, one.result.spec.resolution): one for one in evidence()}
    with (DATA / "imagenet_pairs.csv").open(encoding="utf-8") as file:
        return tuple(
            Pair(
                row["change"],
                _named(known, row["without"], row["recipe_level"]),
                _named(known, row["with"], row["recipe_level"]),
                row["source"],
            )
            for row in csv.DictReader(file)
        )


def _named(known: dict[tuple[str, str, int], Evidence], name: str, level: str) -> Evidence:
    if (name, level, 224) not in known:
        raise NasError(
            f"imagenet_pairs.csv: no published network is named {name!r} at recipe level {level!r}; correct it"
        )
    return known[name, level, 224]


def _rows(name: str) -> Iterator[dict[str, Any]]:
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _evidence(row: dict[str, Any], level: str, source: str) -> Evidence:
    """Return a row of a file in the format of timm_networks.jsonl. Swish counts as h-swish with an addend."""
    blocks = [block for block in row["blocks"] if block["op"] != "conv"]
    last = row["blocks"][-1]
    conv = last["out"] if last["op"] == "conv" else 0
    hidden = row["head_conv"] or 0
    if not (conv or row.get("head_pooled")):
        conv, hidden = hidden, 0
    swish = any(block["activation"] == "SW" for block in blocks)
    activation = _ACTIVATIONS[row["stem_activation"]]
    gate = "sigmoid" if row["name"].startswith(_SIGMOID_GATES) else row.get("gate") or "hard_sigmoid"
    spec = ArchSpec(
        name=row["name"].partition(".")[0],
        resolution=row["resolution"],
        stem=StemSpec(out=row["stem"], activation=activation),
        blocks=tuple(
            BlockSpec(
                **{key: block[key] for key in ("op", "kernel", "expanded", "out", "stride", "se")},
                gate=gate,
                activation=_ACTIVATIONS[block["activation"]],
                activate_output=block.get("activation_after", "ID") != "ID",
            )
            for block in blocks
        ),
        head=HeadSpec(
            conv=conv,
            hidden=hidden,
            activation=_ACTIVATIONS[last["activation"]] if last["op"] == "conv" else activation,
        ),
    )
    return Evidence(PublishedResult(spec, row["top1"], level, source), ("kin swish",) if swish else ())
