"""Compare samplers on NAS-Bench-Macro, where each evaluation is a look-up of a network that was trained.

    uv run --with smac --with cmaes python benchmarks/strategies.py --nas-bench-macro FILE.csv
    uv run python benchmarks/strategies.py --nas-bench-macro FILE.csv --only ours random    # these methods again

NAS-Bench-Macro (arXiv 2103.11922) trained 6,561 networks on CIFAR-10, each three times: eight layers, each an identity
or one of two blocks. FILE.csv has the columns `arch` (eight digits), `acc1`, `acc2`, `acc3` (percent) and `flops`
(multiply-accumulates). Of all networks within 65 M FLOPs the best is looked for.

- An evaluation returns one of a network's three accuracies, at random by the seed. A second evaluation of the same
  network is drawn anew, and counts.
- A method's pick is the evaluated network within the limit with the highest accuracy that it saw. Its regret is the
  best mean of three trainings within the limit, less the mean of the pick's.
- `ours` knows the limit, and never leaves it. All others learn of it: an evaluation over the limit counts, and is told
  as violated by so much of the limit. Optuna's samplers are told with `Trial.set_constraint`, and the accuracy as well.
  SMAC and CatCMA take no constraint: they get a cost above that of every network that keeps it, which grows with the
  violation. `random` draws only networks within the limit.
- `ours` starts from FLOPs, which rise with accuracy. `ours-no-start` is the same without.

`ours` is `nas.AdditiveSampler`: the regression and the integer program of the search's strategy `surrogate`, which
itself takes only a `nas.SearchSpace`. What is not installed (`smac`, `cmaes`) is left out, and a line says so.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution

import nas
from nas.cpu import usable_cores
from nas.errors import NasError, unknown_name
from nas.files import read_text
from nas.quiet import quiet_optuna
from nas.runs.folder import versions

RESULTS = Path(__file__).parent / "results" / "strategies.json"
EVALUATIONS = (15, 30, 60, 120)
LIMIT = 65e6  # FLOPs
LAYERS = [f"layer{i}" for i in range(8)]
OPTIONS = (0, 1, 2)
ERROR_ABOVE_ALL = 100.0  # percent
Digits = tuple[int, ...]


class Table(NamedTuple):
    """The trained networks: three accuracies (percent) and FLOPs of each, by digits."""

    accuracies: dict[Digits, tuple[float, ...]]
    flops: dict[Digits, int]
    limit: float

    def violation(self, digits: Digits) -> float:
        """Return by how much of the limit a network is over it; at most 0 if it keeps it."""
        return self.flops[digits] / self.limit - 1

    def mean(self, digits: Digits) -> float:
        """Return the mean accuracy of the three trainings."""
        return sum(self.accuracies[digits]) / len(self.accuracies[digits])

    def layer_flops(self) -> dict[str, dict[int, int]]:
        """Return the FLOPs that each option of each layer adds to those of all identities, which are a sum exactly."""
        zeros = (0,) * len(LAYERS)
        return {
            layer: {o: self.flops[(*zeros[:i], o, *zeros[i + 1 :])] - self.flops[zeros] for o in OPTIONS}
            for i, layer in enumerate(LAYERS)
        }


class Run:
    """One method with one seed: evaluates networks, and remembers what it saw."""

    def __init__(self, table: Table, seed: int, number: int) -> None:
        self.table, self.seed, self.number = table, seed, number
        self.seen: list[tuple[Digits, float]] = []
        self._draws = random.Random(f"trainings {seed}")

    def evaluate(self, digits: Digits) -> float:
        """Return the accuracy of one training."""
        accuracy = self._draws.choice(self.table.accuracies[digits])
        self.seen.append((digits, accuracy))
        return accuracy

    def penalised(self, digits: Digits) -> float:
        """Return the error (percent) of one training; of a network over the limit one above all errors."""
        error, violation = 100 - self.evaluate(digits), self.table.violation(digits)
        return error if violation <= 0 else ERROR_ABOVE_ALL * (1 + violation)

    def picks(self) -> Iterator[float]:
        """Yield the mean accuracy of the pick after each evaluation; -inf before a network is within the limit."""
        best, pick = -np.inf, -np.inf
        for digits, accuracy in self.seen[: self.number]:
            if accuracy > best and self.table.violation(digits) <= 0:
                best, pick = accuracy, self.table.mean(digits)
            yield pick


def load_table(path: str, limit: float) -> Table:
    """Read the table. Raises NasError for a file that is none, with the place of the first error."""
    table = Table({}, {}, limit)
    for number, row in enumerate(csv.DictReader(read_text(path).splitlines()), start=2):
        try:
            digits = tuple(int(digit) for digit in row["arch"])
            table.accuracies[digits] = tuple(float(row[f"acc{i}"]) for i in (1, 2, 3))
            table.flops[digits] = int(row["flops"])
        except (KeyError, TypeError, ValueError):
            raise NasError(f"{path}: line {number}: there must be arch, acc1, acc2, acc3 and flops") from None
    if len(table.flops) != len(OPTIONS) ** len(LAYERS):
        raise NasError(f"{path} has {len(table.flops):,} networks; there must be {len(OPTIONS) ** len(LAYERS):,}")
    return table


# Methods --------------------------------------------------------------------------------------------------


def with_optuna(sampler_of: Callable[[Run], optuna.samplers.BaseSampler]) -> Callable[[Run], None]:
    """Return the method of an Optuna sampler."""

    def method(run: Run) -> None:
        def objective(trial: optuna.Trial) -> float:
            digits = tuple(trial.suggest_categorical(layer, OPTIONS) for layer in LAYERS)
            trial.set_constraint("flops", run.table.violation(digits))
            return run.evaluate(digits)

        with quiet_optuna():
            optuna.create_study(direction="maximize", sampler=sampler_of(run)).optimize(objective, n_trials=run.number)

    return method


def ours(run: Run, start: bool = True) -> optuna.samplers.BaseSampler:
    """Return this project's sampler, with the limit and from FLOPs."""
    flops = run.table.layer_flops()
    return nas.AdditiveSampler(
        dict.fromkeys(LAYERS, CategoricalDistribution(OPTIONS)),
        limits=[nas.LinearLimit(flops, run.table.limit - run.table.flops[(0,) * len(LAYERS)], name="FLOPs")],
        start=flops if start else None,
        seed=run.seed,
    )


