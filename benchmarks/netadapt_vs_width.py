"""Compare NetAdapt with uniform width multipliers, random trimming and a search.

    python benchmarks/netadapt_vs_width.py --work build/netadapt

There are two halves, and --half runs one alone. "prior" takes MobileNetV3-Large at 224 px down to 80, 60, 40 and 25 %
of its latency, and evaluates it by the ImageNet prior. "images" takes MobileNetV3-Small with 10 classes at 32 px down
to 80, 60 and 40 % by training on the embedded images. Every network that comes of it is trained from scratch, for 15
epochs of the recipe `quick` with three seeds. All networks of a half are measured whole in the same rounds. It takes
two hours on one core, most of it for training. Finished parts are in --work, and the same command continues from them.
Writes benchmarks/results/netadapt_vs_width.json and the picture of docs/netadapt.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from nas.accuracy import load_estimator
from nas.arch.cost import NUM_CLASSES
from nas.arch.loading import load_space, load_spec
from nas.arch.spec import ArchSpec
from nas.console import Silent
from nas.errors import NasError
from nas.files import replacing, write_text
from nas.latency.measuring import new_table
from nas.latency.networks import measure_latency
from nas.latency.predictor import LatencyPredictor, open_table
from nas.latency.table import LatencyTable, space_parts
from nas.models.mobilenet import build_model
from nas.netadapt import __main__ as command
from nas.netadapt.algorithm import HALVINGS, first_step, trim_until_measured
from nas.netadapt.proposals import Predict, Rules, make_proposals
from nas.runs.folder import versions
from nas.runs.target import Target
from nas.search.limits import Limit
from nas.search.request import SearchRequest
from nas.search.run import search
from nas.search.solver import ranking
from nas.training.checkpoint import save_checkpoint
from nas.training.data import EMBEDDED, load_data
from nas.training.loop import Training
from nas.training.recipes import load_recipe

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "netadapt_vs_width.json"
PICTURE = ROOT.parent / "docs" / "images" / "netadapt_vs_width.png"
SHARES = {"prior": (0.8, 0.6, 0.4, 0.25), "images": (0.8, 0.6, 0.4)}
SEEDS = (0, 1, 2)
CLASSES, PIXELS, EPOCHS = 10, 32, 15
# On images steps are larger than the paper's, so that trimming takes a quarter of an hour. The head, which is a third
# of the network at 32 px and which width multipliers shrink too, may be cut.
RULES = {"prior": Rules(), "images": Rules(step_share=0.04, allow=("head",), one_per_place=True)}
PROPOSAL_STEPS = 10
# Share of the smallest target to which networks are trimmed by prediction: they take a tenth longer than predicted, and
# the more the smaller they are.
FURTHER = {"prior": 0.75, "images": 0.9}
NETADAPT, WIDTH, WIDTH_HEAD, RANDOM, SEARCH = "NetAdapt", "width", "width, head too", "random trimming", "search"
ORDER = (NETADAPT, WIDTH, SEARCH, RANDOM)
COLOURS = {NETADAPT: "C0", WIDTH: "C1", WIDTH_HEAD: "C3", RANDOM: "0.6", SEARCH: "C2"}


@dataclass(frozen=True)
class Candidate:
    """A network that a method offers. Its measurement decides for which share of the latency it counts."""

    method: str
    run: int  # random trimming has several
    spec: ArchSpec


# Candidates -------------------------------------------------------------------------------------------


def seed_of(half: str) -> ArchSpec:
    return load_spec("mobilenet_v3_large") if half == "prior" else load_spec("mobilenet_v3_small", resolution=PIXELS)


def predictor_of(half: str, work: Path) -> LatencyPredictor:
    """Return the predictor of a half, whose table is in a file of its own."""
    file = work / f"table-{half}.json"
    if file.exists():
        table = LatencyTable.load(file)
        table.check_device()
    else:
        runtime = open_table(None, "onnxruntime").runtime_here()
        table = new_table(runtime, CLASSES if half == "images" else NUM_CLASSES, file)
    return LatencyPredictor(table, Silent())


def widths(half: str) -> Iterator[Candidate]:
    """Yield the widths that are multiples of 0.01 (0.02 at 224 px).

    At 32 px the head is scaled too: left whole it would be half of the network.
    """
    methods = ((WIDTH, False), (WIDTH_HEAD, True)) if half == "prior" else ((WIDTH, True),)
    for method, scale_head in methods:
        seen = set()
        for hundredths in range(98, 5, -2 if half == "prior" else -1):
            name = seed_of(half).name
            spec = load_spec(name, width=hundredths / 100, scale_head=scale_head, resolution=seed_of(half).resolution)
            if spec.id not in seen:
                seen.add(spec.id)
                yield Candidate(method, 0, spec)


def random_trims(half: str, predict_ms: Predict) -> Iterator[Candidate]:
    """Trim as NetAdapt does, but keep a random proposal."""
    for run in SEEDS:
        rng, spec = random.Random(run), seed_of(half)
        seed_ms = now_ms = float(predict_ms([spec])[0])
        while now_ms > FURTHER[half] * min(SHARES[half]) * seed_ms:
            least_ms = [RULES[half].step_share * seed_ms / 2**n for n in range(1 + HALVINGS)]
            found = next(filter(None, (make_proposals(spec, ms, predict_ms, RULES[half]) for ms in least_ms)), [])
            if not found:
                break
            _, spec, now_ms = rng.choice(found)
            yield Candidate(RANDOM, run, spec)


def netadapt_by_prior(predict_ms: Predict) -> Iterator[Candidate]:
    estimator, seed = load_estimator("imagenet-prior"), seed_of("prior")

    def estimate(specs: Sequence[ArchSpec]) -> np.ndarray:
        return estimator.estimate(specs).top1

    first = first_step(seed, predict_ms, estimate)
    limit_ms = FURTHER["prior"] * SHARES["prior"][-1] * first.predicted_ms
    for step in trim_until_measured([first], limit_ms, predict_ms=predict_ms, estimate=estimate):
        yield Candidate(NETADAPT, 0, step.spec)


def netadapt_on_images(work: Path, predictor: LatencyPredictor) -> Iterator[Candidate]:
    """Trim with the command, from a seed that was trained on the same images."""
    checkpoint, out = work / "seed.pt", work / "netadapt"
    if not checkpoint.exists():
        train(seed_of("images"), 0, checkpoint)
    seed_ms = float(predictor.predict_ms([seed_of("images")])[0])  # this also writes the file of the table
    budget_ms = FURTHER["images"] * SHARES["images"][-1] * seed_ms
    rules = RULES["images"]
    arguments = ["--data", EMBEDDED, "--step", str(rules.step_share), "--allow", *rules.allow]
    arguments += ["--proposal-steps", str(PROPOSAL_STEPS), "--budget-ms", str(budget_ms)]
    arguments += ["--table", str(predictor.table.path), "--out", str(out), *(["--resume"] if out.exists() else [])]
    with suppress(NasError):  # raised where the last share cannot be reached
        command.main([str(checkpoint), *arguments])
    predictor.table = LatencyTable.load(predictor.table.path)
    for network in json.loads((out / "trajectory.json").read_text())["networks"][1:]:
        yield Candidate(NETADAPT, 0, ArchSpec.from_dict(network["spec"]))


def searched_by_prior(predictor: LatencyPredictor, seed_ms: float, work: Path) -> Iterator[Candidate]:
    """Yield what `nas.search` finds for the same milliseconds by the same table, at any width and resolution."""
    for share in SHARES["prior"]:
        out = work / f"search-{share:g}"
        if not (out / "large.json").exists():
            table = str(predictor.table.path)
            request = SearchRequest(targets=(Target("large", share * seed_ms),), table=table)
            search(request, out, resume=(out / "run.json").exists())
        yield Candidate(SEARCH, 0, ArchSpec.load(out / "large.json"))
    predictor.table = LatencyTable.load(predictor.table.path)


def searched_at_32_pixels(predictor: LatencyPredictor, seed_ms: float) -> Iterator[Candidate]:
    """Yield the proven optimum of Small's space at 32 px by table and prior, for latencies around each share."""
    space = replace(load_space("mobilenet_v3_small"), resolutions=(PIXELS,), widths=(0.35, 0.5, 0.75, 1.0), variants=())
    predictor.fill(list(space_parts(space, CLASSES)), "rows of the space")
    latency, score = predictor.table.compile(space), load_estimator("imagenet-prior").additive_model(space)
    assert score is not None
    for share in SHARES["images"]:
        for around in (0.94, 1.0, 1.06):
            found = next(ranking(score, [Limit("latency", around * share * seed_ms, latency)], range(4)), None)
            if found is not None:
                (spec,) = space.decode([np.array(found.encoding)])
                yield Candidate(SEARCH, 0, spec)


