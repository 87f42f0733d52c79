"""Measure how well a new latency table predicts whole networks, how long it takes, and the staircase of a block.

uv run python benchmarks/latency_fidelity.py               # six minutes on one core
uv run python benchmarks/latency_fidelity.py --busy-core   # Large at 1@224 alone, the core busy half of the time
uv run python benchmarks/latency_fidelity.py --runtime litert --precision int8   # a file of its own, no picture

Two populations are predicted: random networks, and networks near the optimum of random budgets, which are what a
search ends with. Neither is learned from before it is predicted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nas.accuracy import load_estimator
from nas.arch.loading import load_space
from nas.arch.parts import BlockPart, ContextPart, NetworkPart, parts_of
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec, squeezed_channels
from nas.latency.device import allowed_cores
from nas.latency.fidelity import Check, check, fidelity_of, fidelity_text, held_out
from nas.latency.measuring import new_table
from nas.latency.predictor import LatencyPredictor
from nas.latency.runtimes import RUNTIMES, Runtime, make_runtime
from nas.latency.table import LatencyTable
from nas.latency.timing import BLOCK_ITERATIONS, Program, StoppingRule, time_interleaved
from nas.runs.folder import versions
from nas.search.near_optimum import fill_and_learn, near_optimal_draw

HERE = Path(__file__).parent
NETWORKS = 48  # of each population
BUSY_NETWORKS = 30
SCALES = {
    "mobilenet_v3_large": [(1.0, 224), (0.75, 192), (1.0, 128)],
    "mobilenet_v3_small": [(1.0, 224), (0.75, 160), (1.25, 128)],
}
TINY = 32  # pixels, at width 1: the hard case
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
TARGETS = {"mape": 0.012, "bias": 0.005, "within_5_percent": 0.99, "spearman": 0.995}
FIGURES = ("mape", "bias", "within_5_percent", "within_10_percent", "spearman", "noise_mape")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy-core", action="store_true")
    parser.add_argument("--runtime", default="onnxruntime", choices=sorted(RUNTIMES))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--name", help="of the results file, such as that of another machine; no picture is drawn then")
    arguments = parser.parse_args()
    runtime = make_runtime(arguments.runtime, 1, arguments.precision)
    if arguments.busy_core:
        with busy_core():
            spaces = [load_space("mobilenet_v3_large").at([(1.0, 224)])]
            table, results = filled(spaces, runtime)
            results["busy"] = "one core, 50 ms of each 100 ms"
            populations(table, spaces, BUSY_NETWORKS, results)
        write("latency_busy_core", results)
        return
    spaces = [load_space(name).at(scales) for name, scales in SCALES.items()]
    table, results = filled(spaces, runtime)
    checks = populations(table, spaces, NETWORKS, results)
    results["targets"] = TARGETS
    results["tiny"] = tiny(runtime)
    results["staircase_microseconds"] = staircase(table)
    for key in ("tiny", "staircase_microseconds"):
        print(key, json.dumps(results[key]))
    if arguments.name:
        write(arguments.name, results)
    elif (arguments.runtime, arguments.precision) == ("onnxruntime", "float32"):
        draw(checks)
        write("latency_fidelity", results)
    else:
        write(f"latency_fidelity_{arguments.runtime}_{arguments.precision}", results)


def filled(spaces: Sequence[SearchSpace], runtime: Runtime) -> tuple[LatencyTable, dict[str, Any]]:
    """Return a new table with all that a search of the spaces measures, and what it took."""
    table = new_table(runtime, path=os.devnull)
    predictor, estimator = LatencyPredictor(Unsaved.of(table)), load_estimator("imagenet-prior")
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": table.device.to_dict(),
        "runtime": str(table.runtime),
        "versions": versions(),
        "scales": [],
    }
    for space in spaces:
        for variant in space.variants:
            before, begun = len(predictor.table.rows), time.perf_counter()
            fill_and_learn(predictor, space.at([variant]), estimator, "rows")
            seconds, rows = time.perf_counter() - begun, len(predictor.table.rows) - before
            scale = {"scale": f"{space.name} {variant}", "rows": rows, "seconds": round(seconds, 1)}
            results["scales"].append(scale)
            print(json.dumps(scale), flush=True)
    results["reference_ms"] = round(predictor.table.reference_ms, 4)
    return predictor.table, results


class Unsaved(LatencyTable):
    """A table that is not written into a file."""

    @classmethod
    def of(cls, table: LatencyTable) -> Unsaved:
        values = {f.name: getattr(table, f.name) for f in dataclasses.fields(table) if f.init}
        return cls(**values)

    def save(self, path: str | Path | None = None) -> Path:
        self.settled = True
        return self.path


def populations(
    table: LatencyTable, spaces: Sequence[SearchSpace], number: int, results: dict[str, Any]
) -> dict[str, Check]:
    """Check the table with both populations, let it learn from these, and check it again near its new optima."""
    rng, checks, drawn = random.Random(1), {}, {}
    estimator = load_estimator("imagenet-prior")
    views = [space.at([variant]) for space in spaces for variant in space.variants]
    draws = {"random": lambda space: space.sample(rng), "near-optimal": near_optimal_draw(table, estimator, rng)}
    for population, draw_one in draws.items():
        specs = drawn[population] = held_out(table, views, number, draw_one)
        timed, results["factor"] = one_factor_ms(table, specs)
        checks[population] = check(table, specs, population=population, rng=rng)
        show(results, population, "rows times one factor", timed, checks[population])
        show(results, population, "table as made", checks[population].predicted_ms, checks[population])
    for timings in (timings for one in checks.values() for timings in one.sessions):
        table.remember(timings)
    for population, one in checks.items():
        specs = drawn[population]
        left_out = np.array([table.predict_held_out(spec).time for spec in specs])
        show(results, population, "each left out of all", left_out, one)
    again = held_out(table, views, number // 2, near_optimal_draw(table, estimator, rng))
    last = check(table, again, population="near-optimal", rng=rng)
    show(results, "near-optimal", "new optima after that", last.predicted_ms, last)
    return checks


def one_factor_ms(table: LatencyTable, specs: Sequence[ArchSpec]) -> tuple[np.ndarray, float]:
    """Return sums of rows as they were timed, times the factor that fits what the table has learned from; and that."""

    def sums(networks: Sequence[ArchSpec]) -> np.ndarray:
        return np.array([sum(map(table.timed_ms, parts_of(spec, table.num_classes))) for spec in networks])

    known = [
        ArchSpec.from_dict(table.networks[e.key].spec) for e in table.correction.evidence if e.key in table.networks
    ]
    measured = np.array([table.part_ms(NetworkPart(spec, table.num_classes)) for spec in known])
    factor = float(np.exp(np.log(measured / sums(known)).mean()))
    return factor * sums(specs), round(factor, 3)


def show(results: dict[str, Any], population: str, by: str, predicted_ms: np.ndarray, one: Check) -> None:
    fidelity = fidelity_of(predicted_ms, one.measured_ms, population=population, noise_mape=one.fidelity.noise_mape)
    results.setdefault("fidelity", []).append({"by": by} | asdict(fidelity))
    print(f"{by}: {fidelity_text(fidelity)}", flush=True)


def tiny(runtime: Runtime) -> dict[str, Any]:
    """Return the errors at 32 px of a table as made."""
    space = dataclasses.replace(load_space("mobilenet_v3_small"), widths=(1.0,), resolutions=(TINY,), variants=())
    table, results = filled([space], runtime)
    populations(table, [space], 24, results)
    return {key: results[key] for key in ("scales", "reference_ms", "factor", "fidelity")}


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


def draw(checks: dict[str, Check]) -> None:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for (population, one), colour in zip(checks.items(), ("#0072B2", "#D55E00"), strict=True):
        axes.scatter(
            one.measured_ms, one.predicted_ms / one.measured_ms - 1, s=14, color=colour, alpha=0.7, label=population
        )
    axes.axhspan(-0.05, 0.05, color="0.92", zorder=0, label="within 5 %")
    axes.axhline(0, color="0.3", linewidth=1)
    axes.set_xscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    axes.set(xlabel="measured whole, ms", ylabel="predicted over measured")
    axes.set_title("Networks that the table has not learned from, six scales", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(HERE.parent / "docs" / "images" / "latency_fidelity.png", dpi=110)


def write(name: str, results: dict[str, Any]) -> None:
    (HERE / "results" / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
