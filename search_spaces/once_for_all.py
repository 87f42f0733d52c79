"""Once-for-All's MobileNetV3 space (arXiv 1908.09791). A stage fixes SE and activation. The width scales the head."""

from nas.arch.skeleton import Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec

SPACE = SearchSpace(
    name="once_for_all",
    stem=StemSpec(out=16, activation="hswish"),
    first=BlockSpec(op="sepconv", kernel=3, expanded=16, out=16, activation="relu"),
    stages=(
        Stage(out=24, stride=2, se=(False,), activations=("relu",)),
        Stage(out=40, stride=2, se=(True,), activations=("relu",)),
        Stage(out=80, stride=2, se=(False,), activations=("hswish",)),
        Stage(out=112, stride=1, se=(True,), activations=("hswish",)),
        Stage(out=160, stride=2, se=(True,), activations=("hswish",)),
    ),
    head=HeadSpec(conv=960, hidden=1280, activation="hswish"),
    scale_head=True,
    widths=(1.0, 1.2),
    resolutions=(128, 144, 160, 176, 192, 208, 224),
)
