"""The surrogate on truths that are known: additive ones, ones the known terms are wrong about, and noise."""

import random

import msgspec
import numpy as np
import pytest
from scipy.stats import spearmanr
from support.problems import TINY, estimates_of, every_encoding, latency, score

from nas.arch.additive import AdditiveModel
from nas.search.canonical import CanonicalForm
from nas.search.history import History
from nas.search.loop import run_trials
from nas.search.problem import Problem
from nas.search.solver import ranking
from nas.search.strategies.surrogate import SURROGATE, fitted_surrogate
from nas.search.surrogate import Surrogate

ENCODINGS = every_encoding(TINY)[::7]


def truth() -> AdditiveModel:
    """Return an accuracy model that differs from the known terms in every option."""
    generator, known = np.random.default_rng(0), score(TINY)
    options = [values + 0.3 * generator.normal(size=values.shape[1]) for values in known.options]
    return AdditiveModel(TINY, known.constants, options)


def evaluated(number: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    encodings = ENCODINGS[random.Random(0).sample(range(len(ENCODINGS)), number)]
    return encodings, truth()(encodings) + noise * np.random.default_rng(1).normal(size=number)


def test_without_data_it_is_the_known_terms() -> None:
    known = score(TINY)
    assert spearmanr(Surrogate(known).additive_model(ENCODINGS), known(ENCODINGS)).statistic == pytest.approx(1.0)


def test_terms_and_predictions_are_the_same_numbers() -> None:
    surrogate = Surrogate(score(TINY))
    surrogate.fit(*evaluated(40))
    mean, std = surrogate.predict(ENCODINGS)
    np.testing.assert_allclose(surrogate.additive_model(ENCODINGS), mean, atol=1e-9)
    assert (std > 0).all()


def test_it_learns_what_the_known_terms_are_wrong_about() -> None:
    known, true = score(TINY), truth()(ENCODINGS)
    before = spearmanr(known(ENCODINGS), true).statistic
    errors = []
    for number in (20, 60, 200):
        surrogate = Surrogate(known)
        surrogate.fit(*evaluated(number))
        mean, _ = surrogate.predict(ENCODINGS)
        errors.append(float(np.sqrt(np.mean((mean - true) ** 2))))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25 * true.std()
    assert spearmanr(mean, true).statistic > max(0.95, before)


def test_with_few_noisy_evaluations_the_known_terms_count_for_much() -> None:
    known, true = score(TINY), truth()(ENCODINGS)
    surrogate = Surrogate(known)
    surrogate.fit(*evaluated(8, noise=0.3))
    assert spearmanr(surrogate.additive_model(ENCODINGS), true).statistic > 0.7


def test_its_uncertainty_is_honest() -> None:
    surrogate = Surrogate(score(TINY))
    surrogate.fit(*evaluated(60, noise=0.1))
    mean, std = surrogate.predict(ENCODINGS)
    within = np.abs(mean - truth()(ENCODINGS)) <= 2 * std
    assert within.mean() > 0.85
    far = Surrogate(score(TINY))
    far.fit(*evaluated(5))
    assert far.predict(ENCODINGS)[1].mean() > std.mean()


def test_samples_scatter_around_the_mean_by_the_uncertainty() -> None:
    surrogate = Surrogate(score(TINY))
    surrogate.fit(*evaluated(30))
    mean, std = surrogate.predict(ENCODINGS[:50])
    generator = np.random.default_rng(0)
    samples = np.array([surrogate.sampled_model(generator)(ENCODINGS[:50]) for _ in range(200)])
    assert np.abs((samples.mean(axis=0) - mean) / std).max() < 0.4
    assert samples.std(axis=0) == pytest.approx(std, rel=0.3)
    again = [surrogate.sampled_model(np.random.default_rng(5))(ENCODINGS[:5]).tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_evaluations_that_are_all_alike_do_no_harm() -> None:
    surrogate = Surrogate(score(TINY))
    encodings, _ = evaluated(5)
    surrogate.fit(encodings, np.full(5, 70.0))
    assert np.isfinite(surrogate.additive_model(ENCODINGS)).all()


def test_the_loop_finds_what_the_known_terms_cannot() -> None:
    """Its proposals come near the best network where the known terms are wrong."""
    true, latencies = truth(), latency(TINY)
    times, values = latencies(ENCODINGS), true(ENCODINGS)
    case = Problem(TINY, latencies, estimates_of(true), float(np.quantile(times, 0.5)), score(TINY))
    within = np.sort(values[times <= case.limit_ms])
    by_terms = true(np.array([next(ranking(score(TINY), case.limits, case.feasible_variants)).encoding]))[0]
    found = max(trial.score for trial in run_trials(case, SURROGATE, trials=25, seed=0))
    assert found > by_terms
    assert found >= within[int(0.999 * len(within)) - 1]


def test_a_training_that_diverged_does_not_bend_the_fit() -> None:
    """A diverged trial is left out of the fit, which is as good as without it."""
    true = truth()
    case = Problem(TINY, latency(TINY), estimates_of(true), 1e9, score(TINY))
    canonical = CanonicalForm(TINY)  # another encoding of a network can have another made-up score
    encodings = [tuple(encoding) for encoding in ENCODINGS.tolist()]
    chosen = random.Random(0).sample([encoding for encoding in encodings if canonical(encoding) == encoding], 30)
    agreement = {}
    for name, diverged in (("without", []), ("with", chosen[:1])):
        history = History(case)
        for encoding in chosen:
            trial = case.evaluate(encoding)
            if encoding in diverged:
                trial = msgspec.structs.replace(trial, top1=0.0, score=0.0, diverged=True)
            history.add(trial)
        surrogate = fitted_surrogate(score(TINY), history)
        agreement[name] = spearmanr(surrogate.additive_model(ENCODINGS), true(ENCODINGS)).statistic
    assert agreement["without"] > 0.95
    assert agreement["with"] == pytest.approx(agreement["without"], abs=0.01)
