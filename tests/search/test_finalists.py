"""Finalists: the best few networks are trained before one is chosen, where the estimator has weights for them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.finalists import Trained
from support.problems import TINY
from support.searching import Recorder

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.runs.target import Target
from nas.search.finalists import (
    FINALISTS,
    choose_finalist,
    finalists_of,
    folder_of,
    hand_over_weights,
    rivals,
)
from nas.search.proof import _fitting

SPECS = [TINY.smallest(variant) for variant in TINY.variants] + [TINY.largest(TINY.variants[0])]
TARGET = Target("small", 1.0)


def context_of(estimator: Any, finalists: int | None = None) -> Any:
    return SimpleNamespace(
        estimator=estimator,
        request=SimpleNamespace(finalists=finalists),
        console=Recorder(),
        folder=SimpleNamespace(path=Path("run")),
    )


def trials(*top1: float) -> Any:
    """Return trials of the networks with these estimates."""
    return [SimpleNamespace(spec=spec, top1=value) for spec, value in zip(SPECS, top1, strict=False)]


def reached(*top1: float) -> dict[str, float]:
    return {spec.id: value for spec, value in zip(SPECS, top1, strict=False)}


def test_the_best_few_by_the_estimate_are_trained_and_the_best_of_them_is_chosen() -> None:
    estimator = Trained(reached(10, 70, 60, 65))
    context = context_of(estimator)
    assert choose_finalist(context, TARGET, trials(1, 2, 4, 3)) == SPECS[1]
    assert estimator.trained == [SPECS[index].id for index in (2, 3, 1)]
    assert len(estimator.trained) == FINALISTS == finalists_of(context)
    assert context.console.lines == [
        f"small: a finalist of width {width}, estimated at {estimate:.1f} %, reaches {found:.1f} % on held-out images "
        "after a short training"
        for width, estimate, found in ((2, 4, 60), (1, 3, 65), (1, 2, 70))
    ]


def test_the_best_of_each_variant_is_trained_before_a_second_one_of_any() -> None:
    first, last = trials(0, 0, 1, 9)[::-1][:2]
    second, third = (SimpleNamespace(spec=SPECS[3].with_block(b, kernel=3), top1=8 - b) for b in (1, 2))
    estimator = Trained({one.spec.id: 50 for one in (first, second, third, last)})
    choose_finalist(context_of(estimator), TARGET, [last, third, second, first])
    assert estimator.trained == [first.spec.id, last.spec.id, second.spec.id]


def test_rivals_are_the_best_of_variants_that_were_not_measured() -> None:
    context, known = context_of(Trained({}), 3), trials(5)
    assert rivals(context, known, trials(1, 2, 3, 9)) == [SPECS[2], SPECS[1]]
    assert rivals(context, trials(5, 5), trials(1, 2, 3, 9)) == [SPECS[2]]
    assert rivals(context, trials(5, 5, 5), trials(1, 2, 3, 9)) == []


def test_there_are_as_many_rivals_as_finalists_are_wanted() -> None:
    assert rivals(context_of(Trained({}), 2), trials(5), trials(1, 2, 3, 9)) == [SPECS[2]]
    assert rivals(context_of(Trained({}), 1), trials(5), trials(1, 2, 3, 9)) == []
    assert rivals(context_of(ImageNetPrior()), trials(5), trials(1, 2, 3, 9)) == []


@pytest.mark.parametrize("finalists", [0, 1])
def test_fewer_than_two_finalists_leave_the_choice_to_the_estimate(finalists: int) -> None:
    estimator = Trained(reached(10, 70, 60, 65))
    assert choose_finalist(context_of(estimator, finalists), TARGET, trials(1, 2, 4, 3)) == SPECS[2]
    assert not estimator.trained


def test_a_single_network_is_not_trained_to_be_chosen() -> None:
    estimator = Trained(reached(10))
    assert choose_finalist(context_of(estimator), TARGET, trials(1)) == SPECS[0]
    assert not estimator.trained


def test_of_two_that_reach_the_same_the_one_with_the_better_estimate_is_chosen() -> None:
    estimator = Trained(reached(50, 50))
    assert choose_finalist(context_of(estimator, 2), TARGET, trials(1, 2)) == SPECS[1]


def test_an_estimator_without_weights_chooses_by_its_estimate_and_hands_over_none() -> None:
    context = context_of(ImageNetPrior())
    assert choose_finalist(context, TARGET, trials(1, 2, 4, 3)) == SPECS[2]
    assert hand_over_weights(context, TARGET, SPECS[2]) is None
    assert not context.console.lines


def test_weights_are_handed_over_beside_the_spec() -> None:
    estimator, spec = Trained({}), SPECS[0].replace(resolution=32)
    context = context_of(estimator, 1)
    assert hand_over_weights(context, TARGET, spec) == (77.7, 32)
    assert estimator.handed == [(spec.id, folder_of(context), Path("run/small.pt"))]
    (line,) = context.console.lines
    assert line == f"small: 77.70 % on the validation images at 32 px; its weights are in {Path('run/small.pt')}"


def test_weights_for_another_resolution_than_was_timed_are_said() -> None:
    context = context_of(Trained({}), 1)
    hand_over_weights(context, TARGET, SPECS[0].replace(resolution=224))
    _, note = context.console.lines
    assert "was timed at 224 px, and its weights are for 32 px: train it on" in note


def test_a_network_that_several_attempts_ended_with_is_one_finalist() -> None:
    logged = [SimpleNamespace(trial=trial) for trial in [*trials(1, 2), *trials(1, 2)]]
    measured = {spec.id: SimpleNamespace(normalised_ms=0.5) for spec in SPECS[:2]}
    folder = SimpleNamespace(
        result_of=lambda name: SimpleNamespace(measured=measured), trials=lambda name: logged, path=Path("run")
    )
    found = _fitting(SimpleNamespace(folder=folder), TARGET)  # type: ignore[arg-type]
    assert [trial.spec for trial in found] == SPECS[:2]


def test_without_finalists_no_weights_are_handed_over() -> None:
    estimator = Trained({})
    assert hand_over_weights(context_of(estimator, 0), TARGET, SPECS[0]) is None
    assert not estimator.handed
