"""Define the problem that a strategy solves: the best network of a space within hard limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nas.accuracy.estimator import Estimates
from nas.arch.additive import AdditiveModel
from nas.arch.encoding import Encoding
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.runs.record import Trial
from nas.search.extremes import fastest_networks
from nas.search.limits import Limit
from nas.search.sampling import EncodingSampler
from nas.search.solver import Solution

Estimate = Callable[[Sequence[ArchSpec]], Estimates]
Begin = Callable[[Sequence[ArchSpec]], None]
Reward = Callable[[float, float], float]  # from top-1 (percent) and latency (ms)


@dataclass(frozen=True, eq=False)
class Problem:
    """Find the network of a space with the highest score whose predicted latency is at most `limit_ms`.

    The score is the estimated top-1, or the `reward` where one is given. `additive` is a sum over blocks that orders
    networks as top-1 does, where the estimator has one. `proxy` is a sum over blocks that a surrogate starts from
    where there is no `additive`. Up to `together` networks are proposed before the first of them is evaluated; `begin`
    is told of each, so that estimates that take long are made side by side. Raises NasError if no network of the space
    keeps all limits.
    """

    space: SearchSpace
    latency: AdditiveModel
    estimate: Estimate
    limit_ms: float
    additive: AdditiveModel | None = None
    others: tuple[Limit, ...] = ()  # beside latency's
    proxy: AdditiveModel | None = None
    reward: Reward | None = None
    sweep: tuple[float, ...] = ()  # limits (ms) that the exact strategy goes through; by default from `limit_ms` down
    together: int = 1
    begin: Begin | None = None

    def __post_init__(self) -> None:
        where = f"of the space {self.space.name} at {', '.join(map(str, self.space.variants))}"
        for limit in self.others:
            least = float(limit.least().min())
            if least > limit.most:
                raise NasError(
                    f"no network {where} has at most {limit.text(limit.most)}; the smallest has {limit.text(least)}"
                )
        fastest = self._fastest_ms.min()
        if fastest > self.limit_ms:
            within = " and ".join(f"at most {limit.text(limit.most)}" for limit in self.others)
            raise NasError(
                f"no network {where} {f'with {within} ' if within else ''}is as fast as {self.limit_ms:g} ms; "
                f"the fastest takes {fastest:.3g} ms"
            )

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """Return all limits, latency's first."""
        return (Limit("latency", self.limit_ms, self.latency, text=lambda value: f"{value:.4g} ms"), *self.others)

    @cached_property
    def feasible_variants(self) -> list[int]:
        """Return the indices of the variants that have a network within the limits."""
        return [int(variant) for variant in np.flatnonzero(self._fastest_ms <= self.limit_ms)]

    @cached_property
    def sampler(self) -> EncodingSampler:
        """Return a source of encodings that keep the limits."""
        return EncodingSampler(self.limits, self.feasible_variants, self._fastest)

    @property
    def needed_additive(self) -> AdditiveModel:
        """Return `additive`. Raises NasError where there is none."""
        if self.additive is None:
            raise NasError("this needs an estimator with an additive model, such as imagenet-prior")
        return self.additive

    @property
    def known(self) -> AdditiveModel:
        """Return the sum over blocks that a surrogate starts from. Raises NasError where there is none."""
        return self.needed_additive if self.proxy is None else self.proxy

    def with_limit(self, limit_ms: float) -> Problem:
        """Return the same problem with another limit on latency."""
        return replace(self, limit_ms=limit_ms)

    def fits(self, encoding: Encoding) -> bool:
        """Return whether a network keeps all limits."""
        return all(limit.value(encoding) <= limit.most for limit in self.limits)

    def announce(self, encoding: Encoding) -> None:
        """Say that a network is to be evaluated soon."""
        if self.begin:
            self.begin(self.space.decode(np.array([encoding])))

    def evaluate(self, encoding: Encoding) -> Trial:
        """Return a network with its estimated accuracy, predicted latency and score."""
        encodings = np.array([encoding])
        (spec,) = self.space.decode(encodings)
        return evaluated(encoding, spec, float(self.latency(encodings)[0]), self.estimate, self.reward)

    @cached_property
    def _fastest(self) -> list[Solution | None]:
        """Return the fastest network of each variant within the other limits; its score is minus the latency."""
        return fastest_networks(self.latency, self.others)

    @cached_property
    def _fastest_ms(self) -> np.ndarray:
        return np.array([-found.score if found else np.inf for found in self._fastest])


def evaluated(
    encoding: Encoding | None, spec: ArchSpec, latency_ms: float, estimate: Estimate, reward: Reward | None
) -> Trial:
    """Return a network as a trial: its accuracy is estimated, its score is top-1 or the reward."""
    estimates = estimate([spec])
    top1 = float(estimates.top1[0])
    score = top1 if reward is None else reward(top1, latency_ms)
    return Trial(encoding, spec, top1, float(estimates.std[0]), latency_ms, score, bool(estimates.diverged[0]))
