"""Name the published networks that a run is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nas.arch.published import PublishedResult, published_results
from nas.arch.spec import ArchSpec
from nas.latency.predictor import LatencyPredictor

COMPARED = ("mobilenet_v3_large", "mobilenet_v3_small")  # measured in the same rounds as the found networks
_FAMILIES = ("mobilenet_v3", "mobilenet_v2", "mnasnet_a1", "ofa_", "hardcorenas_")


def published_networks() -> list[PublishedResult]:
    """Return the published networks that every run measures, each once, with its first published figure."""
    first: dict[str, PublishedResult] = {}
    for result in published_results():
        plain = "@" not in result.spec.name and "," not in result.spec.name and "minimal" not in result.spec.name
        if plain and result.spec.name.startswith(_FAMILIES):
            first.setdefault(result.spec.name, result)
    return list(first.values())


def measured_beside(
    predictor: LatencyPredictor, found: Iterable[ArchSpec], published: Sequence[PublishedResult]
) -> list[PublishedResult]:
    """Return published V3-Large and -Small, and for each found network the Once-for-All network nearest in latency."""
    shown = {result.spec.name: result for result in published if result.spec.name in COMPARED}
    rivals = [result for result in published if result.spec.name.startswith("ofa_")]
    latencies = predictor.measured_ms([rival.spec for rival in rivals], "published networks")
    for latency_ms in predictor.predict_ms(list(found)):
        nearest = rivals[int(np.argmin(np.abs(np.log(latencies / latency_ms))))]
        shown[nearest.spec.name] = nearest
    return list(shown.values())
