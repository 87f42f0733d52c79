"""The tree-structured Parzen estimator's densities beside Optuna's own."""

import itertools

import numpy as np
import optuna
import pytest
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights
from support.problems import TINY, every_row

from nas.runs.parameters import distributions
from nas.search.strategies.tpe import Parzen

WHOLE = every_row(TINY)[(every_row(TINY) >= 0).all(axis=1)]  # networks that have all decisions


def chosen(number: int, seed: int) -> np.ndarray:
    return WHOLE[np.random.default_rng(seed).integers(len(WHOLE), size=number)]


def optunas(rows: np.ndarray) -> _ParzenEstimator:
    parameters = _ParzenEstimatorParameters(
        prior_weight=1.0,
        consider_magic_clip=True,
        consider_endpoints=False,
        weights=default_weights,
        multivariate=True,
    )
    return _ParzenEstimator(by_name(rows), distributions(TINY), parameters)


def by_name(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {decision.name: rows[:, column] for column, decision in enumerate(TINY.decisions)}


@pytest.mark.parametrize("number", [1, 24, 25, 26, 90])
def test_densities_are_optunas(number: int) -> None:
    rows, candidates = chosen(number, 1), chosen(40, 2)
    wanted = optunas(rows).log_pdf(by_name(candidates))
    assert wanted.std() > 0.05, "all candidates are alike"
    np.testing.assert_allclose(Parzen(TINY, rows).log_density(candidates), wanted, rtol=1e-9)


def test_the_order_of_trials_counts_as_in_optuna() -> None:
    rows, candidates = chosen(90, 1), chosen(40, 2)
    backwards = Parzen(TINY, rows[::-1]).log_density(candidates)
    np.testing.assert_allclose(backwards, optunas(rows[::-1]).log_pdf(by_name(candidates)), rtol=1e-9)
    assert np.abs(backwards - Parzen(TINY, rows).log_density(candidates)).max() > 1e-3


def test_a_gene_that_a_trial_lacks_is_as_likely_one_as_another() -> None:
    rows, candidates = chosen(5, 1), chosen(40, 2)
    lacking = (6, 7, 9)
    rows[3, lacking] = -1
    filled = []
    for codes in itertools.product(*(range(len(TINY.decisions[column].choices)) for column in lacking)):
        whole = rows.copy()
        whole[3, lacking] = codes
        filled.append(np.exp(optunas(whole).log_pdf(by_name(candidates))))
    assert len(filled) > 1
    np.testing.assert_allclose(np.exp(Parzen(TINY, rows).log_density(candidates)), np.mean(filled, axis=0))


def test_candidates_are_drawn_as_optuna_draws_them() -> None:
    rows = chosen(12, 1)
    drawn = Parzen(TINY, rows).sample(np.random.default_rng(0), 40_000)
    mixture = optunas(rows)._mixture_distribution
    for column, of_gene in enumerate(mixture.distributions):
        wanted = mixture.weights @ of_gene.weights
        shares = np.bincount(drawn[:, column].astype(int), minlength=len(wanted)) / len(drawn)
        np.testing.assert_allclose(shares, wanted, atol=0.012)
    # Decisions hang together: a draw comes from one trial, and not each decision from any.
    ours = Parzen(TINY, rows).log_density(drawn[:20_000]).mean()
    theirs = mixture.sample(np.random.RandomState(0), 20_000)
    assert ours == pytest.approx(mixture.log_pdf(theirs).mean(), abs=0.1)


def test_optunas_own_sampler_weighs_trials_alike() -> None:
    """The weights and the share of good trials are what Optuna takes by default."""
    sampler = optuna.samplers.TPESampler(seed=0)
    assert sampler._parzen_estimator_parameters.prior_weight == 1.0
    assert sampler._parzen_estimator_parameters.weights is default_weights
