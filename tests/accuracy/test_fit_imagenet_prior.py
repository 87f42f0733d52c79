import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.accuracy import fit_imagenet_prior as fitting
from nas.accuracy.imagenet_prior import DATA, judged_results, recipe_level_of
from nas.arch.published import published_spec


@pytest.fixture(scope="module")
def samples():
    return fitting.load_samples()


@pytest.fixture(scope="module")
def results():
    return [*judged_results(), *fitting.related_results()]


def test_refitting_gives_the_committed_coefficients(results, samples):
    committed = json.loads(DATA.read_text(encoding="utf-8"))
    refitted = json.loads(fitting.fit_json(fitting.fit(results, samples)))
    assert refitted.keys() == committed.keys()
    assert list(refitted["features"]) == list(committed["features"])
    digit = 10.0**-fitting.DIGITS
    for name, feature in committed["features"].items():
        assert refitted["features"][name]["value"] == pytest.approx(feature["value"], abs=1.1 * digit), name
        assert refitted["features"][name].get("range") == pytest.approx(feature.get("range"), abs=1.1 * digit), name
    pairs = zip(refitted["covariance_factor"], committed["covariance_factor"], strict=True)
    assert all(one == pytest.approx(other, abs=1.1 * digit) for one, other in pairs)


def test_once_for_all_networks_are_predicted_when_left_out(results, samples):
    regression = fitting.Regression(results, samples)
    rows = [
        row
        for row, result in enumerate(results)
        if recipe_level_of(result).startswith("once-for-all") and result.spec.head.hidden
    ]
    estimates = []
    for row in rows:
        kept = np.arange(len(results)) != row
        estimates.append(fitting.LIMIT - np.exp(-regression.rows[row] @ regression.solve(kept)))
    top1 = np.array([results[row].top1 for row in rows])
    assert np.sqrt(np.mean((estimates - top1) ** 2)) < 0.20
    assert kendalltau(estimates, top1)[0] >= 0.96


def test_best_of_the_samples_are_not_overestimated(results, samples):
    """Fit to one half of the samples, and check the best of the other half by estimate, where a search would pick."""
    half = np.arange(len(samples.top1)) % 2 == 0
    regression = fitting.Regression(results, fitting.Samples(*(column[half] for column in samples)))
    coefficients = dict(zip(regression.names, regression.solve(np.ones(len(results), bool)), strict=True))
    held = fitting.Samples(*(column[~half] for column in samples))
    score = sum(coefficients[name] * values for name, values in fitting.sample_features(held).items())
    estimate = fitting.PREDICTOR_LIMIT - np.exp(-score)
    best = np.argsort(-estimate)[:60]
    assert abs((estimate - held.top1)[best].mean()) < 0.1
    assert kendalltau(estimate, held.top1)[0] > 0.9


def test_samples_are_networks_of_the_wide_once_for_all_space(samples):
    spec = fitting.sample_spec([3] * 20, [6] * 20, 224)
    released = published_spec("ofa_note10_lat-64ms")
    assert {block.out for block in spec.blocks} == {block.out for block in released.blocks}
    assert spec.stem.out == released.stem.out
    assert spec.head.conv == released.head.conv
    assert len(samples.top1) == 12_000
    assert ((samples.kernels > 0) == (samples.expansions > 0)).all()


def test_features_of_samples_are_those_of_the_network(samples):
    columns = fitting.sample_features(fitting.Samples(*(column[:5] for column in samples)))
    for row in range(5):
        spec = fitting.sample_spec(samples.kernels[row], samples.expansions[row], samples.resolutions[row])
        wanted: dict[str, float] = {}
        for (placed, place), index in zip(
            zip(spec.walk(), fitting.features.segment_places(spec), strict=True), range(len(spec.blocks)), strict=True
        ):
            if index:
                for name, value in fitting.features.block_features(placed, place):
                    wanted[name] = wanted.get(name, 0.0) + fitting.PREDICTOR_SLOPE * value
        found = {name: values[row] for name, values in columns.items() if not name.startswith("predictor")}
        assert {name: value for name, value in found.items() if value} == pytest.approx(wanted)
