"""Write the blocks of a network into one cell of a table."""

from __future__ import annotations

from nas.arch.spec import ArchSpec, BlockSpec

_ACTIVATIONS = {"relu": "r", "relu6": "r6", "hswish": "h"}


def blocks_text(spec: ArchSpec) -> str:
    """Return the blocks of a network as "kernel,expanded,out,stride,se,activation", with ";" between two blocks.

    `se` is the number of squeezed channels, 0 for none. The activation is "r" for ReLU, "r6" for ReLU6, "h" for
    h-swish. The kernel of a universal inverted bottleneck is "start_kernel+kernel", that of a fused block "fused3".
    """
    return ";".join(
        f"{_kernel_text(b)},{b.expanded},{b.out},{b.stride},{b.se},{_ACTIVATIONS[b.activation]}" for b in spec.blocks
    )


def _kernel_text(block: BlockSpec) -> str:
    if block.op == "uib":
        return f"{block.start_kernel}+{block.kernel}"
    return f"fused{block.kernel}" if block.op == "fused" else str(block.kernel)
