"""Write run folders like those of nas.search, made up from the spaces, with invented but plausible figures."""

import csv
import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nas.arch.cost import Layer, block_layers, count_cost, network_layers
from nas.arch.loading import load_space, load_spec
from nas.arch.published import published_results
from nas.arch.skeleton import Decision, Variant
from nas.arch.spec import ArchSpec
from nas.latency.networks import Measured
from nas.latency.table_file import Fidelity
from nas.runs.blocks import blocks_text
from nas.runs.optima import write_optima
from nas.runs.pareto import front_indices
from nas.runs.reading import Run
from nas.runs.record import (
    CHANGE_COLUMNS,
    MEASURED_COLUMNS,
    OPTIMA,
    RECORD,
    TABLE_COLUMNS,
    TRIAL_COLUMNS,
    Attempt,
    EstimatorInfo,
    LevelEstimate,
    LoopBest,
    MachineInfo,
    NearNetwork,
    NetworkResult,
    OptimalNetwork,
    Optimum,
    ProvenOptimum,
    RunRecord,
    TableInfo,
    TargetResult,
)
from nas.runs.target import Target

TARGETS = (Target("large", 4.0), Target("small", 1.2))
VARIANTS = {
    "large": (Variant(1.0, 192), Variant(1.0, 224), Variant(1.25, 224)),
    "small": (Variant(0.75, 224), Variant(1.0, 192), Variant(1.0, 224), Variant(1.25, 224)),
}
FIDELITY = Fidelity(
    population="random",
    networks=100,
    date="2026-01-01",
    mape=0.0187,
    bias=-0.004,
    within_5_percent=0.94,
    within_10_percent=1.0,
    spearman=0.9971,
    kendall=0.96,
    noise_mape=0.006,
)


def layers_ms(layers: Iterable[Layer]) -> float:
    """Return about the time of a server's core: dense layers at 70 GMAC/s, depthwise ones at 20, 4 us a layer."""
    return sum(layer.macs / (20e6 if layer.groups > 1 else 70e6) + 0.004 for layer in layers)


def breakdown(spec: ArchSpec) -> tuple[tuple[str, float], ...]:
    layers = list(network_layers(spec))
    count = sum(len(list(block_layers(placed))) for placed in spec.walk())
    blocks = [(f"block {n}", layers_ms(block_layers(placed))) for n, placed in enumerate(spec.walk(), 1)]
    return (("stem", layers_ms(layers[:1])), *blocks, ("head", layers_ms(layers[1 + count :])))


def latency_ms(spec: ArchSpec) -> float:
    return layers_ms(network_layers(spec))


def top1(spec: ArchSpec) -> float:
    """Return top-1 through the published MobileNetV3-Large and -Small, by MACs alone, and a little for kernels."""
    large = sum(block.kernel > 3 for block in spec.blocks) / len(spec.blocks)
    return 84.2 - 110 * (count_cost(spec).macs / 1e6) ** -0.47 + large


def trial_row(target: str, number: int, spec: ArchSpec) -> dict[str, Any]:
    cost = count_cost(spec)
    stage = "random" if number < 20 else "evolution"
    values = (target, stage, number, spec.id, latency_ms(spec), top1(spec), 0.7)
    costs = (cost.macs, cost.params, cost.peak_activation_bytes)
    return dict(zip(TRIAL_COLUMNS, (*values, *costs, spec.resolution, blocks_text(spec)), strict=True))


def optimal_networks(skeleton: str) -> Iterator[OptimalNetwork]:
    """Yield a front above all trials: of networks between the smallest and the largest of each variant."""
    space = load_space(f"mobilenet_v3_{skeleton}").at(VARIANTS[skeleton])
    steps, ranks = 24, random.Random(skeleton)
    rank = {decision.name: ranks.random() for decision in space.decisions}

    def chosen(decision: Decision, variant: int, share: float) -> int:
        if decision.name == "variant":
            return variant
        return len(decision.choices) - 1 if rank[decision.name] < share else 0

    encodings = [
        space.build_encoding(lambda decision, v=variant, s=step / steps: chosen(decision, v, s))  # type: ignore[misc]
        for variant in range(len(space.variants))
        for step in range(steps + 1)
    ]
    specs = space.decode(encodings)
    times, accuracies = [latency_ms(spec) for spec in specs], [top1(spec) for spec in specs]
    for index in front_indices(times, accuracies):
        spec, cost = specs[index], count_cost(specs[index])
        yield OptimalNetwork(
            skeleton=skeleton,  # type: ignore[arg-type]
            variant=space.variants[encodings[index][0]],
            limit_ms=1.01 * times[index],
            latency_ms=times[index],
            latency_std=0.015 * times[index],
            top1=accuracies[index] + 1.2,
            top1_std=0.7,
            extrapolated=times[index] > 12,
            macs=cost.macs,
            params=cost.params,
            spec=spec,
        )


