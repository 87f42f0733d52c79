"""Compare runtimes and precisions on the same networks, and what a search finds for int8 on LiteRT beside float32.

uv run python benchmarks/runtimes.py                           # two minutes on one core: published networks
uv run python benchmarks/runtimes.py --search build/runtimes   # and three searches, some ten minutes

Times are ratios to MobileNetV3-Large in float32 on onnxruntime, one thread, all in the same interleaved rounds. With
--search, networks as fast as MobileNetV3-Large are searched on LiteRT, in float32 and in int8: each within the latency
that it has there. What these find is timed on every runtime like the published networks. A third search is within 6 ms,
as a user asks. The last column is LiteRT's int8 with hard swish in int8, too.

Writes benchmarks/results/runtimes.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from nas.accuracy import load_estimator
from nas.arch import tflite_graph
from nas.arch.parts import NetworkPart
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec, BlockSpec
from nas.latency.device import Device
from nas.latency.measuring import new_table
from nas.latency.predictor import LatencyPredictor
from nas.latency.runtimes import make_runtime
from nas.latency.table import LatencyTable
from nas.latency.timing import NETWORK_ITERATIONS, NETWORK_RULE, Bench, Program, time_interleaved
from nas.runs.folder import versions
from nas.runs.record import load_record

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "runtimes.json"
REFERENCE = "mobilenet_v3_large"
PUBLISHED = (
    REFERENCE,
    "mobilenet_v3_small",
    "tf_mobilenetv3_large_minimal_100",  # without SE and h-swish
    "tf_mobilenetv3_small_minimal_100",
    "mobilenet_v2",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
)
ENGINES = (
    ("onnxruntime", "float32"),
    ("onnxruntime", "int8"),
    ("litert", "float32"),
    ("litert", "int8"),
    ("openvino", "float32"),
    ("openvino", "int8"),
)


ASKED_MS = 6.0  # a budget that users ask for
ASKED = f"float32, {ASKED_MS:g} ms"
ALL_INT8 = "litert int8, hard swish too"
COLUMNS = (*map(" ".join, ENGINES), ALL_INT8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", type=Path, metavar="FOLDER", help="search too, with the runs and tables there")
    arguments = parser.parse_args()
    specs = {name: published_spec(name) for name in PUBLISHED}
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": Device.this().cpu,
        "versions": versions(),
    }
    if arguments.search:
        found, report["searches"] = searches(arguments.search)
        specs |= found
    report["reference_ms"], report["networks"] = timed(specs)
    tell(report)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def timed(specs: dict[str, ArchSpec]) -> tuple[float, list[dict[str, Any]]]:
    """Return the reference network's milliseconds, and each network's ratio to it on every engine, with its error."""
    runtimes = {engine: make_runtime(engine[0], 1, engine[1]) for engine in ENGINES}
    plain, reference = runtimes[ENGINES[0]], NetworkPart(published_spec(REFERENCE))
    bench = Bench.of(plain.clock, 1, lambda: plain.compile(reference))
    runs = {
        (name, " ".join(engine)): runtime.compile(NetworkPart(spec))
        for name, spec in specs.items()
        for engine, runtime in runtimes.items()
    }
    int8 = runtimes["litert", "int8"]
    with mock.patch.object(tflite_graph, "FLOAT_OPERATORS", ()):
        runs |= {(name, ALL_INT8): int8.compile(NetworkPart(spec)) for name, spec in specs.items()}
    programs = [Program(run, NETWORK_ITERATIONS) for run in runs.values()]
    session = time_interleaved(programs, bench, NETWORK_RULE, rng=random.Random(0))
    timings = dict(zip(runs, session.timings, strict=True))
    rows = []
    for name in specs:
        times = {engine: timings[name, engine] for engine in COLUMNS}
        rows.append(
            {
                "network": name,
                "ratios": {engine: round(timing.ratio, 3) for engine, timing in times.items()},
                "errors": {engine: round(timing.error, 4) for engine, timing in times.items()},
            }
        )
    return round(session.reference_ms, 3), rows


# Searches ---------------------------------------------------------------------------------------------


def searches(work: Path) -> tuple[dict[str, ArchSpec], dict[str, Any]]:
    """Return the Large networks that searches find for both precisions, and what they chose by stage."""
    work.mkdir(parents=True, exist_ok=True)
    specs, report = {}, {}
    for precision in ("float32", "int8"):
        budget_ms = published_ms(work, precision)
        path = search(work, precision, budget_ms)
        specs[f"found for {precision}"] = ArchSpec.load(path)
        report[precision] = described(path, budget_ms)
    path = search(work, "float32", ASKED_MS, f"float32-{ASKED_MS:g}ms")
    large_ms = next(one.latency_ms for one in load_record(path.parent).networks if one.name == REFERENCE)
    report[ASKED] = described(path, ASKED_MS) | {"mobilenet_v3_large_ms": round(large_ms, 3)}
    own = load_estimator("imagenet-prior").estimate([published_spec(REFERENCE)]).top1[0]
    report[REFERENCE] = {"top1": round(float(own), 2)}
    return specs, report


def search(work: Path, precision: str, budget_ms: float, name: str | None = None) -> Path:
    """Return the file of the Large that a search finds, run now unless it is there."""
    out = work / (name or precision)
    if not (out / "large.json").exists():
        command = [sys.executable, "-m", "nas.search", "--budget-ms", f"{budget_ms:.4g}", "--runtime", "litert"]
        command += ["--precision", precision, "--only", "large", "--out", str(out.resolve())]
        environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
        subprocess.run(command, cwd=work, env=environment, check=True, stdout=subprocess.DEVNULL)
    return out / "large.json"


def published_ms(work: Path, precision: str) -> float:
    """Return the milliseconds of MobileNetV3-Large on LiteRT, in the unit of the table that the search will use."""
    table = new_table(make_runtime("litert", 1, precision))
    table.path = work / table.path
    if not table.path.exists():
        predictor = LatencyPredictor(table)
        predictor.measured_ms([published_spec("mobilenet_v3_small")], "beginning a table")
    return LatencyTable.load(table.path).reference_ms


def described(path: Path, budget_ms: float) -> dict[str, Any]:
    """Return a found network's figures and the choices of its stages."""
    (network,) = (one for one in load_record(path.parent).networks if one.found and one.target == "large")
    spec = ArchSpec.load(path)
    return {
        "budget_ms": round(budget_ms, 3),
        "latency_ms": round(network.latency_ms, 3),
        "top1": round(network.own_estimate[0], 2),
        "resolution": spec.resolution,
        "stages": [stage_text(stage) for stage in stages_of(spec)],
    }