def random_networks(run: Run) -> None:
    """Evaluate networks within the limit at random, none twice."""
    within = [digits for digits in run.table.flops if run.table.violation(digits) <= 0]
    for digits in random.Random(run.seed).sample(within, run.number):
        run.evaluate(digits)


def smac(run: Run) -> None:
    """Run SMAC3's facade for hyperparameters (arXiv 2109.09831): a random forest and expected improvement."""
    from ConfigSpace import Categorical, ConfigurationSpace
    from smac import HyperparameterOptimizationFacade, Scenario

    space = ConfigurationSpace(seed=run.seed)
    space.add([Categorical(layer, list(OPTIONS)) for layer in LAYERS])

    def target(config: Any, seed: int = 0) -> float:
        return run.penalised(tuple(int(config[layer]) for layer in LAYERS))

    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space, deterministic=True, n_trials=run.number, seed=run.seed, output_directory=Path(folder)
        )
        HyperparameterOptimizationFacade(scenario, target, overwrite=True, logging_level=50).optimize()


def catcma(run: Run) -> None:
    """Run CatCMA with margin (arXiv 2504.07884) on categories alone."""
    from cmaes import CatCMAwM

    optimizer = CatCMAwM(c_space=[len(OPTIONS)] * len(LAYERS), seed=run.seed)
    while len(run.seen) < run.number:
        asked = [optimizer.ask() for _ in range(optimizer.population_size)]
        told = [(one, run.penalised(tuple(int(digit) for digit in one.c.argmax(axis=1)))) for one in asked]
        optimizer.tell(told)


