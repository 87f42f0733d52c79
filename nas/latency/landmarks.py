"""Tell how a session slowed large networks more than small ones, by three networks that every session times.

Other work on a shared machine takes cache and memory from the reference network, and little from a network that fits
into the core's own caches. All ratios of such a session are too low, the more so the smaller the network: by up to a
fifth at a tenth of the reference network's time. The logarithm of a ratio is off by a share of itself that all networks
smaller than the reference network have in common, and all larger ones. Networks that the table knows already tell
these two shares, the tilt of the session.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec
from nas.latency.table_file import WholeNetwork
from nas.latency.timing import Timing

DEVIATION = 0.06  # of a share, before a session tells it
SIGNIFICANT = 2.0  # standard errors below which a share may be chance, and is taken for none
SCATTER = 0.015  # relative difference of a network between two sessions beside their tilt


class Tilt(NamedTuple):
    """The shares of the logarithm of a ratio by which a session is off, for networks below and above the reference."""

    below: float = 0.0
    above: float = 0.0

    def of(self, ratio: float) -> float:
        """Return the share for a network with this ratio."""
        return self.below if ratio < 1 else self.above


def landmarks() -> tuple[ArchSpec, ...]:
    """Return the networks that every session times: V3-Small, its narrowest at 96 pixels, and the widest V2."""
    small, large = published_spec("mobilenet_v3_small"), published_spec("mobilenet_v2@1.4")
    smallest = published_spec("mobilenet_v3_small@0.35").replace(resolution=96, name="mobilenet_v3_small@0.35 at 96")
    return smallest, small, large


def tilt_of(known: Mapping[str, WholeNetwork], timings: Mapping[str, Timing]) -> Tilt:
    """Return the tilt of a session: a least-squares fit to the networks in both mappings, shrunk towards zero.

    Both mappings are by the keys of networks.
    """
    precisions, products = [DEVIATION**-2, DEVIATION**-2], [0.0, 0.0]
    for key, timing in timings.items():
        if key in known:
            size = math.log(known[key].ratio)
            variance = timing.error**2 + known[key].error ** 2 + SCATTER**2
            precisions[size > 0] += size**2 / variance
            products[size > 0] += size * (math.log(timing.ratio) - size) / variance
    shares = [product / precision for product, precision in zip(products, precisions, strict=True)]
    below, above = (
        share if abs(share) > SIGNIFICANT / precision**0.5 else 0.0
        for share, precision in zip(shares, precisions, strict=True)
    )
    return Tilt(below, above)


def without_tilt(timing: Timing, tilt: Tilt) -> Timing:
    """Return a timing as it would be in a session without tilt."""
    factor = timing.ratio ** (1 / (1 + tilt.of(timing.ratio)) - 1)
    low, high = timing.quartiles
    return replace(timing, ratio=factor * timing.ratio, quartiles=(factor * low, factor * high))
