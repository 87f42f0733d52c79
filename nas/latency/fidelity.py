"""Check a table: compare its predictions with whole networks that it has not learned from, measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nas.arch.parts import NetworkPart
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Progress
from nas.errors import NasError
from nas.latency.networks import time_networks
from nas.latency.table import LatencyTable, space_parts
from nas.latency.table_file import Fidelity
from nas.latency.timing import StoppingRule, Timing

RANDOM, NEAR_OPTIMAL, FINALIST = "random", "near-optimal", "finalist"  # populations of networks
TRIES = 5  # drawn networks for each that is wanted
CHECK_RULE = StoppingRule(0.006, 8, 24)  # of each of two sessions


def covered_variants(table: LatencyTable, space: SearchSpace) -> list[Variant]:
    """Return the variants of a space that the table has every row of."""
    return [
        variant for variant in space.variants if not table.missing(space_parts(space.at([variant]), table.num_classes))
    ]


def covered(table: LatencyTable, spaces: Sequence[SearchSpace]) -> list[SearchSpace]:
    """Return the spaces at the variants that the table covers. Raises NasError if it covers none."""
    views = [space.at(variants) for space in spaces if (variants := covered_variants(table, space))]
    if not views:
        names = ", ".join(space.name for space in spaces)
        where = f" on {table.device.cpu}" if table.other_device else ""
        raise NasError(
            f"{table.path} has all rows of no variant of {names}; the same command without --check{where} measures them"
        )
    return views


def held_out(
    table: LatencyTable, spaces: Sequence[SearchSpace], number: int, draw: Callable[[SearchSpace], ArchSpec]
) -> list[ArchSpec]:
    """Return networks of the spaces, each drawn by `draw`, that the table has not measured.

    Fewer than `number` where a space has no more.
    """
    specs: dict[str, ArchSpec] = {}
    for index in range(TRIES * number):
        spec = draw(spaces[index % len(spaces)])
        if not table.knows(NetworkPart(spec, table.num_classes)):
            specs.setdefault(spec.id, spec)
        if len(specs) == number:
            break
    return list(specs.values())


def of_population(spec: ArchSpec, population: str) -> ArchSpec:
    """Return a network with its population in its name, under which a table remembers it."""
    return spec.replace(name=f"{population} {spec.name}")


def population_of(name: str) -> str | None:
    """Return the population that a name tells; None if it tells none."""
    return next((known for known in (RANDOM, NEAR_OPTIMAL, FINALIST) if name.startswith(f"{known} ")), None)


class Check(NamedTuple):
    """A comparison with whole networks: errors, times by table and by measurement (shape (n,), ms), what to remember.

    The times by table are those before the table learned from these networks.
    """

    fidelity: Fidelity
    predicted_ms: np.ndarray
    measured_ms: np.ndarray
    sessions: tuple[dict[NetworkPart, Timing], ...]


def check(
    table: LatencyTable,
    specs: Sequence[ArchSpec],
    *,
    population: str,
    rng: random.Random,
    here: LatencyTable | None = None,
    on_progress: Progress = lambda share, note: None,
) -> Check:
    """Compare predictions with whole networks, each of which is measured in two sessions.

    A table of another device needs a table of this one, `here`, in whose unit they are measured.
    """
    predicted = table.predict_ms(specs)
    sessions = tuple(
        time_networks(
            specs,
            table=here or table,
            rng=rng,
            stopping_rule=CHECK_RULE,
            on_progress=lambda share, note, number=number: on_progress((number + share) / 2, note),  # type: ignore[misc]
        )
        for number in (0, 1)
    )
    parts = [NetworkPart(spec, table.num_classes) for spec in specs]
    first, second = (table.reference_ms * np.array([one[part].ratio for part in parts]) for one in sessions)
    measured_ms = (first + second) / 2
    fidelity = fidelity_of(predicted, measured_ms, population=population, noise_mape=_mape(first, second))
    return Check(fidelity, predicted, measured_ms, sessions)


def fidelity_of(predicted: np.ndarray, measured: np.ndarray, *, population: str, noise_mape: float) -> Fidelity:
    """Return the errors of predictions (ms) relative to measurements (ms), both of shape (n,).

    `noise_mape` is the mean difference of two measurements of one network.
    """
    error = predicted / measured - 1
    return Fidelity(
        population=population,
        networks=len(measured),
        date=datetime.now(UTC).date().isoformat(),
        mape=round(float(np.abs(error).mean()), 5),
        bias=round(float(error.mean()), 5),
        within_5_percent=round(float((np.abs(error) <= 0.05).mean()), 4),
        within_10_percent=round(float((np.abs(error) <= 0.10).mean()), 4),
        spearman=_correlation(spearmanr, predicted, measured),
        kendall=_correlation(kendalltau, predicted, measured),
        noise_mape=noise_mape,
    )


def fidelity_text(fidelity: Fidelity) -> str:
    """Return a line that says how well a table predicts."""
    return (
        f"{fidelity.networks} {fidelity.population} networks: mean error {fidelity.mape:.1%} (measuring twice differs "
        f"by {fidelity.noise_mape:.1%}), bias {fidelity.bias:+.1%}, within 5 %: {fidelity.within_5_percent:.0%}, "
        f"within 10 %: {fidelity.within_10_percent:.0%}, Spearman {fidelity.spearman:.3f}, Kendall "
        f"{fidelity.kendall:.3f}"
    )


def _correlation(measure: Callable[..., Any], predicted: np.ndarray, measured: np.ndarray) -> float:
    """Return a rank correlation; 0 where fewer than two networks, or equal times, have none."""
    if len(set(predicted)) < 2 or len(set(measured)) < 2:
        return 0.0
    return round(float(measure(predicted, measured).statistic), 5)


def _mape(one: np.ndarray, other: np.ndarray) -> float:
    return round(float(np.abs(one / other - 1).mean()), 5)
