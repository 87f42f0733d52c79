"""Fit the ImageNet prior to the published figures in `nas/data` and write its coefficients there.

    python -m nas.accuracy.fit_imagenet_prior

takes seconds on one core and writes the same file every time. The fit is a Bayesian linear regression of
`-log(limit - top1)` on the features of `nas.accuracy.features`. Each coefficient has a prior with a mean and a standard
deviation. A coefficient of which more must not lower the accuracy is bounded at zero. The data are of two sorts.
Published networks are one row each, and each recipe level has a coefficient of its own. The 12,000 samples of
Once-for-All's accuracy predictor give differences within one space only, and count as a few hundred rows.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import lsq_linear

from nas.accuracy import features, imagenet_prior
from nas.accuracy.imagenet_prior import judged_results, recipe_level_features, recipe_level_of
from nas.arch.published import DATA, PublishedResult
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, round_channels
from nas.files import write_text

LIMIT = 100.0  # percent; of the link
PREDICTOR_LIMIT = 105.0  # the predictor is about 5 points too high
PREDICTOR_SLOPE = 1.4  # its differences are larger than those between trained networks
# The standard deviation of a published row around the model, in score (0.01 is 0.25 points of top-1 at 75 %). The
# Once-for-All networks share their weights, one code and one fine-tuning. All others were trained apart.
ROW_STD = 0.016
ROW_STD_ONCE_FOR_ALL = 0.007
# Rows that differ from another row in SE and activation only. PRIORS hold their evidence already.
ROW_STD_ABLATION = 0.03
# Multiplies the prior standard deviations of SE and h-swish in the covariance, because the ablations disagree.
ABLATION_FACTOR = 3.0
SAMPLES_COUNT_AS = 400  # rows; samples share the predictor's own errors
SAMPLE_STD = 0.009
DIGITS = 5

_RELATED_LEVELS = {
    "efficientnet_b0.ra_in1k": "timm-ra",
    "efficientnet_b0.ra4_e3600_r224_in1k": "timm-ra4",
    "tf_efficientnet_b0.in1k": "tensorflow-port",
    "mobilenetv3_large_150d.ra4_e3600_r256_in1k": "timm-ra4",
    "tinynet_a.in1k": "tinynet",
    "tinynet_b.in1k": "tinynet",
    "tinynet_d.in1k": "tinynet",
    "tinynet_e.in1k": "tinynet",
}


def related_results() -> tuple[PublishedResult, ...]:
    """Return the results of timm networks that a spec nearly expresses, for their SE, depth and resolution.

    EfficientNet-B0 and the TinyNets made of it have swish. Here it is h-swish, which is as accurate (arXiv 1905.02244,
    section 5.2). mobilenetv3_large_150d has two last convolutions, of which the spec has the second.
    """
    results = []
    for line in (DATA / "timm_networks.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        recipe_level = _RELATED_LEVELS.get(row["name"])
        if recipe_level:
            blocks = [block for block in row["blocks"] if block["op"] != "conv"]
            conv = row["blocks"][-1]["out"] if row["blocks"][-1]["op"] == "conv" else 0
            head = HeadSpec(conv=conv or row["head_conv"], hidden=row["head_conv"] if conv else 0)
            spec = ArchSpec(
                name=row["name"].partition(".")[0],
                resolution=row["resolution"],
                stem=StemSpec(out=row["stem"]),
                blocks=tuple(
                    BlockSpec(
                        **{key: block[key] for key in ("op", "kernel", "expanded", "out", "stride", "se")},
                        activation="relu" if block["activation"] == "RE" else "hswish",
                    )
                    for block in blocks
                ),
                head=head,
            )
            results.append(PublishedResult(spec, row["top1"], recipe_level, f"timm checkpoint {row['name']}"))
    return tuple(results)


class CoefficientPrior(NamedTuple):
    """The prior distribution of a coefficient, in score (0.01 is 0.25 points of top-1 at 75 %)."""

    mean: float
    std: float
    positive: bool = True  # whether the coefficient is bounded at zero


# By the whole name of a feature or by its first word.
# h-swish: the four rows of arXiv 1905.02244, table 5, give sums over stages, here spread over the blocks: 0.2 points
# for the stages up to 40 channels, 0.2 for 80, 0.5 for the rest with stem and head.
# SE: 8 to 9 blocks with it add 0.04 (MnasNet-B1 to -A1) to 0.10 (minimalistic to MobileNetV3-Large), all 16 of
# EfficientNet-B0 0.05 to 0.08 (from lite0, less its swish). So the early blocks and those of 80 channels, where no
# hand-made network has it, get little. MobileNetV3-Small loses most without it (0.10 to 0.15 in the minimalistic
# network), so that its skeleton has an addend of its own.
PRIORS = {
    "level": CoefficientPrior(-3.2, 1.0, False),
    "recipe": CoefficientPrior(0.0, 0.06, False),
    "predictor": CoefficientPrior(-3.2, 1.0, False),
    "resolution": CoefficientPrior(0.25, 0.1),
    "resolution once-for-all": CoefficientPrior(0.0, 0.05, False),
    "stem": CoefficientPrior(0.02, 0.02),
    "head": CoefficientPrior(0.04, 0.03),
    "head conv": CoefficientPrior(0.03, 0.03),
    "hidden": CoefficientPrior(0.0, 0.02, False),
    "no": CoefficientPrior(0.0, 0.1, False),
    "plain": CoefficientPrior(-0.3, 0.2, False),
    "plain width": CoefficientPrior(0.1, 0.1, False),
    "width": CoefficientPrior(0.035, 0.02),
    "kernel5": CoefficientPrior(0.002, 0.003),
    "kernel7": CoefficientPrior(0.001, 0.002),
    "hswish stem": CoefficientPrior(0.002, 0.002),
    "hswish head": CoefficientPrior(0.006, 0.004),
    "hswish s2": CoefficientPrior(0.0013, 0.0008),
    "hswish s4": CoefficientPrior(0.0013, 0.0008),
    "hswish s8": CoefficientPrior(0.0013, 0.0008),
    "hswish s16a": CoefficientPrior(0.002, 0.001),
    "hswish": CoefficientPrior(0.0022, 0.0012),
    "se s2": CoefficientPrior(0.001, 0.001),
    "se s4": CoefficientPrior(0.001, 0.001),
    "se s16a": CoefficientPrior(0.003, 0.003),
    "se small": CoefficientPrior(0.006, 0.004),
    "se": CoefficientPrior(0.008, 0.003),
    "expansion": CoefficientPrior(0.07, 0.05),
}


def prior_of(feature: str) -> CoefficientPrior:
    """Return the prior of a feature's coefficient."""
    found = PRIORS.get(feature) or PRIORS[feature.split()[0]]
    if feature.startswith("expansion"):
        position = int(feature[-1])
        return found._replace(mean=found.mean * 0.8**position)
    return found


