"""Compare NetAdapt with uniform width multipliers, random trimming and a search, by the ImageNet prior.

    python benchmarks/netadapt_vs_width.py --work build/netadapt

MobileNetV3-Large at 224 px is taken down to 80, 60, 40 and 25 % of its latency. All networks are measured whole in the
same rounds. It takes ten minutes on one core. Finished parts are in --work, and the same command continues from them.
Writes benchmarks/results/netadapt_vs_width.json and the picture of docs/netadapt.md. What full trainings say of
NetAdapt is the question of netadapt_truth.py.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from nas.accuracy import load_estimator
from nas.arch.cost import NUM_CLASSES
from nas.arch.loading import load_spec
from nas.arch.spec import ArchSpec
from nas.console import Silent
from nas.files import replacing, write_text
from nas.latency.measuring import new_table
from nas.latency.networks import measure_latency
from nas.latency.predictor import LatencyPredictor, open_table
from nas.latency.table import LatencyTable
from nas.netadapt.algorithm import HALVINGS, first_step, trim_until_measured
from nas.netadapt.latency_learning import learn_latency
from nas.netadapt.proposals import Predict, Rules, make_proposals
from nas.runs.folder import versions
from nas.runs.target import Target
from nas.search.request import SearchRequest
from nas.search.run import search

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "netadapt_vs_width.json"
PICTURE = ROOT.parent / "docs" / "images" / "netadapt_vs_width.png"
SHARES = (0.8, 0.6, 0.4, 0.25)
RUNS = (0, 1, 2)  # of random trimming
RULES = Rules()
FURTHER = 0.75  # share of the smallest target to which networks are trimmed by prediction, for some may take longer
NETADAPT, WIDTH, WIDTH_HEAD, RANDOM, SEARCH = "NetAdapt", "width", "width, head too", "random trimming", "search"
COLOURS = {NETADAPT: "C0", WIDTH: "C1", WIDTH_HEAD: "C3", RANDOM: "0.6", SEARCH: "C2"}


@dataclass(frozen=True)
class Candidate:
    """A network that a method offers. Its measurement decides for which share of the latency it counts."""

    method: str
    run: int  # random trimming has several
    spec: ArchSpec


# Candidates -------------------------------------------------------------------------------------------


SEED = load_spec("mobilenet_v3_large")


def predictor_of(work: Path, num_classes: int = NUM_CLASSES) -> LatencyPredictor:
    """Return the predictor, whose table is in a file of the folder `work`."""
    file = work / "table.json"
    if file.exists():
        table = LatencyTable.load(file)
        table.check_device()
    else:
        runtime = open_table(None, "onnxruntime").runtime_here()
        table = new_table(runtime, num_classes, file)
    return LatencyPredictor(table, Silent())


def widths() -> Iterator[Candidate]:
    """Yield the widths that are multiples of 0.02."""
    for method, scale_head in ((WIDTH, False), (WIDTH_HEAD, True)):
        seen = set()
        for hundredths in range(98, 5, -2):
            spec = load_spec(SEED.name, width=hundredths / 100, scale_head=scale_head)
            if spec.id not in seen:
                seen.add(spec.id)
                yield Candidate(method, 0, spec)


def random_trims(predict_ms: Predict) -> Iterator[Candidate]:
    """Trim as NetAdapt does, but keep a random proposal."""
    for run in RUNS:
        rng, spec = random.Random(run), SEED
        seed_ms = now_ms = float(predict_ms([spec])[0])
        while now_ms > FURTHER * min(SHARES) * seed_ms:
            least_ms = [RULES.step_share * seed_ms / 2**n for n in range(1 + HALVINGS)]
            found = next(filter(None, (make_proposals(spec, ms, predict_ms, RULES) for ms in least_ms)), [])
            if not found:
                break
            _, spec, now_ms = rng.choice(found)
            yield Candidate(RANDOM, run, spec)


def netadapt_by_prior(predict_ms: Predict) -> Iterator[Candidate]:
    estimator = load_estimator("imagenet-prior")

    def estimate(specs: Sequence[ArchSpec]) -> np.ndarray:
        return estimator.estimate(specs).top1

    first = first_step(SEED, predict_ms, estimate)
    limit_ms = FURTHER * SHARES[-1] * first.predicted_ms
    for step in trim_until_measured([first], limit_ms, predict_ms=predict_ms, estimate=estimate):
        yield Candidate(NETADAPT, 0, step.spec)


def searched_by_prior(predictor: LatencyPredictor, seed_ms: float, work: Path) -> Iterator[Candidate]:
    """Yield what `nas.search` finds for the same milliseconds by the same table, at any width and resolution."""
    for share in SHARES:
        out = work / f"search-{share:g}"
        if not (out / "large.json").exists():
            table = str(predictor.table.path)
            request = SearchRequest(targets=(Target("large", share * seed_ms),), table=table)
            search(request, out, resume=(out / "run.json").exists())
        yield Candidate(SEARCH, 0, ArchSpec.load(out / "large.json"))
    predictor.table = LatencyTable.load(predictor.table.path)


def candidates(work: Path) -> list[Candidate]:
    """Return all candidates. The folder --work remembers those of each method."""
    predictor = predictor_of(work)
    predict_ms = predictor.predict_ms
    learn_latency(predictor, SEED, FURTHER * min(SHARES), RULES.allow)  # as the command does before the first cut
    (seed_ms,) = predictor.measured_ms([SEED], "measuring the seed")
    makers: dict[str, Callable[[], Iterator[Candidate]]] = {
        WIDTH: widths,
        NETADAPT: lambda: netadapt_by_prior(predict_ms),
        RANDOM: lambda: random_trims(predict_ms),
        SEARCH: lambda: searched_by_prior(predictor, float(seed_ms), work),
    }
    found = []
    for method, make in makers.items():
        file = work / f"candidates-{method}.json".replace(" ", "-")
        if not file.exists():
            rows = [[c.method, c.run, c.spec.to_dict()] for c in make()]
            write_text(file, json.dumps(rows))
        rows = json.loads(file.read_text())
        found += [Candidate(name, run, ArchSpec.from_dict(spec)) for name, run, spec in rows]
    return found


# Measurements, and the candidate of each method for each share -------------------------------------------


def measured(work: Path, found: Sequence[Candidate]) -> dict[str, float]:
    """Return normalised milliseconds by spec id, the seed included.

    There are two sessions, the second of the networks near a share. Networks in the file of an earlier call are not
    measured again.
    """
    file = work / "measured.json"
    times: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    new = {candidate.spec.id: candidate.spec for candidate in found if candidate.spec.id not in times}
    if new:
        table, seed = predictor_of(work).table, SEED
        first = _measured(table, {seed.id: seed} | new)
        shares = {key: ms / first[seed.id] for key, ms in first.items()}
        near = {key: spec for key, spec in new.items() if min(abs(shares[key] / s - 1) for s in SHARES) < 0.08}
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


def chosen(found: Sequence[Candidate], times: dict[str, float]) -> dict[tuple[str, int, float], Candidate]:
    """Return the slowest network that keeps a share, by method, run and share. All methods are treated alike."""
    seed_ms = times[SEED.id]
    best: dict[tuple[str, int, float], Candidate] = {}
    for share in SHARES:
        for candidate in found:
            ms, key = times.get(candidate.spec.id), (candidate.method, candidate.run, share)
            if ms is not None and ms <= share * seed_ms and (key not in best or ms > times[best[key].spec.id]):
                best[key] = candidate
    return best


# Report -----------------------------------------------------------------------------------------------


def compared(work: Path) -> dict[str, Any]:
    """Return measured latency, estimated accuracy, and the difference to width, by share and method."""
    found = candidates(work)
    times = measured(work, found)
    picked = chosen(found, times)
    specs = list({spec.id: spec for spec in [SEED, *(candidate.spec for candidate in picked.values())]}.values())
    estimates = load_estimator("imagenet-prior").estimate(specs).top1
    top1 = {spec.id: float(value) for spec, value in zip(specs, estimates, strict=True)}
    points: dict[str, Any] = {}
    for share in SHARES:
        methods: dict[str, Any] = {}
        for method in COLOURS:
            mine = [candidate for (name, _, at), candidate in picked.items() if name == method and at == share]
            values = [top1[candidate.spec.id] for candidate in mine]
            if values:
                methods[method] = {
                    "spec_ids": [candidate.spec.id for candidate in mine],
                    "share": round(
                        statistics.fmean(times[candidate.spec.id] for candidate in mine) / times[SEED.id], 4
                    ),
                    "top1": round(statistics.fmean(values), 3),
                    "std_error": round(_error(values), 3),
                    "runs": [round(value, 3) for value in values],
                }
        for entry in methods.values():
            best_width = max((methods[m] for m in (WIDTH, WIDTH_HEAD) if m in methods), key=lambda e: e["top1"])
            entry["above_width"] = round(entry["top1"] - best_width["top1"], 3)
        points[f"{share:g}"] = methods
    return {
        "network": SEED.name,
        "resolution": SEED.resolution,
        "seed_ms": round(times[SEED.id], 4),
        "seed_top1": round(top1[SEED.id], 3),
        "specs": {spec.id: spec.to_dict() for spec in specs},
        "points": points,
    }


def _error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; 0 for a single value, which is deterministic."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


# Report -----------------------------------------------------------------------------------------------


def tell(report: dict[str, Any]) -> None:
    print(f"\n{report['network']} at {report['resolution']} px, {report['seed_top1']:.2f} %")
    print("| latency | " + " | ".join(COLOURS) + " | NetAdapt above width |\n" + "|---" * (len(COLOURS) + 2) + "|")
    for share, methods in report["points"].items():
        cells = [
            f"{m['top1']:.2f} ± {m['std_error']:.2f} at {m['share']:.2f}" if (m := methods.get(name)) else ""
            for name in COLOURS
        ]
        gain = f"{methods[NETADAPT]['above_width']:+.2f}" if NETADAPT in methods else ""
        print(f"| {share} | " + " | ".join(cells) + f" | {gain} |")


def draw(report: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(5, 4))
    for method, colour in COLOURS.items():
        points = [methods[method] for methods in report["points"].values() if method in methods]
        axes.errorbar(
            [100 * point["share"] for point in points],
            [point["top1"] for point in points],
            [point["std_error"] for point in points],
            color=colour, label=method, marker="o", markersize=4, linewidth=1.2, capsize=2,
        )  # fmt: skip
    axes.plot([100], [report["seed_top1"]], "k*", markersize=9, label="seed")
    axes.set(
        title=f"{report['network']}, {report['resolution']} px",
        xlabel="measured latency, % of the seed",
        ylabel="estimated ImageNet top-1 (%)",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    with replacing(PICTURE) as side:
        figure.savefig(side, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the parts that are finished")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    table = open_table(None, "onnxruntime")
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": table.device.cpu, "cores": table.device.cores, "runtime": str(table.runtime)},
        "versions": versions(),
        **compared(arguments.work),
    }
    write_text(RESULTS, json.dumps(report, indent=1) + "\n")
    tell(report)
    draw(report)


if __name__ == "__main__":
    main()
