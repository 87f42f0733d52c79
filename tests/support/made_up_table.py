"""Make a latency table without timing anything: its rows are the synthetic machine's times, each off by a little."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from nas.arch.loading import load_spec
from nas.arch.parts import NetworkPart, Part, context_of, parts_of
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.device import Device
from nas.latency.table import LatencyTable, RuntimeId, space_parts
from nas.latency.table_file import Row, WholeNetwork
from support.synthetic import network_ms, part_ms

NOISE = 0.03  # of a row, relative
REFERENCE_MS = network_ms(load_spec("mobilenet_v3_large"))
ODD_NAME = '<img src="x" onerror="alert(1)"> & 网络'  # of a network: must be text wherever it is shown


def made_up_table(
    path: Path, spaces: Sequence[SearchSpace], specs: Iterable[ArchSpec] = (), device: Device | None = None
) -> LatencyTable:
    """Write a table with all rows of the spaces, and with those of the networks, which were measured whole, too."""
    table = LatencyTable(
        device or Device.this(), RuntimeId("onnxruntime", "1.0", 1, "float32"), REFERENCE_MS, Path(path)
    )
    networks = list(specs)
    parts: list[Part] = [part for space in spaces for part in space_parts(space)]
    parts += [part for spec in networks for part in parts_of(spec)]
    for part in parts:
        for one in (part, context_of(part)):
            if one is not None and one.key not in table.rows:
                table.rows[one.key] = _row(one)
    for spec in networks:
        key, ratio = NetworkPart(spec).key, 1.01 * network_ms(spec) / REFERENCE_MS
        table.networks[key] = WholeNetwork.of(spec.to_dict(), ratio, 0.004, 1)
    table.save()
    return LatencyTable.load(path)


def _row(part: Part) -> Row:
    ratio = round(part_ms(part) / REFERENCE_MS * (1 + NOISE * random.Random(part.key).uniform(-1, 1)), 7)
    return Row(ratio, ratio, (ratio, ratio), 20, 0.01, 1)


def trimmed_network() -> ArchSpec:
    """Return a network as NetAdapt leaves it: V3-Large with other channels in a stage and in a block."""
    spec = load_spec("mobilenet_v3_large").with_block(11, expanded=600, se=152)
    for index in (3, 4, 5):
        spec = spec.with_block(index, out=32)
    return spec.replace(name="trimmed")