def stages_of(spec: ArchSpec) -> list[list[BlockSpec]]:
    """Return the blocks of a network by stage: a stage begins where the stride or the channels change."""
    stages = [[spec.blocks[0]]]
    for before, block in pairwise(spec.blocks):
        if block.stride == 2 or block.out != before.out:
            stages.append([])
        stages[-1].append(block)
    return stages


def stage_text(blocks: list[BlockSpec]) -> str:
    """Return the choices of a stage: how many of its blocks have h-swish and SE."""
    hswish = sum(block.activation == "hswish" for block in blocks)
    se = sum(bool(block.se) for block in blocks)
    return f"{len(blocks)} blocks of {blocks[-1].out}: {hswish} h-swish, {se} SE"


def tell(report: dict[str, Any]) -> None:
    print(f"{report['machine']}; MobileNetV3-Large in float32 on onnxruntime takes {report['reference_ms']} ms\n")
    print("| network | " + " | ".join(COLUMNS) + " |\n" + "|---" * (1 + len(COLUMNS)) + "|")
    for row in report["networks"]:
        print(f"| {row['network']} | " + " | ".join(f"{row['ratios'][engine]:.2f}" for engine in COLUMNS) + " |")
    for name, one in report.get("searches", {}).items():
        if name == REFERENCE:
            print(f"\n{name}: {one['top1']} %")
            continue
        beside = f"; {REFERENCE} takes {one['mobilenet_v3_large_ms']} ms" if name == ASKED else ""
        text = f"{one['top1']} %, {one['latency_ms']} ms, {one['resolution']} px{beside}"
        asked = name if name == ASKED else f"{name}, {one['budget_ms']:g} ms"
        print(f"\n{asked}: {text}")
        for stage in one["stages"]:
            print(f"  {stage}")


if __name__ == "__main__":
    main()
