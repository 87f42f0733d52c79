"""MobileNetV3-Large's skeleton (arXiv 1905.02244, table 1). Each block chooses kernel, expansion, SE, activation."""

from nas.arch.skeleton import Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec

SPACE = SearchSpace(
    name="mobilenet_v3_large",
    stem=StemSpec(out=16, activation="hswish"),
    first=BlockSpec(op="sepconv", kernel=3, expanded=16, out=16, activation="relu"),
    stages=(
        Stage(out=24, stride=2),
        Stage(out=40, stride=2),
        Stage(out=80, stride=2),
        Stage(out=112, stride=1),
        Stage(out=160, stride=2),
    ),
    head=HeadSpec(conv=960, hidden=1280, activation="hswish"),
)
