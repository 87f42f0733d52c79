"""The strategies by name, the loop that runs one, and each of them as a sampler for any Optuna study.

A strategy proposes the next row from what was finished before; what it proposes is made to fit, and exchanged if
it is there already. The loop keeps what was finished in memory: asking and telling through a study takes longer
than a search's evaluations do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.space import SearchSpace
from nas.strategies.evolution import Propose, once_for_all, regularised
from nas.strategies.exact import solve
from nas.strategies.fitted import fitted
from nas.strategies.history import History
from nas.strategies.limits import Limit
from nas.strategies.problem import Problem, Row
from nas.strategies.tpe import tpe

Params = dict[str, Any]
SWEEP_STEP, SWEEPS = 0.96, 16  # between the budgets that the exact solver sweeps, and how many of these it does
NEIGHBOUR_RATE = 0.05  # at which the optima mutate after that
POPULATION = 50  # of NSGA-II


class Strategy(NamedTuple):
    """A way to search, and how many trials it is given; `latency_counts` if it is after fast networks too."""

    proposer: Callable[[Problem], Propose]
    trials: int
    latency_counts: bool = False

    def sampler(self, problem: Problem, seed: int) -> BaseSampler:
        """For any Optuna study whose parameters are the genes of the problem's space.

        Its values are the score, to be maximised, and the latency (ms), if the strategy is after that too.
        """
        return StudySampler(problem, self.proposer(problem), seed)


def random_search(problem: Problem) -> Propose:
    """Uniform over each choice, then made to fit."""
    return lambda history, rng: problem.random_row(rng)


def exact(problem: Problem) -> Propose:
    """The proven optimum of each scale at the budget, then at ever smaller ones; then neighbours of these.

    Raises NasError unless the accuracy is a sum over blocks.
    """
    additive = problem.needed_additive
    scales = problem.fitting_scales
    budgets = problem.sweep or [problem.budget_ms * SWEEP_STEP**step for step in range(SWEEPS)]

    def propose(history: History, rng: random.Random) -> Row:
        sweep, index = divmod(len(history), len(scales))
        if sweep >= len(budgets):
            return problem.mutated(rng.choice(history.best(len(scales))), rng, NEIGHBOUR_RATE)
        latency, *others = problem.limits
        tighter = Limit(latency.name, budgets[sweep], latency.sums)
        optimum = solve(additive, [tighter, *others], scales[index])
        return optimum.row if optimum else problem.random_row(rng)

    return propose


def nsga2(problem: Problem) -> Propose:
    """Optuna's NSGA-II on score and latency."""
    genes = {g.name: CategoricalDistribution(range(len(g.choices))) for g in problem.space.genes}
    # NSGA-II leaves parameters without a choice to whoever asks.
    open_genes: dict[str, BaseDistribution] = {n: d for n, d in genes.items() if not d.single()}
    storage = _Finished()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE], sampler=_NSGAII(0)
    )

    def propose(history: History, rng: random.Random) -> Row:
        for number in range(storage.seen, len(history)):
            values = [float(history.scores[number]), float(history.latencies[number])]
            params = {n: max(0, c) for n, c in zip(genes, history.rows[number], strict=True) if n in open_genes}
            storage.finished.append(_frozen(number, params, open_genes, values))
            storage.seen += 1
            if storage.seen % POPULATION == 0:  # what is no parent is never looked at again
                storage.finished = _NSGAII(0).get_parent_population(study, storage.seen // POPULATION)
        sampler = _NSGAII(rng.getrandbits(31))
        trial = _frozen(len(history), {}, {}, None)
        params = sampler.sample_relative(study, trial, open_genes)

        def choose(gene: Any) -> int:
            if gene.name in params or gene.name not in open_genes:
                return int(params.get(gene.name, 0))
            return int(sampler.sample_independent(study, trial, gene.name, genes[gene.name]))

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


EXACT = Strategy(exact, trials=24)
FITTED = Strategy(fitted, trials=60)
EVOLUTION = Strategy(regularised, trials=500)
ONCE_FOR_ALL = Strategy(once_for_all, trials=500)
NSGA2 = Strategy(nsga2, trials=500, latency_counts=True)
RANDOM = Strategy(random_search, trials=500)
TPE = Strategy(tpe, trials=200)


def optimise(
    problem: Problem, strategy: Strategy, *, trials: int, seed: int, finished: Iterable[Row] = ()
) -> Iterator[Row]:
    """Evaluates networks until there are `trials`, each given out when it is known; `finished` come first, unsaid.

    Ends early when the space has no other network that fits. A proposal's randomness comes from the seed and the
    number of finished trials, so that a resumed search goes on as an uninterrupted one would.
    """
    history = History(problem)
    history.price(finished)
    propose = strategy.proposer(problem)
    while len(history) < trials:
        row = next_row(history, propose, seed)
        if row in history.seen:
            return
        history.price([row])
        yield row


def next_row(history: History, propose: Propose, seed: int | str, number: int | None = None) -> Row:
    """A network that fits, and that is new if there is one; `number` is how many trials there are, if not these."""
    rng = random.Random(f"{seed}/{len(history) if number is None else number}")
    problem = history.problem
    return problem.unseen(problem.fitted(propose(history, rng), rng), history.seen, rng)


# In any study of Optuna's ------------------------------------------------------------------------------------


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


class StudySampler(BaseSampler):
    """Lets a strategy suggest a row for each trial of a study: what is told is what was asked, and fits.

    Trials of other workers that are not finished are not proposed again.
    """

    def __init__(self, problem: Problem, propose: Propose, seed: int) -> None:
        self._genes = distributions(problem.space)
        self._history = History(problem)
        self._propose = propose
        self._seed = seed
        self._known: set[int] = set()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._genes

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Params:
        space = self._history.problem.space
        for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING)):
            if other.number in self._known or not self._genes.keys() <= other.params.keys():
                continue
            row = row_of(space, other.params)
            if other.state == TrialState.COMPLETE:
                self._known.add(other.number)
                latency_ms = other.values[1] if len(other.values) > 1 else self._history.problem.latency_ms(row)
                self._history.add(row, other.values[0], latency_ms)
            self._history.seen.add(row)
        return params_of(space, next_row(self._history, self._propose, self._seed, trial.number))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise NotImplementedError(f"{param_name!r} is not a gene of the space {self._history.problem.space.name}")
