"""A network cut into the parts that a latency table has rows for: stem, blocks, head.

Each part's `key` is its row's name: everything that its time can depend on, nothing else, in a form that a
person can read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nas.arch.cost import NUM_CLASSES, Layer, block_layers, network_layers
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, PlacedBlock, StemSpec, halved


@dataclass(frozen=True, slots=True)
class StemPart:
    stem: StemSpec
    resolution: int

    @property
    def key(self) -> str:
        return f"stem {self.resolution} o{self.stem.out} {self.stem.activation}"

    def layers(self) -> list[Layer]:
        return [Layer(3, self.stem.out, 3, self.resolution, halved(self.resolution, 2))]


@dataclass(frozen=True, slots=True)
class BlockPart:
    """A block where it stands: its input has `in_channels` channels and a side of `in_size`."""

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
        shape = f"{block.op} {self.in_channels}x{self.in_size} k{block.kernel} e{block.expanded} o{block.out}"
        return f"{shape} s{block.stride}{se} {block.activation}{after}"

    def layers(self) -> list[Layer]:
        return list(block_layers(self.placed))


@dataclass(frozen=True, slots=True)
class HeadPart:
    head: HeadSpec
    in_channels: int
    in_size: int
    num_classes: int

    @property
    def key(self) -> str:
        head = self.head
        activation = f" {head.activation}" if head.conv or head.hidden else ""
        return f"head {self.in_channels}x{self.in_size} c{head.conv} h{head.hidden} n{self.num_classes}{activation}"

    def layers(self) -> list[Layer]:
        channels, size = self.in_channels, self.in_size
        layers = []
        if self.head.conv:
            layers.append(Layer(channels, self.head.conv, 1, size, size))
            channels = self.head.conv
        for out in filter(None, (self.head.hidden, self.num_classes)):
            layers.append(Layer(channels, out, 1, 1, 1, norm=False, linear=True))
            channels = out
        return layers


@dataclass(frozen=True, slots=True)
class ContextPart:
    """What stands around a block or head while it is timed: a 1x1 convolution before it, pooling behind it.

    Its own time is taken off the part's, so that the part's is what it adds inside a network, where its input
    already lies in the runtime's own layout and in the cache.
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


CONTEXT_CHANNELS = 16  # input of the convolution in a context: a multiple of every vector width, and small

Part = StemPart | BlockPart | HeadPart | ContextPart | NetworkPart


def parts_of(spec: ArchSpec, num_classes: int = NUM_CLASSES) -> Iterator[StemPart | BlockPart | HeadPart]:
    """The parts whose times add up to the network's, in order."""
    yield StemPart(spec.stem, spec.resolution)
    for placed in spec.walk():
        yield BlockPart(*placed)
    yield HeadPart(spec.head, *spec.head_input, num_classes)


def context_of(part: Part) -> ContextPart | None:
    """The context in which a part is timed; None for what is timed alone."""
    if isinstance(part, BlockPart | HeadPart):
        return ContextPart(part.in_channels, part.in_size)
    return None
