"""How many evaluations strategies need to come near the proven optimum of the model, and what a proposal takes.

    uv run python benchmarks/search_efficiency.py                # all parts; an hour on one core
    uv run python benchmarks/search_efficiency.py gap --seeds 3  # one of: gap, speed, proof

Accuracy is the ImageNet prior, latency the committed table. `exact` and `fitted` are given the prior's terms; in
`from-sizes` accuracy is a black box, and `fitted` starts from numbers of parameters instead. `plain-tpe` and
`plain-nsga2` are Optuna's samplers as a user writes them: every decision a categorical parameter, the budget told by
`Trial.set_constraint`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from nas.accuracy import load_estimator
from nas.arch.additive import AdditiveModel
from nas.arch.loading import load_space
from nas.arch.parts import NetworkPart
from nas.arch.space import SearchSpace
from nas.latency.fidelity import covered_variants
from nas.latency.table import LatencyTable
from nas.names import resolve
from nas.runs.folder import RunFolder, versions
from nas.search.history import History
from nas.search.limits import Limit, cost_limits
from nas.search.loop import next_row, optimise
from nas.search.parameters import distributions, params_of, row_of
from nas.search.problem import Problem, fastest_ms
from nas.search.solver import solve
from nas.search.strategies import STRATEGIES
from nas.search.variants import Anchors, anchor_networks, anchor_variants, coarse_latency_model

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "search_efficiency.json"
TABLE = HERE / "data" / "latency_table.json"
SPACES = ("mobilenet_v3_large", "mobilenet_v3_small")
EVALUATIONS = (25, 50, 100, 200, 500, 1000)
TRIALS = (100, 1_000, 10_000)  # at which a proposal's time is taken
BUDGET_SHARE = 0.35  # of the way from the fastest to the slowest network of the space, in logarithms
FROM_SIZES = "from-sizes"
COSTLY = {"fitted": 100, FROM_SIZES: 200, "plain-tpe": 200}  # evaluations of strategies that think long
SLOW_SEEDS = 3  # of strategies that take minutes a seed, at most
PLAIN = {
    "plain-tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "plain-nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["gap", "speed", "proof"], metavar="PART")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--largest", type=int, default=max(TRIALS), help="trials of the speed part")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = LatencyTable.load(arguments.table)
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results = kept | {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "table": f"{table.device.cpu}, {table.runtime}",
        "versions": versions(),
    }
    for part in arguments.parts:
        if part == "gap":
            results["gap"] = gaps(table, arguments.seeds)
        elif part == "speed":
            results["speed"] = speeds(table, arguments.largest)
        elif part == "proof":
            results["proof"] = proofs(table)
        else:
            parser.error(f"no part {part!r}; there are gap, speed and proof")
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def problem_of(table: LatencyTable, space: SearchSpace) -> Problem:
    """The search of a space at the variants that the table has, for a budget in the middle of its range."""
    at = space.at(covered_variants(table, space))
    prices, prior = table.compile(at), load_estimator("imagenet-prior")
    ends = fastest_ms(prices), max(float(table.predict_ms([at.largest(variant)])[0]) for variant in at.variants)
    budget_ms = float(np.exp(np.interp(BUDGET_SHARE, [0, 1], np.log(ends))))
    return Problem(at, prices, prior.compile(at), budget_ms, prior.additive_model(at))


# Gap to the optimum -----------------------------------------------------------------------------------


def gaps(table: LatencyTable, seeds: int) -> dict[str, Any]:
    """Points of top-1 below the proven optimum after so many evaluations: median and worst of the seeds."""
    found: dict[str, Any] = {}
    for name in SPACES:
        if not covered_variants(table, load_space(name)):
            continue
        problem = problem_of(table, load_space(name))
        best = next(iter(problem.best()))
        optimum = float(problem.score(np.array([best.row]))[0])
        print(f"\n{name} within {problem.budget_ms:.2f} ms: proven optimum {optimum:.3f}")
        print(f"{'':14}" + "".join(f"{n:>16,}" for n in EVALUATIONS) + "   median / worst gap")
        found[name] = {
            "budget_ms": round(problem.budget_ms, 3),
            "variants": [str(variant) for variant in problem.space.variants],
            "optimum": round(optimum, 4),
            "strategies": {},
        }
        for strategy in [*STRATEGIES, FROM_SIZES, *PLAIN]:
            number = min(seeds, SLOW_SEEDS) if strategy in ("fitted", *PLAIN) else seeds
            runs = np.array([best_so_far(problem, strategy, seed) for seed in range(number)])
            counts = [n for n in EVALUATIONS if n <= runs.shape[1]]
            gap = optimum - runs[:, [n - 1 for n in counts]]
            rows = {str(n): {"median": np.median(gap[:, i]), "worst": gap[:, i].max()} for i, n in enumerate(counts)}
            # null: no network within the budget yet
            written = {
                n: {k: round(float(v), 3) if np.isfinite(v) else None for k, v in r.items()} for n, r in rows.items()
            }
            found[name]["strategies"][strategy] = {"seeds": number} | written
            cells = "".join(f"{row['median']:>8.2f} /{row['worst']:>6.2f}" for row in rows.values())
            print(f"{strategy:14}{cells}", flush=True)
    return found


def best_so_far(problem: Problem, name: str, seed: int) -> np.ndarray:
    """The highest top-1 of a network within the budget after each evaluation; -inf before there is one."""
    number = min(max(EVALUATIONS), COSTLY.get(name, max(EVALUATIONS)))
    if name in PLAIN:
        return np.maximum.accumulate(plain_scores(problem, PLAIN[name](seed), number))
    if name == FROM_SIZES:
        sizes = cost_limits(problem.space, max_params=1e9)[0].sums
        name, problem = "fitted", replace(problem, additive=None, start=sizes)
    rows = list(optimise(problem, resolve("strategy", name, STRATEGIES), trials=number, seed=seed))
    scores = np.full(number, -np.inf)
    scores[: len(rows)] = problem.score(np.array(rows))
    return np.maximum.accumulate(scores)


def plain_scores(problem: Problem, sampler: optuna.samplers.BaseSampler, number: int) -> np.ndarray:
    """What Optuna finds by itself; a network over the budget counts as nothing."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space, decisions = problem.space, distributions(problem.space)

    def objective(trial: optuna.Trial) -> float:
        params = {name: trial.suggest_categorical(name, decision.choices) for name, decision in decisions.items()}  # type: ignore[attr-defined]
        row = row_of(space, params)
        trial.set_constraint("latency", problem.latency_ms(row) - problem.budget_ms)
        return float(problem.score(np.array([row]))[0])

    study.optimize(objective, n_trials=number)
    rows = [row_of(space, trial.params) for trial in study.trials]
    scores = problem.score(np.array(rows))
    scores[problem.latency(np.array(rows)) > problem.budget_ms] = -np.inf
    return scores


