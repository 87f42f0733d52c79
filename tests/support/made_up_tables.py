"""Latency tables of made-up devices, that know every block of MobileNetV3-Small at one variant."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nas.arch.loading import load_space
from nas.arch.parts import BlockPart, NetworkPart, Part, context_of
from nas.arch.published import published_spec
from nas.arch.skeleton import Variant
from nas.arch.spec import ArchSpec
from nas.latency.device import Device
from nas.latency.table import REFERENCE, LatencyTable, space_parts
from nas.latency.table_file import Row, RuntimeId, WholeNetwork
from support.synthetic import added_ms, network_ms, part_ms

VARIANT = Variant(1.0, 224)


def no_slower(part: Part) -> float:
    return 1.0


def slow_kernels(part: Part) -> float:
    """Return twice the time for blocks with a 5x5 kernel."""
    return 2.0 if isinstance(part, BlockPart) and part.block.kernel == 5 else 1.0


def made_up_table(
    path: Path,
    cpu: str = "Example CPU 3.0",
    slower: Callable[[Part], float] = no_slower,
    measured: Sequence[tuple[ArchSpec, float]] = (),
    num_classes: int = 1000,
    variant: Variant = VARIANT,
) -> LatencyTable:
    """Return a saved table. `slower` multiplies the time of a part; `measured` has whole networks and their factors."""
    reference_ms = network_ms(published_spec(REFERENCE))
    space = load_space("mobilenet_v3_small").at([variant])
    parts = {part.key: part for part in space_parts(space, num_classes)}
    contexts = {context.key: context for part in parts.values() if (context := context_of(part))}
    rows = {}
    for key, part in (parts | contexts).items():
        ms = part_ms(part)
        if key in parts:
            ms += (slower(part) - 1) * added_ms(part)
        ratio = ms / reference_ms
        rows[key] = Row(round(ratio, 7), round(ratio, 7), (ratio, ratio), 30, 0.004)
    table = LatencyTable(
        device=Device(cpu, ("avx2",), 2, "x86_64", "Linux", None, None),
        runtime=RuntimeId("onnxruntime", "1.31.1", 1, "float32"),
        reference_ms=reference_ms,
        path=path,
        num_classes=num_classes,
        rows=rows,
        created="2026-01-02T03:04:05+00:00",
    )
    for spec, factor in measured:
        ratio = factor * network_ms(spec, num_classes) / reference_ms
        table.networks[NetworkPart(spec, num_classes).key] = WholeNetwork.of(spec.to_dict(), ratio, 0.005, 0)
    table.save(path)
    return table