METHODS: dict[str, Callable[[Run], None]] = {
    "ours": with_optuna(ours),
    "ours-no-start": with_optuna(lambda run: ours(run, start=False)),
    "random": random_networks,
    "tpe": with_optuna(lambda run: optuna.samplers.TPESampler(seed=run.seed)),
    "nsga2": with_optuna(lambda run: optuna.samplers.NSGAIISampler(seed=run.seed)),
    "catcma": catcma,
    "gp": with_optuna(lambda run: optuna.samplers.GPSampler(seed=run.seed)),
    "smac": smac,
}
NEEDS = {"smac": "smac", "catcma": "cmaes"}


# Results --------------------------------------------------------------------------------------------------


def regrets(table: Table, name: str, seeds: int) -> dict[str, Any]:
    """Return a method's regrets by number of evaluations, processor seconds, and share over the limit."""
    best = max(table.mean(digits) for digits in table.flops if table.violation(digits) <= 0)
    runs, started = [Run(table, seed, max(EVALUATIONS)) for seed in range(seeds)], time.process_time()
    for run in runs:
        METHODS[name](run)
    seconds = (time.process_time() - started) / seeds
    found = best - np.array([list(run.picks()) for run in runs])
    over = np.mean([table.violation(digits) > 0 for run in runs for digits, _ in run.seen[: run.number]])
    columns = found[:, [number - 1 for number in EVALUATIONS]].T
    points = {
        str(number): {
            "median": round(float(np.median(column)), 3),
            "worst": round(float(column.max()), 3),
            "mean": round(float(column.mean()), 3),
            "standard_error": round(float(column.std(ddof=1) / len(column) ** 0.5), 3),
            "seeds": [round(float(regret), 3) for regret in column],
        }
        for number, column in zip(EVALUATIONS, columns, strict=True)
    }
    return {"regret": points, "over_limit": round(float(over), 3), "seconds_per_run": round(seconds, 1)}


def row(name: str, result: dict[str, Any]) -> str:
    """Return a line of the table."""
    points = result["regret"].values()
    cells = [f"{p['median']:.2f} / {p['worst']:.2f} ({p['mean']:.2f} ± {p['standard_error']:.2f})" for p in points]
    return (
        f"{name:17}"
        + "".join(f"{cell:>29}" for cell in cells)
        + f"{result['over_limit']:>8.0%}{result['seconds_per_run']:>10.1f}"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nas-bench-macro", metavar="FILE.csv", required=True, help="arch, acc1, acc2, acc3, flops")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--limit", type=float, default=LIMIT, help="FLOPs; with another than 65e6 no result is kept")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args(argv)
    table = load_table(arguments.nas_bench_macro, arguments.limit)
    for name in arguments.only or ():
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["methods"] if RESULTS.exists() else {}
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {usable_cores()} cores",
        "versions": versions() | {name: version(name) for name in NEEDS.values() if importlib.util.find_spec(name)},
    }
    print(f"{'':17}" + "".join(f"{number:>29}" for number in EVALUATIONS) + "    over   s a run")
    for name in arguments.only or METHODS:
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            print(f"{name:17}left out: {NEEDS[name]} is not installed", flush=True)
            continue
        result = regrets(table, name, arguments.seeds)
        print(row(name, result), flush=True)
        if arguments.limit == LIMIT:
            kept[name] = measured | result
            methods = {name: kept[name] for name in METHODS if name in kept}
            RESULTS.write_text(
                json.dumps({"limit_flops": LIMIT, "methods": methods}, indent=2) + "\n", encoding="utf-8"
            )
    print("points of top-1 below the best mean of three: median / worst (mean ± standard error) of the seeds")
    print("over: share of evaluations over the limit; s a run: processor seconds of one seed")


if __name__ == "__main__":
    try:
        main()
    except NasError as error:
        print(f"strategies.py: error: {error}", file=sys.stderr)
        sys.exit(2)
