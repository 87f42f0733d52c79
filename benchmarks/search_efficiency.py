"""Count the evaluations that strategies need to come near the proven optimum, and time their proposals.

    uv run python benchmarks/search_efficiency.py                # all parts; twenty minutes on one core
    uv run python benchmarks/search_efficiency.py gap --seeds 3  # one of: gap, speed, proof

Accuracy is the ImageNet prior, latency the committed table; that of `proof` is this device's. `exact` and `surrogate`
are given the prior's additive model. In `from-sizes` accuracy is a black box, and `surrogate` starts from numbers of
parameters instead. `plain-tpe` and `plain-nsga2` are Optuna's samplers as a user writes them: every decision is a
categorical parameter, and `Trial.set_constraint` sets the limit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from nas.accuracy import load_estimator
from nas.arch.loading import load_space
from nas.arch.space import SearchSpace
from nas.console import Silent
from nas.cpu import usable_cores
from nas.latency.fidelity import covered_variants
from nas.latency.predictor import LatencyPredictor, open_table
from nas.latency.table import LatencyTable
from nas.names import resolve
from nas.runs.folder import RunFolder, new_record, versions
from nas.runs.parameters import distributions, encoding_of, params_of
from nas.runs.record import Trial
from nas.search.extremes import fastest_ms
from nas.search.history import History
from nas.search.limits import Limit, cost_limits
from nas.search.loop import next_encoding, run_trials
from nas.search.problem import Problem
from nas.search.solver import ranking, solve
from nas.search.strategies import STRATEGIES
from nas.search.variants import coarse_latency_model, measure_anchors

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "search_efficiency.json"
TABLE = HERE / "data" / "latency_table.json"
SPACES = ("mobilenet_v3_large", "mobilenet_v3_small")
EVALUATIONS = (25, 50, 100, 200, 500, 1000)
TRIALS = (100, 1_000, 10_000)  # at which a proposal's time is taken
BUDGET_SHARE = 0.35  # of the way from the fastest to the slowest network of the space, in logarithms
FROM_SIZES = "from-sizes"
COSTLY = {"surrogate": 100, FROM_SIZES: 200, "plain-tpe": 200}  # evaluations of strategies that think long
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
        "machine": f"{platform.processor() or platform.machine()}, {usable_cores()} cores",
        "table": f"{table.device.cpu}, {table.runtime}",
        "versions": versions(),
    }
    for part in arguments.parts:
        if part == "gap":
            results["gap"] = gaps(table, arguments.seeds)
        elif part == "speed":
            results["speed"] = speeds(table, arguments.largest)
        elif part == "proof":
            results["proof"] = proofs()
        else:
            parser.error(f"no part {part!r}; there are gap, speed and proof")
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def problem_of(table: LatencyTable, space: SearchSpace) -> Problem:
    """Return the search of a space at the variants that the table has, for a budget in the middle of its range."""
    at = space.at(covered_variants(table, space))
    latency, prior = table.compile(at), load_estimator("imagenet-prior")
    ends = fastest_ms(latency), max(float(table.predict_ms([at.largest(variant)])[0]) for variant in at.variants)
    limit_ms = float(np.exp(np.interp(BUDGET_SHARE, [0, 1], np.log(ends))))
    return Problem(at, latency, prior.estimate, limit_ms, prior.additive_model(at))


# Gap to the optimum -----------------------------------------------------------------------------------


def gaps(table: LatencyTable, seeds: int) -> dict[str, Any]:
    """Return points of top-1 below the proven optimum by number of evaluations: median and worst of the seeds."""
    found: dict[str, Any] = {}
    for name in SPACES:
        if not covered_variants(table, load_space(name)):
            continue
        problem = problem_of(table, load_space(name))
        best = next(ranking(problem.needed_additive, problem.limits, problem.feasible_variants))
        optimum = problem.evaluate(best.encoding).score
        print(f"\n{name} within {problem.limit_ms:.2f} ms: proven optimum {optimum:.3f}")
        print(f"{'':14}" + "".join(f"{n:>16,}" for n in EVALUATIONS) + "   median / worst gap")
        found[name] = {
            "budget_ms": round(problem.limit_ms, 3),
            "variants": [str(variant) for variant in problem.space.variants],
            "optimum": round(optimum, 4),
            "strategies": {},
        }
        for strategy in [*STRATEGIES, FROM_SIZES, *PLAIN]:
            number = min(seeds, SLOW_SEEDS) if strategy in ("surrogate", *PLAIN) else seeds
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
    """Return the highest top-1 of a network within the limit after each evaluation; -inf before there is one."""
    number = min(max(EVALUATIONS), COSTLY.get(name, max(EVALUATIONS)))
    if name in PLAIN:
        return np.maximum.accumulate(plain_scores(problem, PLAIN[name](seed), number))
    if name == FROM_SIZES:
        sizes = cost_limits(problem.space, max_params=1e9)[0].sums
        name, problem = "surrogate", replace(problem, additive=None, proxy=sizes)
    trials = list(run_trials(problem, resolve("strategy", name, STRATEGIES), trials=number, seed=seed))
    scores = np.full(number, -np.inf)
    scores[: len(trials)] = [trial.score for trial in trials]
    return np.maximum.accumulate(scores)


def plain_scores(problem: Problem, sampler: optuna.samplers.BaseSampler, number: int) -> np.ndarray:
    """Return the scores that Optuna finds by itself; a network over the limit counts as nothing."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space, decisions = problem.space, distributions(problem.space)

    scores = []

    def objective(trial: optuna.Trial) -> float:
        params = {name: trial.suggest_categorical(name, decision.choices) for name, decision in decisions.items()}  # type: ignore[attr-defined]
        evaluated = problem.evaluate(encoding_of(space, params))
        trial.set_constraint("latency", evaluated.latency_ms - problem.limit_ms)
        scores.append(evaluated.score if evaluated.latency_ms <= problem.limit_ms else -np.inf)
        return evaluated.score

    study.optimize(objective, n_trials=number)
    return np.array(scores)


