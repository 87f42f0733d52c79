"""The variants of a target: where finalists are trained, those that are parts of the teacher."""

from types import SimpleNamespace
from typing import Any

import pytest
from support.finalists import Trained
from support.problems import TINY

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.search.survey import _parts_of_the_teacher

LOW, TEACHERS, WIDE = TINY.variants  # of width 1, 1 and 2
BUDGET_MS = 1.0


def parts(
    estimator: Any, largest_ms: float = 1.5, *, keeps_limits: bool = True, finalists: int | None = None
) -> tuple[list[Any], list[Any]]:
    """Return the variants that are offered, and those that are always searched."""
    asked: list[Any] = []

    def measured_ms(specs: Any, title: str) -> list[float]:
        asked.extend(specs)
        return [largest_ms]

    context: Any = SimpleNamespace(
        estimator=estimator,
        request=SimpleNamespace(finalists=finalists),
        predictor=SimpleNamespace(measured_ms=measured_ms),
        keeps_limits=lambda spec: keeps_limits,
    )
    space, always = _parts_of_the_teacher(context, TINY, BUDGET_MS)
    assert asked in ([], [TINY.largest(TEACHERS)])
    return list(space.variants), always


def test_wider_variants_than_the_teachers_are_left_out() -> None:
    assert parts(Trained({})) == ([LOW, TEACHERS], [TEACHERS])


@pytest.mark.parametrize("largest_ms", [0.5, BUDGET_MS])
def test_wider_variants_are_searched_where_all_of_the_teacher_is_within_the_budget(largest_ms: float) -> None:
    assert parts(Trained({}), largest_ms) == ([LOW, TEACHERS, WIDE], [TEACHERS])


def test_they_are_not_where_the_teacher_breaks_another_limit() -> None:
    assert parts(Trained({}), 0.5, keeps_limits=False) == ([LOW, TEACHERS], [TEACHERS])


def test_without_finalists_nothing_is_left_out() -> None:
    assert parts(Trained({}), finalists=1) == ([LOW, TEACHERS, WIDE], [])
    assert parts(ImageNetPrior()) == ([LOW, TEACHERS, WIDE], [])