# Milliseconds a trial ---------------------------------------------------------------------------------


def speeds(table: LatencyTable, largest: int) -> dict[str, Any]:
    """Milliseconds of processor time a trial (proposal, both estimates, log) once there are so many trials."""
    problem = problem_of(table, load_space(SPACES[0]))
    decisions = len(problem.space.decisions)
    print(f"\nms a trial, {decisions} decisions: proposal + estimates and log" + "".join(f"{n:>12,}" for n in TRIALS))
    counts = [n for n in TRIALS if n <= largest]
    filling = list(itertools.islice(_random_rows(problem), max(counts)))
    found: dict[str, Any] = {"decisions": decisions, "strategies": {}}
    for name in STRATEGIES:
        rows = {str(n): round(proposal_ms(problem, name, filling[:n]), 2) for n in counts}
        found["strategies"][name] = rows
        print(f"{name:46}" + "".join(f"{ms:>12.2f}" for ms in rows.values()), flush=True)
    found["log"] = {str(n): round(log_ms(table, problem, filling[:n]), 2) for n in counts}
    print(f"{'estimates and log':46}" + "".join(f"{ms:>12.2f}" for ms in found["log"].values()))
    found["optuna"] = {}
    for name, make in PLAIN.items():  # to a thousand trials: more would take hours
        cells = {str(n): round(plain_ms(problem, make, filling[:n]), 2) for n in counts if n <= 1000}
        found["optuna"][name] = cells
        print(f"{name + ', ask and tell in memory':46}" + "".join(f"{ms:>12.2f}" for ms in cells.values()))
    return found


