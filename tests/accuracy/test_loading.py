"""Estimators by name, and those that a search cannot use."""

import pytest

from nas.accuracy import ESTIMATORS, load_estimator
from nas.accuracy.estimator import Estimates
from nas.errors import NasError
from nas.runs.target import Target
from nas.search.request import SearchRequest


class WithoutModel:
    """An estimator that has no recipe levels and no additive model."""

    name, training_recipe, proxy = "without-model", "none", None

    def estimate(self, specs: object) -> Estimates:
        raise AssertionError

    def additive_model(self, space: object) -> None:
        return None


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ESTIMATORS, "without-model", f"{__name__}:WithoutModel")
    monkeypatch.setattr("nas.accuracy.resolve", lambda category, name, known: WithoutModel)


def test_an_estimator_without_recipe_levels_refuses_one() -> None:
    with pytest.raises(NasError, match="the estimator without-model has no recipe levels; leave --recipe-level out"):
        load_estimator("without-model", "paper")


def test_an_estimator_by_which_no_variant_can_be_chosen_is_refused_before_anything_is_measured() -> None:
    request = SearchRequest(targets=(Target("large", 4.0),), estimator="without-model", strategy="tpe")
    with pytest.raises(NasError, match="the estimator without-model has neither an additive model nor a proxy"):
        request.check()
