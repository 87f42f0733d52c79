"""Turn encodings into parameters of an Optuna study, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from nas.arch.encoding import Encoding
from nas.arch.space import SearchSpace

Params = dict[str, Any]


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return the decisions of a space as Optuna's distributions, by name."""
    return {decision.name: CategoricalDistribution(_values(decision.choices)) for decision in space.decisions}


def params_of(space: SearchSpace, encoding: Encoding) -> Params:
    """Return an encoding as Optuna's parameters.

    A decision that does not exist gets its first choice, so that one network has one set of parameters.
    """
    decisions = zip(space.decisions, encoding, strict=True)
    return {decision.name: _values(decision.choices)[max(0, choice)] for decision, choice in decisions}


def encoding_of(space: SearchSpace, params: Mapping[str, Any]) -> Encoding:
    """Return the encoding whose parameters are `params`: the inverse of `params_of`."""
    return space.build_encoding(lambda decision: _values(decision.choices).index(params[decision.name]))


def _values(choices: Sequence[Any]) -> list[Any]:
    """Return choices as Optuna takes them: a variant becomes its text."""
    return [str(choice) if isinstance(choice, tuple) else choice for choice in choices]