def measured_row(population: str, spec: ArchSpec, rng: random.Random) -> dict[str, Any]:
    """Return a network as measured, a percent or two off what was predicted; more where a search ends."""
    cost, predicted = count_cost(spec), latency_ms(spec)
    measured = predicted * rng.gauss(1.02 if population == "near-optimal" else 1.0, 0.015)
    times = (measured, 0.006, predicted, 0.018 * predicted)
    network = (spec.id, spec.name, population, spec.resolution, cost.macs, cost.params)
    return dict(zip(MEASURED_COLUMNS, (*network, *times), strict=True))


def recipe_levels(spec: ArchSpec) -> Iterator[LevelEstimate]:
    """Yield trainings with invented figures. Of the first two, readers are told nothing but a name."""
    told = ("a long training", "600", "none", "arXiv 0000.00001")
    distilled = ("with a teacher", "75, after the teacher's", "a large network", "arXiv 0000.00002")
    for number, (level, texts) in enumerate({"short": None, "plain": None, "long": told, "taught": distilled}.items()):
        title, epochs, teacher, source = texts or ("", "", "", "")
        yield LevelEstimate(
            recipe_level=level,
            description=f"trained by the recipe {level}",
            title=title,
            epochs=epochs,
            teacher=teacher,
            training_source=source,
            networks=number + 1,
            of_run=level == "plain",
            top1=top1(spec) + number - 1,
            std=0.7,
        )


def near_networks(spec: ArchSpec) -> Iterator[NearNetwork]:
    """Yield three published networks, the nearest first, with invented figures."""
    for number, name in enumerate(("mobilenet_v3_large@0.75", "ofa_cpu_lat-15ms", "hardcorenas_a")):
        published = top1(spec) - number
        yield NearNetwork(
            name=name,
            resolution=224,
            recipe_level="taught" if number else "unheard of",
            published_top1=published,
            estimated_top1=published + 0.25,
            left_out_top1=published + 0.5,
            difference=number - 0.125,
            difference_std=0.25 + 0.1 * number,
            source=f"arXiv 0000.0000{number}",
        )


def network(
    name: str, spec: ArchSpec, target: str | None = None, published: float | None = None, together: bool = True
) -> NetworkResult:
    """Return a network found for a target, or published; measured together with the found ones, or before."""
    ms, cost = latency_ms(spec), count_cost(spec)
    return NetworkResult(
        name=name,
        kind="published" if target is None else "found",
        target=target,
        spec=spec,
        measured_ms=0.99 * ms,
        raw_ms=1.1 * ms if together else None,
        quartiles_ms=(0.98 * ms, 1.01 * ms) if together else None,
        measured_error=0.004,
        predicted_ms=ms,
        predicted_std=0.015 * ms,
        macs=cost.macs,
        fvcore_macs=None if target is None else cost.macs,
        params=cost.params,
        estimated_top1=top1(spec),
        estimated_std=0.7,
        extrapolated=False,
        published_top1=published,
        source="imagenet-prior" if published is None else "arXiv 1905.02244",
        breakdown=breakdown(spec),
        recipe_levels=() if target is None else tuple(recipe_levels(spec)),
        nearest=() if target is None else tuple(near_networks(spec)),
    )


def published_networks() -> Iterator[NetworkResult]:
    for name, accuracy in (("mobilenet_v3_large", 75.2), ("mobilenet_v3_small", 67.4)):
        yield network(name, load_spec(name), published=accuracy)
    for result in published_results():
        name = result.spec.name
        if result.spec.resolution == 224 and name in ("mobilenet_v2", "mnasnet_a1"):
            yield network(name, result.spec, published=result.top1, together=False)
        elif name.startswith(("ofa_", "hardcorenas_")):
            yield network(name, result.spec, published=result.top1, together=name == "ofa_cpu_lat-15ms")


def target_result(target: Target, space: str, found: ArchSpec, others: Sequence[ArchSpec]) -> TargetResult:
    optimum, *behind = (Optimum(spec.id, top1(spec), latency_ms(spec)) for spec in (found, *others))
    ms = latency_ms(found)
    return TargetResult(
        target=target,
        space=space,
        feasible_ms=(0.31, 17.9),
        binds=target.budget_ms < 17.9,
        variants=VARIANTS[target.skeleton],
        attempts=(
            Attempt(
                limit_ms=target.limit_ms,
                trims=True,
                spec_id=found.id,
                predicted_ms=ms,
                predicted_std=0.01 * ms,
                measured_ms=0.99 * ms,
                measured_error=0.003,
            ),
        ),
        measured={found.id: Measured(1.1 * ms, 0.99 * ms, (0.98 * ms, 1.01 * ms), 0.003)},
        optimum=ProvenOptimum(target.limit_ms, optimum, tuple(behind), LoopBest("tpe", 200, optimum.top1 - 0.2)),
    )


