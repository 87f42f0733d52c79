"""Collect predicted against measured latencies."""

from __future__ import annotations

from typing import Any

from nas.runs.reading import Run
from nas.runs.record import POPULATIONS

LEAST_MEASURED = 5  # networks without which nothing is said of errors
# For readers, where the name alone does not say it.
NAMES = {
    "near-optimal": "near the optimum",
    "anchor": "anchors of a variant",
    "finalist": "finalists",
    "other": "others",
}


def fidelity_data(run: Run) -> list[dict[str, Any]]:
    """Return the networks that were measured whole, by why they were; predictions are by all other networks."""
    return [
        {
            "title": NAMES.get(population, population),
            "population": population,
            "name": own.name.tolist(),
            "measured": own.measured_ms.round(4).tolist(),
            "error": own.measured_error.round(4).tolist(),
            "predicted": own.predicted_ms.round(4).tolist(),
            "std": own.predicted_std.round(4).tolist(),
            "px": own.resolution.tolist(),
            "macs": own.macs.tolist(),
            "params": own.params.tolist(),
        }
        for population in POPULATIONS
        if len(own := run.measured[run.measured.population == population])
    ]


def certainty_text(run: Run) -> str:
    """Return how far predicted latencies are off for the networks that were measured whole; "" for fewer than five."""
    known = run.measured[run.measured.measured_ms > 0]
    if len(known) < LEAST_MEASURED:
        return ""
    off = 100 * (known.predicted_ms / known.measured_ms - 1).abs()
    return (
        f"For half of the {len(known)} networks that were measured whole, what the others predict is within "
        f"{off.median():.1f} %, for nine of ten within {off.quantile(0.9):.1f} %; the worst is {off.max():.1f} % off."
    )
