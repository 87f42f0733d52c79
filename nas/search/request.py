"""Define the request of a search: the networks that somebody wants found, and under which conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nas.accuracy import ESTIMATORS, ON_IMAGES, REPLACEMENT, TRAINING, load_estimator
from nas.accuracy.estimator import Estimator
from nas.arch.cost import count_cost
from nas.arch.loading import load_fingerprinted_space
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.cpu import usable_cores
from nas.errors import NasError, unknown_name
from nas.latency.runtimes import RUNTIMES
from nas.names import resolve
from nas.runs.target import SKELETONS, Target
from nas.search.limits import MEGABYTE, Limit, cost_limits
from nas.search.strategies import STRATEGIES
from nas.search.strategies.base import Strategy

SMALL_SHARE = 15.8 / 51  # MobileNetV3-Small's latency over Large's on a Pixel 1 (arXiv 1905.02244, table 3)
OBJECTIVES = ("top1", "mnasnet")
SURROGATE = "surrogate"  # the strategy that goes with an estimator that trains networks
SAMPLE = "fashion-mnist-sample"
ESTIMATES = "estimates.jsonl"  # in the folder of a run: the networks that were trained for estimates
PLAIN_RESOLUTION = 224  # of networks whose estimator does not see the resolution
SMALL_IMAGES_SPACE = "mobilenet_v3_small_images"
SMALL_IMAGES_SIDE = 96  # pixels: the largest images that this space is for
# Arguments that can change when a run resumes: they say who works on it and where they meet. A URL can hold a password.
CHANGEABLE = ("loaders", "workers", "storage", "study")
KNOWN = ("images_side",)  # arguments that follow from others


@dataclass(frozen=True, slots=True)
class FrontRequest:
    """Ask for targets over the feasible range of each skeleton, which is known once the device was measured."""

    budgets: int
    skeletons: tuple[str, ...] = SKELETONS


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """The networks that somebody wants found, and under which conditions."""

    targets: tuple[Target, ...] | FrontRequest
    large_space: str = "mobilenet_v3_large"
    small_space: str = "mobilenet_v3_small"
    widths: tuple[float, ...] = ()  # all of the space by default
    resolutions: tuple[int, ...] = ()
    table: str | None = None
    runtime: str = "onnxruntime"
    threads: int = 1
    precision: str = "float32"
    allow_other_device: bool = False  # rest on the predictions of a table that nothing can be measured for here
    estimator: str = "imagenet-prior"
    data: str | None = None  # images that an estimator looks at
    data_dir: str | None = None
    images_side: int | None = None  # pixels, where it is known: else the images are loaded to see it
    loaders: int | None = None  # processes that read images from disk, at most; by default as suits the machine
    minutes: float | None = None  # that a teacher and its replacement blocks may take; by default the estimator's
    teacher: str | None = None  # a trained network of the user's own
    finalists: int | None = None  # networks that are trained before one is chosen
    recipe_level: str | None = None  # the training that estimates speak for; the estimator's own by default
    strategy: str = "exact"
    objective: str = "top1"  # the most accurate within the budget; or "mnasnet", a reward that weighs latency
    reward_w: float = -0.07
    trials: int | None = None  # the strategy's own number by default
    workers: int | None = None  # processes on this machine; by default as `processes` says
    storage: str | None = None  # the URL of a data base, for workers on several machines
    study: str | None = None  # the name under which these work together
    max_params: int | None = None
    max_memory_mb: float | None = None  # of parameters and activations, as `count_cost(...).memory_bytes`
    seed: int = 0

    @property
    def skeletons(self) -> tuple[str, ...]:
        """Return the skeletons that are searched."""
        if isinstance(self.targets, FrontRequest):
            return self.targets.skeletons
        return tuple(dict.fromkeys(target.skeleton for target in self.targets))

    @property
    def shares_work(self) -> bool:
        """Return whether several processes evaluate the trials."""
        return self.storage is not None or self.processes > 1

    @property
    def processes(self) -> int:
        """Return how many processes of this machine evaluate trials.

        By default one does, which may train networks side by side. With a storage, whose trials are taken one by one,
        as many train networks as this machine trains at a time, so that each has one thread on any number of cores.
        """
        if self.workers is None and self.storage is not None and self.estimator == TRAINING:
            from nas.accuracy.short_training import ShortTraining  # it loads torch, as the estimator does

            return ShortTraining.most_at_a_time()
        return self.workers or 1

    def space(self, skeleton: str) -> SearchSpace:
        """Return the space of a skeleton at the widths and resolutions that are asked for.

        Raises NasError for a width or resolution that the space lacks.
        """
        space, _ = self._spaces[skeleton]
        resolutions = self.resolutions
        if self.data and not resolutions:
            resolutions = (self._resolution_of(space),)
        if not self.widths and not resolutions:
            return space
        return space.at([Variant(w, r) for w in self.widths or space.widths for r in resolutions or space.resolutions])

    def _resolution_of(self, space: SearchSpace) -> int:
        """Return the resolution at which networks of a space are searched whose estimator does not see it.

        It is 224 if the space has it, else the smallest that does not shrink the images.
        """
        if PLAIN_RESOLUTION in space.resolutions:
            return PLAIN_RESOLUTION
        side, largest = self.images_side or self._loaded_side, max(space.resolutions)
        return min((known for known in space.resolutions if known >= (side or largest)), default=largest)

    @cached_property
    def _loaded_side(self) -> int | None:
        from nas.accuracy.short_training import images_side  # it loads torch, as the estimator does

        assert self.data is not None
        return images_side(self.data, self.data_dir)

    @cached_property
    def _spaces(self) -> dict[str, tuple[SearchSpace, str]]:
        """Return each skeleton's space and its fingerprint. They are loaded once: later edits do not reach a search."""
        return {skeleton: load_fingerprinted_space(self._space_name(skeleton)) for skeleton in self.skeletons}

    def _space_name(self, skeleton: str) -> str:
        return self.large_space if skeleton == "large" else self.small_space

    @cached_property
    def images_content(self) -> str | None:
        """Return the images: the fingerprint of a folder's, wherever it lies; or the name of a data set."""
        if self.data is None:
            return None
        from nas.accuracy.short_training import images_content  # it loads torch, as the estimator does

        return images_content(self.data, self.data_dir)

    def load_strategy(self) -> Strategy:
        """Return the strategy."""
        strategy: Strategy = resolve("strategy", self.strategy, STRATEGIES)
        return strategy

    def load_estimator(
        self, folder: Path, say: Callable[[str], None] = lambda text: None, console: Console | None = None
    ) -> Estimator:
        """Return the estimator. Trainings for it are kept in the folder of the run; `say` is called with failures.

        One process trains networks side by side, unless a single worker was asked for. Of several that share trials
        each trains a network at a time, with its share of the cores. What is learned from replacement blocks is kept
        for all runs, and `console` shows how it is learned.
        """
        if self.estimator == REPLACEMENT:
            return self._load_replacement(console)
        if self.estimator != TRAINING:
            return load_estimator(self.estimator, self.recipe_level)
        make = resolve("estimator", TRAINING, ESTIMATORS)
        at_a_time, threads = self.workers, 1
        if self.shares_work:
            at_a_time, threads = 1, max(1, usable_cores() // self.processes)
        estimator: Estimator = make(
            self.data,
            self.data_dir,
            loaders=self.loaders,
            log=folder / ESTIMATES,
            seed=self.seed,
            at_a_time=at_a_time,
            threads=threads,
            say=say,
        )
        return estimator

    def _load_replacement(self, console: Console | None) -> Estimator:
        from nas.accuracy.replacement import MINUTES, OwnData, ReplacementBlocks  # it loads torch

        assert self.data is not None
        own_data = OwnData(
            source=self.data,
            data_dir=self.data_dir,
            loaders=self.loaders,
            minutes=MINUTES if self.minutes is None else self.minutes,
            teacher=self.teacher,
            seed=self.seed,
        )
        estimator = ReplacementBlocks(own_data, console)
        for skeleton in self.skeletons:
            estimator.check(self.space(skeleton))
        return estimator

    def limits(self, space: SearchSpace, num_classes: int) -> tuple[Limit, ...]:
        """Return the limits beside latency, on networks with that many classes."""
        return cost_limits(space, self.max_params, self.max_memory_mb, num_classes)

    def keeps_limits(self, spec: ArchSpec, num_classes: int) -> bool:
        """Return whether a network with that many classes keeps the limits beside latency."""
        cost = count_cost(spec, num_classes)
        return (self.max_params is None or cost.params <= self.max_params) and (
            self.max_memory_mb is None or cost.memory_bytes <= self.max_memory_mb * MEGABYTE
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that a run rests on, spaces and folders of images by their content."""
        arguments = {key: value for key, value in asdict(self).items() if key not in (*CHANGEABLE, *KNOWN, "targets")}
        spaces = {f"{s}_space": f"{self._space_name(s)} ({self._spaces[s][1]})" for s in self.skeletons}
        if self.images_content != self.data:
            arguments["data"] = f"{self.data} ({self.images_content})"
        return arguments | spaces | _targets_as_given(self.targets)

    def check(self) -> None:
        """Raise NasError for the first name or number that is wrong, before anything is measured."""
        self._check_targets()
        for category, name, known in (
            ("runtime", self.runtime, RUNTIMES),
            ("estimator", self.estimator, ESTIMATORS),
            ("strategy", self.strategy, STRATEGIES),
        ):
            resolve(category, name, known)
        self._check_estimator()
        if self.objective not in OBJECTIVES:
            raise unknown_name("objective", self.objective, OBJECTIVES)
        if not -math.inf < self.reward_w < 0:
            raise NasError(
                f"--reward-w is {self.reward_w:g}; it must be below 0, so that a slow network gets a lower reward"
            )
        if (self.storage is None) != (self.study is None):
            raise NasError("--storage and --study go together: all who name the same two work on one search")
        for skeleton in self.skeletons:
            self.space(skeleton)  # raises for one that does not load

    def check_limits(self, num_classes: int) -> None:
        """Raise NasError for a limit that no network with that many classes keeps."""
        for skeleton in self.skeletons:
            space = self.space(skeleton)
            _check_limits(space, self.limits(space, num_classes))

    def _check_targets(self) -> None:
        if isinstance(self.targets, FrontRequest):
            return
        for target in self.targets:
            if not 0 < target.budget_ms < math.inf:
                name = f"budget of {target.skeleton.capitalize()}"
                raise NasError(f"the {name} is {target.budget_ms:g} ms; it must be a finite number above 0")
        names = [target.name for target in self.targets]
        if twice := next((target for target in self.targets if names.count(target.name) > 1), None):
            raise NasError(
                f"two budgets of {twice.skeleton.capitalize()} are (nearly) {twice.budget_ms:.3g} ms; name each once"
            )

    def _check_additive(self, estimator: Estimator) -> None:
        """Raise NasError for an estimator by which no variants can be chosen."""
        for skeleton in self.skeletons:
            space = self.space(skeleton)
            if (estimator.proxy or estimator).additive_model(space.at(space.variants[:1])) is None:
                raise NasError(
                    f"the estimator {self.estimator} has neither an additive model nor a proxy with one; a search "
                    "needs it to choose widths and resolutions"
                )

    def _check_estimator(self) -> None:
        """Raise NasError if the estimator lacks an argument that it needs, or gets one that it does not use."""
        if self.estimator in ON_IMAGES and self.data is None:
            raise NasError(
                f"--estimator {self.estimator} trains networks: name the images with --data, such as {SAMPLE}"
            )
        if self.estimator not in ON_IMAGES and (self.data or self.data_dir):
            raise NasError(f"--data is for --estimator {' or '.join(ON_IMAGES)}; {self.estimator} looks at no images")
        for flag in ("minutes", "teacher", "finalists"):
            if self.estimator != REPLACEMENT and getattr(self, flag) is not None:
                name = "train-finalists" if flag == "finalists" else flag
                raise NasError(f"--{name} is for --estimator {REPLACEMENT}; leave it out with {self.estimator}")
        if self.estimator not in ON_IMAGES:
            self._check_additive(load_estimator(self.estimator, self.recipe_level))
            return
        if self.recipe_level is not None:
            raise NasError(
                f"--recipe-level belongs to imagenet-prior; {self.estimator} has one training for all networks"
            )
        if len(self.resolutions) > 1:
            raise NasError(
                f"{self.estimator} trains all networks at the same low resolution and cannot choose one: "
                "name a single one with --resolutions, or leave it out"
            )
        if self.estimator == REPLACEMENT:
            if self.teacher and len(self.skeletons) > 1:
                raise NasError("--teacher is a network of one skeleton: add --only large or --only small")
            if self.objective != "top1" and (self.finalists or 0) > 1:
                raise NasError("--train-finalists is for --objective top1; leave it out")
            if self.shares_work:
                raise NasError(
                    f"--workers and --storage are for --estimator {TRAINING}: {REPLACEMENT} trains one teacher for all "
                    "networks, on all cores; leave them out"
                )
            return
        if self.strategy == "exact":
            raise NasError(
                f"--strategy exact needs an accuracy that is a sum over blocks, which that of {TRAINING} is not; "
                f"leave --strategy out ({SURROGATE}), or take tpe"
            )


def targets_of(
    budgets_ms: Sequence[float], small_budget_ms: float | None = None, only: str | None = None
) -> tuple[Target, ...]:
    """Return the targets of budgets for Large, each with its share for Small; `only` names one skeleton.

    Small's budget is `SMALL_SHARE` of Large's unless it is given. Searched alone, Small has the budgets for itself.
    Raises NasError for a budget of Small beside several budgets.
    """
    if small_budget_ms is not None and len(budgets_ms) > 1:
        raise NasError("--small-budget-ms goes with one budget; leave it out, or search with --only small")
    several = len(budgets_ms) > 1
    targets = []
    for skeleton in (only,) if only else SKELETONS:
        for budget_ms in budgets_ms:
            own = skeleton == "small" and (only is None or small_budget_ms is not None)
            if own:
                budget_ms = budget_ms * SMALL_SHARE if small_budget_ms is None else small_budget_ms
            targets.append(Target(skeleton, budget_ms, several, "--small-budget-ms" if own else "--budget-ms"))
    return tuple(targets)


def small_images_side(data: str, data_dir: str | None, resolutions: Sequence[int] = ()) -> int | None:
    """Return the side (pixels) of images if `SMALL_IMAGES_SPACE` is for them, else None.

    It is the largest resolution that is asked for, or that of the images themselves. Raises NasError for images that
    cannot be loaded.
    """
    from nas.accuracy.short_training import images_side  # it loads torch, as the estimator does

    side = max(resolutions) if resolutions else images_side(data, data_dir)
    return side if side is not None and side <= SMALL_IMAGES_SIDE else None


def _targets_as_given(targets: tuple[Target, ...] | FrontRequest) -> dict[str, Any]:
    """Return targets by the flags that asked for them."""
    if isinstance(targets, FrontRequest):
        return {"front": targets.budgets, "only": targets.skeletons[0] if len(targets.skeletons) == 1 else None}
    skeletons = list(dict.fromkeys(target.skeleton for target in targets))
    budgets = {s: [target.budget_ms for target in targets if target.skeleton == s] for s in skeletons}
    given: dict[str, Any] = {"budget_ms": budgets[skeletons[0]]}
    if len(skeletons) == 1:
        return given | {"only": skeletons[0]}
    return given | {"small_budget_ms": budgets["small"]}


def _check_limits(space: SearchSpace, limits: Sequence[Limit]) -> None:
    """Raise NasError for a limit that no network of a space keeps, with the flag of the smallest that one does."""
    for limit in limits:
        least = float(limit.least().min())
        if least > limit.most:
            params = limit.name == "parameters"
            flag = f"--max-params {least:.0f}" if params else f"--max-memory-mb {rounded_up(least / MEGABYTE)}"
            raise NasError(
                f"no network of {space.name} has at most {limit.text(limit.most)}; "
                f"the smallest feasible limit is {flag}"
            )


def rounded_up(value: float) -> str:
    """Return a number rounded up to hundredths, as text."""
    return f"{math.ceil(value * 100) / 100:g}"
