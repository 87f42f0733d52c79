"""Check the nearest published networks: their distance, and their estimates without them.

    python benchmarks/nearest_published.py

takes a minute on one core and prints figures, which docs/accuracy.md cites. It writes them to
benchmarks/results/nearest_published.json.

The estimate of a published network without its own results comes in closed form. Here every fifth network is left out
of a whole fit, too. Then the error of every network's estimate without it is compared with the errors of its three
nearest networks of other blocks, for several shares of the difference in the distance.
"""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from nas.accuracy import fit_imagenet_prior as fitting
from nas.accuracy.imagenet_prior import DEFAULT_RECIPE_LEVEL, load_fit, recipe_level_of
from nas.accuracy.nearest import SHOWN, candidates, distances, left_out_estimates, networks_of, vectors
from nas.arch.published import PublishedResult, published_results
from nas.files import write_text

RESULTS = Path(__file__).parent / "results" / "nearest_published.json"
EVERY = 5
SHARES = (0.0, 0.05, 0.1, 0.2)


def refitted(results: Sequence[PublishedResult]) -> np.ndarray:
    """Return top-1 (percent) of published results, each by a fit without its network at its level."""
    known = [*published_results(), *fitting.related_results()]
    regression = fitting.Regression(known, fitting.load_samples())
    keys = [(one.spec.id, recipe_level_of(one)) for one in known]
    top1 = []
    for result in results:
        number = known.index(result)
        kept = np.array([key != keys[number] for key in keys])
        top1.append(fitting.LIMIT - np.exp(-regression.rows[number] @ regression.solve(kept)))
    return np.array(top1)


def main() -> None:
    """Compare, print and write."""
    fit, results = load_fit(), candidates()
    published = np.array([result.top1 for result in results])
    closed = np.array([left_out_estimates(fit, result)[1] for result in results])
    off = np.abs(closed[::EVERY] - refitted(results[::EVERY]))
    rows = vectors(fit, [result.spec for result in results], [DEFAULT_RECIPE_LEVEL] * len(results))
    keys = np.array([hash(key) for key in networks_of(fit, rows)])
    signed = (closed - published) / (fit.limit - published)  # in score
    errors = np.abs(signed)
    figures: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "networks": len(results),
        "closed_form_against_refits": {
            "refits": len(off),
            "rmse": round(float(np.sqrt(np.mean(off**2))), 3),
            "nineteen_of_twenty": round(float(np.quantile(off, 0.95)), 3),
            "worst": round(float(off.max()), 3),
        },
    }
    for share in SHARES:
        far = np.where(keys[:, None] == keys, np.inf, distances(fit, rows, rows, share))
        nearest = np.argsort(far, axis=1)[:, :SHOWN]
        figures[f"with_{share:g}_of_the_difference"] = {
            "rank_correlation_of_errors": round(float(spearmanr(errors, errors[nearest].mean(axis=1)).statistic), 2),
            "correlation_of_signed_errors": round(float(np.corrcoef(signed, signed[nearest].mean(axis=1))[0, 1]), 2),
            "rank_correlation_of_error_and_distance": round(float(spearmanr(errors, far.min(axis=1)).statistic), 2),
            "median_points_apart": round(float(np.median(np.abs(closed[:, None] - closed[nearest]))), 2),
        }
    write_text(str(RESULTS), json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
