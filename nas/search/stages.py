"""The stages of one search under way: variants, trials, trimming, finalists."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.storages import BaseStorage

from nas.arch.additive import AdditiveModel
from nas.arch.cost import NUM_CLASSES
from nas.arch.space import SearchSpace, Variant
from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.errors import NasError
from nas.latency.networks import Measured, measure_latency
from nas.latency.predictor import NOISE, LatencyPredictor
from nas.latency.table import LatencyTable
from nas.names import resolve
from nas.netadapt.algorithm import Step, netadapt
from nas.runs.folder import LoggedTrial, RunFolder
from nas.search.limits import Limit
from nas.search.loop import optimise
from nas.search.objective import make_problem, mnasnet_reward, quick
from nas.search.parameters import distributions, params_of, row_of
from nas.search.problem import Problem, fastest_ms, slowest_ms
from nas.search.request import Request
from nas.search.sharing import meeting_place, shared_rows
from nas.search.strategies import STRATEGIES
from nas.search.variants import pick_variants
from nas.search.workers import open_storage

SEED_LIMIT = 1.06  # times the budget: networks that trimming starts from
SEEDS, FINALISTS = 2, 3
RUNNERS_UP = 4  # behind the proven optimum, that are told
LOOP, LOOP_TRIALS = "tpe", 200  # what the proven optimum is compared with where a search is exact itself
SLACK = 0.03  # unused share of the budget that is worth another attempt
ATTEMPTS, TRIM_ROUNDS = 3, 6
HOPELESS = 1.1  # times the budget: a prediction that far above it is not measured within it


@dataclass
class Search:
    """One search under way: what its stages share."""

    request: Request
    prices: LatencyPredictor
    estimator: Any
    run: RunFolder
    console: Console
    data_base: BaseStorage | None = None  # the request's storage, open

    def __post_init__(self) -> None:
        self.budgets = self.request.budgets  # milliseconds, by role

    @property
    def table(self) -> LatencyTable:
        return self.prices.table

    @property
    def notes(self) -> list[str]:
        """What must be known of all figures of the run."""
        runtime, notes = self.table.runtime, []
        if self.table.other_device:
            notes.append(
                f"latencies are predicted, not measured: the table is of another device, {self.table.device.cpu}"
            )
        if runtime.precision != "float32":
            notes.append(f"latencies are those of {runtime.precision}; accuracies are still estimates for float32")
        if self.trains:
            notes.append(
                f"accuracies are on {self.request.data}, trained for a few epochs at {self.estimator.resolution} px; "
                "the resolution is not searched, and which variants are tried and what is trimmed follow the ImageNet "
                "prior's order"
            )
        if self.table.num_classes != NUM_CLASSES:
            notes.append(
                f"latencies, parameters and memory are those of networks with {self.table.num_classes} classes"
            )
        return notes

    @property
    def trains(self) -> bool:
        """Whether an estimate takes a training."""
        return quick(self.estimator) is not self.estimator

    @cached_property
    def storage(self) -> BaseStorage:
        """Where workers meet, open: that takes a data base longer than a trial."""
        return self.data_base or open_storage(meeting_place(self.request, self.run.path))

    def top1(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        return self.estimator.estimate(specs).top1

    def quick_top1(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """At once, if only in the right order."""
        return quick(self.estimator).estimate(specs).top1

    def limits(self, space: SearchSpace) -> tuple[Limit, ...]:
        """What else than latency must be kept, with the table's number of classes."""
        return self.request.limits(space, self.table.num_classes)

    def keeps_limits(self, spec: ArchSpec) -> bool:
        """Whether a network keeps them."""
        return self.request.keeps_limits(spec, self.table.num_classes)

    def variants(self, role: str, space: SearchSpace) -> list[Variant]:
        """The variants to search; decided once a run, so that a resumed one goes on alike."""
        entry = self.run.manifest["roles"][role]
        if "variants" not in entry:
            chosen = pick_variants(self.prices, space, quick(self.estimator), self.budgets[role], self.limits(space))
            entry["variants"] = [list(variant) for variant in chosen]
            self.run.save()
        return [Variant(*variant) for variant in entry["variants"]]

    def find(self, role: str, space: SearchSpace) -> tuple[ArchSpec, Measured]:
        """The most accurate network of a role that, measured whole on the device, is within the budget.

        The table's predictions are a percent or two off, more on a disturbed machine: after the first finalists
        were measured, the search is repeated for the budget that predictions must keep for measurements to keep
        the real one. Raises NasError if nothing ever fits.
        """
        budget = (1 - NOISE) * self.budgets[role]
        prices = self.table.compile(space)
        entry = self.run.manifest["roles"][role]
        corrections: list[float] = entry.setdefault("corrections", [])
        fitting: dict[str, tuple[ArchSpec, Measured]] = {}
        fastest = fastest_ms(prices, self.limits(space))
        if fastest > HOPELESS * budget:
            raise NasError(
                f"no network of {space.name} that keeps the other limits is as fast as {budget:.3g} ms, the fastest "
                f"takes some {fastest:.3g} ms; raise the budget, --max-params or --max-memory-mb"
            )
        slowest = slowest_ms(prices, self.limits(space))
        for attempt in range(ATTEMPTS):
            # At least the fastest (to the last bits of a sum in another order): what is predicted a little over
            # the budget may be within it when measured.
            limit = max(budget / (corrections[attempt - 1] if attempt else 1.0), fastest * (1 + 1e-9))
            problem = self.explore(role, prices, limit, attempt)
            finalists = [trial.spec for trial in self.candidates(role, limit, attempt)[:FINALISTS]]
            measured = self.measured(role, finalists)
            fitting |= {s.id: (s, m) for s, m in zip(finalists, measured, strict=True) if m.normalised_ms <= budget}
            ratios = np.array([m.normalised_ms for m in measured]) / self.table.predict_ms(finalists)
            if attempt == len(corrections):
                corrections.append(round(float(np.median(ratios)), 5))
                self.run.save()
            # A network that fits leaves less than the corrections' own error unused: no better one is in reach. Nor is
            # one where the other limits leave nothing slower than what was allowed.
            if (
                slowest <= limit
                or not entry["binds"]
                or any(m.normalised_ms > (1 - SLACK) * budget for _, m in fitting.values())
            ):
                break
        if "optimum" not in entry:
            entry["optimum"] = self.optimum(role, problem, attempt)
            self.run.save()
        if not fitting:
            spec = self.trimmed_until_measured(role, finalists[0], measured[0], budget)
            fitting = {spec.id: (spec, self.measured(role, [spec])[0])}
        return max(fitting.values(), key=lambda pair: self.top1([pair[0]])[0])

    def reward(self, role: str, top1: Any, latency_ms: Any) -> Any:
        """MnasNet's, with the role's budget as its target."""
        return mnasnet_reward(top1, latency_ms, self.budgets[role], self.request.reward_w)

    def find_rewarded(self, role: str, space: SearchSpace) -> ArchSpec:
        """The network with the highest reward, the latency of the best few being measured; it can be over budget."""
        prices = self.table.compile(space)
        self.explore(role, prices, float(Limit("latency", 1.0, prices).largest().max()), 0)
        trials = {trial.spec.id: trial for trial in self.run.trials(role, self.stages(0)[0])}
        kept = [trial for trial in trials.values() if self.keeps_limits(trial.spec)]
        kept.sort(key=lambda trial: -self.reward(role, trial.top1, trial.latency_ms))
        finalists = [trial.spec for trial in kept[:FINALISTS]]
        if self.table.other_device:
            return finalists[0]
        latencies = np.array([measured.normalised_ms for measured in self.measured(role, finalists)])
        return finalists[int(np.argmax(self.reward(role, self.top1(finalists), latencies)))]

    def find_predicted(self, role: str, space: SearchSpace) -> ArchSpec:
        """The most accurate network of a role predicted within the budget, where nothing can be measured."""
        prices = self.table.compile(space)
        fastest = fastest_ms(prices, self.limits(space))
        limit = max((1 - NOISE) * self.budgets[role], fastest * (1 + 1e-9))
        if limit > self.budgets[role]:
            raise NasError(f"no network of {space.name} that keeps the other limits is predicted within the budget")
        problem = self.explore(role, prices, limit, 0)
        entry = self.run.manifest["roles"][role]
        if "optimum" not in entry:
            entry["optimum"] = self.optimum(role, problem, 0)
            self.run.save()
        return self.candidates(role, limit, 0)[0].spec

    def explore(self, role: str, prices: AdditiveModel, limit_ms: float, attempt: int) -> Problem:
        """The study: networks predicted within the limit, others a little above it, and those trimmed down to it."""
        space = prices.space
        others, target_ms = self.limits(space), self.budgets[role]
        problem = make_problem(self.request, self.estimator, prices, limit_ms, others, target_ms)
        strategy = resolve("strategy", self.request.strategy, STRATEGIES)
        # Later attempts only shift the limit by a few percent: they need less.
        trials = max(1, (self.request.trials or strategy.trials) // (3 if attempt else 1))
        proposing, seeding, trimming = self.stages(attempt)
        stages = [(proposing, problem, trials)]
        if self.run.manifest["roles"][role]["binds"] and self.request.objective == "top1":
            stages.append((seeding, problem.with_budget(SEED_LIMIT * limit_ms), max(1, trials // 4)))
        decisions = distributions(space)
        with self.console.progress(f"searching {role}, attempt {attempt + 1}") as progress:
            for index, (stage, limited, number) in enumerate(stages):
                finished = [row_of(space, trial.params) for trial in self.run.trials(role, stage)]
                if self.request.workers > 1 or self.request.storage:
                    shared = shared_rows(
                        self.request,
                        self.run.path,
                        self.storage,
                        limited,
                        stage=f"{role}/{stage}",
                        target_ms=target_ms,
                        trials=number,
                        estimator=self.estimator,
                        console=self.console,
                    )
                    rows = iter(shared[len(finished) :])
                else:
                    rows = optimise(limited, strategy, trials=number, seed=self.request.seed, finished=finished)
                try:
                    for done, row in enumerate(rows, start=len(finished) + 1):
                        spec = space.decode([np.array(row)])[0]
                        latency_ms = float(self.table.predict_ms([spec])[0])
                        estimate = self.estimator.estimate([spec])
                        values = (latency_ms, float(estimate.top1[0]), float(estimate.std[0]))
                        self.run.log(role, stage, spec, *values, params_of(space, row), decisions)
                        progress((index + done / number) / len(stages), f"{done} trials")
                finally:
                    self.run.flush()
        seeds = {trial.spec.id: trial for trial in self.run.trials(role, seeding)}
        over = [trial for trial in seeds.values() if trial.latency_ms > limit_ms]
        for trial in sorted(over, key=lambda trial: -trial.top1)[:SEEDS]:
            self.trim(role, trial.spec, limit_ms, trimming)
        return problem

    def optimum(self, role: str, problem: Problem, attempt: int) -> dict[str, Any] | None:
        """The model's proven optimum, its runners-up, and the best that a strategy found beside it.

        For `exact` that is a loop of trials without the model's terms. None where the estimate is no sum over blocks.
        """
        if problem.additive is None:
            return None
        best = [optimum.row for optimum in itertools.islice(problem.best(), 1 + RUNNERS_UP)]
        name = LOOP if self.request.strategy == "exact" else self.request.strategy
        if self.request.strategy == "exact":
            strategy = resolve("strategy", LOOP, STRATEGIES)
            tried = list(optimise(problem, strategy, trials=LOOP_TRIALS, seed=self.request.seed))
        else:
            trials = self.run.trials(role, self.stages(attempt)[0])
            tried = [row_of(problem.space, trial.params) for trial in trials]
        found = problem.score(np.array(tried))
        rows = [
            {"spec_id": spec.id, "top1": round(float(top1), 4), "predicted_ms": round(float(ms), 4)}
            for spec, top1, ms in zip(
                problem.space.decode([np.array(row) for row in best]),
                problem.score(np.array(best)),
                problem.latency(np.array(best)),
                strict=True,
            )
        ]
        return {
            "limit_ms": round(problem.budget_ms, 4),
            "proven": rows[0],
            "runners_up": rows[1:],
            "loop": {"strategy": name, "trials": len(tried), "top1": round(float(found.max()), 4)},
        }

    def stages(self, attempt: int) -> tuple[str, str, str]:
        """What an attempt's trials are logged as: the strategy's, seeds for trimming, what was trimmed."""
        suffix = f" {attempt + 1}" if attempt else ""
        return self.request.strategy + suffix, "seed" + suffix, "netadapt" + suffix

    def trim(self, role: str, seed: ArchSpec, target_ms: float, stage: str) -> ArchSpec | None:
        """NetAdapt from `seed` down to a predicted `target_ms`, each step logged; None if it cannot get there."""
        known = {trial.spec.id for trial in self.run.trials(role) if not trial.params}
        last = None

        def log(step: Step) -> None:
            if step.cut and step.spec.id not in known:
                spec = step.spec.replace(name=f"{role}-trimmed")
                estimate = self.estimator.estimate([spec])
                self.run.log(role, stage, spec, step.latency_ms, float(estimate.top1[0]), float(estimate.std[0]))

        for last in netadapt(seed, target_ms, price=self.kept_ms, estimate=self.quick_top1):
            if not self.trains:
                log(last)
        if last is None or last.latency_ms > target_ms:
            return None
        if self.trains:  # what was on the way is not worth a training
            log(last)
        return last.spec

    def kept_ms(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Predicted latencies; infinite for networks over another limit, which fewer channels can lead to:
        two stages whose channels come to be equal are tied by a residual, which is held in memory."""
        keeps = np.array([self.keeps_limits(spec) for spec in specs])
        return np.where(keeps, self.prices.predicted_ms(specs), np.inf)

    def candidates(self, role: str, limit_ms: float, attempt: int) -> list[LoggedTrial]:
        """Networks predicted within the limit that were logged by then, the most accurate first, each once.

        What a run that was stopped had logged beyond that does not count yet, so that it goes on alike.
        """
        stages = {stage for earlier in range(attempt + 1) for stage in self.stages(earlier)}
        trials = [trial for trial in self.run.trials(role) if trial.stage in stages]
        kept = [trial for trial in trials if trial.latency_ms <= limit_ms and self.keeps_limits(trial.spec)]
        fitting = {trial.spec.id: trial for trial in kept}
        return sorted(fitting.values(), key=lambda trial: (-trial.top1, trial.latency_ms))

    def measured(self, role: str, specs: Sequence[ArchSpec]) -> list[Measured]:
        """Whole networks on the device; what a run has measured it remembers, so that a resumed one goes on alike."""
        known: dict[str, list[Any]] = self.run.manifest["roles"][role].setdefault("measured", {})
        new = [spec for spec in specs if spec.id not in known]
        if new:
            with self.console.progress(f"measuring finalists of {role}") as progress:
                timed = measure_latency(new, table=self.table, on_progress=lambda share: progress(share, ""))
            known |= {spec.id: list(astuple(m)) for spec, m in zip(new, timed, strict=True)}
            self.run.save()
        times = (known[spec.id] for spec in specs)
        return [Measured(raw, normalised, (q1, q3), error) for raw, normalised, (q1, q3), error in times]

    def trimmed_until_measured(self, role: str, spec: ArchSpec, measured: Measured, budget: float) -> ArchSpec:
        """`spec` trimmed by what it exceeds the budget until its measurement keeps it; NasError if none does."""
        for _ in range(TRIM_ROUNDS):
            predicted = float(self.prices.predicted_ms([spec])[0])
            smaller = self.trim(role, spec, predicted * budget / measured.normalised_ms * 0.995, "finalist")
            if smaller is None:
                break
            spec, measured = smaller, self.measured(role, [smaller])[0]
            if measured.normalised_ms <= budget:
                return spec
        raise NasError(f"no network of {role} was measured within {budget:.4g} ms; raise the budget a little")