def candidates(half: str, work: Path) -> list[Candidate]:
    """Return all candidates of a half. The folder --work remembers those of each method."""
    predictor = predictor_of(half, work)
    predict_ms = predictor.predict_ms
    makers: dict[str, Callable[[], Iterator[Candidate]]] = {
        WIDTH: lambda: widths(half),
        NETADAPT: lambda: netadapt_by_prior(predict_ms) if half == "prior" else netadapt_on_images(work, predictor),
        RANDOM: lambda: random_trims(half, predict_ms),
        SEARCH: lambda: (
            searched_by_prior(predictor, float(predict_ms([seed_of(half)])[0]), work)
            if half == "prior"
            else searched_at_32_pixels(predictor, float(predict_ms([seed_of(half)])[0]))
        ),
    }
    found = []
    for method, make in makers.items():
        file = work / f"candidates-{half}-{method}.json".replace(" ", "-")
        if not file.exists():
            rows = [[c.method, c.run, c.spec.to_dict()] for c in make()]
            write_text(file, json.dumps(rows))
        rows = json.loads(file.read_text())
        found += [Candidate(name, run, ArchSpec.from_dict(spec)) for name, run, spec in rows]
    return found


# Measurements, and the candidate of each method for each share -------------------------------------------


def measured(half: str, work: Path, found: Sequence[Candidate]) -> dict[str, float]:
    """Return normalised milliseconds by spec id, the seed included.

    There are two sessions, the second of the networks near a share. Networks in the file of an earlier call are not
    measured again.
    """
    file = work / f"measured-{half}.json"
    times: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    new = {candidate.spec.id: candidate.spec for candidate in found if candidate.spec.id not in times}
    if new:
        table, seed = predictor_of(half, work).table, seed_of(half)
        first = _measured(table, {seed.id: seed} | new)
        shares = {key: ms / first[seed.id] for key, ms in first.items()}
        near = {key: spec for key, spec in new.items() if min(abs(shares[key] / s - 1) for s in SHARES[half]) < 0.08}
        second = _measured(table, {seed.id: seed} | near, random.Random(1))
        both = {key: math.sqrt(first[key] * ms) for key, ms in second.items()}
        seed_ms = times.setdefault(seed.id, both[seed.id])
        times |= {key: share * seed_ms for key, share in shares.items() if key != seed.id}
        times |= {key: both[key] / both[seed.id] * seed_ms for key in near}
        write_text(file, json.dumps(times))
    return times


