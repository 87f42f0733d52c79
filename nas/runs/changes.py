"""Change one choice of one block of a network, as an ablation does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nas.arch.spec import ACTIVATION_NAMES, ArchSpec, squeezed_channels

KERNELS = (3, 5, 7)


class ChangedChoice(NamedTuple):
    """A network with one choice of one block changed."""

    decision: str  # "SE", "kernel" or "activation"
    to: str  # for readers: "without SE"
    spec: ArchSpec


def changed_choices(spec: ArchSpec, number: int) -> Iterator[ChangedChoice]:
    """Yield the networks in which block `number` (from 0) has another kernel, activation, or SE where it had none.

    There is none for a block without an expansion: the spaces of this project leave it as it is.
    """
    block = spec.blocks[number]
    if block.op != "mbconv":
        return
    if block.se:
        yield ChangedChoice("SE", "without SE", spec.with_block(number, se=0))
    else:
        yield ChangedChoice("SE", "with SE", spec.with_block(number, se=squeezed_channels(block.expanded)))
    for kernel in KERNELS:
        if kernel != block.kernel:
            yield ChangedChoice("kernel", f"{kernel}×{kernel}", spec.with_block(number, kernel=kernel))
    other = "relu" if block.activation == "hswish" else "hswish"
    yield ChangedChoice("activation", ACTIVATION_NAMES[other], spec.with_block(number, activation=other))
