"""The stages of a search, as functions that call each other's results; `python -m nas.search` prints them.

table → where things stand → scales → rows → trials → trimming → finalists measured → comparison → files
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nas.additive import BlockSums
from nas.cost import count_cost
from nas.errors import NasError, unknown_name
from nas.front import front_indices
from nas.latency.building import companions_of, measure_missing, new_table
from nas.latency.device import Device, allowed_cores
from nas.latency.fidelity import covered_scales, fidelity_text
from nas.latency.networks import Measured, measure_latency
from nas.latency.runtimes import Runtime
from nas.latency.table import LatencyTable, space_parts
from nas.parts import BlockPart, HeadPart, NetworkPart, Part, StemPart, parts_of
from nas.published import PublishedResult, published_results, published_spec
from nas.registry import ESTIMATORS, RUNTIMES, STRATEGIES, load_estimator, load_space, resolve
from nas.run import COLUMNS, LoggedTrial, RunFolder, now
from nas.space import Scale, SearchSpace
from nas.spec import ArchSpec
from nas.strategies.limits import MEGABYTE, Limit, Row, cost_limits
from nas.strategies.netadapt import Step, netadapt
from nas.strategies.problem import Problem, fastest_ms
from nas.strategies.samplers import SWEEPS, distributions, optimise, params_of, row_of
from nas.strategies.scales import Anchors, anchor_networks, anchor_scales, choose_scales, rough_prices
from nas.strategies.workers import finished, open_study, retry_trials_of, work

ROLES = ("large", "small")
LEAST_OF_FRONT = 1.05  # times the fastest network: the smallest budget of a front
SMALL_SHARE = 15.8 / 51  # MobileNetV3-Small's latency over Large's on a Pixel 1 (arXiv 1905.02244, table 3)
SEED_LIMIT = 1.06  # times the budget: networks that trimming starts from
SEEDS, FINALISTS = 2, 3
RUNNERS_UP = 4  # behind the proven optimum, that are told
LOOP, LOOP_TRIALS = "tpe", 200  # what the proven optimum is compared with where a search is exact itself
# A network measured twice differs by one or two percent: what is shipped is measured that much below the budget.
NOISE = 0.0125
SLACK = 0.03  # unused share of the budget that is worth another attempt
ATTEMPTS, TRIM_ROUNDS = 3, 6
SHARED_LOG = "workers.log"  # in a run's folder: where the workers of one machine meet
SHARED_ARGUMENTS = (
    *("strategy", "estimator", "data", "recipe_level", "objective", "reward_w", "max_params", "max_memory_mb"),
)
OBJECTIVES = ("top1", "mnasnet")
TRAINING, FITTED = "short-training", "fitted"  # the estimator that --data is for, and the strategy that goes with it
SAMPLE = "fashion-mnist-sample"
ESTIMATES = "estimates.jsonl"  # in a run's folder: what networks reached that were trained
PLAIN_RESOLUTION = 224  # of networks whose estimator does not see the resolution
HOPELESS = 1.1  # times the budget: a prediction that far above it is not measured within it
COMPARED = ("mobilenet_v3_large", "mobilenet_v3_small")
Progress = Callable[[float, str], None]


class Console(Protocol):
    """Where a pipeline tells how far it is."""

    def say(self, text: str) -> None: ...

    def progress(self, title: str) -> AbstractContextManager[Progress]: ...


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        yield lambda share, text: None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody wants found."""

    budget_ms: float  # of no account where there are several, or a front
    small_budget_ms: float | None = None  # `SMALL_SHARE` of the budget by default
    several_ms: tuple[float, ...] = ()  # budgets of Large; of Small, where that is searched alone
    front: int = 0  # so many budgets, over the feasible range
    only: str | None = None  # "large" or "small"
    large_space: str = "mobilenet_v3_large"
    small_space: str = "mobilenet_v3_small"
    width: tuple[float, ...] = ()  # all of the space by default
    resolution: tuple[int, ...] = ()
    table: str | None = None
    runtime: str = "onnxruntime"
    threads: int = 1
    precision: str = "float32"
    allow_other_device: bool = False  # to rest on the predictions of a table that nothing can be measured for here
    estimator: str = "imagenet-prior"
    data: str | None = None  # images that an estimator trains networks on
    data_dir: str | None = None
    recipe_level: str | None = None  # the training effort that estimates speak for; the estimator's own by default
    strategy: str = "exact"
    objective: str = "top1"  # within the budget; or "mnasnet", whose reward takes latency into account
    reward_w: float = -0.07
    trials: int | None = None  # the strategy's own number by default
    workers: int = 1  # processes on this machine
    storage: str | None = None  # a data base's URL, for workers on several machines
    study: str | None = None  # what these work on together
    max_params: int | None = None
    max_memory_mb: float | None = None  # of parameters and activations, as `count_cost(...).memory_bytes`
    seed: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.only,) if self.only else ROLES

    @property
    def budgets(self) -> dict[str, float]:
        """Milliseconds of each role: of "large" and "small", or of "large_4ms" and so on where there are several.

        Small's is its share of Large's; asked for alone, it has the budget for itself. A front has none before
        the feasible range is known.
        """
        if self.several_ms:
            of = {(kind, ms): self._share(kind, ms) for kind in self.kinds for ms in self.several_ms}
            return {role_name(kind, budget_ms): budget_ms for (kind, _), budget_ms in of.items()}
        if self.front:
            return {}
        return {kind: self._share(kind, self.budget_ms) for kind in self.kinds}

    def _share(self, kind: str, budget_ms: float) -> float:
        if kind == "small" and self.small_budget_ms is not None:
            return self.small_budget_ms
        return budget_ms if kind == "large" or self.only == "small" else budget_ms * SMALL_SHARE

    def space(self, role: str) -> SearchSpace:
        """The role's space at the widths and resolutions asked for. Raises NasError for foreign ones."""
        space = load_space(self.large_space if kind_of(role) == "large" else self.small_space)
        resolutions = self.resolution
        if self.data and not resolutions:
            resolutions = (PLAIN_RESOLUTION if PLAIN_RESOLUTION in space.resolutions else max(space.resolutions),)
        if not self.width and not resolutions:
            return space
        return space.at([Scale(w, r) for w in self.width or space.widths for r in resolutions or space.resolutions])

    def check(self) -> None:
        """Raises NasError for the first name or number that is wrong, before anything is measured."""
        budgets = self.several_ms or (() if self.front else (self.budget_ms,))
        for name, value in (*(("budget", ms) for ms in budgets), ("budget of Small", self.small_budget_ms)):
            if value is not None and not 0 < value < math.inf:
                raise NasError(f"the {name} is {value:g} ms; it must be a finite number above 0")
        for kind, name, known in (
            ("runtime", self.runtime, RUNTIMES),
            ("estimator", self.estimator, ESTIMATORS),
            ("strategy", self.strategy, STRATEGIES),
        ):
            resolve(kind, name, known)
        self._check_estimator()
        if self.objective not in OBJECTIVES:
            raise unknown_name("objective", self.objective, OBJECTIVES)
        if not -math.inf < self.reward_w < 0:
            raise NasError(f"--reward-w is {self.reward_w:g}; it must be below 0, for a slow network is worth less")
        if (self.storage is None) != (self.study is None):
            raise NasError("--storage and --study go together: all who name the same two work on one search")
        if self.small_budget_ms is not None and (self.several_ms or self.front):
            raise NasError("--small-budget-ms goes with one budget; leave it out, or search with --only small")
        if len(self.budgets) < len(self.kinds) * len(self.several_ms):
            raise NasError(f"of the budgets {', '.join(map(str, self.several_ms))} two are (nearly) the same")
        for kind in self.kinds:
            _check_limits(self.space(kind), self.limits(self.space(kind)))

    def _check_estimator(self) -> None:
        """Raises NasError for an estimator without what it needs, or with what is of no use to it."""
        if self.estimator == TRAINING and self.data is None:
            raise NasError(f"--estimator {TRAINING} trains networks: name the images with --data, such as {SAMPLE}")
        if self.estimator != TRAINING and (self.data or self.data_dir):
            raise NasError(f"--data is for --estimator {TRAINING}; {self.estimator} looks at no images")
        if self.estimator != TRAINING:
            load_estimator(self.estimator, self.recipe_level)
            return
        if self.recipe_level is not None:
            raise NasError(f"--recipe-level is of imagenet-prior; {TRAINING} has one training for all")
        if self.strategy == "exact":
            raise NasError(
                f"--strategy exact needs an accuracy that is a sum over blocks, and {TRAINING}'s is none; "
                f"leave --strategy out ({FITTED}), or take tpe"
            )
        if len(self.resolution) > 1:
            raise NasError(
                f"{TRAINING} trains all networks at the same low resolution and cannot choose one: "
                f"name a single --resolution (default: {PLAIN_RESOLUTION})"
            )

    def load_estimator(self, folder: Path, threads: int | None = None) -> Any:
        """The estimator; what is trained for it is kept in the run's folder."""
        if self.estimator != TRAINING:
            return load_estimator(self.estimator, self.recipe_level)
        training = resolve("estimator", TRAINING, ESTIMATORS)
        return training(self.data, self.data_dir, log=folder / ESTIMATES, seed=self.seed, threads=threads)

    def limits(self, space: SearchSpace) -> tuple[Limit, ...]:
        """What else than latency must be kept."""
        return cost_limits(space, self.max_params, self.max_memory_mb)

    def keeps_limits(self, spec: ArchSpec) -> bool:
        """Whether a network keeps the limits on its costs."""
        cost = count_cost(spec)
        return (self.max_params is None or cost.params <= self.max_params) and (
            self.max_memory_mb is None or cost.memory_bytes <= self.max_memory_mb * MEGABYTE
        )