def _measured(table: LatencyTable, specs: dict[str, ArchSpec], rng: random.Random | None = None) -> dict[str, float]:
    networks = measure_latency(list(specs.values()), table=table, rng=rng)
    return dict(zip(specs, (network.normalised_ms for network in networks), strict=True))


def chosen(half: str, found: Sequence[Candidate], times: dict[str, float]) -> dict[tuple[str, int, float], Candidate]:
    """Return the slowest network that keeps a share, by method, run and share. All methods are treated alike."""
    seed_ms = times[seed_of(half).id]
    best: dict[tuple[str, int, float], Candidate] = {}
    for share in SHARES[half]:
        for candidate in found:
            ms, key = times.get(candidate.spec.id), (candidate.method, candidate.run, share)
            if ms is not None and ms <= share * seed_ms and (key not in best or ms > times[best[key].spec.id]):
                best[key] = candidate
    return best


# Accuracy ---------------------------------------------------------------------------------------------


def train(spec: ArchSpec, seed: int, checkpoint: Path | None = None) -> float:
    """Train a network and return its top-1 (percent) on the validation images after the last epoch."""
    data, recipe = load_data(EMBEDDED), load_recipe("quick").replace(epochs=EPOCHS)
    torch.manual_seed(seed)
    model = build_model(spec, CLASSES, recipe.dropout)
    training = Training(model, data, recipe, resolution=PIXELS, seed=seed)
    *_, last = training.epochs()
    if checkpoint:
        contents = {"spec": spec.to_dict(), "classes": list(data.classes), "resolution": PIXELS}
        save_checkpoint(checkpoint, {**contents, "average": training.kept.state_dict()})
    return last.top1