# The predictor's samples -------------------------------------------------------------------------------

_SAMPLE_OUT = (24, 40, 80, 112, 160)
_SAMPLE_STRIDE = (2, 2, 2, 1, 2)
_SAMPLE_WIDTH = 1.2


class Samples(NamedTuple):
    """Networks of Once-for-All's width-1.2 space with the accuracies that its predictor gives them.

    `kernels` and `expansions` have shape (n, 20), 0 where there is no block. The others have shape (n,).
    """

    kernels: np.ndarray
    expansions: np.ndarray
    resolutions: np.ndarray
    top1: np.ndarray  # percent, as the predictor gives it: about 5 points too high


def load_samples() -> Samples:
    """Return the samples in `nas/data`."""
    with (DATA / "once_for_all_predictor_samples.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Samples(
        np.array([[int(digit) for digit in row["kernels"]] for row in rows]),
        np.array([[int(digit) for digit in row["expansions"]] for row in rows]),
        np.array([int(row["resolution"]) for row in rows]),
        np.array([100 * float(row["predicted_top1"]) for row in rows]),
    )


def sample_spec(kernels: Sequence[int], expansions: Sequence[int], resolution: int) -> ArchSpec:
    """Return the network of one row of samples, without SE and h-swish, which are the same in all samples."""
    stem = round_channels(16 * _SAMPLE_WIDTH)
    blocks = [BlockSpec(op="sepconv", kernel=3, expanded=stem, out=stem)]
    for index, (kernel, expansion) in enumerate(zip(kernels, expansions, strict=True)):
        if kernel:
            stage, position = divmod(index, 4)
            blocks.append(
                BlockSpec(
                    kernel=int(kernel),
                    expanded=int(expansion) * blocks[-1].out,
                    out=round_channels(_SAMPLE_OUT[stage] * _SAMPLE_WIDTH),
                    stride=1 if position else _SAMPLE_STRIDE[stage],
                )
            )
    head = HeadSpec(conv=1152, hidden=1536)
    return ArchSpec(name="sample", resolution=int(resolution), stem=StemSpec(out=stem), blocks=tuple(blocks), head=head)


