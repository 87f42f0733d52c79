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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau

from nas.accuracy import fit_imagenet_prior as fitting
from nas.accuracy.evidence import Evidence, evidence, further_evidence, pairs, related_evidence
from nas.accuracy.features import REFERENCE_OUT, network_features
from nas.accuracy.imagenet_prior import DATA, ImageNetPrior, load_fit
from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.files import replacing, write_text

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "prior_fidelity.json"
PICTURE = ROOT.parent / "docs" / "images" / "prior_fidelity.png"

SLOPE_STD = 0.2  # what a level adds changes by 0.2 points over one point of top-1

# Groups of rows, shown apart. A row is in the first group that it fits.
FURTHER = "further networks and ablations"
RELATED = "related networks (swish, two last convolutions)"
HARDCORE = "HardCoRe-NAS (distilled)"
ABLATIONS = "ablations of SE and h-swish"
PLAIN = "MobileNetV1 (no MBConv)"
LOW = "below 128 px"
MAIN = "all others"


def group_of(one: Evidence) -> str:
    """Return the group of a row."""
    name = one.result.spec.name
    if one in further_evidence():
        return FURTHER
    if one in related_evidence():
        return RELATED
    if one.level == "hardcore-nas":
        return HARDCORE
    if "minimal" in name or "h-swish" in name:
        return ABLATIONS
    if any(block.activate_output for block in one.result.spec.blocks):
        return PLAIN
    return LOW if one.result.spec.resolution < 128 else MAIN


