"""Run folders like those that nas.search writes, made up from the spaces, with invented but plausible figures."""

import csv
import json
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.arch.cost import block_layers, count_cost, network_layers
from nas.arch.loading import load_space, load_spec
from nas.arch.published import published_results
from nas.arch.spec import ArchSpec
from nas.runs.pareto import front_indices

TRIAL_COLUMNS = [
    "role",
    "stage",
    "number",
    "spec_id",
    "latency_ms",
    "top1",
    "top1_std",
    "macs",
    "params",
    "peak_activation_bytes",
]
TABLE_COLUMNS = [
    "key",
    "op",
    "kernel",
    "expanded",
    "out",
    "stride",
    "se",
    "activation",
    "in_channels",
    "in_size",
    "macs",
    "ms",
]


def layers_ms(layers: Iterable) -> float:
    """About a server's core: dense layers at 70 GMAC/s, depthwise ones at 20, 4 us a layer."""
    return sum(layer.macs / (20e6 if layer.groups > 1 else 70e6) + 0.004 for layer in layers)


def breakdown(spec: ArchSpec) -> list[tuple[str, float]]:
    layers = list(network_layers(spec))
    count = sum(len(list(block_layers(placed))) for placed in spec.walk())
    blocks = [(f"block {n}", layers_ms(block_layers(placed))) for n, placed in enumerate(spec.walk(), 1)]
    return [("stem", layers_ms(layers[:1])), *blocks, ("head", layers_ms(layers[1 + count :]))]


def latency_ms(spec: ArchSpec) -> float:
    return layers_ms(network_layers(spec))


def top1(spec: ArchSpec) -> float:
    """Through the published MobileNetV3-Large and -Small, by MACs alone, and a little for large kernels."""
    large = sum(block.kernel > 3 for block in spec.blocks) / len(spec.blocks)
    return 84.2 - 110 * (count_cost(spec).macs / 1e6) ** -0.47 + large


def trial(role: str, number: int, spec: ArchSpec) -> dict[str, Any]:
    cost = count_cost(spec)
    return dict(
        zip(
            TRIAL_COLUMNS,
            (
                role,
                "random" if number < 20 else "evolution",
                number,
                spec.id,
                latency_ms(spec),
                top1(spec),
                0.7,
                cost.macs,
                cost.params,
                cost.peak_activation_bytes,
            ),
            strict=True,
        )
    )


def network(
    name: str, spec: ArchSpec, role: str | None = None, published: float | None = None, together: bool = True
) -> dict[str, Any]:
    """Of a role, or published; measured together with what was found, or before."""
    ms, cost = latency_ms(spec), count_cost(spec)
    return {
        "name": name,
        "kind": "published" if role is None else "found",
        "role": role,
        "spec": spec.to_dict(),
        "measured_ms": 0.99 * ms,
        "raw_ms": 1.1 * ms if together else None,
        "quartiles_ms": [0.98 * ms, 1.01 * ms] if together else None,
        "predicted_ms": ms,
        "macs": cost.macs,
        "params": cost.params,
        "top1": top1(spec) if published is None else published,
        "top1_std": 0.7 if published is None else None,
        "top1_source": "estimated" if published is None else "published",
        "estimated_top1": top1(spec),
        "estimated_std": 0.7,
        "extrapolated": False,
        "source": "imagenet-prior" if published is None else "arXiv 1905.02244",
        "breakdown": breakdown(spec),
    }


def published_networks() -> Iterator[dict[str, Any]]:
    for name, accuracy in (("mobilenet_v3_large", 75.2), ("mobilenet_v3_small", 67.4)):
        yield network(name, load_spec(name), published=accuracy)
    for result in published_results():
        name = result.spec.name
        if result.spec.resolution == 224 and name in ("mobilenet_v2", "mnasnet_a1"):
            yield network(name, result.spec, published=result.top1, together=False)
        elif name.startswith(("ofa_", "hardcorenas_")):
            yield network(name, result.spec, published=result.top1, together=name == "ofa_cpu_lat-15ms")


