"""Measure how well a new latency table predicts whole networks, how long it takes, and the staircase of a block.

uv run python benchmarks/latency_fidelity.py               # some eight minutes on one core
uv run python benchmarks/latency_fidelity.py --busy-core   # Large alone, the core kept busy half of the time
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nas.arch.loading import load_space
from nas.arch.parts import BlockPart, ContextPart
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, squeezed_channels
from nas.latency.device import allowed_cores
from nas.latency.fidelity import check, fidelity_of, fidelity_text
from nas.latency.measuring import co_run_networks, measure_missing, new_table
from nas.latency.runtimes.onnx_runtime import OnnxRuntime
from nas.latency.table import LatencyTable, space_parts
from nas.latency.timing import BLOCK_ITERATIONS, Program, StoppingRule, time_interleaved
from nas.runs.folder import versions

HERE = Path(__file__).parent
NETWORKS = 50  # of each space
BUSY_NETWORKS = 30
VARIANT = (1.0, 224)
STAIRS = range(96, 193, 8)
THOROUGH = StoppingRule(0.004, 40, 200)
BUSY = """
import time
while True:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    time.sleep(0.05)
"""
TARGETS = {
    "mape": 0.012,
    "within_5_percent": 0.99,
    "within_10_percent": 1.0,
    "spearman": 0.993,
    "bias": 0.005,
    "seconds": 15,
}


def main() -> None:
    if "--busy-core" in sys.argv[1:]:
        with busy_core():
            table = new_table(OnnxRuntime())
            results = about(table) | {"busy": "one core, 50 ms of each 100 ms"}
            results["mobilenet_v3_large"], _ = fidelity(table, "mobilenet_v3_large", BUSY_NETWORKS)
        write("latency_busy_core", results)
        return
    table = new_table(OnnxRuntime())
    results = about(table)
    points = {}
    for name in ("mobilenet_v3_large", "mobilenet_v3_small"):
        results[name], points[name] = fidelity(table, name, NETWORKS)
    predicted, measured = (np.concatenate(column) for column in zip(*points.values(), strict=True))
    noise = np.mean([results[name]["noise_mape"] for name in points])  # of equally many networks each
    results["both"] = asdict(fidelity_of(predicted, measured, noise_mape=round(float(noise), 5)))
    results["targets"] = TARGETS
    results["reference_ms"] = round(table.reference_ms, 4)
    results["compiled_networks_per_second"] = compiled_speed(table, load_space("mobilenet_v3_large").at([VARIANT]))
    results["staircase_microseconds"] = staircase(table)
    for key in ("both", "compiled_networks_per_second", "staircase_microseconds"):
        print(key, json.dumps(results[key]))
    draw(points)
    write("latency_fidelity", results)


def about(table: LatencyTable) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": table.device.to_dict(),
        "runtime": str(table.runtime),
        "versions": versions(),
    }


def fidelity(table: LatencyTable, name: str, networks: int) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """Measure the rows of one variant.

    Returns their number, time and errors; predicted and measured milliseconds.
    """
    space = load_space(name).at([VARIANT])
    begun = time.perf_counter()
    rows = measure_missing(table, space_parts(space), co_run=co_run_networks(space))
    seconds = time.perf_counter() - begun
    cost = {"variant": str(space.variants[0]), "rows": rows, "seconds": round(seconds, 1)}
    cost |= {"rows_per_second": round(rows / seconds, 1), "factor": table.calibrations[-1].factor}
    print(f"{name} {cost['variant']}:", json.dumps(cost), flush=True)
    rng = random.Random(1)
    errors, predicted, measured = check(table, [space.sample(rng) for _ in range(networks)], rng=rng)
    print(" ", fidelity_text(errors), flush=True)
    return cost | asdict(errors), (predicted, measured)


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep this process, and another one that works half of the time, on one and the same core."""
    core = (allowed_cores() or [0])[0]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # inherited by the other
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        other.kill()


def compiled_speed(table: LatencyTable, space: SearchSpace) -> int:
    rng = random.Random(0)
    some = np.stack([space.build_encoding(lambda decision: rng.randrange(len(decision.choices))) for _ in range(1000)])
    encodings, model = np.tile(some, (1000, 1)), table.compile(space)
    begun = time.perf_counter()
    model(encodings)
    return round(len(encodings) / (time.perf_counter() - begun))


def staircase(table: LatencyTable) -> dict[int, float]:
    """Return the microseconds of an MBConv (k5, SE, h-swish, 80 to 80 channels, 14x14) by expanded channels."""
    blocks = [
        BlockSpec(kernel=5, expanded=expanded, out=80, se=squeezed_channels(expanded), activation="hswish")
        for expanded in STAIRS
    ]
    runtime = table.runtime_here()
    parts = [ContextPart(80, 14), *(BlockPart(block, 80, 14) for block in blocks)]
    programs = [Program(runtime.compile(part), BLOCK_ITERATIONS) for part in parts]
    context, *timings = time_interleaved(programs, table.bench, THOROUGH, rng=random.Random(0)).timings
    ratios = (timing.ratio - context.ratio for timing in timings)
    return {e: round(1000 * ratio * table.reference_ms, 1) for e, ratio in zip(STAIRS, ratios, strict=True)}


def draw(points: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for (name, (predicted, measured)), colour in zip(points.items(), ("#0072B2", "#D55E00"), strict=True):
        axes.scatter(measured, predicted, s=14, color=colour, alpha=0.7, label=name, linewidths=0)
    ends = [min(m.min() for _, m in points.values()), max(m.max() for _, m in points.values())]
    limits = np.array(ends) * (0.95, 1.05)
    axes.plot(limits, limits, color="0.3", linewidth=1)
    axes.fill_between(limits, limits * 0.95, limits * 1.05, color="0.85", zorder=0, label="within 5 %")
    axes.set(xlabel="measured whole, ms", ylabel="predicted by the table, ms", xlim=limits, ylim=limits)
    axes.set_title(f"Random networks at {VARIANT[0]:g}@{VARIANT[1]}, not used to make the table", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(HERE.parent / "docs" / "images" / "latency_fidelity.png", dpi=110)


def write(name: str, results: dict[str, Any]) -> None:
    (HERE / "results" / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
