"""Cut a network into the parts that a latency table has rows for: stem, blocks, head.

The `key` of a part names its row. It holds everything that the part's time can depend on and nothing else, in a form
that a person can read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nas.arch.cost import NUM_CLASSES, Layer, block_layers, head_layers, network_layers, stem_layer
from nas.arch.spec import OPS, ArchSpec, BlockSpec, HeadSpec, PlacedBlock, StemSpec


@dataclass(frozen=True, slots=True)
class StemPart:
    """The stem, on images of side `resolution` (pixels)."""

    stem: StemSpec
    resolution: int

    @property
    def key(self) -> str:
        stride = "" if self.stem.stride == 2 else f" s{self.stem.stride}"  # so older tables' rows keep their keys
        return f"stem {self.resolution} o{self.stem.out}{stride} {self.stem.activation}"

    def layers(self) -> list[Layer]:
        return [stem_layer(self.stem, self.resolution)]


@dataclass(frozen=True, slots=True)
class BlockPart:
    """A block in its place: its input has `in_channels` channels and a side of `in_size`."""

    block: BlockSpec
    in_channels: int
    in_size: int

    @property
    def placed(self) -> PlacedBlock:
        return PlacedBlock(self.block, self.in_channels, self.in_size)

    @property
    def key(self) -> str:
        block = self.block
        se = f" se{block.se}-{block.gate}" if block.se else ""
        after = " activate-output" if block.activate_output else ""
        kernels = (f"b{block.start_kernel} " if block.start_kernel else "") + f"k{block.kernel}"
        shape = f"{block.op} {self.in_channels}x{self.in_size} {kernels} e{block.expanded} o{block.out}"
        return f"{shape} s{block.stride}{se} {block.activation}{after}"

    @classmethod
    def of_key(cls, key: str) -> BlockPart | None:
        """Return the block with that key; None for the key of another kind of part."""
        found = _BLOCK_KEY.fullmatch(key)
        if found is None:
            return None
        kernel, expanded, out, stride = (int(found[name]) for name in ("kernel", "expanded", "out", "stride"))
        block = BlockSpec(
            op=found["op"],
            kernel=kernel,
            expanded=expanded,
            out=out,
            stride=stride,
            se=int(found["se"] or 0),
            gate=found["gate"] or "hard_sigmoid",
            activation=found["activation"],
            activate_output=found["after"] is not None,
            start_kernel=int(found["start"] or 0),
        )
        return cls(block, int(found["channels"]), int(found["size"]))

    def layers(self) -> list[Layer]:
        return list(block_layers(self.placed))


@dataclass(frozen=True, slots=True)
class HeadPart:
    """The head and the classifier, on an input of `in_channels` channels and a side of `in_size`."""

    head: HeadSpec
    in_channels: int
    in_size: int
    num_classes: int

    @property
    def key(self) -> str:
        head = self.head
        activation = f" {head.activation}" if head.conv or head.hidden else ""
        norm = " hidden-norm" if head.hidden_norm else ""  # a bias or a folded norm: the runtime torch tells them apart
        return (
            f"head {self.in_channels}x{self.in_size} c{head.conv} h{head.hidden} n{self.num_classes}{activation}{norm}"
        )

    def layers(self) -> list[Layer]:
        return list(head_layers(self.head, self.in_channels, self.in_size, self.num_classes))


@dataclass(frozen=True, slots=True)
class ContextPart:
    """The surroundings of a block or head while it is timed: a 1x1 convolution before it, pooling behind it.

    The time of the context alone is subtracted from that of the part in its context. The difference is the time that
    the part adds inside a network, where its input already lies in the runtime's own layout and in the cache.
    """

    channels: int
    size: int

    @property
    def key(self) -> str:
        return f"context {self.channels}x{self.size}"

    def layers(self) -> list[Layer]:
        return [Layer(CONTEXT_CHANNELS, self.channels, 1, self.size, self.size)]


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """A whole network."""

    spec: ArchSpec
    num_classes: int = NUM_CLASSES

    @property
    def key(self) -> str:
        return f"network {self.spec.id} n{self.num_classes}"

    def layers(self) -> list[Layer]:
        return list(network_layers(self.spec, self.num_classes))


_BLOCK_KEY = re.compile(
    rf"(?P<op>{'|'.join(OPS)}) (?P<channels>\d+)x(?P<size>\d+) (?:b(?P<start>\d+) )?k(?P<kernel>\d+) "
    r"e(?P<expanded>\d+) o(?P<out>\d+) s(?P<stride>\d+)(?: se(?P<se>\d+)-(?P<gate>\w+))? "
    r"(?P<activation>\w+)(?P<after> activate-output)?"
)
CONTEXT_CHANNELS = 16  # of the input of a context: few, and a multiple of every vector width

Part = StemPart | BlockPart | HeadPart | ContextPart | NetworkPart


def parts_of(spec: ArchSpec, num_classes: int = NUM_CLASSES) -> Iterator[StemPart | BlockPart | HeadPart]:
    """Yield the parts whose times add up to the network's, in order."""
    yield StemPart(spec.stem, spec.resolution)
    for placed in spec.walk():
        yield BlockPart(*placed)
    yield HeadPart(spec.head, *spec.head_input, num_classes)


def context_of(part: Part) -> ContextPart | None:
    """Return the context in which a part is timed, or None for a part that is timed alone."""
    if isinstance(part, BlockPart | HeadPart):
        return ContextPart(part.in_channels, part.in_size)
    return None