def table_rows(specs: Sequence[ArchSpec]) -> Iterator[dict[str, Any]]:
    spec = specs[0]
    layers = list(network_layers(spec))
    yield {"key": "stem", "op": "stem", "kernel": 3, "macs": layers[0].macs} | both(layers[:1])
    yield {"key": "head", "op": "head", "macs": layers[-1].macs} | both(layers[-1:])
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
        } | both(layers)


def both(layers: Sequence[Layer]) -> dict[str, float]:
    """Return the time of a row, corrected and as it was timed."""
    return {"ms": layers_ms(layers), "timed_ms": 0.95 * layers_ms(layers)}


def write_rows(file: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def write_record(folder: Path, record: RunRecord) -> None:
    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    (folder / RECORD).write_bytes(text + b"\n")


def write_run(
    folder: Path,
    targets: Sequence[Target] = TARGETS,
    trials: int = 30,
    device: str = "Example CPU 3.0",
    seed: int = 0,
) -> Path:
    """Write a finished run with `trials` random networks a target; the best of those within the budget are found."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    front: list[dict[str, Any]] = []
    networks, results, specs = [], [], []
    for target in targets:
        space = load_space(f"mobilenet_v3_{target.skeleton}").at(VARIANTS[target.skeleton])
        sampled = [space.sample(rng) for _ in range(max(trials, 30))]
        found = max(
            (spec for spec in sampled if latency_ms(spec) <= target.budget_ms),
            key=top1,
            default=min(sampled, key=latency_ms),
        )
        found.save(folder / f"{target.name}.json", {"measured_ms": latency_ms(found)})
        networks.append(network(f"found {target.name}", found, target.name))
        near = sorted(sampled, key=lambda spec: abs(latency_ms(spec) - latency_ms(found)))
        behind = [spec for spec in near if top1(spec) < top1(found)][:2]
        results.append(target_result(target, space.name, found, behind))
        own = [trial_row(target.name, number, spec) for number, spec in enumerate(sampled[:trials])]
        rows += own
        front += [own[i] for i in front_indices([r["latency_ms"] for r in own], [r["top1"] for r in own])]
        specs += sampled
    write_rows(folder / "trials.csv", TRIAL_COLUMNS, rows)
    write_rows(folder / "front.csv", TRIAL_COLUMNS, front)
    write_rows(folder / "table_rows.csv", TABLE_COLUMNS, table_rows(specs) if trials else ())
    skeletons = dict.fromkeys(target.skeleton for target in targets)
    optima = [one for skeleton in skeletons for one in optimal_networks(skeleton)]
    write_optima(folder / OPTIMA, optima)
    shown = [(network.kind, network.spec) for network in (*networks, *published_networks())]
    drawn = [("near-optimal", one.spec) for one in optima[::3]] + [("random", spec) for spec in specs[:20]]
    measured = {spec.id: measured_row(population, spec, rng) for population, spec in [*drawn, *shown]}
    write_rows(folder / "changes.csv", CHANGE_COLUMNS, ())
    write_rows(folder / "measured.csv", MEASURED_COLUMNS, measured.values())
    record = RunRecord(
        command=f"python -m nas.search --budget-ms {targets[0].budget_ms:g}",
        arguments={"budget_ms": targets[0].budget_ms, "seed": seed},
        versions={"nas": "0.1.0", "torch": "2.15.0", "onnxruntime": "1.31.1"},
        created="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T03:06:05+00:00",
        seconds={"table": 41.2, "search": 10.1, "measure": 4.0},
        machine=MachineInfo(device, 2, "Linux"),
        table=TableInfo(
            file="latency_tables/example-onnxruntime-t1.json",
            device=device,
            other_device=False,
            runtime="onnxruntime 1.31.1",
            threads=1,
            precision="float32",
            num_classes=1000,
            rows=4812,
            reference="mobilenet_v3_large",
            reference_ms=3.71,
            networks=150,
            fidelity=(FIDELITY,),
        ),
        estimator=EstimatorInfo("imagenet-prior", "as Once-for-All trains, 25 epochs of fine-tuning"),
        targets=tuple(results),
        networks=(*networks, *published_networks()),
    )
    write_record(folder, record)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both skeletons, to be read only."""
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may break."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def edit_run(run_dir: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """A function that changes run.json in place by a function of its object, and returns the run's folder."""

    def edit(change: Callable[[dict[str, Any]], object]) -> Path:
        data = json.loads((run_dir / RECORD).read_text(encoding="utf-8"))
        change(data)
        (run_dir / RECORD).write_text(json.dumps(data), encoding="utf-8")
        return run_dir

    return edit


def changed(run: Run, **changes: Any) -> Run:
    """Return a run with fields of its record replaced."""
    return dataclasses.replace(run, record=msgspec.structs.replace(run.record, **changes))
