"""The tree-structured Parzen estimator's densities beside Optuna's own."""

import itertools

import numpy as np
import optuna
import pytest
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights
from support.problems import TINY, every_encoding

from nas.runs.parameters import distributions
from nas.search.strategies.tpe import Parzen

WHOLE = every_encoding(TINY)[(every_encoding(TINY) >= 0).all(axis=1)]  # networks that have all decisions


def chosen(number: int, seed: int) -> np.ndarray:
    return WHOLE[np.random.default_rng(seed).integers(len(WHOLE), size=number)]


def optunas(encodings: np.ndarray) -> _ParzenEstimator:
    parameters = _ParzenEstimatorParameters(
        prior_weight=1.0,
        consider_magic_clip=True,
        consider_endpoints=False,
        weights=default_weights,
        multivariate=True,
    )
    return _ParzenEstimator(by_name(encodings), distributions(TINY), parameters)


def by_name(encodings: np.ndarray) -> dict[str, np.ndarray]:
    return {decision.name: encodings[:, column] for column, decision in enumerate(TINY.decisions)}


@pytest.mark.parametrize("number", [1, 24, 25, 26, 90])
def test_densities_are_optunas(number: int) -> None:
    encodings, candidates = chosen(number, 1), chosen(40, 2)
    wanted = optunas(encodings).log_pdf(by_name(candidates))
    assert wanted.std() > 0.05, "all candidates are alike"
    np.testing.assert_allclose(Parzen(TINY, encodings).log_density(candidates), wanted, rtol=1e-9)


def test_the_order_of_trials_counts_as_in_optuna() -> None:
    encodings, candidates = chosen(90, 1), chosen(40, 2)
    backwards = Parzen(TINY, encodings[::-1]).log_density(candidates)
    np.testing.assert_allclose(backwards, optunas(encodings[::-1]).log_pdf(by_name(candidates)), rtol=1e-9)
    assert np.abs(backwards - Parzen(TINY, encodings).log_density(candidates)).max() > 1e-3


def test_all_choices_of_a_decision_that_a_trial_lacks_are_equally_likely() -> None:
    encodings, candidates = chosen(5, 1), chosen(40, 2)
    lacking = (6, 7, 9)
    encodings[3, lacking] = -1
    filled = []
    for choices in itertools.product(*(range(len(TINY.decisions[column].choices)) for column in lacking)):
        whole = encodings.copy()
        whole[3, lacking] = choices
        filled.append(np.exp(optunas(whole).log_pdf(by_name(candidates))))
    assert len(filled) > 1
    np.testing.assert_allclose(np.exp(Parzen(TINY, encodings).log_density(candidates)), np.mean(filled, axis=0))


def test_candidates_are_sampled_as_optuna_samples_them() -> None:
    encodings = chosen(12, 1)
    samples = Parzen(TINY, encodings).sample(np.random.default_rng(0), 40_000)
    mixture = optunas(encodings)._mixture_distribution
    for column, of_decision in enumerate(mixture.distributions):
        wanted = mixture.weights @ of_decision.weights
        shares = np.bincount(samples[:, column].astype(int), minlength=len(wanted)) / len(samples)
        np.testing.assert_allclose(shares, wanted, atol=0.012)
    # Decisions hang together: a sample comes from one trial, and not each decision from any.
    ours = Parzen(TINY, encodings).log_density(samples[:20_000]).mean()
    theirs = mixture.sample(np.random.RandomState(0), 20_000)
    assert ours == pytest.approx(mixture.log_pdf(theirs).mean(), abs=0.1)


def test_optunas_own_sampler_weighs_trials_alike() -> None:
    """The weights and the share of good trials are what Optuna takes by default."""
    sampler = optuna.samplers.TPESampler(seed=0)
    assert sampler._parzen_estimator_parameters.prior_weight == 1.0
    assert sampler._parzen_estimator_parameters.weights is default_weights
