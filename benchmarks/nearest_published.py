"""Check the distance of the nearest published networks by the errors of estimates without them.

    python benchmarks/nearest_published.py

takes seconds on one core and prints figures, which docs/accuracy.md cites. It writes them to
benchmarks/results/nearest_published.json.

Every published result is estimated by a fit without its network. The error of this estimate is compared with those of
its three nearest results of other networks, for several shares of the difference in the distance.
"""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from nas.accuracy.imagenet_prior import DEFAULT_RECIPE_LEVEL, load_fit
from nas.accuracy.nearest import SHOWN, candidates, distances, left_out_top1, vectors
from nas.files import write_text

RESULTS = Path(__file__).parent / "results" / "nearest_published.json"
SHARES = (0.0, 0.05, 0.1, 0.2)


def main() -> None:
    """Compare, print and write."""
    fit, known = load_fit(), candidates()
    published = np.array([one.result.top1 for one in known])
    left_out = np.array([left_out_top1(one) for one in known])
    rows = vectors(fit, [one.result.spec for one in known], [DEFAULT_RECIPE_LEVEL] * len(known))
    keys = np.array([hash(one.network) for one in known])
    signed = (left_out - published) / (fit.limit - published)  # in score
    errors = np.abs(signed)
    figures: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "results": len(known),
        "networks": len(set(keys)),
    }
    for share in SHARES:
        far = np.where(keys[:, None] == keys, np.inf, distances(fit, rows, rows, share))
        nearest = np.argsort(far, axis=1)[:, :SHOWN]
        figures[f"with_{share:g}_of_the_difference"] = {
            "rank_correlation_of_errors": round(float(spearmanr(errors, errors[nearest].mean(axis=1)).statistic), 2),
            "correlation_of_signed_errors": round(float(np.corrcoef(signed, signed[nearest].mean(axis=1))[0, 1]), 2),
            "rank_correlation_of_error_and_distance": round(float(spearmanr(errors, far.min(axis=1)).statistic), 2),
            "median_points_apart": round(float(np.median(np.abs(left_out[:, None] - left_out[nearest]))), 2),
        }
    write_text(str(RESULTS), json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