def _random_rows(problem: Problem) -> Any:
    rng, seen = random.Random(0), set()
    while True:
        row = problem.random_row(rng)
        if row not in seen:
            seen.add(row)
            yield row


def proposal_ms(problem: Problem, name: str, filling: list[Any], number: int = 20) -> float:
    history = History(problem)
    history.price(filling)
    propose = resolve("strategy", name, STRATEGIES).proposer(problem)
    history.price([next_row(history, propose, 0)])  # what is remembered of the trials before is made once
    begun = time.process_time()
    for _ in range(number):
        history.price([next_row(history, propose, 0)])
    return 1000 * (time.process_time() - begun) / number


def log_ms(table: LatencyTable, problem: Problem, filling: list[Any], number: int = 50) -> float:
    """What the pipeline does with a proposal; the log holds the trials before."""
    space, prior, decisions = problem.space, load_estimator("imagenet-prior"), distributions(problem.space)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run", {}, "benchmarks/search_efficiency.py", resume=False)
        for count, row in enumerate(filling):
            if count == len(filling) - number:
                begun = time.process_time()
            spec = space.decode([np.array(row)])[0]
            estimate = prior.estimate([spec])
            values = float(table.predict_ms([spec])[0]), float(estimate.top1[0]), float(estimate.std[0])
            run.log("large", "x", spec, *values, params_of(space, row), decisions)
        run.flush()
        return 1000 * (time.process_time() - begun) / number


def plain_ms(
    problem: Problem, make: Callable[[int], optuna.samplers.BaseSampler], filling: list[Any], number: int = 10
) -> float:
    space, decisions = problem.space, distributions(problem.space)
    study = optuna.create_study(direction="maximize", sampler=make(0))
    for row, score in zip(filling, problem.score(np.array(filling)), strict=True):
        study.add_trial(
            optuna.trial.create_trial(params=params_of(space, row), distributions=decisions, value=float(score))
        )
    begun = time.process_time()
    for _ in range(number):
        trial = study.ask(decisions)
        study.tell(trial, 70.0)
    return 1000 * (time.process_time() - begun) / number


# Proof ------------------------------------------------------------------------------------------------


def proofs(table: LatencyTable) -> dict[str, Any]:
    """Seconds of processor time to prove the optimum over all variants of a space.

    Where the table lacks variants, the latency model is the coarse one that chooses a search's variants.
    """
    found = {}
    for name in SPACES:
        space, prior = load_space(name), load_estimator("imagenet-prior")
        measured = len(covered_variants(table, space)) == len(space.variants)
        prices = table.compile(space) if measured else anchored_prices(table, space)
        if prices is None:
            print(f"{name}: the table has neither all rows nor the anchors")
            continue
        limit = Limit("latency", 1.0, prices)
        ends = np.log([fastest_ms(prices), float(limit.largest().max())])
        problem = Problem(
            space, prices, prior.compile(space), float(np.exp(ends @ (0.65, 0.35))), prior.additive_model(space)
        )
        seconds = []
        for variant in problem.fitting_variants:
            begun = time.process_time()
            solve(problem.needed_additive, problem.limits, variant)
            seconds.append(time.process_time() - begun)
        found[name] = {
            "prices": "rows" if measured else "from anchors",
            "budget_ms": round(problem.budget_ms, 3),
            "variants": len(space.variants),
            "fitting": len(seconds),
            "seconds": round(sum(seconds), 2),
            "slowest_scale": round(max(seconds), 2),
        }
        print(
            f"{name}: optimum over {len(seconds)} variants proven in {sum(seconds):.2f} s, slowest {max(seconds):.2f}"
        )
    return found


def anchored_prices(table: LatencyTable, space: SearchSpace) -> AdditiveModel | None:
    variants = anchor_variants(space)
    parts = [NetworkPart(spec) for spec in anchor_networks(space, variants)]
    if table.missing(parts):
        return None
    times = iter(map(table.part_ms, parts))
    return coarse_latency_model(space, {variant: Anchors(next(times), next(times)) for variant in variants})


if __name__ == "__main__":
    main()
