"""Write the blocks of a network into one cell of a table."""

from __future__ import annotations

from nas.arch.spec import ArchSpec

_ACTIVATIONS = {"relu": "r", "relu6": "r6", "hswish": "h"}


def blocks_text(spec: ArchSpec) -> str:
    """Return the blocks of a network as "kernel,expanded,out,stride,se,activation", with ";" between two blocks.

    `se` is the number of squeezed channels, 0 for none. The activation is "r" for ReLU, "r6" for ReLU6, "h" for
    h-swish.
    """
    return ";".join(
        f"{b.kernel},{b.expanded},{b.out},{b.stride},{b.se},{_ACTIVATIONS[b.activation]}" for b in spec.blocks
    )
