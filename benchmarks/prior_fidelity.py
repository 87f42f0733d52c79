"""Estimate every published figure by an ImageNet prior that was fitted without it.

    python benchmarks/prior_fidelity.py

takes a minute on one core and prints the errors. It writes them to benchmarks/results/prior_fidelity.json and draws
the picture of docs/accuracy.md.
"""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau

from nas.accuracy import fit_imagenet_prior as fitting
from nas.accuracy.imagenet_prior import DATA, ImageNetPrior, judged_results, recipe_level_of
from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.published import PublishedResult
from nas.files import replacing, write_text

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "prior_fidelity.json"
PICTURE = ROOT.parent / "docs" / "images" / "prior_fidelity.png"

# Groups of rows, shown apart. A row is in the first group that it fits.
RELATED = "related networks (swish, two last convolutions)"
HARDCORE = "HardCoRe-NAS (distilled)"
ABLATIONS = "ablations of SE and h-swish"
PLAIN = "MobileNetV1 (no MBConv)"
LOW = "below 128 px"
MAIN = "all others"


def group_of(result: PublishedResult, related: bool) -> str:
    """Return the group of a row."""
    name = result.spec.name
    if related:
        return RELATED
    if recipe_level_of(result) == "hardcore-nas":
        return HARDCORE
    if "minimal" in name or "h-swish" in name:
        return ABLATIONS
    if any(block.activate_output for block in result.spec.blocks):
        return PLAIN
    return LOW if result.spec.resolution < 128 else MAIN


FAMILIES = {
    "ofa": "Once-for-All",
    "hardcorenas": "HardCoRe-NAS",
    "mobilenet_v1": "MobileNetV1",
    "mobilenetv1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilenetv2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3-Small",
    "mobilenetv3_small": "MobileNetV3-Small",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "mobilenetv3": "MobileNetV3-Large",
    "efficientnet": "EfficientNet-B0, -lite",
    "tinynet": "TinyNet",
}


def family_of(result: PublishedResult) -> str:
    """Return the family that a network shares with those of other widths, sizes and recipes."""
    name = result.spec.name.removeprefix("tf_")
    return next((family for word, family in FAMILIES.items() if name.startswith(word)), "MnasNet and its like")


