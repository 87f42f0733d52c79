"""Sort the blocks of a latency table into kinds, and pair blocks that differ by one choice only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from nas.arch.parts import BlockPart
from nas.arch.spec import ACTIVATION_NAMES, BlockSpec, squeezed_channels

DECISIONS = ("kernel", "SE", "activation", "channels inside", "map")
CHANNEL_BINS = (96, 240, 480)
MAP_BINS = (14, 28, 56)


def kinds_of(part: BlockPart) -> Iterator[tuple[str, str]]:
    """Yield each of `DECISIONS` with what the block has there: ("kernel", "5×5"), ("SE", "without SE"), …"""
    block = part.block
    yield "kernel", block.kernels_text
    yield "SE", "with SE" if block.se else "without SE"
    yield "activation", ACTIVATION_NAMES[block.activation]
    yield "channels inside", _range(block.expanded, CHANNEL_BINS, "channels")
    yield "map", _range(part.in_size, MAP_BINS, "px")


def kind_order(decision: str, name: str) -> tuple[int, int, str]:
    """Return what sorts kinds: by decision, and from small to large."""
    number = next((int(word) for word in name.replace("×", " ").split() if word.isdigit()), 0)
    return DECISIONS.index(decision), number - name.startswith("below"), name


def _range(value: int, bounds: tuple[int, ...], unit: str) -> str:
    low = 0
    for bound in bounds:
        if value < bound:
            return f"{low} to {bound - 1} {unit}" if low else f"below {bound} {unit}"
        low = bound
    return f"{low} {unit} and more"


def _with_kernel(kernel: int) -> Callable[[BlockSpec], BlockSpec | None]:
    return lambda block: block.replace(kernel=kernel) if block.kernel == 3 else None


def _with_se(block: BlockSpec) -> BlockSpec | None:
    return None if block.se else block.replace(se=squeezed_channels(block.expanded))


def _with_hswish(block: BlockSpec) -> BlockSpec | None:
    return block.replace(activation="hswish") if block.activation == "relu" else None


def _twice_as_wide(block: BlockSpec) -> BlockSpec | None:
    expanded = 2 * block.expanded
    se = squeezed_channels(expanded) if block.se else 0
    return block.replace(expanded=expanded, se=se) if block.op != "sepconv" else None


# Each returns the block with the choice in place of another, None for a block that had not the other.
CHOICES: Mapping[str, Callable[[BlockSpec], BlockSpec | None]] = {
    "5×5 instead of 3×3": _with_kernel(5),
    "7×7 instead of 3×3": _with_kernel(7),
    "SE": _with_se,
    "h-swish instead of ReLU": _with_hswish,
    "twice the channels inside": _twice_as_wide,
}