def seeds_of(half: str, candidate: Candidate) -> tuple[int, ...]:
    """Return the seeds with which a network is trained.

    Those of random trimming have one each, so that their spread is that of trimming and training.
    """
    if half == "prior":
        return (0,)
    return (candidate.run,) if candidate.method == RANDOM else SEEDS


def trained(work: Path, wanted: Sequence[tuple[ArchSpec, int]]) -> dict[str, dict[int, float]]:
    """Return top-1 (percent) by spec id and seed, after training in the order of `wanted`.

    Finished trainings are in a file that only grows. Ctrl-C ends the training; the report then says of how many seeds
    each figure is.
    """
    file = work / "trainings.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known: dict[str, dict[int, float]] = {}
    for row in rows:
        known.setdefault(row["id"], {})[row["seed"]] = row["top1"]
    for spec, seed in wanted:
        if seed not in known.setdefault(spec.id, {}):
            try:
                known[spec.id][seed] = train(spec, seed)
            except KeyboardInterrupt:
                break
            with file.open("a") as log:
                log.write(json.dumps({"id": spec.id, "seed": seed, "top1": known[spec.id][seed]}) + "\n")
            print(f"{spec.id} seed {seed}: {known[spec.id][seed]:.2f} %", flush=True)
    return known


def half_report(half: str, work: Path) -> dict[str, Any]:
    """Return measured latency, mean accuracy, and the difference to width with its error, by share and method."""
    found = candidates(half, work)
    times = measured(half, work, found)
    picked, seed = chosen(half, found, times), seed_of(half)
    specs = list({spec.id: spec for spec in [seed, *(candidate.spec for candidate in picked.values())]}.values())
    if half == "images":
        wanted = [(c, number) for c in picked.values() for number in seeds_of(half, c)]
        # First a whole comparison with width for each seed, then the other methods.
        wanted.sort(key=lambda pair: (ORDER.index(pair[0].method) // 2, pair[1]))
        top1 = trained(work, [*((c.spec, number) for c, number in wanted), *((seed, number) for number in SEEDS)])
    else:
        estimates = load_estimator("imagenet-prior").estimate(specs).top1
        top1 = {spec.id: {0: float(value)} for spec, value in zip(specs, estimates, strict=True)}
    points: dict[str, Any] = {}
    for share in SHARES[half]:
        methods: dict[str, Any] = {}
        for method in COLOURS:
            mine = [candidate for (name, _, at), candidate in picked.items() if name == method and at == share]
            known = [(top1.get(c.spec.id, {}), number) for c in mine for number in seeds_of(half, c)]
            values = [of[number] for of, number in known if number in of]
            if values:
                methods[method] = {
                    "spec_ids": [candidate.spec.id for candidate in mine],
                    "share": round(
                        statistics.fmean(times[candidate.spec.id] for candidate in mine) / times[seed.id], 4
                    ),
                    "top1": round(statistics.fmean(values), 3),
                    "std_error": round(_error(values), 3),
                    "runs": [round(value, 3) for value in values],
                }
        for entry in methods.values():
            best_width = max((methods[m] for m in (WIDTH, WIDTH_HEAD) if m in methods), key=lambda e: e["top1"])
            entry["above_width"] = round(entry["top1"] - best_width["top1"], 3)
            entry["above_width_error"] = round(math.hypot(entry["std_error"], best_width["std_error"]), 3)
        points[f"{share:g}"] = methods
    return {
        "network": seed.name,
        "resolution": seed.resolution,
        "seed_ms": round(times[seed.id], 4),
        "seed_runs": list(top1.get(seed.id, {}).values()),
        "specs": {spec.id: spec.to_dict() for spec in specs},
        "points": points,
    }


def _error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; 0 for a single value, which is deterministic."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


# Report -----------------------------------------------------------------------------------------------


def print_half(half: str, report: dict[str, Any]) -> None:
    runs = report["seed_runs"]
    seed = f", {statistics.fmean(runs):.2f} %" if runs else ""
    print(f"\n{half}: {report['network']} at {report['resolution']} px{seed}")
    print("| latency | " + " | ".join(COLOURS) + " | NetAdapt above width |\n" + "|---" * (len(COLOURS) + 2) + "|")
    for share, methods in report["points"].items():
        cells = [
            f"{m['top1']:.2f} ± {m['std_error']:.2f} at {m['share']:.2f}" if (m := methods.get(name)) else ""
            for name in COLOURS
        ]
        ours = methods.get(NETADAPT)
        gain = f"{ours['above_width']:+.2f} ± {ours['above_width_error']:.2f}" if ours else ""
        print(f"| {share} | " + " | ".join(cells) + f" | {gain} |")


def draw(report: dict[str, Any]) -> None:
    halves = [half for half in SHARES if half in report]
    figure, panels = plt.subplots(1, len(halves), figsize=(5 * len(halves), 4), squeeze=False)
    for axes, half in zip(panels[0], halves, strict=True):
        own = report[half]
        for method, colour in COLOURS.items():
            points = [methods[method] for methods in own["points"].values() if method in methods]
            if points:
                axes.errorbar(
                    [100 * point["share"] for point in points],
                    [point["top1"] for point in points],
                    [point["std_error"] for point in points],
                    color=colour, label=method, marker="o", markersize=4, linewidth=1.2, capsize=2,
                )  # fmt: skip
        if own["seed_runs"]:
            axes.plot([100], [statistics.fmean(own["seed_runs"])], "k*", markersize=9, label="seed")
        accuracy = "estimated ImageNet top-1" if half == "prior" else "top-1, Fashion-MNIST sample"
        axes.set(
            title=f"{own['network']}, {own['resolution']} px",
            xlabel="measured latency, % of the seed",
            ylabel=f"{accuracy} (%)",
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    with replacing(PICTURE) as side:
        figure.savefig(side, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the parts that are finished")
    parser.add_argument("--half", choices=tuple(SHARES), nargs="+", default=list(SHARES))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    table = open_table(None, "onnxruntime")
    report |= {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": table.device.cpu, "cores": table.device.cores, "runtime": str(table.runtime)},
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
    for half in arguments.half:
        report[half] = half_report(half, arguments.work)
        write_text(RESULTS, json.dumps(report, indent=1) + "\n")
        print_half(half, report[half])
    draw(report)


if __name__ == "__main__":
    main()
