"""A skeleton for images of 32 to 96 pixels, of MobileNetV3's blocks (arXiv 1905.02244): 32 pixels end as 4x4."""

from nas.arch.skeleton import Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec

SPACE = SearchSpace(
    name="mobilenet_v3_small_images",
    stem=StemSpec(out=16, activation="hswish", stride=1),
    first=BlockSpec(op="sepconv", kernel=3, expanded=16, out=16, activation="relu"),
    stages=(
        Stage(out=24, stride=2, depths=(1, 2, 3), kernels=(3, 5)),
        Stage(out=40, stride=2, depths=(1, 2, 3), kernels=(3, 5)),
        Stage(out=80, stride=2, depths=(1, 2, 3), kernels=(3, 5)),
    ),
    head=HeadSpec(conv=480, hidden=640, activation="hswish"),
    resolutions=(32, 48, 64, 96),
)