def leave_out(
    regression: fitting.Regression, groups: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate each group of rows from all others. Return top-1 (percent), its std, and errors in units of std."""
    rows = len(regression.rows)
    score, std = np.empty(rows), np.empty(rows)
    for group in groups:
        kept = np.ones(rows, bool)
        kept[list(group)] = False
        coefficients, covariance = regression.solve(kept), regression.covariance(kept)
        for row in group:
            features = regression.rows[row]
            score[row] = features @ coefficients
            std[row] = np.sqrt(features @ covariance @ features + regression.row_std[row] ** 2)
    error = np.exp(-score)
    return fitting.LIMIT - error, error * std, (score - regression.scores) / std


def summary(errors: np.ndarray, sigmas: np.ndarray | None = None) -> dict[str, Any]:
    """Return figures of errors (percentage points) and of errors in units of their std."""
    figures: dict[str, Any] = {
        "rows": len(errors),
        "rmse": round(float(np.sqrt(np.mean(errors**2))), 3),
        "mean": round(float(errors.mean()), 3),
        "worst": round(float(np.abs(errors).max()), 2),
    }
    if sigmas is not None:
        figures["within_1_sigma"] = round(float(np.mean(np.abs(sigmas) < 1)), 2)
        figures["within_2_sigma"] = round(float(np.mean(np.abs(sigmas) < 2)), 2)
    return figures


def published_figures(results: Sequence[PublishedResult], groups: np.ndarray, samples: fitting.Samples) -> Any:
    """Return errors by group, left out alone and with the family, and the estimates and their std for the picture."""
    regression = fitting.Regression(results, samples)
    top1 = np.array([result.top1 for result in results])
    # The rows of a network that was published twice at one recipe level are left out together.
    twins: dict[Any, list[int]] = {}
    for row, result in enumerate(results):
        twins.setdefault((result.spec.id, recipe_level_of(result)), []).append(row)
    estimate, std, sigmas = leave_out(regression, list(twins.values()))
    errors = estimate - top1
    families = np.array([family_of(result) for result in results])
    without_family, _, family_sigmas = leave_out(
        regression, [np.flatnonzero(families == family).tolist() for family in np.unique(families)]
    )
    family_errors = without_family - top1
    supernet = np.array([recipe_level_of(result).startswith("once-for-all") for result in results])
    once_v3 = supernet & np.array([result.spec.head.hidden > 0 for result in results])
    main = groups == MAIN
    figures: dict[str, Any] = {
        "leave_one_out": {
            "once_for_all_mobilenet_v3": summary(errors[once_v3], sigmas[once_v3])
            | {"kendall": round(float(kendalltau(estimate[once_v3], top1[once_v3])[0]), 3)},
            **{group: summary(errors[groups == group], sigmas[groups == group]) for group in dict.fromkeys(groups)},
        },
        "leave_one_out_by_level": {
            level: summary(errors[rows], sigmas[rows])
            for level in dict.fromkeys(map(recipe_level_of, results))
            if (rows := main & np.array([recipe_level_of(result) == level for result in results])).any()
        },
        "leave_family_out": {
            family: summary(family_errors[rows], family_sigmas[rows])
            for family in np.unique(families)
            if (rows := main & (families == family)).any()
        },
    }
    v3 = {
        result.spec.name: row
        for row, result in enumerate(results)
        if recipe_level_of(result) == "mobilenet-v3" and groups[row] == MAIN
    }
    fitted = fitting.LIMIT - np.exp(-regression.rows @ regression.solve(np.ones(len(results), bool)))
    figures["mobilenet_v3_by_width"] = {
        name: {
            "published": float(top1[row]),
            "fitted": round(float(fitted[row]), 2),
            "left_out": round(float(estimate[row]), 2),
        }
        for name, row in v3.items()
    }
    figures["grids_left_out_rmse_by_resolution"] = {
        level: {
            int(resolution): summary(errors[rows])["rmse"]
            for resolution in sorted({result.spec.resolution for result in results})
            if (
                rows := np.array(
                    [
                        recipe_level_of(r) == level and r.spec.resolution == resolution and "@1.3" not in r.spec.name
                        for r in results
                    ]
                )
            ).any()
        }
        for level in ("mobilenet-v2", "mnasnet")
    }
    figures["ablations_and_hardcore"] = {
        f"{result.spec.name}, {recipe_level_of(result)}": {"published": result.top1, "left_out": round(float(value), 2)}
        for result, value, group in zip(results, estimate, groups, strict=True)
        if group in (ABLATIONS, HARDCORE)
    }
    return figures, estimate, std


def predictor_figures(results: Sequence[PublishedResult], samples: fitting.Samples) -> dict[str, Any]:
    """Return rank correlation, and errors where a search would pick, on the held-out half of the samples."""
    half = np.arange(len(samples.top1)) % 2 == 0
    regression = fitting.Regression(results, fitting.Samples(*(column[half] for column in samples)))
    coefficients = regression.solve(np.ones(len(results), bool))
    held = fitting.Samples(*(column[~half] for column in samples))
    columns = fitting.sample_features(held)
    score = sum(
        columns[name] * value for name, value in zip(regression.names, coefficients, strict=True) if name in columns
    )
    estimate = fitting.PREDICTOR_LIMIT - np.exp(-score)
    errors = estimate - held.top1
    top = np.argsort(-estimate)[: len(estimate) // 100]
    # An exact solver returns the best of each budget. Here the budgets are tenths of the samples by MACs.
    macs = np.array(
        [
            count_cost(fitting.sample_spec(kernels, expansions, resolution)).macs
            for kernels, expansions, resolution in zip(held.kernels, held.expansions, held.resolutions, strict=True)
        ]
    )
    tenths = np.array_split(np.argsort(macs), 10)
    best = [tenth[np.argsort(-estimate[tenth])[: len(tenth) // 50]] for tenth in tenths]
    # No sum over blocks can be better than the one fitted to the held-out half itself.
    indicators = [held.resolutions == resolution for resolution in np.unique(held.resolutions)]
    for slot in range(held.kernels.shape[1]):
        indicators += [held.kernels[:, slot] == kernel for kernel in (3, 5, 7)]
        indicators += [held.expansions[:, slot] == expansion for expansion in (4, 6)]
    matrix = np.array(indicators, float).T
    target = -np.log(fitting.PREDICTOR_LIMIT - held.top1)
    ceiling = matrix @ np.linalg.lstsq(matrix, target, rcond=None)[0]
    return {
        "samples": len(errors),
        "kendall": round(float(kendalltau(estimate, held.top1)[0]), 4),
        "kendall_of_the_best_additive_fit_to_these_samples": round(float(kendalltau(ceiling, held.top1)[0]), 4),
        "rmse": round(float(np.sqrt(np.mean(errors**2))), 3),
        "mean_error_of_top_percent": round(float(errors[top].mean()), 3),
        "mean_error_of_best_fiftieth_by_macs_tenth": [round(float(errors[rows].mean()), 2) for rows in best],
    }


def speed() -> dict[str, Any]:
    """Time the estimates of encodings, and return the greatest difference from `estimate`."""
    prior, space = ImageNetPrior(), load_space("mobilenet_v3_large")
    rng = np.random.default_rng(0)
    few = np.stack(
        [space.build_encoding(lambda decision: int(rng.integers(len(decision.choices)))) for _ in range(500)]
    )
    encodings = np.tile(few, (2_000, 1))
    compiled = prior.compile(space)
    start = time.perf_counter()
    compiled(encodings)
    seconds = time.perf_counter() - start
    difference = float(np.abs(compiled(few) - prior.estimate(space.decode(few)).top1).max())
    return {"networks": len(encodings), "seconds": round(seconds, 2), "greatest_difference_from_estimate": difference}


def draw_picture(results: Sequence[PublishedResult], groups: np.ndarray, estimate: np.ndarray, std: np.ndarray) -> None:
    """Draw estimated against published top-1, and the errors with the model's standard deviations."""
    top1 = np.array([result.top1 for result in results])
    families = np.array([family_of(result) for result in results])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), width_ratios=(1, 1.15))
    left.plot([40, 83], [40, 83], color="0.7", linewidth=1, zorder=0)
    apart = np.isin(groups, (ABLATIONS, HARDCORE, RELATED, LOW))
    for color, family in enumerate(sorted(set(families))):
        for hollow in (False, True):
            rows = (families == family) & (apart == hollow)
            if rows.any():
                style: dict[str, Any] = {
                    "s": 18,
                    "edgecolors": f"C{color}",
                    "facecolors": "none" if hollow else f"C{color}",
                    "linewidths": 1,
                }
                label = family if not hollow or not ((families == family) & ~apart).any() else None
                left.scatter(top1[rows], estimate[rows], label=label, **style)
                right.scatter(top1[rows], (estimate - top1)[rows], **style)
    left.set(xlabel="published top-1 (%)", ylabel="estimated without that row (%)")
    left.legend(fontsize=7, frameon=False)
    order = np.argsort(top1)
    spread = np.polynomial.Polynomial.fit(top1, std, 2)(top1[order])
    right.fill_between(top1[order], -2 * spread, 2 * spread, color="0.93", zorder=0, label="two standard deviations")
    right.fill_between(top1[order], -spread, spread, color="0.85", zorder=0, label="one")
    right.axhline(0, color="0.6", linewidth=1, zorder=1)
    right.set(xlabel="published top-1 (%)", ylabel="estimate minus published (points)")
    right.legend(fontsize=7, frameon=False, loc="upper right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    with replacing(PICTURE) as side:
        figure.savefig(side, dpi=100)


def main() -> None:
    start = time.perf_counter()
    samples, related = fitting.load_samples(), fitting.related_results()
    results = [*judged_results(), *related]
    groups = np.array([group_of(result, row >= len(results) - len(related)) for row, result in enumerate(results)])
    figures, estimate, std = published_figures(results, groups, samples)
    refitted = fitting.fit_json(fitting.fit(results, samples))
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        **figures,
        "predictor_held_out_half": predictor_figures(results, samples),
        "compiled": speed(),
        "refit_equals_the_committed_file": refitted == DATA.read_text(encoding="utf-8"),
    }
    draw_picture(results, groups, estimate, std)
    report["seconds"] = round(time.perf_counter() - start, 1)
    text = json.dumps(report, indent=1)
    write_text(RESULTS, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
