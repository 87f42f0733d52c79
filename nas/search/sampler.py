"""An Optuna sampler for expensive objectives of categorical and integer parameters, within hard linear limits.

    sampler = nas.AdditiveSampler(
        {"width": IntDistribution(16, 64, step=16), "kernel": CategoricalDistribution([3, 5])},
        limits=[nas.LinearLimit({"width": 0.5, "kernel": {3: 4, 5: 11}}, most=40)],
    )
    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.optimize(objective, n_trials=60)

Each trial fits an additive surrogate to the finished ones, samples a sum over choices from its posterior (Thompson
sampling), and asks an integer program for the best new point of that sum within all limits. It is the regression and
the solver of the strategy `surrogate`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.accuracy.ridge import Ridge
from nas.errors import NasError
from nas.search.choices import Bound, Choices, Point, Sums, Values, best_point, value_of

YOUNGEST, BEST = 400, 100  # of the finished trials: those that the surrogate is fitted to
_FIXED = "fixed_params"  # system attribute in which Optuna keeps the values of an enqueued trial
_ANNOUNCED = "additive:point"  # system attribute of a trial: its proposal, for other processes
_RACES = 10  # times that another process may announce the same point at the same time


@dataclass(frozen=True)
class LinearLimit:
    """A sum over parameters that must be at most `most`.

    `costs` has for each parameter a mapping from its choices to costs, or a function of the choice, or a number that an
    integer is multiplied by. A parameter that is not there costs nothing.
    """

    costs: Mapping[str, Values]
    most: float
    name: str = field(default="limit", kw_only=True)  # for messages


class AdditiveSampler(BaseSampler):
    """Thompson sampling of an additive surrogate, solved exactly within linear limits.

    - It takes one objective, either direction, and no float parameters.
    - No proposal is over a limit, and none is a duplicate as long as there are new points. Then the study is stopped.
    - `start` is a sum that rises with the objective as far as is known, such as the cost: values like a limit's.
    - Failed and pruned trials are not learned from, and not proposed again. Enqueued values are kept.
    - Several processes can share a storage. Points that others evaluate are left out.
    - A proposal depends on the seed, the number of the trial and the trials before.

    Without `distributions` they are taken from the finished trials, so the first trial is random. Limits and a start
    need distributions. Raises NasError for parameters of another kind, and for limits that nothing keeps.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution] | None = None,
        limits: Sequence[LinearLimit] = (),
        start: Mapping[str, Values] | None = None,
        seed: int | None = None,
    ) -> None:
        if distributions is None and (limits or start):
            raise NasError("limits and a start need the distributions of all parameters: pass them first")
        self._limits, self._start = tuple(limits), start or {}
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._random = RandomSampler(seed=self._seed)
        self._given = None if distributions is None else dict(distributions)
        if self._given:
            self._space_of(self._given).check(self._limits)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the distributions that were given, or those that the finished trials have in common."""
        if len(study.directions) > 1:
            raise NasError(f"the study has {len(study.directions)} objectives; AdditiveSampler takes one")
        if self._given is not None:
            return self._given
        common = intersection_search_space(study.get_trials(deepcopy=False), include_pruned=True)
        return {name: d for name, d in sorted(common.items()) if not isinstance(d, FloatDistribution)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the proposal for a trial, and announce it to other processes.

        Raises NasError if nothing keeps the limits with the values that the trial was enqueued with.
        """
        if not search_space:
            return {}
        space = self._space_of(search_space)
        fixed = space.choices.indices(trial.system_attrs.get(_FIXED, {}))
        generator = np.random.default_rng([self._seed, trial.number])
        point: Point | None = None
        for _ in range(_RACES):
            others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
            taken = space.taken(others)
            if point is not None and point not in taken:
                break
            # The first time, or after another process announced this point while it was computed.
            gains = space.sampled_gains(others, study.direction, generator)
            new = best_point(gains, space.bounds, taken, fixed)
            point = new or point or best_point(gains, space.bounds, (), fixed)
            if point is None:
                raise NasError(f"trial {trial.number} was enqueued with values that no point within the limits has")
            announced = json.dumps(space.choices.internal(point))
            study._storage.set_trial_system_attr(trial._trial_id, _ANNOUNCED, announced)
            if new is None:
                break
        assert point is not None
        return space.choices.params(point)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value for a parameter that no finished trial has.

        Raises NasError for a float, and where distributions were given but not this one.
        """
        if self._given is not None and param_distribution != self._given.get(param_name):
            known = self._given.get(param_name, "none of it")
            raise NasError(
                f"the objective asks for {param_name!r} as {param_distribution}, AdditiveSampler was given {known}: "
                "pass it the distributions that the objective asks for"
            )
        Choices({param_name: param_distribution})  # which refuses what the sampler cannot take
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Stop the study if no new point is left."""
        distributions = self.infer_relative_search_space(study, trial)
        trials = study.get_trials(deepcopy=False)
        if not distributions:
            return
        if self._given is None and any(set(other.distributions) - set(distributions) for other in trials):
            return  # trials can differ in what they do not have in common
        space = self._space_of(distributions)
        if not space.has_more(space.taken(trials)):
            with suppress(RuntimeError):  # outside study.optimize there is nothing to stop
                study.stop()

    def _space_of(self, distributions: dict[str, BaseDistribution]) -> _Space:
        return _Space(distributions, self._limits, self._start)