# Milliseconds a trial ---------------------------------------------------------------------------------


def speeds(table: LatencyTable, largest: int) -> dict[str, Any]:
    """Return milliseconds of processor time a trial (proposal and estimates, log) by the number of trials before."""
    problem = problem_of(table, load_space(SPACES[0]))
    decisions = len(problem.space.decisions)
    print(f"\nms a trial, {decisions} decisions: proposal and estimates" + "".join(f"{n:>12,}" for n in TRIALS))
    counts = [n for n in TRIALS if n <= largest]
    filling = list(itertools.islice(_random_trials(problem), max(counts)))
    found: dict[str, Any] = {"decisions": decisions, "strategies": {}}
    for name in STRATEGIES:
        rows = {str(n): round(proposal_ms(problem, name, filling[:n]), 2) for n in counts}
        found["strategies"][name] = rows
        print(f"{name:46}" + "".join(f"{ms:>12.2f}" for ms in rows.values()), flush=True)
    found["log"] = {str(n): round(log_ms(problem, filling[:n]), 2) for n in counts}
    print(f"{'log':46}" + "".join(f"{ms:>12.2f}" for ms in found["log"].values()))
    found["optuna"] = {}
    for name, make in PLAIN.items():  # to a thousand trials: more would take hours
        cells = {str(n): round(plain_ms(problem, make, filling[:n]), 2) for n in counts if n <= 1000}
        found["optuna"][name] = cells
        print(f"{name + ', ask and tell in memory':46}" + "".join(f"{ms:>12.2f}" for ms in cells.values()))
    return found


def _random_trials(problem: Problem) -> Iterator[Trial]:
    rng, seen = random.Random(0), set()
    while True:
        encoding = problem.sampler.sample(rng)
        if encoding not in seen:
            seen.add(encoding)
            yield problem.evaluate(encoding)


def proposal_ms(problem: Problem, name: str, filling: list[Trial], number: int = 20) -> float:
    """Return milliseconds of processor time that a proposal and its evaluation take."""
    history = History(problem)
    for trial in filling:
        history.add(trial)
    propose = resolve("strategy", name, STRATEGIES).proposer(problem)
    # A strategy digests the trials before once.
    history.add(problem.evaluate(next_encoding(history, propose, 0, len(history))))
    begun = time.process_time()
    for _ in range(number):
        history.add(problem.evaluate(next_encoding(history, propose, 0, len(history))))
    return 1000 * (time.process_time() - begun) / number


def log_ms(problem: Problem, filling: list[Trial], number: int = 50) -> float:
    """Return milliseconds of processor time that logging a trial takes; the log holds the trials before."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.begin(Path(folder) / "run", new_record("benchmarks/search_efficiency.py", {}))
        for count, trial in enumerate(filling):
            if count == len(filling) - number:
                begun = time.process_time()
            run.log("large", "x", trial, problem.space)
        run.close()
        return 1000 * (time.process_time() - begun) / number


def plain_ms(
    problem: Problem, make: Callable[[int], optuna.samplers.BaseSampler], filling: list[Trial], number: int = 10
) -> float:
    space, decisions = problem.space, distributions(problem.space)
    study = optuna.create_study(direction="maximize", sampler=make(0))
    for trial in filling:
        params = params_of(space, trial.encoding)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=decisions, value=trial.score))
    begun = time.process_time()
    for _ in range(number):
        study.tell(study.ask(decisions), 70.0)
    return 1000 * (time.process_time() - begun) / number


# Proof ------------------------------------------------------------------------------------------------


def proofs() -> dict[str, Any]:
    """Return seconds of processor time to prove the optimum over all variants of a space.

    The latency model is the coarse one that chooses a search's variants. This device's table has or gets the anchor
    networks that it needs.
    """
    predictor = LatencyPredictor(open_table(None, "onnxruntime"), Silent())
    found: dict[str, Any] = {"table": f"{predictor.table.device.cpu}, {predictor.table.runtime}"}
    for name in SPACES:
        space, prior = load_space(name), load_estimator("imagenet-prior")
        latency = coarse_latency_model(space, measure_anchors(predictor, space))
        limit = Limit("latency", 1.0, latency)
        ends = np.log([fastest_ms(latency), float(limit.largest().max())])
        limit_ms = float(np.exp(ends @ (0.65, 0.35)))
        problem = Problem(space, latency, prior.estimate, limit_ms, prior.additive_model(space))
        seconds = []
        for variant in problem.feasible_variants:
            begun = time.process_time()
            solve(problem.needed_additive, problem.limits, variant)
            seconds.append(time.process_time() - begun)
        found[name] = {
            "budget_ms": round(problem.limit_ms, 3),
            "variants": len(space.variants),
            "feasible": len(seconds),
            "seconds": round(sum(seconds), 2),
            "slowest_variant": round(max(seconds), 2),
        }
        print(
            f"{name}: optimum over {len(seconds)} variants proven in {sum(seconds):.2f} s, slowest {max(seconds):.2f}"
        )
    return found


if __name__ == "__main__":
    main()
