"""A network that trains in a moment."""

from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec

TINY_NET = ArchSpec(
    name="tiny net",
    resolution=32,
    stem=StemSpec(out=8),
    blocks=(BlockSpec(kernel=3, expanded=48, out=16, stride=2), BlockSpec(kernel=3, expanded=96, out=24, stride=2)),
    head=HeadSpec(conv=32),
)
