import numpy as np
import pytest

from nas.accuracy import fit_imagenet_prior as fitting
from nas.accuracy.evidence import evidence
from nas.accuracy.imagenet_prior import RECIPE_LEVELS, ImageNetPrior, load_fit
from nas.accuracy.nearest import SHOWN, candidates, distances, left_out_top1, nearest_published, vectors
from nas.arch.loading import load_spec

FOUND = load_spec("mobilenet_v3_large").replace(resolution=208).with_block(3, kernel=3).with_block(8, kernel=5)


def test_a_published_network_is_nearest_to_itself():
    for name in ("mobilenet_v2", "mobilenet_v3_small@0.75", "ofa_cpu_lat-15ms"):
        spec = load_spec(name)
        first, second, third = nearest_published(spec)
        assert (first.name, first.resolution) == (name, spec.resolution)
        assert (first.difference, first.difference_std) == pytest.approx((0, 0), abs=1e-9)
        assert second.difference_std > 0
        assert len({first.name, second.name, third.name}) == SHOWN == 3


def test_estimates_and_differences_are_those_of_the_prior():
    for level in RECIPE_LEVELS:
        prior = ImageNetPrior(level)
        for near in nearest_published(FOUND, level):
            spec = load_spec(near.name).replace(resolution=near.resolution)
            own = ImageNetPrior(near.recipe_level).estimate([spec]).top1[0]
            assert near.estimated_top1 == pytest.approx(own, abs=1e-9)
            ours, theirs = prior.estimate([FOUND, spec]).top1
            assert near.difference == pytest.approx(ours - theirs, abs=1e-9)
            assert any(
                (one.result.spec.name, one.result.spec.resolution, one.result.top1, one.level, left_out_top1(one))
                == (near.name, near.resolution, near.published_top1, near.recipe_level, near.left_out_top1)
                for one in evidence()
            )


def test_the_deviation_of_a_difference_leaves_out_what_both_networks_share():
    """Networks drawn from the fit's coefficients differ by as much as it says."""
    fit, near = load_fit(), nearest_published(FOUND)[0]
    specs = [FOUND, load_spec(near.name).replace(resolution=near.resolution)]
    ours, theirs = vectors(fit, specs, ["mobilenet-v3"] * 2)
    drawn = np.random.default_rng(0).normal(size=(4000, len(fit.factor))) @ fit.factor.T
    error = 100 - ImageNetPrior().estimate([FOUND]).top1[0]
    assert near.difference_std == pytest.approx(error * (drawn @ (ours - theirs)).std(), rel=0.05)
    assert near.difference_std < ImageNetPrior().estimate([FOUND]).std[0]


def test_networks_of_like_accuracy_come_first():
    fit = load_fit()
    specs = [load_spec(name) for name in ("mobilenet_v3_large", "mobilenet_v2@0.5", "ofa_cpu_lat-15ms")]
    rows = vectors(fit, specs, ["mobilenet-v3"] * 3)
    scores = rows @ fit.coefficients
    apart, stds = distances(fit, rows, rows, 0.1), distances(fit, rows, rows, 0.0)
    assert apart**2 == pytest.approx(stds**2 + (0.1 * (scores[:, None] - scores)) ** 2)
    assert all(abs(near.difference) < 1 for near in nearest_published(FOUND))


def test_the_nearest_network_of_another_resolution_comes_once():
    near = nearest_published(load_spec("mobilenet_v2").replace(resolution=176), count=8)
    assert len({one.name for one in near}) == 8
    assert (near[0].name, near[0].resolution) == ("mobilenet_v2", 192)


def test_a_twin_is_named_as_published_at_the_level_that_is_asked_for():
    spec = load_spec("mobilenet_v3_large")
    assert nearest_published(spec, "mobilenet-v3")[0].published_top1 == 75.2
    assert nearest_published(spec, "timm-ra")[0].recipe_level == "timm-ra"


def test_all_candidates_are_loaded_by_name_and_have_a_level():
    """Trainings of one network may differ in batch norm's epsilon, which the prior does not see."""
    assert len(candidates()) > 136
    for one in candidates():
        spec = one.result.spec
        loaded = load_spec(spec.name).replace(resolution=spec.resolution, norm_eps=spec.norm_eps)
        assert (loaded.id, one.kin) == (spec.id, ())
        assert one.level in RECIPE_LEVELS


def test_a_network_without_an_estimate_is_near_none():
    assert nearest_published(load_spec("mobilenetv4_conv_small")) == []
    assert not [one for one in candidates() if one.result.spec.name.startswith("mobilenetv4")]


def test_left_out_estimates_are_those_of_a_fit_without_the_network():
    """Of HardCoRe-NAS-A in four trainings, and of a network in one, none is among the rows."""
    for name, level, others in (("hardcorenas_a", "hardcore-nas", 4), ("ofa_cpu_lat-15ms", "once-for-all-25", 1)):
        (one,) = (one for one in candidates() if (one.result.spec.name, one.level) == (name, level))
        rows = [other for other in evidence() if other.result.spec.name != name]
        assert len(rows) == len(evidence()) - others
        regression = fitting.Regression(rows, fitting.load_samples())
        coefficients = dict(zip(regression.names, regression.solve(np.ones(len(rows), bool)), strict=True))
        score = sum(coefficients.get(name, 0.0) * value for name, value in fitting._features_of(one).items())
        assert left_out_top1(one) == pytest.approx(fitting.LIMIT - np.exp(-score), abs=1e-6)
        assert left_out_top1(one) != pytest.approx(ImageNetPrior(level).estimate([one.result.spec]).top1[0], abs=1e-3)