class _Space:
    """The choices of a study with the limits and the start as sums over them."""

    def __init__(
        self, distributions: Mapping[str, BaseDistribution], limits: Sequence[LinearLimit], start: Mapping[str, Values]
    ) -> None:
        self.choices = Choices(distributions)
        self.bounds = [Bound(self.choices.sums(limit.costs), limit.most) for limit in limits]
        known = self.choices.sums(start)
        std = float(np.sqrt(sum(values.var() for values in known))) or 1.0
        self.known = [(values - values.mean()) / std for values in known]  # of random points: mean 0, deviation 1

    def check(self, limits: Sequence[LinearLimit]) -> None:
        """Raise NasError if nothing keeps the limits."""
        for limit, bound in zip(limits, self.bounds, strict=True):
            least = sum(float(values.min()) for values in bound.sums)
            if least > bound.most:
                raise NasError(f"nothing keeps {limit.name!r}: the least is {least:g}, allowed are {limit.most:g}")
        if best_point(self.known, self.bounds) is None:
            names = ", ".join(repr(limit.name) for limit in limits)
            raise NasError(f"nothing keeps all limits together ({names}): raise one of them")

    def taken(self, trials: Sequence[FrozenTrial]) -> set[Point]:
        """Return the points that trials had, have, or wait for."""
        found = (self._point(trial) for trial in trials)
        return {point for point in found if point is not None}

    def has_more(self, taken: set[Point]) -> bool:
        """Return whether there is a point within the limits that is not taken."""
        for point in taken:  # a neighbour is found sooner than by the solver
            for other in self.choices.neighbours(point):
                if other not in taken and all(bound.keeps(other) for bound in self.bounds):
                    return True
        return best_point([np.zeros(len(values)) for values in self.known], self.bounds, taken) is not None

    def _point(self, trial: FrozenTrial) -> Point | None:
        if trial.state == TrialState.RUNNING and _ANNOUNCED in trial.system_attrs:
            return self.choices.announced(json.loads(trial.system_attrs[_ANNOUNCED]))
        return self.choices.point(trial.params or trial.system_attrs.get(_FIXED, {}))

    def sampled_gains(
        self, trials: Sequence[FrozenTrial], direction: StudyDirection, generator: np.random.Generator
    ) -> Sums:
        """Return a sum over choices, sampled from the surrogate's posterior. Higher is better."""
        sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
        points, values = [], []
        for trial in trials:
            if trial.state == TrialState.COMPLETE and trial.value is not None and np.isfinite(trial.value):
                point = self._point(trial)
                if point is not None:
                    points.append(point)
                    values.append(sign * trial.value)
        ridge = Ridge(self.choices.columns)
        if len(points) > 1:
            order = np.argsort(-np.array(values), kind="stable")
            kept = sorted({*order[:BEST].tolist(), *range(len(points))[-YOUNGEST:]})
            learned = [points[i] for i in kept]
            known = sign * np.array([value_of(self.known, point) for point in learned])
            ridge.fit(known, self.choices.indicators(learned), _stretched(np.array(values)[kept]))
        _, slope, _, corrections = ridge.sampled_coefficients(generator)
        own = self.choices.weighted(corrections)
        return [sign * slope * known + added for known, added in zip(self.known, own, strict=True)]


def _stretched(values: np.ndarray) -> np.ndarray:
    """Return values, shape (n,), with their gaps to the best on a logarithmic scale.

    Differences among the good ones then count as much as those among the poor, which can be many times larger.
    """
    gaps = values.max() - values
    unit = float(np.median(gaps)) or float(gaps.mean()) or 1.0
    return -np.log(gaps / unit + 0.1)
