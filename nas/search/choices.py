"""Points of a finite space: one choice for each parameter, and the best point within linear limits.

A point is a tuple of indices, one a parameter, in the order of `Choices.names`. A sum over choices is a list of arrays,
one a parameter, each with a value for every choice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from nas.errors import NasError
from nas.search.solver import Row, maximise

Point = tuple[int, ...]
Sums = list[np.ndarray]
Values = Mapping[Any, float] | Callable[[Any], float] | float

BATCH = 4  # points that are left out, those with the highest sums first: more rows make a program slower
MOST_CHOICES = 1_000  # of one parameter: each is a variable of the integer program


class Bound(NamedTuple):
    """The sum over choices that must be at most `most`."""

    sums: Sums
    most: float

    def keeps(self, point: Point) -> bool:
        """Return whether a point is within the bound."""
        return value_of(self.sums, point) <= self.most


class Choices:
    """The choices of each parameter, from Optuna's categorical and integer distributions.

    Raises NasError for a parameter of another kind, or with more than 1,000 values.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.names = list(distributions)
        self._distributions = dict(distributions)
        self._choices = [_choices(name, distribution) for name, distribution in distributions.items()]
        self._index = [
            {self._internal(name, choice): i for i, choice in enumerate(choices)}
            for name, choices in zip(self.names, self._choices, strict=True)
        ]
        self._codes = [_code(d, len(c)) for d, c in zip(distributions.values(), self._choices, strict=True)]
        self.columns = sum(code.shape[1] for code in self._codes)

    def _internal(self, name: str, value: Any) -> float:
        return float(self._distributions[name].to_internal_repr(value))

    def indices(self, params: Mapping[str, Any]) -> dict[int, int]:
        """Return the choice of every parameter that `params` has a known value for, by the parameter's index."""
        found = {}
        for i, name in enumerate(self.names):
            if name in params:
                with suppress(TypeError, ValueError):  # of a value that the distribution does not know
                    choice = self._index[i].get(self._internal(name, params[name]))
                    if choice is not None:
                        found[i] = choice
        return found

    def point(self, params: Mapping[str, Any]) -> Point | None:
        """Return the point with these values; None if a parameter is missing, or has a value that is not known."""
        chosen = self.indices(params)
        return tuple(chosen[i] for i in range(len(self.names))) if len(chosen) == len(self.names) else None

    def announced(self, internal: Mapping[str, float]) -> Point | None:
        """Return the point with these internal values; the inverse of `internal`."""
        chosen = [index.get(internal.get(name, -1.0)) for name, index in zip(self.names, self._index, strict=True)]
        return None if None in chosen else tuple(choice for choice in chosen if choice is not None)

    def internal(self, point: Point) -> dict[str, float]:
        """Return the values of a point as Optuna stores them, by the names of the parameters."""
        return {name: self._internal(name, value) for name, value in self.params(point).items()}

    def neighbours(self, point: Point) -> Iterator[Point]:
        """Yield the points that differ in one parameter."""
        for i, choices in enumerate(self._choices):
            yield from ((*point[:i], choice, *point[i + 1 :]) for choice in range(len(choices)) if choice != point[i])

    def params(self, point: Point) -> dict[str, Any]:
        """Return the values of a point by the names of the parameters."""
        return {name: choices[i] for name, choices, i in zip(self.names, self._choices, point, strict=True)}

    def sums(self, values: Mapping[str, Values]) -> Sums:
        """Return values as a sum over choices. A parameter without a value counts 0.

        A parameter's values are a mapping from choices, a function of the choice, or a number that an integer is
        multiplied by. Raises NasError where a name is unknown, or a choice has no finite value.
        """
        for name in values:
            if name not in self.names:
                raise NasError(f"there are values for {name!r}, which is no parameter; known: {', '.join(self.names)}")
        return [
            np.array([_value(name, values.get(name, 0.0), choice) for choice in choices])
            for name, choices in zip(self.names, self._choices, strict=True)
        ]

    def indicators(self, points: Sequence[Point]) -> np.ndarray:
        """Return the indicators of points, shape (n, columns): a column a choice, or a column a step of an integer."""
        indices = np.array(points, int).reshape(-1, len(self.names))
        return np.column_stack([code[indices[:, i]] for i, code in enumerate(self._codes)])

    def weighted(self, corrections: np.ndarray) -> Sums:
        """Return corrections of the indicators, shape (columns,), as a sum over choices."""
        parts = np.split(corrections, np.cumsum([code.shape[1] for code in self._codes])[:-1])
        return [code @ part for code, part in zip(self._codes, parts, strict=True)]


