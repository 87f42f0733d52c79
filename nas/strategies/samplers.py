"""Optuna samplers whose every proposal fits the budget and is new, and the loop that runs them.

They can be used in any Optuna study whose parameters are the genes of a space (`distributions`): what a
sampler proposes is made to fit before Optuna sees it, so that what is told is what was asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.errors import NasError
from nas.space import SearchSpace
from nas.strategies.exact import solve
from nas.strategies.problem import Problem, Row

Params = dict[str, Any]
SWEEP_STEP = 0.96  # between the budgets that the exact solver sweeps
POPULATION = 50  # of NSGA-II


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The genes of a space as Optuna's parameters."""
    return {gene.name: CategoricalDistribution(_values(gene.choices)) for gene in space.genes}


def params_of(space: SearchSpace, row: Row) -> Params:
    """Optuna's parameters of a row; a gene that does not exist has its first choice, so that rows stay unique."""
    return {gene.name: _values(gene.choices)[max(0, code)] for gene, code in zip(space.genes, row, strict=True)}


def row_of(space: SearchSpace, params: Params) -> Row:
    """Inverse of `params_of`."""
    row = space.draw(lambda gene: _values(gene.choices).index(params[gene.name]))
    return tuple(int(code) for code in row)


def _values(choices: Sequence[Any]) -> list[Any]:
    """Choices as Optuna takes them: a scale becomes its text."""
    return [str(choice) if isinstance(choice, tuple) else choice for choice in choices]


class FeasibleSampler(BaseSampler):
    """Lets `propose` suggest a row for each trial, makes it fit, and exchanges it if the study has it already.

    Each proposal's randomness comes from the seed and the trial's number, so that a resumed study goes on as
    an uninterrupted one would.
    """

    def __init__(
        self, problem: Problem, propose: Callable[[Study, FrozenTrial, random.Random], Row], seed: int
    ) -> None:
        self._problem = problem
        self._propose = propose
        self._seed = seed
        self._seen: dict[int, Row] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return distributions(self._problem.space)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Params:
        rng = random.Random(f"{self._seed}/{trial.number}")
        row = self._problem.fitted(self._propose(study, trial, rng), rng)
        return params_of(self._problem.space, self._problem.unseen(row, self._rows(study), rng))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise NotImplementedError(f"{param_name!r} is not a gene of the space {self._problem.space.name}")

    def _rows(self, study: Study) -> set[Row]:
        """Rows of the finished trials."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[len(self._seen) :]:
            self._seen[trial.number] = row_of(self._problem.space, trial.params)
        return set(self._seen.values())


def random_sampler(problem: Problem, seed: int) -> BaseSampler:
    """Uniform over each choice, then made to fit."""
    return FeasibleSampler(problem, lambda study, trial, rng: problem.random_row(rng), seed)


def evolution_sampler(problem: Problem, seed: int) -> BaseSampler:
    """Regularised evolution (arXiv 1802.01548, algorithm 1): a tournament's winner among the youngest mutates."""
    population, tournament, rate = 100, 25, 0.05

    def propose(study: Study, trial: FrozenTrial, rng: random.Random) -> Row:
        alive = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[-population:]
        if len(alive) < population:
            return problem.random_row(rng)
        winner = max(rng.sample(alive, tournament), key=lambda finished: finished.values[0])
        return problem.mutated(row_of(problem.space, winner.params), rng, rate)

    return FeasibleSampler(problem, propose, seed)


def tpe_sampler(problem: Problem, seed: int) -> BaseSampler:
    """Optuna's tree-structured Parzen estimator, its proposals made to fit."""
    return _optuna_sampler(problem, seed, lambda s: optuna.samplers.TPESampler(seed=s, multivariate=True))


def nsga2_sampler(problem: Problem, seed: int) -> BaseSampler:
    """Optuna's NSGA-II on accuracy and latency, its proposals made to fit."""
    return _optuna_sampler(problem, seed, lambda s: NSGAII(population_size=POPULATION, seed=s))


class NSGAII(optuna.samplers.NSGAIISampler):
    """Optuna's, with its parents in one order, whether they were just chosen or are remembered by the study."""

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        super().get_parent_population(study, generation)
        return super().get_parent_population(study, generation)


def _optuna_sampler(problem: Problem, seed: int, make: Callable[[int], BaseSampler]) -> BaseSampler:
    space = problem.space
    genes = distributions(space)
    # Every trial has every gene, so that nobody need compare all trials to find what they have in common.
    relative = {name: distribution for name, distribution in genes.items() if not distribution.single()}

    def propose(study: Study, trial: FrozenTrial, rng: random.Random) -> Row:
        sampler = make(rng.getrandbits(31))
        params = sampler.sample_relative(study, trial, relative)
        for name, distribution in genes.items():
            if name not in params:
                params[name] = sampler.sample_independent(study, trial, name, distribution)
        return row_of(space, params)

    return FeasibleSampler(problem, propose, seed)


def exact_sampler(problem: Problem, seed: int) -> BaseSampler:
    """The proven optimum of each scale at the budget, then at ever smaller ones: the model's own front.

    Raises NasError unless the accuracy is a sum over blocks.
    """
    additive = problem.additive
    if additive is None:
        raise NasError("strategy 'exact' needs an estimator that is a sum over blocks, such as imagenet-prior")
    scales = problem.fitting_scales

    def propose(study: Study, trial: FrozenTrial, rng: random.Random) -> Row:
        sweep, index = divmod(trial.number, len(scales))
        optimum = solve(problem.latency, additive, problem.budget_ms * SWEEP_STEP**sweep, scales[index])
        return optimum.row if optimum else problem.random_row(rng)

    return FeasibleSampler(problem, propose, seed)


class Strategy(NamedTuple):
    """A way to search: its sampler, how many trials it is given, and whether latency is an objective too.

    `notes` are what the sampler keeps with the trial of a number, without which it cannot go on from it.
    """

    sampler: Callable[[Problem, int], BaseSampler]
    trials: int
    two_objectives: bool = False
    notes: Callable[[int], Params] = lambda number: {}


EXACT = Strategy(exact_sampler, trials=24)
EVOLUTION = Strategy(evolution_sampler, trials=500)
NSGA2 = Strategy(
    nsga2_sampler,
    trials=500,
    two_objectives=True,
    notes=lambda number: {"NSGAII:generation": number // POPULATION},
)
RANDOM = Strategy(random_sampler, trials=500)
TPE = Strategy(tpe_sampler, trials=200)


def optimise(
    problem: Problem, strategy: Strategy, *, trials: int, seed: int, finished: Iterable[Row] = ()
) -> Iterator[Row]:
    """Evaluates networks until there are `trials`, each given out when it is known; `finished` come first, unsaid.

    Ends early when the space has no other network that fits.

    An Optuna study in memory: asking and telling through a file costs more than evaluating does.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = problem.space
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: 2 if strategy.two_objectives else 1]
    study = optuna.create_study(directions=directions, sampler=strategy.sampler(problem, seed))
    genes = distributions(space)

    def values(row: Row) -> list[float]:
        codes = np.array([row])
        both = [float(problem.score(codes)[0]), float(problem.latency(codes)[0])]
        return both[: len(directions)]

    seen = set()
    done = 0
    for number, row in enumerate(finished):
        params, notes = params_of(space, row), strategy.notes(number)
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=genes, values=values(row), system_attrs=notes)
        )
        seen.add(row)
        done = number + 1
    for _ in range(done, trials):
        trial = study.ask(genes)
        row = row_of(space, trial.params)
        if row in seen:
            return
        study.tell(trial, values(row))
        seen.add(row)
        yield row
