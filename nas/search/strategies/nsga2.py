"""Optuna's NSGA-II."""

from __future__ import annotations

import random
from collections.abc import Container
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.search.history import History
from nas.search.problem import Problem, Row
from nas.search.strategies.base import Propose, Strategy

Params = dict[str, Any]
POPULATION = 50  # of NSGA-II


def nsga2(problem: Problem) -> Propose:
    """Optuna's NSGA-II on score and latency."""
    decisions = {g.name: CategoricalDistribution(range(len(g.choices))) for g in problem.space.decisions}
    # NSGA-II leaves parameters without a choice to whoever asks.
    open_decisions: dict[str, BaseDistribution] = {n: d for n, d in decisions.items() if not d.single()}
    storage = _Finished()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE], sampler=_NSGAII(0)
    )

    def propose(history: History, rng: random.Random) -> Row:
        for number in range(storage.seen, len(history)):
            values = [float(history.scores[number]), float(history.latencies[number])]
            params = {n: max(0, c) for n, c in zip(decisions, history.rows[number], strict=True) if n in open_decisions}
            storage.finished.append(_frozen(number, params, open_decisions, values))
            storage.seen += 1
            if storage.seen % POPULATION == 0:  # what is no parent is never looked at again
                storage.finished = _NSGAII(0).get_parent_population(study, storage.seen // POPULATION)
        sampler = _NSGAII(rng.getrandbits(31))
        trial = _frozen(len(history), {}, {}, None)
        params = sampler.sample_relative(study, trial, open_decisions)

        def choose(decision: Any) -> int:
            if decision.name in params or decision.name not in open_decisions:
                return int(params.get(decision.name, 0))
            return int(sampler.sample_independent(study, trial, decision.name, decisions[decision.name]))

        return tuple(int(code) for code in problem.space.draw(choose))

    return propose


class _NSGAII(optuna.samplers.NSGAIISampler):
    """Optuna's, with its parents in one order, whether they were just chosen or are remembered by the study."""

    def __init__(self, seed: int) -> None:
        super().__init__(population_size=POPULATION, seed=seed)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        super().get_parent_population(study, generation)
        return super().get_parent_population(study, generation)


class _Finished(InMemoryStorage):
    """A study whose trials are looked at without being copied, as Optuna's own storages do."""

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[FrozenTrial] = []
        self.seen = 0

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self.finished


def _frozen(
    number: int, params: Params, distributions: dict[str, BaseDistribution], values: list[float] | None
) -> FrozenTrial:
    """A trial of NSGA-II's in the generation that its number says."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
        value=None,
        values=values,
        datetime_start=datetime.min,
        datetime_complete=None if values is None else datetime.min,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs={_NSGAII._get_generation_key(): number // POPULATION},
        intermediate_values={},
    )


NSGA2 = Strategy(nsga2, trials=500, latency_counts=True)
