import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.accuracy import fit_imagenet_prior as fitting
from nas.accuracy.evidence import evidence
from nas.accuracy.imagenet_prior import DATA
from nas.arch.published import published_spec


@pytest.fixture(scope="module")
def samples():
    return fitting.load_samples()


@pytest.fixture(scope="module")
def results():
    return evidence()


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
        if result.level.startswith("once-for-all") and result.result.spec.head.hidden
    ]
    estimates = []
    for row in rows:
        kept = np.arange(len(results)) != row
        estimates.append(fitting.LIMIT - np.exp(-regression.rows[row] @ regression.solve(kept)))
    top1 = np.array([results[row].result.top1 for row in rows])
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


def test_a_pair_is_evidence_on_its_difference_only(results, samples):
    """Raise both networks of a pair: that moves their level, and hardly what SE is worth."""
    ends = [row for row, one in enumerate(results) if one.level == "coordatt"]
    regression = fitting.Regression(results, samples)
    everything = np.ones(len(results), bool)
    change = np.subtract(*regression.rows[ends[::-1]])

    def worth(raised):
        regression.scores[ends] += raised
        found = regression.solve(everything)
        regression.scores[ends] -= raised
        return change @ found, found[regression.names.index("recipe coordatt")]

    before, level = worth(np.zeros(2))
    both, higher = worth(np.array([0.02, 0.02]))
    assert both == pytest.approx(before, abs=3e-4)
    assert higher > level + 0.005
    apart, _ = worth(np.array([-0.01, 0.01]))
    assert apart > before + 1e-3


def test_a_network_shares_an_error_among_its_trainings_and_ablations(results):
    noise = fitting.noise_covariance(results)
    rows = {(one.result.spec.name, one.level): row for row, one in enumerate(results)}
    plain, other, se = (
        rows["mobilenetv2_100", "coordatt"],
        rows["mobilenetv2_100", "timm-ra"],
        rows["mobilenetv2_100_se24", "coordatt"],
    )
    assert noise[plain, se] == noise[plain, other] == pytest.approx(fitting.NETWORK_STD**2)
    assert noise[plain, rows["moga_a", "moga"]] == 0
    # A pair's difference has the chance of two trainings only.
    assert noise[plain, plain] + noise[se, se] - 2 * noise[plain, se] == pytest.approx(2 * fitting.TRAINING_STD**2)


def test_what_is_learnt_of_one_place_is_learnt_of_its_stage_and_kind():
    names = ["se s8.0", "se s8.1", "se s32a.0", "hswish s8", "hswish stem", "se small"]
    covariance = fitting.prior_covariance(names)
    assert covariance[0, 1] > covariance[0, 2] > 0
    assert (covariance[3:, :3] == 0).all()
    assert covariance[3, 4] == 0
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_bounded_minimum_is_the_least_within_the_bounds():
    rng = np.random.default_rng(0)
    for size in (3, 12, 40):
        root = rng.normal(size=(size, size))
        matrix, target = root @ root.T + 0.1 * np.eye(size), rng.normal(size=size)
        bound = np.where(rng.random(size) < 0.7, 0.0, -np.inf)
        found = fitting.bounded_minimum(matrix, target, bound)
        gradient = matrix @ found - target
        assert (found >= bound).all()
        assert np.allclose(gradient[found > bound], 0, atol=1e-8)
        assert (gradient[found == bound] >= -1e-9).all()


def test_held_out_density_is_that_of_the_estimates_without_the_group(results, samples):
    regression = fitting.Regression(results, samples)
    group = np.array([row for row, one in enumerate(results) if one.level == "moga"])
    kept = np.ones(len(results), bool)
    kept[group] = False
    covariance = regression.covariance(kept)
    unbounded = covariance @ regression._posterior(kept)[1]
    rows = regression.rows[group]
    error = regression.scores[group] - rows @ unbounded
    spread = rows @ covariance @ rows.T + regression.noise[np.ix_(group, group)]
    basis = np.array([[1, -1, 0], [1, 1, -2]]).T / np.sqrt([2, 6])
    # The network of MobileNetV3-Large is in other rows too, whose shared error the density takes into account.
    apart = regression.held_out_density([[group]])
    wanted = -0.5 * (
        np.linalg.slogdet(2 * np.pi * basis.T @ spread @ basis)[1]
        + error @ basis @ np.linalg.solve(basis.T @ spread @ basis, basis.T @ error)
    )
    assert apart == pytest.approx(wanted, abs=0.5)


def test_level_of_each_recipe_of_a_family_does_not_count(results, samples):
    regression = fitting.Regression(results, samples)
    levels = ("hardcore-scratch", "distilled")
    family = [np.array([row for row, one in enumerate(results) if one.level == level]) for level in levels]
    without = np.ones(len(results), bool)
    without[[row for row, one in enumerate(results) if one.level == "moga"]] = False
    density = regression.held_out_density([family], without)
    assert density != pytest.approx(regression.held_out_density([family]))
    regression.scores[family[0]] += 0.02
    regression.scores[family[1]] -= 0.01
    assert regression.held_out_density([family], without) == pytest.approx(density)
    regression.scores[family[0][0]] += 0.02
    assert regression.held_out_density([family], without) < density - 0.1


def test_other_deviations_are_those_of_another_regression(results, samples, monkeypatch):
    chosen = fitting.Regression(results, samples)
    monkeypatch.setitem(fitting.PRIORS, "se", fitting.PRIORS["se"]._replace(std=0.009))
    monkeypatch.setattr(fitting, "TRAINING_STD", 0.02)
    wider = fitting.Regression(results, samples)
    changed = chosen.with_deviations(fitting.prior_covariance(chosen.names), fitting.noise_covariance(results))
    everything = np.ones(len(results), bool)
    assert np.allclose(changed.solve(everything), wider.solve(everything), rtol=0, atol=1e-9)
    assert changed.log_likelihood(everything) == pytest.approx(wider.log_likelihood(everything))
    assert chosen.log_likelihood(everything) != pytest.approx(wider.log_likelihood(everything), abs=1)


def test_marginal_likelihood_is_a_product_of_densities(results, samples):
    """One row after the other, each given the rows before it."""
    regression = fitting.Regression(results, samples)
    kept = np.zeros(len(results), bool)
    kept[[0, 100]] = True
    both = regression.log_likelihood(kept)
    covariance, errors = regression.expected(kept)
    share = covariance[0, 1] / covariance[0, 0]
    rest, variance = errors[1] - share * errors[0], covariance[1, 1] - share * covariance[0, 1]
    kept[100] = False
    assert both == pytest.approx(
        regression.log_likelihood(kept) - (np.log(2 * np.pi * variance) + rest**2 / variance) / 2
    )


def test_chosen_deviations_are_near_the_best(results, samples, monkeypatch):
    """No chosen deviation of a kind, halved or doubled, makes left-out recipe levels much more probable."""
    levels = dict.fromkeys(one.level for one in results)
    groups = [np.array([row for row, one in enumerate(results) if one.level == level]) for level in levels]
    families = [[group] for group in groups if len(group) > 1]
    committed = fitting.Regression(results, samples).held_out_density(families)
    for kind in ("se", "hswish", "kernel5"):
        prior = fitting.PRIORS[kind]
        for factor in (0.5, 2.0):
            monkeypatch.setitem(fitting.PRIORS, kind, prior._replace(std=factor * prior.std))
            assert fitting.Regression(results, samples).held_out_density(families) < committed + 5, (kind, factor)
        monkeypatch.setitem(fitting.PRIORS, kind, prior)
