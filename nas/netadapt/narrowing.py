"""Draw random networks that are cut from one, in the places where NetAdapt cuts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.arch.cost import count_cost
from nas.arch.spec import CHANNEL_STEP, ArchSpec
from nas.netadapt.proposals import VECTOR_CHANNELS, Place, changes_of, places_of, resolutions_below

# Of the networks that are drawn: the largest one, and the narrowest one (arXiv 1903.05134, section 3.3).
LARGEST_SHARE, NARROWEST_SHARE = 0.1, 0.1
EXTRA_CUT_SHARE = 0.3  # of the blocks that lose SE, a larger kernel or h-swish, where that is allowed
BEYOND = 0.5  # places keep as little as this times the share that every place would keep within the budget
HALVINGS = 20


@dataclass(frozen=True)
class RandomCuts:
    """Random networks that are cut from `spec`: each place keeps from `least_share` to all of its channels.

    `allow` are the cuts beside channels, as in `nas.netadapt.proposals.Rules`.
    """

    spec: ArchSpec
    least_share: float
    allow: tuple[str, ...] = ()

    @property
    def places(self) -> list[Place]:
        return places_of(self.spec, self.allow)

    def draw(self, random_seed: int) -> ArchSpec:
        """Return a network: at times the largest or the narrowest one, mostly one with shares of its own everywhere."""
        rng = np.random.default_rng(random_seed)
        kind = rng.random()
        if kind < LARGEST_SHARE:
            return self.spec
        if kind < LARGEST_SHARE + NARROWEST_SHARE:
            return self.uniform(self.least_share)
        return self.random(rng)

    def random(self, rng: np.random.Generator) -> ArchSpec:
        """Return a network whose places keep random shares of their channels."""
        spec = self.spec
        for place in self.places:
            spec = _narrowed(spec, place, rng.uniform(self.least_share, 1))
        for index, block in enumerate(spec.blocks):
            for _, change in changes_of(block, self.allow):
                if rng.random() < EXTRA_CUT_SHARE:
                    spec = spec.with_block(index, **change)
        lower = [side for side in resolutions_below(spec, self.allow) if side >= self.least_share * spec.resolution]
        if lower:
            spec = spec.replace(resolution=int(rng.choice([*lower, spec.resolution])))
        return spec

    def uniform(self, share: float) -> ArchSpec:
        """Return the network whose places all keep the same share of their channels."""
        spec = self.spec
        for place in self.places:
            spec = _narrowed(spec, place, share)
        return spec


def cuts_within(spec: ArchSpec, share: float, allow: tuple[str, ...], num_classes: int) -> RandomCuts:
    """Return random networks around those that a trimming to a `share` of the latency passes.

    The network whose places all keep the same share of channels, and that has this share of the multiply-accumulates,
    is in their midst.
    """
    full, low, high = count_cost(spec, num_classes).macs, 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        macs = count_cost(RandomCuts(spec, middle, allow).uniform(middle), num_classes).macs
        low, high = (low, middle) if macs > share * full else (middle, high)
    return RandomCuts(spec, BEYOND * high, allow)


def with_wider_expansions(spec: ArchSpec) -> ArchSpec:
    """Return a network with each expansion at the next multiple of 16 channels, to which NetAdapt may widen it."""
    for place in places_of(spec):
        if place.field == "expanded":
            spec = place.cut(spec, -(-place.channels // VECTOR_CHANNELS) * VECTOR_CHANNELS)
    return spec


def _narrowed(spec: ArchSpec, place: Place, share: float) -> ArchSpec:
    """Return a network with a share of a place's channels, in multiples of 8 unless all are left."""
    width = max(CHANNEL_STEP, round(share * place.channels / CHANNEL_STEP) * CHANNEL_STEP)
    return place.cut(spec, width) if width < place.channels else spec
