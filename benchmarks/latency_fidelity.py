"""How well a latency table made here predicts whole networks measured here, what it costs, and the staircase.

uv run python benchmarks/latency_fidelity.py      # about four minutes on one core
"""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nas.latency.building import measure_missing, new_table
from nas.latency.fidelity import check, figures
from nas.latency.runtimes import OnnxRuntime
from nas.latency.table import LatencyTable, space_parts
from nas.parts import BlockPart
from nas.registry import load_space
from nas.run import versions
from nas.space import SearchSpace
from nas.spec import BlockSpec, squeezed_channels

HERE = Path(__file__).parent
NETWORKS = 50  # of each space
SCALE = (1.0, 224)
STAIRS = range(96, 193, 8)


def main() -> None:
    table = new_table(OnnxRuntime())
    results: dict[str, object] = {"date": datetime.now(UTC).date().isoformat(), "device": table.device.to_dict()}
    results |= {"runtime": str(table.runtime), "versions": versions()}
    rng = random.Random(1)
    points = {}
    for name in ("mobilenet_v3_large", "mobilenet_v3_small"):
        space = load_space(name).at([SCALE])
        results[name] = cost(table, space)
        specs = [space.sample(rng) for _ in range(NETWORKS)]
        errors, predicted, measured = check(table, specs, rng=rng)
        results[name] |= errors  # type: ignore[operator]
        points[name] = (predicted, measured)
        print(name, json.dumps(results[name], indent=1))
    everything = [np.concatenate(column) for column in zip(*points.values(), strict=True)]
    results["both"] = figures(everything[0], everything[1])
    results["sentinel_ms"] = round(table.sentinel_ms, 4)
    results["compiled_networks_per_second"] = compiled_speed(table, load_space("mobilenet_v3_large").at([SCALE]))
    results["staircase_microseconds"] = staircase(table)
    for key in ("both", "compiled_networks_per_second", "staircase_microseconds"):
        print(key, json.dumps(results[key], indent=1))
    draw(points)
    (HERE / "results" / "latency_fidelity.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def cost(table: LatencyTable, space: SearchSpace) -> dict[str, object]:
    """Seconds that the rows of one scale take, sessions included."""
    begun = time.perf_counter()
    rows = measure_missing(table, space_parts(space))
    seconds = time.perf_counter() - begun
    return {
        "scale": str(space.scales[0]),
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds, 1),
    }


def compiled_speed(table: LatencyTable, space: SearchSpace) -> int:
    rng = random.Random(0)
    some = np.stack([space.draw(lambda gene: rng.randrange(len(gene.choices))) for _ in range(1000)])
    codes, compiled = np.tile(some, (1000, 1)), table.compile(space)
    begun = time.perf_counter()
    compiled(codes)
    return round(len(codes) / (time.perf_counter() - begun))


def staircase(table: LatencyTable) -> dict[int, float]:
    """MBConv k5 SE h-swish, 80 to 80 channels at 14x14, by expanded channels."""
    parts = []
    for expanded in STAIRS:
        block = BlockSpec(kernel=5, expanded=expanded, out=80, se=squeezed_channels(expanded), activation="hswish")
        parts.append(BlockPart(block, 80, 14))
    measure_missing(table, parts)
    return {part.block.expanded: round(1000 * table.part_ms(part), 1) for part in parts}


def draw(points: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for (name, (predicted, measured)), colour in zip(points.items(), ("#0072B2", "#D55E00"), strict=True):
        axes.scatter(measured, predicted, s=14, color=colour, alpha=0.7, label=name, linewidths=0)
    limits = np.array([min(m.min() for _, m in points.values()), max(m.max() for _, m in points.values())]) * (
        0.95,
        1.05,
    )
    axes.plot(limits, limits, color="0.3", linewidth=1)
    axes.fill_between(limits, limits * 0.95, limits * 1.05, color="0.85", zorder=0, label="within 5 %")
    axes.set(xlabel="measured whole, ms", ylabel="predicted by the table, ms", xlim=limits, ylim=limits)
    axes.set_title(f"Random networks at {SCALE[0]:g}@{SCALE[1]}, not used to make the table", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(HERE.parent / "docs" / "images" / "latency_fidelity.png", dpi=110)


if __name__ == "__main__":
    main()
