"""Encodings as parameters of an Optuna study, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from nas.arch.space import SearchSpace
from nas.search.problem import Row

Params = dict[str, Any]


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The decisions of a space as Optuna's parameters."""
    return {decision.name: CategoricalDistribution(_values(decision.choices)) for decision in space.decisions}


def params_of(space: SearchSpace, row: Row) -> Params:
    """Optuna's parameters of a row; a decision that does not exist has its first choice, so that rows stay unique."""
    return {
        decision.name: _values(decision.choices)[max(0, code)]
        for decision, code in zip(space.decisions, row, strict=True)
    }


def row_of(space: SearchSpace, params: Params) -> Row:
    """Inverse of `params_of`."""
    row = space.draw(lambda decision: _values(decision.choices).index(params[decision.name]))
    return tuple(int(code) for code in row)


def _values(choices: Sequence[Any]) -> list[Any]:
    """Choices as Optuna takes them: a variant becomes its text."""
    return [str(choice) if isinstance(choice, tuple) else choice for choice in choices]