def value_of(sums: Sums, point: Point) -> float:
    """Return the sum of one point."""
    return math.fsum(values[choice] for values, choice in zip(sums, point, strict=True))


def best_point(
    gains: Sums,
    bounds: Sequence[Bound],
    without: Collection[Point] = (),
    fixed: Mapping[int, int] | None = None,
    gap: float = 1e-4,
) -> Point | None:
    """Return the point with the highest sum of gains within all bounds; None if there is none.

    The points of `without` are left out. `fixed` gives the choices of some parameters, by index. The sum is proven to
    be the highest within a relative `gap`. Raises SolverError where the solver proves nothing.
    """
    starts = np.cumsum([0, *(len(values) for values in gains)])

    def columns(point: Point) -> list[int]:
        return [int(start) + choice for start, choice in zip(starts, point, strict=False)]

    def other_than(point: Point) -> Row:
        return dict.fromkeys(columns(point), 1.0), -np.inf, len(point) - 1.0

    rows: list[Row] = [(dict.fromkeys(range(start, end), 1.0), 1.0, 1.0) for start, end in itertools.pairwise(starts)]
    rows += [({int(starts[parameter]) + choice: 1.0}, 1.0, 1.0) for parameter, choice in (fixed or {}).items()]
    for bound in bounds:
        unit = max(abs(bound.most), float(np.abs(np.concatenate(bound.sums)).max())) or 1.0
        rows.append((dict(enumerate(np.concatenate(bound.sums) / unit)), -np.inf, bound.most / unit))
    # The least of each parameter is 0, so that the gap is relative to what the choices make of it.
    gain = np.concatenate([values - values.min() for values in gains])
    gain = gain / (gain.max() or 1.0)
    left = sorted(without, key=lambda point: (-value_of(gains, point), point))
    batch = BATCH
    while True:
        found = maximise(gain.tolist(), [True] * len(gain), rows, gap, name="the parameters")
        if found is None:
            return None
        point = tuple(int(values.argmax()) for values in np.split(found, starts[1:-1]))
        if point in left:
            rows += [other_than(one) for one in left[:batch]]
            left, batch = left[batch:], 4 * batch
        elif all(bound.keeps(point) for bound in bounds):
            return point
        # Over a bound by less than the solver's tolerance, or left out with a slightly smaller sum than others.
        rows.append(other_than(point))


def _choices(name: str, distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        # Of choices that Optuna takes for one, the first.
        return [c for i, c in enumerate(distribution.choices) if distribution.to_internal_repr(c) == i]
    if not isinstance(distribution, IntDistribution):
        raise NasError(
            f"parameter {name!r} is {type(distribution).__name__}; AdditiveSampler takes categorical and integer "
            "parameters: offer some of its values with suggest_categorical"
        )
    choices = range(distribution.low, distribution.high + 1, distribution.step)
    if len(choices) > MOST_CHOICES:
        raise NasError(
            f"parameter {name!r} has {len(choices):,} values; AdditiveSampler takes {MOST_CHOICES:,} at most: "
            "give it a step"
        )
    return list(choices)


def _code(distribution: BaseDistribution, number: int) -> np.ndarray:
    """Return the indicators of each choice, shape (choices, columns).

    A category has a column of its own. An integer has one for every step up to it, so that near values have near
    scores: its corrections are a random walk, as long as one correction from the lowest to the highest value.
    """
    if isinstance(distribution, CategoricalDistribution) or number == 1:
        return np.eye(number)
    assert isinstance(distribution, IntDistribution)
    values = np.arange(number) * float(distribution.step) + distribution.low
    steps = np.diff(np.log(values) if distribution.log else values)
    return np.tri(number, number - 1, -1) * np.sqrt(steps / steps.sum())


def _value(name: str, values: Values, choice: Any) -> float:
    try:
        if isinstance(values, Mapping):
            value = float(values[choice])
        elif callable(values):
            value = float(values(choice))
        else:
            value = values * float(choice) if values else 0.0
    except (KeyError, TypeError, ValueError):
        raise NasError(f"parameter {name!r} has no number for its choice {choice!r}: give each choice one") from None
    if not math.isfinite(value):
        raise NasError(f"parameter {name!r} has the value {value} for its choice {choice!r}; it must be finite")
    return value
