"""Make latency tables without timing anything: rows and networks take the synthetic machine's times."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from nas.arch.loading import load_spec
from nas.arch.parts import BlockPart, NetworkPart, Part, context_of, parts_of
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.device import Device
from nas.latency.table import LatencyTable, RuntimeId, space_parts
from nas.latency.table_file import Row, WholeNetwork
from support.synthetic import added_ms, network_ms, part_ms

NOISE = 0.03  # of a row, relative
REFERENCE_MS = network_ms(load_spec("mobilenet_v3_large"))
ODD_NAME = '<img src="x" onerror="alert(1)"> & 网络'  # of a network: must be text wherever it is shown


def no_slower(part: Part) -> float:
    return 1.0


def slow_kernels(part: Part) -> float:
    """Return twice the time for blocks with a 5x5 kernel."""
    return 2.0 if isinstance(part, BlockPart) and part.block.kernel == 5 else 1.0


def other_device(cpu: str) -> Device:
    return Device(cpu, ("avx2",), 2, "x86_64", "Linux", None, None)


def made_up_table(
    path: Path,
    spaces: Sequence[SearchSpace],
    *,
    specs: Sequence[ArchSpec] = (),
    measured: Sequence[tuple[ArchSpec, float]] = (),
    device: Device | None = None,
    noise: float = 0.0,
    slower: Callable[[Part], float] = no_slower,
    num_classes: int = 1000,
) -> LatencyTable:
    """Return a saved table with all rows of the spaces, and with those of `specs`.

    `measured` are whole networks with factors of their times. `noise` is how far a row is off, and `slower` multiplies
    the time that a part adds.
    """
    table = LatencyTable(
        device or Device.this(),
        RuntimeId("onnxruntime", "1.0", 1, "float32"),
        REFERENCE_MS,
        Path(path),
        num_classes=num_classes,
        created="2026-01-02T03:04:05+00:00",
    )
    parts: list[Part] = [part for space in spaces for part in space_parts(space, num_classes)]
    parts += [part for spec in specs for part in parts_of(spec, num_classes)]
    for part in parts:
        # A row is timed in its context, which is no slower.
        for one, factor in ((part, slower(part)), (context_of(part), 1.0)):
            if one is not None and one.key not in table.rows:
                ms = part_ms(one) + ((factor - 1) * added_ms(one) if factor != 1 else 0.0)
                table.rows[one.key] = _row(ms * (1 + noise * random.Random(one.key).uniform(-1, 1)))
    for spec, factor in measured:
        ratio = factor * network_ms(spec, num_classes) / REFERENCE_MS
        table.networks[NetworkPart(spec, num_classes).key] = WholeNetwork.of(spec.to_dict(), ratio, 0.004, 1)
    table.save()
    return LatencyTable.load(path)


def _row(ms: float) -> Row:
    ratio = round(ms / REFERENCE_MS, 7)
    return Row(ratio, ratio, (ratio, ratio), 20, 0.01, 1)


def trimmed_network() -> ArchSpec:
    """Return a network as NetAdapt leaves it: V3-Large with other channels in a stage and in a block."""
    spec = load_spec("mobilenet_v3_large").with_block(11, expanded=600, se=152)
    for index in (3, 4, 5):
        spec = spec.with_block(index, out=32)
    return spec.replace(name="trimmed")