# The families of networks that were trained together, whatever their blocks.
FAMILY_OF_LEVEL = {
    "moga": "MoGA",
    "scarlet": "SCARLET",
    "fairnas": "FairNAS",
    "fairnas-se-swish": "FairNAS",
    "dna": "DNA",
    "proxyless": "ProxylessNAS",
    "fbnet": "FBNet",
    "fbnetv2": "FBNetV2",
    "mnas-schedule": "by MnasNet's schedule",
    "coordatt": "MobileNetV2 with SE",
    "mnasnet-uniform": "MnasNet of one kind of block",
}
FAMILIES = {
    "ofa": "Once-for-All",
    "hardcorenas": "HardCoRe-NAS",
    "binas": "BINAS",
    "pplcnet": "PP-LCNet",
    "lcnet": "PP-LCNet",
    "fbnet": "FBNet",
    "mnasnet_b1": "torchvision's MnasNet and V2",
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
# Those of the mean over MBConv families: family and recipe level.
MEAN_OVER = (
    ("HardCoRe-NAS", "hardcore-scratch"),
    ("HardCoRe-NAS", "distilled"),
    ("BINAS", "binas"),
    ("FairNAS", "fairnas"),
    ("SCARLET", "scarlet"),
    ("ProxylessNAS", "proxyless"),
    ("MoGA", "moga"),
    ("FBNet", "fbnet"),
)


def family_of(one: Evidence) -> str:
    """Return the family that a network shares with those of other widths, sizes and recipes."""
    name = one.result.spec.name.removeprefix("tf_")
    if one.level.startswith("torchvision") and name.startswith("mobilenetv2"):
        return "torchvision's MnasNet and V2"
    if one.level in FAMILY_OF_LEVEL:
        return FAMILY_OF_LEVEL[one.level]
    return next((family for word, family in FAMILIES.items() if name.startswith(word)), "MnasNet and its like")


def leave_out(
    regression: fitting.Regression, groups: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate each group of rows from all others. Return top-1 (percent), its std, and errors in units of std.

    Rows of no group are nan.
    """
    rows = len(regression.rows)
    score, std = np.full((2, rows), np.nan)
    for group in groups:
        kept = np.ones(rows, bool)
        kept[list(group)] = False
        coefficients, covariance = regression.solve(kept), regression.covariance(kept)
        for row in group:
            features = regression.rows[row]
            score[row] = features @ coefficients
            std[row] = np.sqrt(features @ covariance @ features + regression.noise[row, row])
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


def twins(rows: Sequence[Evidence]) -> list[list[int]]:
    """Return the rows of each network at each recipe level. They are left out together."""
    found: dict[Any, list[int]] = {}
    for row, one in enumerate(rows):
        found.setdefault((one.result.spec.id, one.level), []).append(row)
    return list(found.values())


def published_figures(rows: Sequence[Evidence], groups: np.ndarray, samples: fitting.Samples) -> Any:
    """Return errors by group, left out alone and with the family, and the estimates and their std for the picture."""
    regression = fitting.Regression(rows, samples)
    top1 = np.array([one.result.top1 for one in rows])
    levels = np.array([one.level for one in rows])
    estimate, std, sigmas = leave_out(regression, twins(rows))
    errors = estimate - top1
    families = np.array([family_of(one) for one in rows])
    without_family, _, family_sigmas = leave_out(
        regression, [np.flatnonzero(families == family).tolist() for family in np.unique(families)]
    )
    family_errors = without_family - top1
    supernet = np.array([one.level.startswith("once-for-all") for one in rows])
    once_v3 = supernet & np.array([one.result.spec.head.hidden > 0 for one in rows])
    main = groups == MAIN
    around, calibration = around_their_level(dict.fromkeys(families.tolist(), regression), families, levels, top1)
    figures: dict[str, Any] = {
        "rows": len(rows),
        "leave_one_out": {
            "once_for_all_mobilenet_v3": summary(errors[once_v3], sigmas[once_v3])
            | {"kendall": round(float(kendalltau(estimate[once_v3], top1[once_v3])[0]), 3)},
            **{group: summary(errors[groups == group], sigmas[groups == group]) for group in dict.fromkeys(groups)},
        },
        "leave_one_out_by_level": {
            level: summary(errors[chosen], sigmas[chosen])
            for level in dict.fromkeys(levels)
            if (chosen := main & (levels == level)).any()
        },
        "leave_family_out": {
            family: summary(family_errors[chosen], family_sigmas[chosen])
            for family in np.unique(families)
            if (chosen := main & (families == family)).any()
        },
        "leave_family_out_around_its_level": around,
        **means_of_families(around),
        "calibration_of_left_out_families": calibration,
        "held_out_density": densities(rows, samples),
        "slopes_of_trainings": slopes_of_trainings(regression, rows),
    }
    v3 = {
        one.result.spec.name: row for row, one in enumerate(rows) if one.level == "mobilenet-v3" and groups[row] == MAIN
    }
    fitted = fitting.LIMIT - np.exp(-regression.rows @ regression.solve(np.ones(len(rows), bool)))
    figures["mobilenet_v3_by_width"] = {
        name: {
            "published": float(top1[row]),
            "fitted": round(float(fitted[row]), 2),
            "left_out": round(float(estimate[row]), 2),
        }
        for name, row in v3.items()
    }
    resolutions = np.array([one.result.spec.resolution for one in rows])
    widest = np.array(["@1.3" in one.result.spec.name for one in rows])
    figures["grids_left_out_rmse_by_resolution"] = {
        level: {
            int(resolution): summary(errors[chosen])["rmse"]
            for resolution in np.unique(resolutions)
            if (chosen := (levels == level) & (resolutions == resolution) & ~widest).any()
        }
        for level in ("mobilenet-v2", "mnasnet")
    }
    figures["ablations_and_hardcore"] = {
        f"{one.result.spec.name}, {one.level}": {"published": one.result.top1, "left_out": round(float(value), 2)}
        for one, value, group in zip(rows, estimate, groups, strict=True)
        if group in (ABLATIONS, HARDCORE)
    }
    return figures, estimate, std


def level_groups(families: np.ndarray, levels: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """Return the rows of each family at each recipe level, where there are two or more."""
    found = {}
    for family, level in dict.fromkeys(zip(families.tolist(), levels.tolist(), strict=True)):
        rows = np.flatnonzero((families == family) & (levels == level))
        if len(rows) > 1:
            found[family, level] = rows
    return found


def family_groups(rows: Sequence[Evidence]) -> dict[str, list[np.ndarray]]:
    """Return the rows of each family, those of one recipe level together."""
    found: dict[str, dict[str, list[int]]] = {}
    for row, one in enumerate(rows):
        found.setdefault(family_of(one), {}).setdefault(one.level, []).append(row)
    return {family: list(map(np.array, groups.values())) for family, groups in found.items()}


def around_their_level(
    regressions: Mapping[str, fitting.Regression], families: np.ndarray, levels: np.ndarray, top1: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Estimate each family from all others by its regression, and take the mean error of its rows at a level as known.

    Returns figures by family and level, and the shares of all these errors within one and two of their std.
    """
    figures, sigmas = {}, []
    for (family, level), rows in level_groups(families, levels).items():
        regression, kept = regressions[family], families != family
        coefficients, covariance = regression.solve(kept), regression.covariance(kept)
        features = regression.rows[rows]
        error = np.exp(-features @ coefficients)
        errors = fitting.LIMIT - error - top1[rows]
        scores = features @ covariance @ features.T + regression.noise[np.ix_(rows, rows)]
        centre = np.eye(len(rows)) - 1 / len(rows)
        std = np.sqrt(np.diag(centre @ (error[:, None] * scores * error) @ centre))
        chance = centre @ (error[:, None] * regression.noise[np.ix_(rows, rows)] * error) @ centre
        figures[f"{family}, {level}"] = summary(centre @ errors, centre @ errors / std) | {
            "level": round(float(errors.mean()), 2),
            "rmse_if_coefficients_were_known": round(float(np.sqrt(np.diag(chance).mean())), 3),
        }
        sigmas.append(centre @ errors / std)
    all_sigmas = np.abs(np.concatenate(sigmas))
    shares = {f"within_{n}_sigma": round(float(np.mean(all_sigmas < n)), 3) for n in (1, 2)}
    return figures, {"rows": len(all_sigmas)} | shares


def means_of_families(around: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean RMSE of the MBConv families of `MEAN_OVER`, with and without FBNet, and the RMSE of PP-LCNet.

    Beside the first is the RMSE that the stated deviations of networks and trainings alone would give.
    """
    families = [around[f"{family}, {level}"] for family, level in MEAN_OVER]
    plain = [figures for name, figures in around.items() if "PP-LCNet" in name]
    squares = sum(figures["rmse"] ** 2 * figures["rows"] for figures in plain)
    others = [around[f"{family}, {level}"]["rmse"] for family, level in MEAN_OVER if family != "FBNet"]
    known = [figures["rmse_if_coefficients_were_known"] for figures in families]
    return {
        "mean_rmse_of_mbconv_families_without_fbnet": round(float(np.mean(others)), 3),
        "mean_rmse_of_mbconv_families": round(float(np.mean([figures["rmse"] for figures in families])), 3),
        "mean_rmse_if_coefficients_were_known": round(float(np.mean(known)), 3),
        "rmse_of_pp_lcnet": round(float(np.sqrt(squares / sum(figures["rows"] for figures in plain))), 3),
    }


def densities(rows: Sequence[Evidence], samples: fitting.Samples) -> dict[str, Any]:
    """Return the log density of left-out families, and by how much it changes with a deviation times or over 1.4."""
    groups = list(family_groups(rows).values())

    def density() -> float:
        return fitting.Regression(rows, samples).held_out_density(groups)

    committed = density()
    changes: dict[str, Any] = {}
    for kind in ("se", "hswish", "kernel5", "kernel7", "width", "expansion"):
        prior = fitting.PRIORS[kind]
        for factor in (1 / 1.4, 1.4):
            with patch.dict(fitting.PRIORS, {kind: prior._replace(std=prior.std * factor)}):
                changes.setdefault(kind, []).append(round(density() - committed, 1))
    for constant in ("NETWORK_STD", "TRAINING_STD", "ONCE_FOR_ALL_STD"):
        for factor in (1 / 1.4, 1.4):
            with patch.object(fitting, constant, getattr(fitting, constant) * factor):
                changes.setdefault(constant.lower(), []).append(round(density() - committed, 1))
    return {"committed": round(committed, 1), "change_with_std_over_and_times_1.4": changes}


def slopes_of_trainings(regression: fitting.Regression, rows: Sequence[Evidence]) -> dict[str, Any]:
    """Return whether HardCoRe-NAS's trainings ask for a slope: what a level adds, by the estimate without any level.

    The slope, its standard deviation without a prior, and the log Bayes factor for a slope with the prior `SLOPE_STD`.
    """
    everything = np.ones(len(rows), bool)
    covariance, errors = regression.expected(everything)
    levels = [column for column, name in enumerate(regression.names) if name.startswith("recipe")]
    coefficients = regression.solve(everything)
    coefficients[levels] = 0.0
    score = regression.rows @ coefficients
    hardcore = np.array([family_of(one) == "HardCoRe-NAS" for one in rows])
    figures = {}
    for chosen in (
        ("distilled",),
        ("hardcore-nas",),
        ("hardcore-short",),
        ("distilled", "hardcore-nas", "hardcore-short"),
    ):
        of_level = np.isin([one.level for one in rows], chosen)
        size = np.where(of_level, score - score[hardcore].mean(), 0.0)
        weighted = np.linalg.solve(covariance, size)
        about, certainty = weighted @ errors, weighted @ size
        gain = 1 + SLOPE_STD**2 * certainty
        figures[", ".join(chosen)] = {
            "slope": round(float(about / certainty), 2),
            "std": round(float(certainty**-0.5), 2),
            "log_bayes_factor": round(float((SLOPE_STD**2 * about**2 / gain - np.log(gain)) / 2), 2),
        }
    return figures


def pair_figures(
    rows: Sequence[Evidence], regression: fitting.Regression, training_std: float = fitting.TRAINING_STD
) -> dict[str, Any]:
    """Return each published pair's difference (points) as estimated with it and without both of its rows."""
    everything = np.ones(len(rows), bool)
    figures: dict[str, Any] = {"pairs": len(pairs())}
    listed: list[dict[str, Any]] = []
    for pair in pairs():
        ends = [rows.index(pair.without), rows.index(pair.with_it)]
        kept = everything.copy()
        kept[ends] = False
        entry: dict[str, Any] = {"change": pair.change, "recipe_level": pair.without.level}
        entry["published"] = round(pair.points, 2)
        for name, used in (("fitted", everything), ("left_out", kept)):
            errors = np.exp(-regression.rows[ends] @ regression.solve(used))
            slope = errors[1] * regression.rows[ends[1]] - errors[0] * regression.rows[ends[0]]
            trainings = training_std**2 * (errors**2).sum()
            entry[name] = round(float(errors[0] - errors[1]), 2)
            entry[f"{name}_std"] = round(float(np.sqrt(slope @ regression.covariance(used) @ slope + trainings)), 2)
        listed.append(entry)
    for name in ("fitted", "left_out"):
        right = [entry[name] * entry["published"] > 0 for entry in listed]
        within = [abs(entry[name] - entry["published"]) <= entry[f"{name}_std"] for entry in listed]
        figures[name] = {"right_sign": sum(right), "within_1_sigma": round(float(np.mean(within)), 2)}
    return figures | {"listed": listed}


def choice_figures() -> dict[str, Any]:
    """Return what each choice of a block is worth by stage: points at 75 % for each position, with their std."""
    fit = load_fit()
    std = np.sqrt(np.diag(fit.covariance))
    points = 100 - 75.0
    return {
        choice: {
            segment: [
                [round(points * float(fit.coefficients[column]), 2), round(points * float(std[column]), 2)]
                for name, column in fit.index.items()
                if name.startswith(f"{choice} {segment}.") or name == f"{choice} {segment}"
            ]
            for segment in REFERENCE_OUT
        }
        for choice in ("se", "hswish", "kernel5", "kernel7")
    }


def networks_with_se(rows: Sequence[Evidence]) -> dict[str, int]:
    """Return how many networks of the evidence have SE in a stage. Resolutions and trainings do not count twice."""
    counts = dict.fromkeys(REFERENCE_OUT, 0)
    for spec in {spec.id: spec for spec in (row.result.spec.replace(resolution=224) for row in rows)}.values():
        names = (name.split() for name, weight in network_features(spec) if weight)
        for segment in {kind[1].partition(".")[0] for kind in names if kind[0] == "se"} & counts.keys():
            counts[segment] += 1
    return counts


def predictor_figures(rows: Sequence[Evidence], samples: fitting.Samples) -> dict[str, Any]:
    """Return rank correlation, and errors where a search would pick, on the held-out half of the samples."""
    half = np.arange(len(samples.top1)) % 2 == 0
    regression = fitting.Regression(rows, fitting.Samples(*(column[half] for column in samples)))
    coefficients = regression.solve(np.ones(len(rows), bool))
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


def draw_picture(rows: Sequence[Evidence], groups: np.ndarray, estimate: np.ndarray, std: np.ndarray) -> None:
    """Draw estimated against published top-1, and the errors with the model's standard deviations."""
    top1 = np.array([one.result.top1 for one in rows])
    families = np.array([family_of(one) for one in rows])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5.2), width_ratios=(1, 1.15))
    left.plot([40, 85], [40, 85], color="0.7", linewidth=1, zorder=0)
    apart = np.isin(groups, (ABLATIONS, HARDCORE, RELATED, LOW, FURTHER))
    colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for color, family in enumerate(sorted(set(families))):
        for hollow in (False, True):
            chosen = (families == family) & (apart == hollow)
            if chosen.any():
                style: dict[str, Any] = {
                    "s": 18,
                    "edgecolors": [colors[color % 20]],
                    "facecolors": "none" if hollow else [colors[color % 20]],
                    "linewidths": 1,
                    "marker": "os"[color // 20],  # there are more families than colours
                }
                label = family if not hollow or not ((families == family) & ~apart).any() else None
                left.scatter(top1[chosen], estimate[chosen], label=label, **style)
                right.scatter(top1[chosen], (estimate - top1)[chosen], **style)
    left.set(xlabel="published top-1 (%)", ylabel="estimated without that row (%)")
    order = np.argsort(top1)
    spread = np.polynomial.Polynomial.fit(top1, std, 2)(top1[order])
    right.fill_between(top1[order], -2 * spread, 2 * spread, color="0.93", zorder=0, label="two standard deviations")
    right.fill_between(top1[order], -spread, spread, color="0.85", zorder=0, label="one")
    right.axhline(0, color="0.6", linewidth=1, zorder=1)
    right.set(xlabel="published top-1 (%)", ylabel="estimate minus published (points)")
    right.legend(fontsize=7, frameon=False, loc="upper right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout(rect=(0, 0.15, 1, 1))
    figure.legend(*left.get_legend_handles_labels(), fontsize=7, frameon=False, ncols=6, loc="lower center")
    with replacing(PICTURE) as side:
        figure.savefig(side, dpi=100)


def main() -> None:
    start = time.perf_counter()
    samples, rows = fitting.load_samples(), evidence()
    groups = np.array([group_of(one) for one in rows])
    figures, estimate, std = published_figures(rows, groups, samples)
    refitted = fitting.fit_json(fitting.fit(rows, samples))
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        **figures,
        "pairs": pair_figures(rows, fitting.Regression(rows, samples)),
        "choices_in_points_at_75": choice_figures(),
        "networks_with_se": networks_with_se(rows),
        "predictor_held_out_half": predictor_figures(rows, samples),
        "compiled": speed(),
        "refit_equals_the_committed_file": refitted == DATA.read_text(encoding="utf-8"),
    }
    draw_picture(rows, groups, estimate, std)
    report["seconds"] = round(time.perf_counter() - start, 1)
    text = json.dumps(report, indent=1)
    write_text(RESULTS, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
