"""Specs: networks as frozen rows, one a block, like the tables in the papers.

This module needs the standard library only, so that a spec can be read, checked and hashed anywhere::

    spec = ArchSpec.load("reports/20ms/large.json")
    print(spec.id, [block.kernel for block in spec.blocks])
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from nas.errors import NasError
from nas.files import read_text, write_text
from nas.utf8 import as_utf8

JSON_VERSION = 1
OPS = ("mbconv", "sepconv", "uib", "fused")
ACTIVATION_NAMES = {"relu": "ReLU", "relu6": "ReLU6", "hswish": "h-swish"}  # as readers know them
ACTIVATIONS = tuple(ACTIVATION_NAMES)
GATES = ("hard_sigmoid", "sigmoid")
# Bounds that no real network touches, so that a typing error is an error and not an exhausted machine.
MAX_CHANNELS = 65_536
MAX_BLOCKS = 256
MIN_RESOLUTION, MAX_RESOLUTION = 32, 2_048
CHANNEL_STEP = 8  # the channels of every MobileNet are multiples of this
LONGEST_VALUE = 120  # characters of a value in an error


def round_channels(value: float, divisor: int = CHANNEL_STEP) -> int:
    """Return the nearest multiple of `divisor` that is at least `divisor` and at least 90 % of `value`.

    All MobileNets round so (arXiv 1801.04381, TensorFlow's `make_divisible`).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def squeezed_channels(expanded: int) -> int:
    """Return the channels inside MobileNetV3's squeeze-and-excitation (arXiv 1905.02244, section 5.3)."""
    return round_channels(expanded // 4)


def halved(size: int, stride: int) -> int:
    """Return the side of the feature map after a convolution with "same" padding and an odd kernel."""
    return (size - 1) // stride + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """MBConv: 1x1, BN, AF, depthwise, BN, AF, SE, 1x1, BN (+ input where the shapes agree).

    `op="sepconv"` has no first 1x1, so that its `expanded` equals its input channels. `op="fused"` has one full
    convolution to `expanded` channels in place of the first 1x1 and the depthwise. `se` is the number of squeezed
    channels, 0 for none. `activate_output` puts the activation behind the last 1x1 as well and leaves the residual out
    (MobileNetV1).

    `op="uib"`, the universal inverted bottleneck (MobileNetV4, arXiv 2404.10518), is an MBConv that begins with one
    more depthwise convolution and BN (`start_kernel`, 0 for none) or has no other (`kernel=0`), or both. The stride is
    that of the inner depthwise convolution, or of the first where there is no inner one. One that is a plain MBConv is
    written as such, so that a network has one spec. Raises NasError for a block that cannot be built.
    """

    op: str = "mbconv"
    kernel: int
    expanded: int
    out: int
    stride: int = 1
    se: int = 0
    gate: str = "hard_sigmoid"
    activation: str = "relu"
    activate_output: bool = False
    start_kernel: int = 0

    def __post_init__(self) -> None:
        _one_of(self.op, "op", OPS)
        _kernel(self.kernel, "kernel", may_be_absent=self.op == "uib")
        _kernel(self.start_kernel, "start_kernel", may_be_absent=True)
        if self.start_kernel and self.op != "uib":
            raise NasError(f"start_kernel is {self.start_kernel}; only a uib has one, so leave it out")
        if self.op == "uib" and self.kernel and not self.start_kernel:
            raise NasError("op is 'uib'; with a kernel and without a start_kernel it is an mbconv, so name it that")
        _integer(self.expanded, "expanded", 1, MAX_CHANNELS)
        _integer(self.out, "out", 1, MAX_CHANNELS)
        _integer(self.stride, "stride", 1, 2)
        _integer(self.se, "se", 0, MAX_CHANNELS)
        _one_of(self.gate, "gate", GATES)
        _one_of(self.activation, "activation", ACTIVATIONS)
        if self.stride == 2 and not self.kernel and not self.start_kernel:
            raise NasError("stride is 2; without kernel and start_kernel the block has nothing to stride, so make it 1")
        _boolean(self.activate_output, "activate_output")

    @property
    def has_expand(self) -> bool:
        """Return whether a 1x1 convolution makes the expanded channels."""
        return self.op in ("mbconv", "uib")

    @property
    def largest_kernel(self) -> int:
        """Return the side of its largest convolution, in pixels."""
        return max(1, self.kernel, self.start_kernel)

    @property
    def kernels_text(self) -> str:
        """Return its kernels for readers: "3×3", "full 3×3", "3×3 before 5×5", "3×3 before", "1×1"."""
        inner, start = (f"{kernel}×{kernel}" if kernel else "" for kernel in (self.kernel, self.start_kernel))
        if self.op == "fused":
            return f"full {inner}"
        return f"{start} before {inner}".strip() if start else inner or "1×1"

    def has_residual(self, in_channels: int) -> bool:
        """Return whether the block's input is added to its output."""
        return self.stride == 1 and in_channels == self.out and not self.activate_output

    def replace(self, **changes: Any) -> BlockSpec:
        """Return the block with the given fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StemSpec:
    """Stem: 3x3, BN, AF. A `stride` of 1 is for small images; all published networks have 2."""

    out: int
    activation: str = "hswish"
    stride: int = 2

    def __post_init__(self) -> None:
        _integer(self.out, "out", 1, MAX_CHANNELS)
        _one_of(self.activation, "activation", ACTIVATIONS)
        _integer(self.stride, "stride", 1, 2)

    def out_size(self, resolution: int) -> int:
        """Return the side of the stem's output on images of side `resolution` (pixels)."""
        return halved(resolution, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """Head: 1x1, BN, AF, AvgPool, FC, AF, Dropout, FC. `conv=0` and `hidden=0` leave those parts out.

    With `hidden_norm` the first FC has BN in place of a bias (MobileNetV4). The last FC, to the classes, is always
    there. The number of classes is not a part of the spec.
    """

    conv: int
    hidden: int = 0
    activation: str = "hswish"
    hidden_norm: bool = False

    def __post_init__(self) -> None:
        _integer(self.conv, "conv", 0, MAX_CHANNELS)
        _integer(self.hidden, "hidden", 0, MAX_CHANNELS)
        _one_of(self.activation, "activation", ACTIVATIONS)
        _boolean(self.hidden_norm, "hidden_norm")
        if self.hidden_norm and not self.hidden:
            raise NasError("hidden_norm is true; a head without a hidden layer has nothing to normalise")


class PlacedBlock(NamedTuple):
    """A block and the shape of its input: `in_channels` x `in_size` x `in_size`."""

    block: BlockSpec
    in_channels: int
    in_size: int

    @property
    def out_size(self) -> int:
        return halved(self.in_size, self.block.stride)

    @property
    def has_residual(self) -> bool:
        return self.block.has_residual(self.in_channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchSpec:
    """A network for square RGB images of side `resolution` (pixels).

    `norm_eps` is batch norm's epsilon: 1e-3 in MobileNetV3, 1e-5 in torchvision's MobileNetV2.
    Raises NasError for a network that cannot be built.
    """

    name: str
    resolution: int
    stem: StemSpec
    blocks: tuple[BlockSpec, ...]
    head: HeadSpec
    norm_eps: float = 1e-3

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            raise NasError(f"name is {_short(self.name)}; it must be a text of one line that is not empty")
        _integer(self.resolution, "resolution", MIN_RESOLUTION, MAX_RESOLUTION)
        if not isinstance(self.norm_eps, float) or not 0 < self.norm_eps < 1:
            raise NasError(f"norm_eps is {_short(self.norm_eps)}; it must be a number between 0 and 1")
        if not isinstance(self.blocks, tuple):
            raise NasError(f"blocks is a {type(self.blocks).__name__}; it must be a tuple")
        if not 1 <= len(self.blocks) <= MAX_BLOCKS:
            raise NasError(f"there are {len(self.blocks)} blocks; there must be 1 to {MAX_BLOCKS}")
        for index, placed in enumerate(self.walk()):
            if placed.block.op == "sepconv" and placed.block.expanded != placed.in_channels:
                raise NasError(
                    f"block {index}: a sepconv has no expansion, so expanded ({placed.block.expanded}) "
                    f"must equal its input channels ({placed.in_channels})"
                )

    def walk(self) -> Iterator[PlacedBlock]:
        """Yield each block with the shape of its input, from the stem's output on."""
        channels, size = self.stem.out, self.stem.out_size(self.resolution)
        for block in self.blocks:
            placed = PlacedBlock(block, channels, size)
            yield placed
            channels, size = block.out, placed.out_size

    @property
    def head_input(self) -> tuple[int, int]:
        """Return the channels and the side of the head's input."""
        *_, last = self.walk()
        return last.block.out, last.out_size

    @property
    def id(self) -> str:
        """Return 12 hexadecimal digits that name the architecture and its resolution.

        They do not depend on the name, nor on the gate of a block without SE, nor on the activation of an empty head.
        """
        return _id_of(self)

    def replace(self, **changes: Any) -> ArchSpec:
        """Return the network with the given fields changed."""
        return dataclasses.replace(self, **changes)

    def with_block(self, index: int, **changes: Any) -> ArchSpec:
        """Return the network with the given fields of one block changed."""
        blocks = list(self.blocks)
        blocks[index] = blocks[index].replace(**changes)
        return self.replace(blocks=tuple(blocks))

    # JSON, version 1 ----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON values.

        What specs did not have at first has no key where it is as it was: a stem of stride 2, a block without a
        `start_kernel`, a hidden layer without BN. So older specs read and write alike, and keep their ids.
        """
        return {
            "version": JSON_VERSION,
            **_fields_of(self),
            "stem": _fields_of(self.stem),
            "blocks": [_fields_of(block) for block in self.blocks],
            "head": _fields_of(self.head),
        }

    def to_json(self, results: Mapping[str, Any] | None = None) -> str:
        """Return the spec as JSON with sorted keys and one line a block, so that `diff` compares two specs.

        `results` (such as latency, accuracy and their sources) are written beside the architecture and ignored when
        the spec is read.
        """
        data = as_utf8(self.to_dict() | ({"results": dict(results)} if results is not None else {}))
        blocks = ",\n".join("    " + json.dumps(block, sort_keys=True) for block in data.pop("blocks"))
        lines = json.dumps(data | {"blocks": "@"}, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        return lines.replace('"@"', f"[\n{blocks}\n  ]", 1) + "\n"

    @classmethod
    def from_dict(cls, data: Any) -> ArchSpec:
        """Return the spec of JSON values. Raises NasError that names the place of the first error."""
        if not isinstance(data, dict):
            raise NasError("a spec must be a JSON object")
        version = data.get("version")
        if isinstance(version, bool) or version != JSON_VERSION:
            raise NasError(
                f"version is {_short(version)}; this program reads version {JSON_VERSION}"
                + (
                    ": a newer program wrote it, upgrade this one"
                    if isinstance(version, int) and version > JSON_VERSION
                    else ""
                )
            )
        fields = {key: value for key, value in data.items() if key not in ("version", "results")}
        _check_keys(cls, fields, "spec")
        blocks = fields["blocks"]
        if not isinstance(blocks, list):
            raise NasError("blocks must be a list with one object a block")
        fields["stem"] = _row(StemSpec, fields["stem"], "stem")
        fields["blocks"] = tuple(_row(BlockSpec, block, f"block {index}") for index, block in enumerate(blocks))
        fields["head"] = _row(HeadSpec, fields["head"], "head")
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> ArchSpec:
        """Return the spec of a JSON text. Raises NasError that names the place of the first error."""
        return cls.from_dict(_parsed(text))

    def save(self, path: str | Path, results: Mapping[str, Any] | None = None) -> None:
        """Write the spec as JSON, whole or not at all. Raises NasError for a path that cannot be written."""
        write_text(path, self.to_json(results))

    @classmethod
    def load(cls, path: str | Path) -> ArchSpec:
        """Return the spec in a file. Raises NasError for a file that cannot be read or holds no spec."""
        text = read_text(path)
        try:
            return cls.from_json(text)
        except NasError as error:
            raise NasError(f"{path}: {error}") from None


_Row = TypeVar("_Row", StemSpec, BlockSpec, HeadSpec)


def load_results(path: str | Path) -> dict[str, Any]:
    """Return the results that a spec's file holds beside the architecture, empty if there are none.

    Raises NasError for a file that is not JSON.
    """
    text = read_text(path)
    try:
        data = _parsed(text)
    except NasError as error:
        raise NasError(f"{path}: {error}") from None
    results = data.get("results") if isinstance(data, dict) else None
    return results if isinstance(results, dict) else {}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise NasError(f"not JSON: {error}") from None


# Fields that came after the first specs, with the value that these have.
_LATER_FIELDS: dict[type, tuple[str, Any]] = {
    StemSpec: ("stride", 2),
    BlockSpec: ("start_kernel", 0),
    HeadSpec: ("hidden_norm", False),
}


@functools.lru_cache(maxsize=4096)
def _id_of(spec: ArchSpec) -> str:
    """Return the id of a spec. A search asks for those of the same networks again and again."""
    canonical = spec.to_dict()
    for key in ("version", "name"):
        del canonical[key]
    for block in canonical["blocks"]:
        if not block["se"]:
            del block["gate"]
    if not spec.head.conv and not spec.head.hidden:
        del canonical["head"]["activation"]
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _fields_of(row: StemSpec | BlockSpec | HeadSpec | ArchSpec) -> dict[str, Any]:
    """Return a flat dataclass as a dict, many times faster than `dataclasses.asdict`."""
    fields = {name: getattr(row, name) for name in row.__slots__}
    if (later := _LATER_FIELDS.get(type(row))) and fields[later[0]] == later[1]:
        del fields[later[0]]
    return fields


def _row(cls: type[_Row], data: Any, where: str) -> _Row:
    """Return a dataclass made of a JSON object, which must hold its fields and no others."""
    if not isinstance(data, dict):
        raise NasError(f"{where} must be a JSON object")
    _check_keys(cls, data, where)
    try:
        return cls(**data)
    except NasError as error:
        raise NasError(f"{where}: {error}") from None


def _check_keys(cls: type[StemSpec | BlockSpec | HeadSpec | ArchSpec], data: Mapping[str, Any], where: str) -> None:
    fields = dataclasses.fields(cls)
    unknown = sorted(set(data) - {field.name for field in fields})
    if unknown:
        known = ", ".join(field.name for field in fields)
        raise NasError(f"{where}: unknown key {_short(unknown[0])}; known: {known}")
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in data]
    if missing:
        raise NasError(f"{where}: {missing[0]!r} is missing")


def _integer(value: Any, name: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise NasError(f"{name} is {_short(value)}; it must be a whole number from {low} to {high}")


def _kernel(value: Any, name: str, *, may_be_absent: bool) -> None:
    _integer(value, name, 0 if may_be_absent else 1, 15)
    if value and value % 2 == 0:
        raise NasError(f"{name} is {value}; it must be odd, so that padding keeps the size")


def _boolean(value: Any, name: str) -> None:
    if not isinstance(value, bool):
        raise NasError(f"{name} is {_short(value)}; it must be true or false")


def _one_of(value: Any, name: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise NasError(f"{name} is {_short(value)}; it must be one of {', '.join(known)}")


def _short(value: Any) -> str:
    """Return the `repr` of a value, cut if it is long, so that every error is one short line."""
    text = reprlib.repr(value)  # which cuts each level, not the whole
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
