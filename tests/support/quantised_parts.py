"""Parts that hold every operation, for tests of graphs in int8."""

from nas.arch.parts import BlockPart, ContextPart, HeadPart, NetworkPart, Part, StemPart
from nas.arch.published import published_spec
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec

QUANTISED: dict[str, Part] = {
    "se": BlockPart(BlockSpec(kernel=5, expanded=48, out=16, se=16), 16, 14),
    "hswish": BlockPart(BlockSpec(kernel=3, expanded=48, out=24, stride=2, activation="hswish"), 16, 14),
    "sigmoid": BlockPart(BlockSpec(kernel=3, expanded=48, out=16, se=8, gate="sigmoid", activation="relu6"), 16, 14),
    "active output": BlockPart(BlockSpec(op="sepconv", kernel=3, expanded=16, out=16, activate_output=True), 16, 14),
    "universal": BlockPart(BlockSpec(op="uib", start_kernel=5, kernel=3, expanded=32, out=24, stride=2), 16, 14),
    "start alone": BlockPart(BlockSpec(op="uib", start_kernel=3, kernel=0, expanded=32, out=16), 16, 14),
    "fused": BlockPart(BlockSpec(op="fused", kernel=3, expanded=32, out=16, activate_output=True), 16, 14),
    "stem": StemPart(StemSpec(out=16), 32),
    "head": HeadPart(HeadSpec(conv=48, hidden=32), 16, 7, 10),
    "relu head": HeadPart(HeadSpec(conv=0, hidden=32, activation="relu"), 16, 7, 10),
    "context": ContextPart(16, 14),
    "network": NetworkPart(published_spec("mobilenet_v3_small").replace(resolution=32), 10),
}
