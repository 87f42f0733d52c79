"""Find the published networks that say most of the estimate of a network.

    nearest_published(spec)   # three `Neighbour`s, the nearest first

The distance of two networks is the standard deviation of the estimated difference between them: a Mahalanobis distance
of their features under the covariance of the coefficients. A share of the difference itself is added in quadrature, so
that networks of like accuracy come first. The published accuracy of a near network says much of the other one's, and
the residual of its estimate is evidence that a person can check.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from nas.accuracy import fit_imagenet_prior as fitting
from nas.accuracy.evidence import Evidence, evidence
from nas.accuracy.features import described_resolution, network_features
from nas.accuracy.imagenet_prior import DEFAULT_RECIPE_LEVEL, PriorFit, is_judged, load_fit, recipe_level_features
from nas.arch.published import published_names
from nas.arch.spec import ArchSpec

SHOWN = 3
# Of the estimated difference. benchmarks/nearest_published.py compares some: with 0.1 or 0.2 the errors of networks
# that were left out go more with those of their nearest than with less.
DIFFERENCE_SHARE = 0.1


class Neighbour(NamedTuple):
    """A published network near another one. Accuracies are percent, differences and deviations are points.

    `estimated_top1` is for the recipe level at which the network was published. The fit has seen its accuracy, so that
    `left_out_top1` is the better test: the estimate of a fit without this network in any training or ablation.
    """

    name: str
    resolution: int  # pixels
    recipe_level: str
    published_top1: float
    estimated_top1: float
    left_out_top1: float
    difference: float  # estimated: how much better the other network is, both trained at its level
    difference_std: float
    source: str


def nearest_published(spec: ArchSpec, recipe_level: str = DEFAULT_RECIPE_LEVEL, count: int = SHOWN) -> list[Neighbour]:
    """Return the published networks that are nearest to a network, the nearest first.

    Both are compared as if trained at `recipe_level`, so that trainings do not count in the distance. Networks that the
    prior cannot tell apart, or only by their resolution, come once: the nearest of them, as published at that level if
    it was. All are known to `nas.load_spec` by name. There are none for a network that the prior cannot judge.
    """
    if not is_judged(spec):
        return []
    fit, known = load_fit(), candidates()
    specs, levels = [one.result.spec for one in known], [recipe_level] * len(known)
    own, others = vectors(fit, [spec], levels[:1]), vectors(fit, specs, levels)
    far = distances(fit, own, others)[0]
    stds = distances(fit, own, others, 0.0)[0]
    error, errors = (np.exp(-rows @ fit.coefficients) for rows in (own[0], others))
    published_errors = np.exp(-vectors(fit, specs, [one.level for one in known]) @ fit.coefficients)
    alike = networks_of(fit, others)
    # Of twins the one that was published at the level comes first.
    order = sorted(range(len(known)), key=lambda i: (round(far[i], 6), known[i].level != recipe_level))
    first_of: dict[bytes, int] = {}
    for index in order:
        first_of.setdefault(alike[index], index)
    found = []
    for index in list(first_of.values())[:count]:
        result = known[index].result
        found.append(
            Neighbour(
                name=result.spec.name,
                resolution=result.spec.resolution,
                recipe_level=known[index].level,
                published_top1=result.top1,
                estimated_top1=float(fit.limit - published_errors[index]),
                left_out_top1=left_out_top1(known[index]),
                difference=float(errors[index] - error),
                difference_std=float(error * stds[index]),
                source=result.source,
            )
        )
    return found


def vectors(fit: PriorFit, specs: Sequence[ArchSpec], recipe_levels: Iterable[str]) -> np.ndarray:
    """Return the features of networks at recipe levels, shape (n, features). What was never fitted is left out."""
    rows = np.zeros((len(specs), len(fit.index)))
    for row, spec, level in zip(rows, specs, recipe_levels, strict=True):
        for name, value in [*network_features(spec), *recipe_level_features(level, described_resolution(spec))]:
            if name in fit.index:
                row[fit.index[name]] += value
    return rows


def distances(
    fit: PriorFit, rows: np.ndarray, others: np.ndarray, difference_share: float = DIFFERENCE_SHARE
) -> np.ndarray:
    """Return the distances of n from m networks, given by their features, in score: shape (n, m).

    With a `difference_share` of 0 they are the standard deviations of the estimated differences.
    """
    apart = rows[:, None] - others[None]
    variance = np.einsum("nmj,jk,nmk->nm", apart, fit.covariance, apart, optimize=True)
    return np.asarray(np.sqrt(variance + (difference_share * (apart @ fit.coefficients)) ** 2))


def networks_of(fit: PriorFit, rows: np.ndarray) -> list[bytes]:
    """Return a key for each row of features, the same for rows that differ in resolution only."""
    sized = [name.startswith("resolution") for name in fit.index]
    return [row.tobytes() for row in np.where(sized, 0.0, rows)]


@functools.cache
def candidates() -> tuple[Evidence, ...]:
    """Return the published results of networks that have a name of their own, unlike most ablations, and no kin."""
    names = set(published_names())
    return tuple(one for one in evidence() if not one.kin and one.result.spec.name.partition("@")[0] in names)


@functools.cache
def left_out_top1(one: Evidence) -> float:
    """Return the estimate (percent) of a published result by a fit without its network in any training or ablation.

    The level of a training that no other network had is unknown to such a fit, too.
    """
    known, regression = evidence(), _regression()
    kept = np.array([other.network != one.network for other in known])
    score = regression.rows[known.index(one)] @ regression.solve(kept)
    return float(fitting.LIMIT - np.exp(-score))


@functools.cache
def _regression() -> fitting.Regression:
    return fitting.Regression(evidence(), fitting.load_samples())
