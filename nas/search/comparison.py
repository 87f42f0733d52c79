"""Name the published networks that a run is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nas.arch.published import PublishedResult, published_results
from nas.arch.spec import ArchSpec
from nas.latency.predictor import LatencyPredictor

COMPARED = ("mobilenet_v3_large", "mobilenet_v3_small")  # measured in the same rounds as the found networks
_FAMILIES = ("mobilenet_v3", "mobilenet_v2", "mnasnet_a1", "ofa_", "hardcorenas_", "mobilenetv4_")


def published_networks() -> list[PublishedResult]:
    """Return the published networks that every run measures, each once, with its first published figure.

    A network that was published under several names has all of them: "ofa_a = ofa_b".
    """
    by_name: dict[str, PublishedResult] = {}
    for result in published_results():
        plain = "@" not in result.spec.name and "," not in result.spec.name and "minimal" not in result.spec.name
        if plain and result.spec.name.startswith(_FAMILIES):
            by_name.setdefault(result.spec.name, result)
    same: dict[str, list[PublishedResult]] = {}
    for result in by_name.values():
        same.setdefault(result.spec.id, []).append(result)
    return [
        first._replace(spec=first.spec.replace(name=" = ".join([first.spec.name, *(o.spec.name for o in others)])))
        for first, *others in same.values()
    ]


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
