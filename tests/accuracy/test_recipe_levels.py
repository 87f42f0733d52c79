import numpy as np

from nas.accuracy.imagenet_prior import DEFAULT_RECIPE_LEVEL, RECIPE_LEVELS, ImageNetPrior, load_fit
from nas.accuracy.recipe_levels import Training, estimates_by_level, networks_by_level, trainings
from nas.arch.loading import load_spec


def test_every_level_estimates_as_the_prior_does_for_it():
    spec = load_spec("mobilenet_v3_small")
    found = estimates_by_level(spec)
    assert sorted(one.recipe_level for one in found) == sorted(RECIPE_LEVELS) == sorted(load_fit().noise)
    assert [one.top1 for one in found] == sorted(one.top1 for one in found)
    for one in found:
        estimates = ImageNetPrior(one.recipe_level).estimate([spec])
        assert np.allclose([one.top1, one.std], [estimates.top1[0], estimates.std[0]], rtol=0, atol=1e-12)
        assert one.description == RECIPE_LEVELS[one.recipe_level]


def test_levels_of_which_nothing_is_told_are_not_left_out(monkeypatch):
    monkeypatch.setattr("nas.accuracy.recipe_levels.trainings", dict)
    found = estimates_by_level(load_spec("mobilenet_v3_small"))
    assert len(found) == len(RECIPE_LEVELS)
    assert {one.training for one in found} == {Training()}


def test_what_is_told_of_trainings_is_whole_and_of_known_levels():
    told = trainings()
    assert set(told) <= set(RECIPE_LEVELS)
    assert DEFAULT_RECIPE_LEVEL in told
    assert all(all(training) for training in told.values())


def test_networks_of_a_level_count_once():
    counts = networks_by_level()
    assert set(counts) == set(RECIPE_LEVELS)  # every level rests on a published network
    assert counts["mobilenet-v1"] == 4  # four widths at four resolutions