def role_name(kind: str, budget_ms: float) -> str:
    """What a kind is called where it is searched for several budgets; its files are named so."""
    return f"{kind}_{budget_ms:.3g}ms"


def kind_of(role: str) -> str:
    """ "large" or "small"."""
    return role.partition("_")[0]


def _check_limits(space: SearchSpace, limits: Sequence[Limit]) -> None:
    """Raises NasError for a limit that no network of a space keeps, with the flag of the smallest that one does."""
    for limit in limits:
        least = float(limit.least().min())
        if least > limit.most:
            params = limit.name == "parameters"
            flag = f"--max-params {least:.0f}" if params else f"--max-memory-mb {_rounded_up(least / MEGABYTE)}"
            raise NasError(
                f"no network of {space.name} has at most {limit.said(limit.most)}; "
                f"the smallest feasible limit is {flag}"
            )


def quick(estimator: Any) -> Any:
    """What answers at once: an estimator, or, where that trains networks, what stands in for its order."""
    return getattr(estimator, "stand_in", estimator)


@dataclass
class Prices:
    """What parts and networks take; what the table does not know is measured, and the table saved.

    Nothing is measured for a table of another device: there a missing row is a NasError that names it.
    """

    table: LatencyTable
    console: Console
    seed: int = 0
    rows_measured: int = 0
    file: str | None = None  # of a table that was never saved; its device's own by default

    def measure(self, parts: Sequence[Part], title: str, among: Sequence[ArchSpec] = ()) -> None:
        """Fills the table's rows for `parts`, timed among whole networks."""
        missing = self.table.missing(parts)
        if missing and self.table.other_device:
            raise self.table.lacks(missing[0])
        if missing:
            with self.console.progress(title) as progress:
                rng, before = random.Random(self.seed), len(self.table.rows)
                try:
                    measure_missing(self.table, parts, among=among, rng=rng, on_progress=progress)
                finally:  # what was measured by then is kept when the rest is interrupted
                    if len(self.table.rows) > before:
                        self.rows_measured += len(self.table.rows) - before
                        self.table.save(self.table.path or self.file)

    def measure_space(self, space: SearchSpace, title: str) -> None:
        """Fills the table's rows for a space, scale by scale, so that what is finished is kept."""
        for scale in space.scales:
            at = space.at([scale])
            self.measure(list(space_parts(at)), f"{title} at {scale}", companions_of(at))

    def predicted_ms(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """The table's predictions (ms); infinite for what another device's table lacks rows of."""
        if self.table.other_device:
            lacking = np.array([bool(self.table.missing(parts_of(spec))) for spec in specs])
            known = [spec for spec, lacks in zip(specs, lacking, strict=True) if not lacks]
            prices = np.full(len(specs), np.inf)
            prices[~lacking] = self.table.predict_ms(known)
            return prices
        self.measure([part for spec in specs for part in parts_of(spec)], "measuring", specs[:1])
        return self.table.predict_ms(specs)

    def whole_ms(self, specs: Sequence[ArchSpec], title: str) -> np.ndarray:
        """Measured latency (ms) of whole networks, remembered in the table; else what another device's predicts."""
        parts = [NetworkPart(spec) for spec in specs]
        if self.table.other_device:
            rows = self.table.rows
            predicted = (part.spec for part in parts if part.key not in rows)
            prices = iter(self.table.predict_ms(list(predicted)))
            return np.array([self.table.part_ms(part) if part.key in rows else next(prices) for part in parts])
        self.measure(parts, title)
        return np.array([self.table.part_ms(part) for part in parts])

    def knows(self, spec: ArchSpec) -> bool:
        """Whether a network can be priced: always, where what the table lacks can be measured."""
        table = self.table
        return not (table.other_device and NetworkPart(spec).key not in table.rows and table.missing(parts_of(spec)))

    def anchors(self, space: SearchSpace) -> dict[Scale, Anchors]:
        """Measured smallest and largest networks of some scales."""
        scales = anchor_scales(space)
        times = self.whole_ms(anchor_networks(space, scales), f"smallest and largest networks of {space.name}")
        return {scale: Anchors(*map(float, times[2 * i : 2 * i + 2])) for i, scale in enumerate(scales)}


def feasible_ms(anchors: Mapping[Scale, Anchors]) -> tuple[float, float]:
    """The fastest and the slowest network of a space, measured."""
    return min(a.smallest_ms for a in anchors.values()), max(a.largest_ms for a in anchors.values())


def pick_scales(
    prices: Prices, space: SearchSpace, estimator: Any, budget_ms: float, limits: tuple[Limit, ...] = ()
) -> list[Scale]:
    """The few scales of a space that can hold the optimum of a budget and of other limits."""
    rough = rough_prices(space, prices.anchors(space))
    budget_ms = max(budget_ms, fastest_ms(rough, limits) * 1.001)  # the rough prices' rounding
    problem = Problem(space, rough, estimator.compile(space), budget_ms, estimator.terms(space), limits)
    return [candidate.scale for candidate in choose_scales(problem)]


@dataclass
class Search:
    """One search under way: what its stages share."""

    request: Request
    prices: Prices
    estimator: Any
    run: RunFolder
    console: Console

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
                "the resolution is not searched, and which scales are tried and what is trimmed follow the ImageNet "
                "prior's order"
            )
        return notes

    @property
    def trains(self) -> bool:
        """Whether an estimate takes a training."""
        return quick(self.estimator) is not self.estimator

    def top1(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        return self.estimator.estimate(specs).top1

    def quick_top1(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """At once, if only in the right order."""
        return quick(self.estimator).estimate(specs).top1

    def scales(self, role: str, space: SearchSpace) -> list[Scale]:
        """The scales to search; decided once a run, so that a resumed one goes on alike."""
        entry = self.run.manifest["roles"][role]
        if "scales" not in entry:
            limits = self.request.limits(space)
            chosen = pick_scales(self.prices, space, quick(self.estimator), self.budgets[role], limits)
            entry["scales"] = [list(scale) for scale in chosen]
            self.run.save()
        return [Scale(*scale) for scale in entry["scales"]]

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
        fastest = fastest_ms(prices, self.request.limits(space))
        if fastest > HOPELESS * budget:
            raise NasError(
                f"no network of {space.name} that keeps the other limits is as fast as {budget:.3g} ms, the fastest "
                f"takes some {fastest:.3g} ms; raise the budget, --max-params or --max-memory-mb"
            )
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
            # A network that fits leaves less than the corrections' own error unused: no better one is in reach.
            if not entry["binds"] or any(m.normalised_ms > (1 - SLACK) * budget for _, m in fitting.values()):
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
        kept = [trial for trial in trials.values() if self.request.keeps_limits(trial.spec)]
        kept.sort(key=lambda trial: -self.reward(role, trial.top1, trial.latency_ms))
        finalists = [trial.spec for trial in kept[:FINALISTS]]
        if self.table.other_device:
            return finalists[0]
        latencies = np.array([measured.normalised_ms for measured in self.measured(role, finalists)])
        return finalists[int(np.argmax(self.reward(role, self.top1(finalists), latencies)))]

    def find_predicted(self, role: str, space: SearchSpace) -> ArchSpec:
        """The most accurate network of a role predicted within the budget, where nothing can be measured."""
        prices = self.table.compile(space)
        fastest = fastest_ms(prices, self.request.limits(space))
        limit = max((1 - NOISE) * self.budgets[role], fastest * (1 + 1e-9))
        if limit > self.budgets[role]:
            raise NasError(f"no network of {space.name} that keeps the other limits is predicted within the budget")
        problem = self.explore(role, prices, limit, 0)
        entry = self.run.manifest["roles"][role]
        if "optimum" not in entry:
            entry["optimum"] = self.optimum(role, problem, 0)
            self.run.save()
        return self.candidates(role, limit, 0)[0].spec

    def explore(self, role: str, prices: BlockSums, limit_ms: float, attempt: int) -> Problem:
        """The study: networks predicted within the limit, others a little above it, and those trimmed down to it."""
        space = prices.space
        problem = make_problem(self.request, self.estimator, prices, limit_ms, self.budgets[role])
        strategy = resolve("strategy", self.request.strategy, STRATEGIES)
        # Later attempts only shift the limit by a few percent: they need less.
        trials = max(1, (self.request.trials or strategy.trials) // (3 if attempt else 1))
        proposing, seeding, trimming = self.stages(attempt)
        stages = [(proposing, problem, trials)]
        if self.run.manifest["roles"][role]["binds"] and self.request.objective == "top1":
            stages.append((seeding, problem.with_budget(SEED_LIMIT * limit_ms), max(1, trials // 4)))
        genes = distributions(space)
        with self.console.progress(f"searching {role}, attempt {attempt + 1}") as progress:
            for index, (stage, limited, number) in enumerate(stages):
                finished = [row_of(space, trial.params) for trial in self.run.trials(role, stage)]
                if self.request.workers > 1 or self.request.storage:
                    rows = iter(self.shared_rows(role, stage, limited, number)[len(finished) :])
                else:
                    rows = optimise(limited, strategy, trials=number, seed=self.request.seed, finished=finished)
                try:
                    for done, row in enumerate(rows, start=len(finished) + 1):
                        spec = space.decode([np.array(row)])[0]
                        latency_ms = float(self.table.predict_ms([spec])[0])
                        estimate = self.estimator.estimate([spec])
                        values = (latency_ms, float(estimate.top1[0]), float(estimate.std[0]))
                        self.run.log(role, stage, spec, *values, params_of(space, row), genes)
                        progress((index + done / number) / len(stages), f"{done} trials")
                finally:
                    self.run.flush()
        seeds = {trial.spec.id: trial for trial in self.run.trials(role, seeding)}
        over = [trial for trial in seeds.values() if trial.latency_ms > limit_ms]
        for trial in sorted(over, key=lambda trial: -trial.top1)[:SEEDS]:
            self.trim(role, trial.spec, limit_ms, trimming)
        return problem

    def shared_rows(self, role: str, stage: str, problem: Problem, trials: int) -> list[Row]:
        """The rows that workers evaluated together: processes of this machine, or whoever has the same storage.

        Their common study keeps the first one's limit, for each machine's own measurements say a little else.
        """
        request = self.request
        storage = request.storage or self.run.path / SHARED_LOG
        name = "/".join(filter(None, (request.study, role, stage)))
        study = open_study(storage, name)
        wanted = {
            "space": problem.space.name,
            "scales": [list(scale) for scale in problem.space.scales],
            **{key: getattr(request, key) for key in SHARED_ARGUMENTS},
        }
        if "search" not in study.user_attrs:
            study.set_user_attr("limit_ms", problem.budget_ms)
            study.set_user_attr("search", wanted)
        elif study.user_attrs["search"] != wanted:
            keys = [key for key, value in wanted.items() if study.user_attrs["search"].get(key) != value]
            raise NasError(f"the study {request.study} is of another search ({', '.join(keys)}); name another --study")
        limit_ms = study.user_attrs["limit_ms"]
        shared = (request, self.run.path, problem.latency, limit_ms, self.budgets[role], storage, name, trials)
        here = f"{platform.node()}-{os.getpid()}"
        if request.workers > 1:
            spawn = multiprocessing.get_context("spawn")
            names = [f"{here}-{number}" for number in range(1, request.workers + 1)]
            children = {worker: spawn.Process(target=share, args=(*shared, worker), daemon=True) for worker in names}
            for child in children.values():
                child.start()
            while children:
                for worker, child in list(children.items()):
                    child.join(0.2)
                    if child.exitcode is not None:
                        del children[worker]
                        if child.exitcode and retry_trials_of(study, worker):
                            self.console.say(f"warning: worker {worker} died; its trial is done again")
        share(*shared, here)  # what is left, where all died; the whole, where there are no children
        rows, scores = finished(study, problem)
        if self.trains and request.objective == "top1":
            self.estimator.take(problem.space.decode([np.array(row) for row in rows]), scores)
        return rows

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
        keeps = np.array([self.request.keeps_limits(spec) for spec in specs])
        return np.where(keeps, self.prices.predicted_ms(specs), np.inf)

    def candidates(self, role: str, limit_ms: float, attempt: int) -> list[LoggedTrial]:
        """Networks predicted within the limit that were logged by then, the most accurate first, each once.

        What a run that was stopped had logged beyond that does not count yet, so that it goes on alike.
        """
        stages = {stage for earlier in range(attempt + 1) for stage in self.stages(earlier)}
        trials = [trial for trial in self.run.trials(role) if trial.stage in stages]
        kept = [trial for trial in trials if trial.latency_ms <= limit_ms and self.request.keeps_limits(trial.spec)]
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


def open_runtime(name: str, threads: int, precision: str, console: Console) -> Runtime:
    """A runtime by name. Raises NasError for what is unknown or not installed; warns of more threads than cores."""
    runtime: Runtime = resolve("runtime", name, RUNTIMES)(threads=threads, precision=precision)
    cores = len(allowed_cores()) or os.cpu_count() or 1
    if threads > cores:
        plural = "s" if cores > 1 else ""
        console.say(
            f"warning: {threads} threads wait for each other on {cores} core{plural}: times will be long and differ "
            f"from run to run; --threads {cores} is the most that makes sense here"
        )
    return runtime


def open_table(
    path: str | None,
    runtime_name: str,
    threads: int = 1,
    console: Console | None = None,
    *,
    precision: str = "float32",
    allow_other_device: bool = False,
) -> LatencyTable:
    """The table to use: the one named, this device's own if there is one, else a new one.

    Raises NasError for a table that is damaged, of another device unless that is allowed, or of another runtime,
    threads or precision. Of another device's the runtime need not be installed here.
    """
    console = console or Silent()
    if path is not None and allow_other_device:
        table = LatencyTable.load(path)
        if table.other_device:
            _check_runtime(table, runtime_name, threads, precision)
            return table
    runtime = open_runtime(runtime_name, threads, precision, console)
    fresh = new_table(runtime)
    default = fresh.default_path()
    if path is None and not default.exists():
        return fresh
    table = LatencyTable.load(path or default)
    table.check_device()
    _check_runtime(table, runtime_name, threads, precision)
    of = table.runtime
    if of.version != runtime.version:
        console.say(
            f"warning: {table.path} was measured with {runtime.name} {of.version}, here is "
            f"{runtime.version}; `python -m nas.measure --check` tells whether it still holds"
        )
    return table


def _check_runtime(table: LatencyTable, name: str, threads: int, precision: str) -> None:
    """Raises NasError, with the flag to give, unless the table is of this runtime."""
    of = table.runtime
    for flag, wanted, has in (
        ("--runtime", name, of.name),
        ("--threads", threads, of.threads),
        ("--precision", precision, of.precision),
    ):
        if wanted != has:
            raise NasError(f"{table.path} is of {of}; ask for that with {flag} {has}, or name another file")


def published_networks() -> list[PublishedResult]:
    """The published networks that a run is compared with: each once, with its first published figure."""
    wanted = ("mobilenet_v3", "mobilenet_v2", "mnasnet_a1", "ofa_", "hardcorenas_")
    first: dict[str, PublishedResult] = {}
    for result in published_results():
        plain = "@" not in result.spec.name and "," not in result.spec.name and "minimal" not in result.spec.name
        if plain and result.spec.name.startswith(wanted):
            first.setdefault(result.spec.name, result)
    return list(first.values())


def search(request: Request, out: Path, *, resume: bool = False, console: Console | None = None) -> RunFolder:
    """Finds the most accurate networks within the budget and leaves a run's folder behind.

    Raises NasError for what the user can mend; what was finished by then is kept, and `resume` goes on from it.
    """
    console = console or Silent()
    request.check()
    estimator = request.load_estimator(out)
    table = open_table(
        request.table,
        request.runtime,
        request.threads,
        console,
        precision=request.precision,
        allow_other_device=request.allow_other_device,
    )
    by_kind = {kind: _searchable(table, request.space(kind), console) for kind in request.kinds}
    # Who works on it, and where they meet, can change when a run is resumed; a URL can hold a password.
    arguments = {key: value for key, value in asdict(request).items() if key not in ("workers", "storage", "study")}
    run = RunFolder(out, arguments, resume=resume)
    prices = Prices(table, console, request.seed)
    state = Search(request, prices, estimator, run, console)
    for note in state.notes:
        console.say(f"note: {note}")
    begun = time.monotonic()
    published = [result for result in published_networks() if prices.knows(result.spec)]
    prices.whole_ms([result.spec for result in published], "published networks")
    if request.front:
        state.budgets = _over_the_range(state, by_kind)
    spaces = {role: by_kind[kind_of(role)] for role in state.budgets}
    try:
        _say_where_things_stand(state, spaces)
    except NasError:
        if not resume:
            run.discard()  # the same command with a budget that can be kept finds its folder free
        raise
    for role, space in spaces.items():
        spaces[role] = at = space.at(state.scales(role, space))
        prices.measure_space(at, f"latency table of {role}")
    run.add_seconds("table", begun)
    begun = time.monotonic()
    found = {}
    for role, space in spaces.items():
        if request.objective == "mnasnet":
            found[role] = state.find_rewarded(role, space)
        else:
            found[role] = state.find_predicted(role, space) if table.other_device else state.find(role, space)[0]
    run.add_seconds("search", begun)
    _finish(state, found, published)
    return run


def make_problem(request: Request, estimator: Any, prices: BlockSums, limit_ms: float, target_ms: float) -> Problem:
    """What a strategy is given: a limit on latency, and the target of a reward that takes latency into account."""
    space = prices.space
    score, terms = estimator.compile(space), quick(estimator).terms(space)
    same = quick(estimator) is estimator
    problem = Problem(
        space, prices, score, limit_ms, terms if same else None, request.limits(space), start=None if same else terms
    )
    if request.objective == "top1":
        return problem
    # What is exact for a budget sweeps budgets from the target outwards: the best reward of a front.
    fastest = fastest_ms(prices, problem.others)
    factors = sorted(np.geomspace(1 / 4, 4, SWEEPS + 1), key=lambda factor: abs(np.log(factor)))
    return replace(
        problem,
        score=lambda codes: mnasnet_reward(score(codes), prices(codes), target_ms, request.reward_w),
        sweep=tuple(max(fastest, target_ms * float(factor)) for factor in factors),
    )


def mnasnet_reward(top1: Any, latency_ms: Any, target_ms: float, w: float) -> Any:
    """ACC * (LAT / TARGET)^w (arXiv 1807.11626, equation 2); numbers or arrays."""
    return top1 * (latency_ms / target_ms) ** w


def share(
    request: Request,
    folder: Path,
    prices: BlockSums,
    limit_ms: float,
    target_ms: float,
    storage: str | Path,
    name: str,
    trials: int,
    worker: str,
) -> None:
    """What a worker does; all it needs can be sent to another process."""
    estimator = request.load_estimator(folder, max(1, (os.cpu_count() or 1) // request.workers))
    problem = make_problem(request, estimator, prices, limit_ms, target_ms)
    strategy = resolve("strategy", request.strategy, STRATEGIES)
    work(open_study(storage, name), problem, strategy, trials=trials, seed=request.seed, worker=worker)


def _over_the_range(state: Search, spaces: Mapping[str, SearchSpace]) -> dict[str, float]:
    """The budgets of a front: evenly spaced in their logarithms, over the feasible range of each kind."""
    kept: dict[str, float] = state.run.manifest.setdefault("front_ms", {})
    if not kept:
        for kind, space in spaces.items():
            low, high = feasible_ms(state.prices.anchors(space))
            low *= LEAST_OF_FRONT / (1 - NOISE)
            for budget_ms in np.geomspace(low, max(low, high), state.request.front):
                kept.setdefault(role_name(kind, float(budget_ms)), round(float(budget_ms), 4))
        state.run.save()
    return kept


def _searchable(table: LatencyTable, space: SearchSpace, console: Console) -> SearchSpace:
    """The space at the scales whose rows there are, or can be measured. Raises NasError naming a row if at none."""
    if not table.other_device:
        return space
    scales = covered_scales(table, space)
    if not scales:
        raise table.lacks(table.missing(space_parts(space, table.num_classes))[0])
    if len(scales) < len(space.scales):
        console.say(f"{table.path} has all rows of {len(scales)} of the {len(space.scales)} scales of {space.name}")
    return space.at(scales)


def _rounded_up(milliseconds: float) -> str:
    return f"{np.ceil(milliseconds * 100) / 100:g}"


def _say_where_things_stand(state: Search, spaces: Mapping[str, SearchSpace]) -> None:
    """The feasible range, before anything is searched. Raises NasError for a budget below it."""
    table, request, say = state.table, state.request, state.console.say
    say(f"device: {table.device.cpu}, {table.runtime}")
    if table.fidelity:
        say(f"table: checked {table.fidelity['date']} against {fidelity_text(table.fidelity)}")
    device = "that device" if table.other_device else "this device"
    for role, space in spaces.items():
        budget = state.budgets[role]
        low, high = feasible_ms(state.prices.anchors(space))
        say(f"{role}: {space.name} spans {low:.2f} to {high:.2f} ms on {device}; budget {budget:.3g} ms")
        if (1 - NOISE) * budget < low:
            own = kind_of(role) == "small" and (request.only is None or request.small_budget_ms is not None)
            flag = "--small-budget-ms" if own else "--budget-ms"
            hint = " (or search Large alone with --only large)" if own and request.only is None else ""
            raise NasError(
                f"no network of {space.name} is as fast as {budget:.3g} ms on {device}; the smallest feasible "
                f"budget is {flag} {_rounded_up(low / (1 - NOISE))}{hint}"
            )
        if budget >= high:
            say(f"{role}: the budget does not bind; the most accurate network of the space is looked for")
        entry = state.run.manifest["roles"].setdefault(role, {})
        entry |= {"space": space.name, "budget_ms": budget, "feasible_ms": [low, high], "binds": budget < high}
    for spec in map(published_spec, COMPARED):
        if state.prices.knows(spec):
            say(f"published {spec.name}: {float(state.prices.whole_ms([spec], spec.name)[0]):.2f} ms")


def _finish(state: Search, found: dict[str, ArchSpec], published: Sequence[PublishedResult]) -> None:
    """Measures what is compared in one go, where that can be, and writes the files of the run."""
    run, table = state.run, state.table
    by_id: dict[str, Measured] = {}
    compared = [result for result in published if result.spec.name in COMPARED]
    if not table.other_device:
        parts = [part for name in COMPARED for part in parts_of(published_spec(name))]
        state.prices.measure(parts, "published networks")
        compared = _compared(state, found, published)
        by_id = _measured_together(state, found, compared)
    found = {r: spec.replace(name=role_name(kind_of(r), state.budgets[r])) for r, spec in found.items()}
    if state.trains:  # the others would each take a training
        published = compared
    networks = [_network(state, f"found {role}", spec, by_id.get(spec.id), role, None) for role, spec in found.items()]
    for result in published:
        measurement = by_id.get(result.spec.id)
        networks.append(_network(state, result.spec.name, result.spec, measurement, None, result))
    run.manifest["networks"] = networks
    run.manifest["table"] = _table_summary(table)
    here = Device.this()
    run.manifest["machine"] = {"cpu": here.cpu, "cores": here.cores, "os": here.os}
    run.manifest["notes"] = state.notes
    run.manifest["estimator"] = {"name": state.estimator.name, "effort": state.estimator.effort}
    for network, (role, spec) in zip(networks, found.items(), strict=False):
        spec.save(run.path / f"{role}.json", _results(state, role, network))
    _write_tables(state)
    run.manifest["finished"] = now()
    run.save()


def _measured_together(
    state: Search, found: dict[str, ArchSpec], shown: Sequence[PublishedResult]
) -> dict[str, Measured]:
    """The comparison, measured in the same rounds; a found network that is over its budget in it is trimmed on."""
    for _ in range(TRIM_ROUNDS):
        specs = [*found.values(), *(result.spec for result in shown)]
        with state.console.progress("measuring the comparison") as progress:
            measured = measure_latency(specs, table=state.table, on_progress=lambda share: progress(share, ""))
        by_id = dict(zip([spec.id for spec in specs], measured, strict=True))
        budgets = state.budgets
        over = [role for role, spec in found.items() if by_id[spec.id].normalised_ms > (1 - NOISE / 2) * budgets[role]]
        if any(m.disturbed for m in measured):
            state.console.say(
                "warning: other work slowed this machine all the while; times can be a tenth off, and the networks "
                "smaller than need be. Search again when it is quiet"
            )
        if not over or state.request.objective == "mnasnet":
            return by_id
        for role in over:
            spec, budget = found[role], (1 - NOISE) * budgets[role]
            found[role] = state.trimmed_until_measured(role, spec, by_id[spec.id], budget)
    raise NasError("measurements on this machine do not repeat; close what else runs on it and --resume")


def _compared(state: Search, found: dict[str, ArchSpec], published: Sequence[PublishedResult]) -> list[PublishedResult]:
    """Published V3-Large and -Small, and for each found network the nearest Once-for-All network in latency."""
    shown = {result.spec.name: result for result in published if result.spec.name in COMPARED}
    rivals = [result for result in published if result.spec.name.startswith("ofa_")]
    for spec in found.values():
        latency = float(state.prices.predicted_ms([spec])[0])
        nearest = min(rivals, key=lambda r: abs(np.log(state.table.part_ms(NetworkPart(r.spec)) / latency)))
        shown[nearest.spec.name] = nearest
    return list(shown.values())


def _network(
    state: Search,
    name: str,
    spec: ArchSpec,
    measured: Measured | None,
    role: str | None,
    result: PublishedResult | None,
) -> dict[str, Any]:
    """A row of the comparison, as run.json has it."""
    table = state.table
    cost, estimate = count_cost(spec), state.estimator.estimate([spec])
    whole = None
    if measured is not None:
        whole = round(measured.normalised_ms, 4)
    elif NetworkPart(spec).key in table.rows:
        whole = round(table.part_ms(NetworkPart(spec)), 4)
    priced = not table.missing(parts_of(spec))
    figure = None if state.trains else result  # what was published is of other images
    estimated_top1, estimated_std = round(float(estimate.top1[0]), 3), round(float(estimate.std[0]), 3)
    return {
        "name": name,
        "kind": "published" if result else "found",
        "role": role,
        "spec": spec.to_dict(),
        "measured_ms": whole,
        "raw_ms": None if measured is None else round(measured.median_ms, 4),
        "quartiles_ms": None if measured is None else [round(q, 4) for q in measured.quartiles_ms],
        "predicted_ms": round(float(table.predict_ms([spec])[0]), 4) if priced else None,
        "macs": cost.macs,
        "params": cost.params,
        "top1": figure.top1 if figure else estimated_top1,
        "top1_std": None if figure else estimated_std,
        "top1_source": "published" if figure else "estimated",
        "estimated_top1": estimated_top1,
        "estimated_std": estimated_std,
        "extrapolated": bool(estimate.extrapolated[0]),
        "source": figure.source if figure else f"{state.estimator.name}: {state.estimator.effort}",
        "breakdown": [[part, round(ms, 5)] for part, ms in table.breakdown(spec)] if priced else None,
    }


def _results(state: Search, role: str, network: dict[str, Any]) -> dict[str, Any]:
    """What is written beside a found architecture."""
    table, cost = state.table, count_cost(ArchSpec.from_dict(network["spec"]))
    return {
        "role": role,
        "budget_ms": state.budgets[role],
        "latency": {
            "measured_ms": network["measured_ms"],
            "predicted_ms": network["predicted_ms"],
            "raw_ms": network["raw_ms"],
            "unit": "normalised milliseconds: as fast as the device was when its table was made",
            "device": table.device.cpu,
            "runtime": str(table.runtime),
            "table": str(table.path),
            "other_device": table.other_device,
        },
        "accuracy": {
            "top1": network["top1"],
            "std": network["top1_std"],
            "source": "estimated",
            "estimator": state.estimator.name,
            "effort": state.estimator.effort,
            "extrapolated": network["extrapolated"],
        },
        "notes": state.notes,
        "cost": cost._asdict() | {"param_bytes": cost.param_bytes, "memory_bytes": cost.memory_bytes},
    }


def _table_summary(table: LatencyTable) -> dict[str, Any]:
    return {
        "file": str(table.path),
        "device": table.device.cpu,
        "other_device": table.other_device,
        "runtime": f"{table.runtime.name} {table.runtime.version}",
        "threads": table.runtime.threads,
        "precision": table.runtime.precision,
        "rows": len(table.rows),
        "sentinel": table.sentinel.spec.name,
        "sentinel_ms": round(table.sentinel_ms, 4),
        "fidelity": table.fidelity,
    }


def _write_tables(state: Search) -> None:
    """trials.csv, front.csv and table_rows.csv."""
    run = state.run
    trials = [trial for role in state.budgets for trial in run.trials(role)]
    run.write_csv("trials.csv", (trial.row() for trial in trials), COLUMNS)
    front = []
    for kind in state.request.kinds:
        own = [trial for trial in trials if kind_of(trial.role) == kind]
        front += [own[i] for i in front_indices([t.latency_ms for t in own], [t.top1 for t in own])]
    run.write_csv("front.csv", (trial.row() for trial in front), COLUMNS)
    columns = (
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
    )
    parts = {part.key: part for trial in trials for part in parts_of(trial.spec)}
    for role in state.budgets:
        scales = [Scale(*scale) for scale in run.manifest["roles"][role]["scales"]]
        parts |= {part.key: part for part in space_parts(state.request.space(role).at(scales))}
    run.write_csv(
        "table_rows.csv", (_table_row(state.table, key, part) for key, part in sorted(parts.items())), columns
    )


def _table_row(table: LatencyTable, key: str, part: StemPart | BlockPart | HeadPart) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": key,
        "macs": sum(layer.macs for layer in part.layers()),
        "ms": round(table.part_ms(part), 6),
    }
    if isinstance(part, StemPart):
        return row | {"op": "stem", "kernel": 3, "out": part.stem.out, "stride": 2, "activation": part.stem.activation}
    row |= {"in_channels": part.in_channels, "in_size": part.in_size}
    if isinstance(part, HeadPart):
        return row | {"op": "head", "out": part.num_classes, "activation": part.head.activation}
    block = part.block
    fields = ("op", "kernel", "expanded", "out", "stride", "se", "activation")
    return row | {field: getattr(block, field) for field in fields}
