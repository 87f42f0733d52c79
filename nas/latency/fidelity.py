"""How good a table is: its predictions against random whole networks, measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nas.arch.space import SearchSpace, Variant
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.networks import measure_latency
from nas.latency.table import LatencyTable, space_parts
from nas.latency.timing import Effort

CHECK = Effort(0.006, 8, 24)  # of each of two sessions


def covered_variants(table: LatencyTable, space: SearchSpace) -> list[Variant]:
    """The variants of a space that the table has every row of."""
    return [
        variant for variant in space.variants if not table.missing(space_parts(space.at([variant]), table.num_classes))
    ]


def held_out(table: LatencyTable, spaces: Sequence[SearchSpace], number: int, rng: random.Random) -> list[ArchSpec]:
    """Random networks of the spaces at the variants that the table covers. Raises NasError if it covers none."""
    views = [space.at(variants) for space in spaces if (variants := covered_variants(table, space))]
    if not views:
        names = ", ".join(space.name for space in spaces)
        raise NasError(
            f"{table.path or 'the table'} has all rows of no variant of {names}; `python -m nas.measure` adds them"
        )
    return [views[index % len(views)].sample(rng) for index in range(number)]


def check(
    table: LatencyTable,
    specs: Sequence[ArchSpec],
    *,
    rng: random.Random,
    on_progress: Callable[[float], None] = lambda share: None,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Predictions held against whole networks, each measured twice in sessions of their own.

    Gives the figures (errors as shares, signed bias positive where the table predicts too much), the predicted
    and the measured times (ms). `noise_mape` is the difference of the two measurements: what no table can beat.
    """
    predicted = table.predict_ms(specs)
    sessions = []
    for number in (0, 1):
        measured = measure_latency(
            specs,
            table=table,
            rng=rng,
            effort=CHECK,
            on_progress=lambda share, number=number: on_progress((number + share) / 2),  # type: ignore[misc]
        )
        sessions.append(np.array([m.normalised_ms for m in measured]))
    first, second = sessions
    measured_ms = (first + second) / 2
    return figures(predicted, measured_ms) | {"noise_mape": _mape(first, second)}, predicted, measured_ms


def figures(predicted: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """Errors of predictions (ms), relative to the measurements (ms)."""
    error = predicted / measured - 1
    return {
        "networks": len(measured),
        "date": datetime.now(UTC).date().isoformat(),
        "mape": round(float(np.abs(error).mean()), 5),
        "bias": round(float(error.mean()), 5),
        "within_5_percent": round(float((np.abs(error) <= 0.05).mean()), 4),
        "within_10_percent": round(float((np.abs(error) <= 0.10).mean()), 4),
        "spearman": round(float(spearmanr(predicted, measured).statistic), 5),
        "kendall": round(float(kendalltau(predicted, measured).statistic), 5),
    }


def fidelity_text(figures: Mapping[str, Any]) -> str:
    """What a check told, in a line."""
    return (
        f"{figures['networks']} random networks: mean error {figures['mape']:.1%} (measuring twice differs by "
        f"{figures['noise_mape']:.1%}), bias {figures['bias']:+.1%}, within 5 %: {figures['within_5_percent']:.0%}, "
        f"within 10 %: {figures['within_10_percent']:.0%}, Spearman {figures['spearman']:.3f}, Kendall "
        f"{figures['kendall']:.3f}"
    )


def _mape(one: np.ndarray, other: np.ndarray) -> float:
    return round(float(np.abs(one / other - 1).mean()), 5)
