"""What somebody wants found, and whether that can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.accuracy import ESTIMATORS, TRAINING, load_estimator
from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.space import SearchSpace, Variant
from nas.arch.spec import ArchSpec
from nas.errors import NasError, unknown_name
from nas.latency.runtimes import RUNTIMES
from nas.names import resolve
from nas.search.limits import MEGABYTE, Limit, cost_limits
from nas.search.strategies import STRATEGIES

ROLES = ("large", "small")
SMALL_SHARE = 15.8 / 51  # MobileNetV3-Small's latency over Large's on a Pixel 1 (arXiv 1905.02244, table 3)
OBJECTIVES = ("top1", "mnasnet")
FITTED = "fitted"  # the strategy that goes with an estimator that trains networks
SAMPLE = "fashion-mnist-sample"
ESTIMATES = "estimates.jsonl"  # in a run's folder: what networks reached that were trained
PLAIN_RESOLUTION = 224  # of networks whose estimator does not see the resolution


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
        return space.at([Variant(w, r) for w in self.width or space.widths for r in resolutions or space.resolutions])

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
            self.space(kind)  # raises for what is not there

    def check_limits(self, num_classes: int) -> None:
        """Raises NasError for a limit that no network of that many classes, a table's, keeps."""
        for kind in self.kinds:
            _check_limits(self.space(kind), self.limits(self.space(kind), num_classes))

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

    def load_estimator(
        self, folder: Path, threads: int | None = None, say: Callable[[str], None] = lambda text: None
    ) -> Any:
        """The estimator; what is trained for it is kept in the run's folder, and `say` told of what failed."""
        if self.estimator != TRAINING:
            return load_estimator(self.estimator, self.recipe_level)
        training = resolve("estimator", TRAINING, ESTIMATORS)
        return training(self.data, self.data_dir, log=folder / ESTIMATES, seed=self.seed, threads=threads, say=say)

    def limits(self, space: SearchSpace, num_classes: int) -> tuple[Limit, ...]:
        """What else than latency networks of that many classes must keep."""
        return cost_limits(space, self.max_params, self.max_memory_mb, num_classes)

    def keeps_limits(self, spec: ArchSpec, num_classes: int) -> bool:
        """Whether a network of that many classes keeps the limits on its costs."""
        cost = count_cost(spec, num_classes)
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
            flag = f"--max-params {least:.0f}" if params else f"--max-memory-mb {rounded_up(least / MEGABYTE)}"
            raise NasError(
                f"no network of {space.name} has at most {limit.said(limit.most)}; "
                f"the smallest feasible limit is {flag}"
            )


def rounded_up(milliseconds: float) -> str:
    return f"{math.ceil(milliseconds * 100) / 100:g}"
