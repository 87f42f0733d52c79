"""A skeleton for images of 32 to 96 pixels, of MobileNetV3's blocks (arXiv 1905.02244): 32 pixels end as 4x4.

Three strides are behind the stem, whose stride is 1. Small kernels and few blocks keep a step of training short on a
CPU, where depthwise convolutions of large maps take most of it.
"""

from nas.arch.skeleton import Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec

SPACE = SearchSpace(
    name="mobilenet_v3_small_images",
    stem=StemSpec(out=16, activation="hswish", stride=1),
    first=BlockSpec(op="sepconv", kernel=3, expanded=16, out=16, stride=2, activation="relu"),
    stages=(
        Stage(out=48, stride=2, depths=(1, 2, 3), kernels=(3,), expansions=(2, 3)),
        Stage(out=96, stride=2, depths=(1, 2, 3), kernels=(3,), expansions=(2, 3, 4)),
    ),
    head=HeadSpec(conv=576, hidden=640, activation="hswish"),
    resolutions=(32, 48, 64, 96),
)
