"""MobileNetV3-Small's skeleton (arXiv 1905.02244, table 2). Each block chooses kernel, expansion, SE, activation."""

from nas.arch.skeleton import Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec

SPACE = SearchSpace(
    name="mobilenet_v3_small",
    stem=StemSpec(out=16, activation="hswish"),
    first=BlockSpec(op="sepconv", kernel=3, expanded=16, out=16, stride=2, se=8, activation="relu"),
    stages=(
        Stage(out=24, stride=2),
        Stage(out=40, stride=2),
        Stage(out=48, stride=1),
        Stage(out=96, stride=2),
    ),
    head=HeadSpec(conv=576, hidden=1024, activation="hswish"),
)