def sample_features(samples: Samples) -> dict[str, np.ndarray]:
    """Return the features in which samples differ, as columns of shape (n,), with an intercept a resolution."""
    columns: dict[str, np.ndarray] = {
        f"predictor {resolution}": (samples.resolutions == resolution).astype(float)
        for resolution in np.unique(samples.resolutions)
    }
    # Every block of the samples, described once: 20 slots x 9 options.
    full = sample_spec([3] * 20, [3] * 20, 224)
    for slot, (placed, place) in enumerate(list(zip(full.walk(), features.segment_places(full), strict=True))[1:]):
        for kernel in (3, 5, 7):
            for expansion in (3, 4, 6):
                here = (samples.kernels[:, slot] == kernel) & (samples.expansions[:, slot] == expansion)
                block = placed.block.replace(kernel=kernel, expanded=expansion * placed.in_channels)
                for name, value in features.block_features(placed._replace(block=block), place):
                    columns[name] = columns.get(name, 0.0) + PREDICTOR_SLOPE * value * here
    return columns


# The fit ----------------------------------------------------------------------------------------------


class Regression:
    """The regression's rows, samples and priors as matrices, whose columns are the features `names`."""

    def __init__(self, results: Sequence[PublishedResult], samples: Samples) -> None:
        rows = [_features_of(result) for result in results]
        columns = sample_features(samples)
        names = {name for row in rows for name in row} | set(columns)
        for segment in ("s2", "s4", "s8", "s16a", "s16b", "s32a", "s32b"):
            names |= {f"hswish {segment}"}
        self.names = sorted(names)
        self.row_std = np.array([row_std(result) for result in results])
        self.rows = np.array([[row.get(name, 0.0) for name in self.names] for row in rows])
        self.scores = np.array([-np.log(LIMIT - result.top1) for result in results])
        priors = [prior_of(name) for name in self.names]
        self.mean = np.array([prior.mean for prior in priors])
        self.std = np.array([prior.std for prior in priors])
        self.bound = np.array([0.0 if prior.positive else -np.inf for prior in priors])
        self.samples = np.array([columns.get(name, np.zeros(len(samples.top1))) for name in self.names]).T
        self.sample_scores = -np.log(PREDICTOR_LIMIT - samples.top1)
        # The samples enter by their triangular factor, which has as many rows as there are features.
        weight = np.sqrt(SAMPLES_COUNT_AS / len(self.samples)) / SAMPLE_STD
        weighted = np.column_stack([self.samples, self.sample_scores]) * weight
        _, triangle = np.linalg.qr(weighted)
        self.fixed = np.vstack([np.diag(1 / self.std), triangle[:, :-1]])
        self.fixed_scores = np.concatenate([self.mean / self.std, triangle[:, -1]])

    def solve(self, kept: np.ndarray) -> np.ndarray:
        """Return the coefficients by the kept rows (bool, shape (rows,)), the samples and the priors."""
        weight = 1 / self.row_std[kept]
        matrix = np.vstack([self.rows[kept] * weight[:, None], self.fixed])
        target = np.concatenate([self.scores[kept] * weight, self.fixed_scores])
        return lsq_linear(matrix, target, (self.bound, np.inf), tol=1e-12).x

    def covariance(self, kept: np.ndarray) -> np.ndarray:
        """Return the covariance of the coefficients, shape (features, features), without regard to their bounds."""
        doubtful = [name.split()[0] in ("se", "hswish") for name in self.names]
        prior = np.diag(1 / (self.std * np.where(doubtful, ABLATION_FACTOR, 1.0)))
        matrix = np.vstack([self.rows[kept] / self.row_std[kept, None], prior, self.fixed[len(prior) :]])
        return np.linalg.inv(matrix.T @ matrix)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the least and the greatest value among the fitted networks, for features that describe sizes.

        SE, activations and kernels have no range: their standard deviations hold their uncertainty.
        """
        plain = self.rows[:, self.names.index("plain")] > 0
        seen = np.vstack([self.rows[~plain], self.samples / PREDICTOR_SLOPE])
        values = {name: seen[:, column] for column, name in enumerate(self.names)}
        ranges = {}
        for name in self.names:
            if name.split()[0] not in ("resolution", "stem", "head", "width", "expansion"):
                continue
            alike = [values[name]]
            if name.startswith("expansion") and name[-1] in "123":
                # Few networks have every size at every position, so that all positions but the first share a range.
                alike += [values[name[:-1] + position] for position in "12" if name[:-1] + position in values]
            sizes = np.concatenate(alike)
            sizes = sizes[sizes != 0]  # 0: no such block
            ranges[name] = (float(sizes.min()), float(sizes.max()))
        return ranges


def recipe_level_std(recipe_level: str) -> float:
    """Return the standard deviation, in score, of the networks of a recipe level around the model."""
    return ROW_STD_ONCE_FOR_ALL if recipe_level.startswith("once-for-all") else ROW_STD


def row_std(result: PublishedResult) -> float:
    """Return the standard deviation, in score, of a published row around the model."""
    is_ablation = "minimal" in result.spec.name or "efficientnet_b0" in result.spec.name
    return ROW_STD_ABLATION if is_ablation else recipe_level_std(recipe_level_of(result))


def _features_of(result: PublishedResult) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, value in [
        *features.network_features(result.spec),
        *recipe_level_features(recipe_level_of(result), result.spec.resolution),
    ]:
        row[name] = row.get(name, 0.0) + value
    return row


def fit(results: Sequence[PublishedResult], samples: Samples) -> dict[str, object]:
    """Return the fit as it is committed: the JSON values that `imagenet_prior.PriorFit` reads."""
    regression = Regression(results, samples)
    everything = np.ones(len(results), bool)
    coefficients = regression.solve(everything)
    used = [column for column, name in enumerate(regression.names) if not name.startswith("predictor")]
    ranges = regression.ranges()
    factor = np.linalg.cholesky(regression.covariance(everything)[np.ix_(used, used)])
    return {
        "limit": LIMIT,
        "noise": {level: recipe_level_std(level) for level in imagenet_prior.RECIPE_LEVELS},
        "features": {regression.names[c]: _entry(regression.names[c], coefficients[c], ranges) for c in used},
        "covariance_factor": [[round(float(value), DIGITS) for value in row[: i + 1]] for i, row in enumerate(factor)],
    }


def _entry(name: str, value: float, ranges: dict[str, tuple[float, float]]) -> dict[str, object]:
    entry: dict[str, object] = {"value": round(float(value), DIGITS)}
    if name in ranges:
        entry["range"] = [round(end, DIGITS) for end in ranges[name]]
    return entry


def fit_json(fitted: dict[str, object]) -> str:
    """Return a fit as JSON with one line a feature, so that `diff` compares two fits."""
    lines = []
    for key, value in fitted.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items())
            lines.append(f"  {json.dumps(key)}: {{\n{inner}\n  }}")
        elif isinstance(value, list):
            inner = ",\n".join(f"    {json.dumps(row, separators=(',', ':'))}" for row in value)
            lines.append(f"  {json.dumps(key)}: [\n{inner}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    path = str(imagenet_prior.DATA)
    write_text(path, fit_json(fit([*judged_results(), *related_results()], load_samples())))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