def table_rows(specs: list[ArchSpec]) -> Iterator[dict[str, Any]]:
    spec = specs[0]
    layers = list(network_layers(spec))
    yield {"key": "stem", "op": "stem", "macs": layers[0].macs, "ms": layers_ms(layers[:1])}
    yield {"key": "head", "op": "head", "macs": layers[-1].macs, "ms": layers_ms(layers[-1:])}
    for placed in dict.fromkeys(placed for spec in specs for placed in spec.walk()):
        block, layers = placed.block, list(block_layers(placed))
        yield {
            "key": str(placed),
            "op": block.op,
            "kernel": block.kernel,
            "expanded": block.expanded,
            "out": block.out,
            "stride": block.stride,
            "se": block.se,
            "activation": block.activation,
            "in_channels": placed.in_channels,
            "in_size": placed.in_size,
            "macs": sum(layer.macs for layer in layers),
            "ms": layers_ms(layers),
        }


def write_rows(file: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


SCALES = {"large": [(1.0, 192), (1.0, 224), (1.25, 224)], "small": [(0.75, 224), (1.0, 192), (1.0, 224), (1.25, 224)]}


FIDELITY = {
    "networks": 100,
    "date": "2026-01-01",
    "mape": 0.0187,
    "bias": -0.004,
    "within_5_percent": 0.94,
    "within_10_percent": 1.0,
    "spearman": 0.9971,
    "kendall": 0.96,
    "noise_mape": 0.006,
}


def write_run(
    folder: Path, budgets_ms: dict[str, float], trials: int = 30, device: str = "Example CPU 3.0", seed: int = 0
) -> Path:
    """A finished run with `trials` random networks a role, the best of those within the budget as the result."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    front: list[dict[str, Any]] = []
    networks, roles, specs = [], {}, []
    for role, budget_ms in budgets_ms.items():
        space = load_space(f"mobilenet_v3_{role}").at(SCALES[role])
        drawn = [space.sample(rng) for _ in range(max(trials, 30))]
        found = max(
            (spec for spec in drawn if latency_ms(spec) <= budget_ms),
            key=top1,
            default=min(drawn, key=latency_ms),
        )
        found.save(folder / f"{role}.json", {"measured_ms": latency_ms(found)})
        networks.append(network(f"found {role}", found, role))
        own = [trial(role, number, spec) for number, spec in enumerate(drawn[:trials])]
        rows += own
        front += [own[i] for i in front_indices([r["latency_ms"] for r in own], [r["top1"] for r in own])]
        specs += drawn
        roles[role] = {
            "space": space.name,
            "budget_ms": budget_ms,
            "feasible_ms": [0.31, 17.9],
            "binds": budget_ms < 17.9,
            "variants": SCALES[role],
        }
    write_rows(folder / "trials.csv", TRIAL_COLUMNS, rows)
    write_rows(folder / "front.csv", TRIAL_COLUMNS, front)
    write_rows(folder / "table_rows.csv", TABLE_COLUMNS, table_rows(specs) if trials else ())
    run = {
        "version": 1,
        "command": f"python -m nas.search --budget-ms {budgets_ms.get('large', 0):g}",
        "arguments": {"budget_ms": budgets_ms.get("large"), "seed": seed},
        "versions": {"nas": "0.1.0", "torch": "2.15.0", "onnxruntime": "1.31.1"},
        "machine": {"cpu": device, "cores": 2, "os": "Linux"},
        "created": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:06:05+00:00",
        "seconds": {"table": 41.2, "search": 10.1, "measure": 4.0},
        "table": {
            "file": "latency_tables/example-onnxruntime-t1.json",
            "device": device,
            "runtime": "onnxruntime 1.31.1",
            "threads": 1,
            "precision": "float32",
            "classes": 1000,
            "rows": 4812,
            "reference": "mobilenet_v3_large",
            "reference_ms": 3.71,
            "fidelity": FIDELITY,
        },
        "estimator": {"name": "imagenet-prior", "effort": "as Once-for-All trains, 25 epochs of fine-tuning"},
        "roles": roles,
        "networks": [*networks, *published_networks()],
    }
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both roles, to be read only."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", {"large": 4.0, "small": 1.2})


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def edit_run(run_dir: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Changes run.json in place by a function of its object; the run's folder."""

    def edit(change: Callable[[dict[str, Any]], object]) -> Path:
        data = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        change(data)
        (run_dir / "run.json").write_text(json.dumps(data), encoding="utf-8")
        return run_dir

    return edit
