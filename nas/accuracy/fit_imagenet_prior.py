"""Fits the ImageNet prior to the published figures in `nas/data` and writes its coefficients there.

    python -m nas.accuracy.fit_imagenet_prior

takes seconds on one core and gives the same file every time. It is a Bayesian linear regression of
`-log(limit - top1)` on the terms of `nas.accuracy.features`: each coefficient starts from a prior with a mean
and a standard deviation, those that more of a thing must not make worse are bounded at zero, and two kinds of
rows move them: published networks (their level of training is a coefficient of its own), and 12,000 samples of
Once-for-All's accuracy predictor, which know differences within one space only and count as few hundred rows.
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
from nas.accuracy.imagenet_prior import level_of, level_terms
from nas.arch.published import DATA, PublishedResult, published_results
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, round_channels
from nas.files import write_text

LIMIT = 100.0  # percent; of the link
PREDICTOR_LIMIT = 105.0  # the predictor's level is about 5 points too high
PREDICTOR_SLOPE = 1.4  # its differences are larger than those of the networks that were really trained
# Of a published row around the model, in score (0.01 is 0.25 points of top-1 at 75 %). The Once-for-All networks
# share their weights, one code and one fine-tuning; all others were trained apart.
ROW_STD = 0.016
ROW_STD_ONCE_FOR_ALL = 0.007
# Networks that differ from a sibling in SE and activation: what they say stands in PRIORS already.
ROW_STD_ABLATION = 0.03
# On the standard deviations of SE's and h-swish's priors when uncertainty is told: the ablations disagree.
ABLATION_FACTOR = 3.0
SAMPLES_COUNT_AS = 400  # rows; the predictor's own errors are the same in all samples of one kind
SAMPLE_STD = 0.009
DIGITS = 5

_KINDRED_LEVELS = {
    "efficientnet_b0.ra_in1k": "timm-ra",
    "efficientnet_b0.ra4_e3600_r224_in1k": "timm-ra4",
    "tf_efficientnet_b0.in1k": "tensorflow-port",
    "mobilenetv3_large_150d.ra4_e3600_r256_in1k": "timm-ra4",
    "tinynet_a.in1k": "tinynet",
    "tinynet_b.in1k": "tinynet",
    "tinynet_d.in1k": "tinynet",
    "tinynet_e.in1k": "tinynet",
}


def kindred_results() -> tuple[PublishedResult, ...]:
    """Networks of timm that a spec nearly expresses, fitted for what they say of SE, depth and resolution.

    EfficientNet-B0 and the TinyNets made of it have swish, here h-swish, which is as accurate (arXiv
    1905.02244, section 5.2); mobilenetv3_large_150d has two last convolutions, of which the second counts.
    """
    results = []
    for line in (DATA / "timm_networks.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        level = _KINDRED_LEVELS.get(row["name"])
        if level:
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
            results.append(PublishedResult(spec, row["top1"], level, f"timm checkpoint {row['name']}"))
    return tuple(results)


class Prior(NamedTuple):
    """What is believed of a coefficient before the data, in score (0.01 is 0.25 points of top-1 at 75 %)."""

    mean: float
    std: float
    positive: bool = True


# By the first word of the term, or both words. h-swish: arXiv 1905.02244, table 5, whose four rows give the
# sums over the stages (0.2 points for the stages up to 40 channels, 0.2 for 80, 0.5 for the rest with stem and
# head), here spread over the blocks. SE: 8 to 9 blocks with it are worth 0.04 (MnasNet-A1 to B1) to 0.10
# (MobileNetV3-Large to minimalistic), all 16 of EfficientNet-B0 0.05 to 0.08 (to lite0, less its swish); so
# the early blocks and those of 80 channels, where no hand-made network has it, get little. MobileNetV3-Small loses
# most without it (its minimalistic sibling, 0.10 to 0.15), so that its skeleton has an addend of its own.
PRIORS = {
    "level": Prior(-3.2, 1.0, False),
    "recipe": Prior(0.0, 0.06, False),
    "predictor": Prior(-3.2, 1.0, False),
    "resolution": Prior(0.25, 0.1),
    "resolution once-for-all": Prior(0.0, 0.05, False),
    "stem": Prior(0.02, 0.02),
    "head": Prior(0.04, 0.03),
    "head conv": Prior(0.03, 0.03),
    "hidden": Prior(0.0, 0.02, False),
    "no": Prior(0.0, 0.1, False),
    "plain": Prior(-0.3, 0.2, False),
    "plain width": Prior(0.1, 0.1, False),
    "width": Prior(0.035, 0.02),
    "kernel5": Prior(0.002, 0.003),
    "kernel7": Prior(0.001, 0.002),
    "hswish stem": Prior(0.002, 0.002),
    "hswish head": Prior(0.006, 0.004),
    "hswish s2": Prior(0.0013, 0.0008),
    "hswish s4": Prior(0.0013, 0.0008),
    "hswish s8": Prior(0.0013, 0.0008),
    "hswish s16a": Prior(0.002, 0.001),
    "hswish": Prior(0.0022, 0.0012),
    "se s2": Prior(0.001, 0.001),
    "se s4": Prior(0.001, 0.001),
    "se s16a": Prior(0.003, 0.003),
    "se small": Prior(0.006, 0.004),
    "se": Prior(0.008, 0.003),
    "expansion": Prior(0.07, 0.05),
}


def prior_of(term: str) -> Prior:
    found = PRIORS.get(term) or PRIORS[term.split()[0]]
    if term.startswith("expansion"):
        position = int(term[-1])
        return found._replace(mean=found.mean * 0.8**position)
    return found


# The predictor's samples -------------------------------------------------------------------------------

_SAMPLE_OUT = (24, 40, 80, 112, 160)
_SAMPLE_STRIDE = (2, 2, 2, 1, 2)
_SAMPLE_WIDTH = 1.2


class Samples(NamedTuple):
    """Networks of Once-for-All's width-1.2 space, shape (n, 20) (0: no block), and what its predictor says."""

    kernels: np.ndarray
    expansions: np.ndarray
    resolutions: np.ndarray
    top1: np.ndarray  # percent, at the predictor's own level


def load_samples() -> Samples:
    with (DATA / "once_for_all_predictor_samples.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Samples(
        np.array([[int(digit) for digit in row["kernels"]] for row in rows]),
        np.array([[int(digit) for digit in row["expansions"]] for row in rows]),
        np.array([int(row["resolution"]) for row in rows]),
        np.array([100 * float(row["predicted_top1"]) for row in rows]),
    )


def sample_spec(kernels: Sequence[int], expansions: Sequence[int], resolution: int) -> ArchSpec:
    """The network of one row of samples. SE and activation are fixed in that space: see search_spaces."""
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


def sample_terms(samples: Samples) -> dict[str, np.ndarray]:
    """The terms in which samples differ, as columns of shape (n,); the resolution's level is the predictor's."""
    columns: dict[str, np.ndarray] = {
        f"predictor {resolution}": (samples.resolutions == resolution).astype(float)
        for resolution in np.unique(samples.resolutions)
    }
    # Every block that occurs, priced once: 20 slots x 9 choices.
    full = sample_spec([3] * 20, [3] * 20, 224)
    for slot, (placed, role) in enumerate(list(zip(full.walk(), features.roles(full), strict=True))[1:]):
        for kernel in (3, 5, 7):
            for expansion in (3, 4, 6):
                here = (samples.kernels[:, slot] == kernel) & (samples.expansions[:, slot] == expansion)
                block = placed.block.replace(kernel=kernel, expanded=expansion * placed.in_channels)
                for name, value in features.block_terms(placed._replace(block=block), role):
                    columns[name] = columns.get(name, 0.0) + PREDICTOR_SLOPE * value * here
    return columns


# The fit ----------------------------------------------------------------------------------------------


class Regression:
    """Rows, samples and priors as matrices, in the order of `names`."""

    def __init__(self, results: Sequence[PublishedResult], samples: Samples) -> None:
        rows = [_terms_of(result) for result in results]
        columns = sample_terms(samples)
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
        # The samples enter by their triangular factor: as many rows as there are terms.
        weight = np.sqrt(SAMPLES_COUNT_AS / len(self.samples)) / SAMPLE_STD
        weighted = np.column_stack([self.samples, self.sample_scores]) * weight
        _, triangle = np.linalg.qr(weighted)
        self.fixed = np.vstack([np.diag(1 / self.std), triangle[:, :-1]])
        self.fixed_scores = np.concatenate([self.mean / self.std, triangle[:, -1]])

    def solve(self, kept: np.ndarray) -> np.ndarray:
        """Coefficients from the kept rows (bool, shape (rows,)), the samples and the priors."""
        weight = 1 / self.row_std[kept]
        matrix = np.vstack([self.rows[kept] * weight[:, None], self.fixed])
        target = np.concatenate([self.scores[kept] * weight, self.fixed_scores])
        return lsq_linear(matrix, target, (self.bound, np.inf), tol=1e-12).x

    def covariance(self, kept: np.ndarray) -> np.ndarray:
        """Of the coefficients, bounds left aside; shape (terms, terms)."""
        doubtful = [name.split()[0] in ("se", "hswish") for name in self.names]
        prior = np.diag(1 / (self.std * np.where(doubtful, ABLATION_FACTOR, 1.0)))
        matrix = np.vstack([self.rows[kept] / self.row_std[kept, None], prior, self.fixed[len(prior) :]])
        return np.linalg.inv(matrix.T @ matrix)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and greatest value with which networks were seen, of the terms that describe sizes.

        SE, activations and kernels have none: what is not known of them is in their standard deviations.
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
                # Not every position of a segment was seen at every size, so that all but the first share theirs.
                alike += [values[name[:-1] + position] for position in "12" if name[:-1] + position in values]
            sizes = np.concatenate(alike)
            sizes = sizes[sizes != 0]  # 0: no such block
            ranges[name] = (float(sizes.min()), float(sizes.max()))
        return ranges


def level_std(level: str) -> float:
    return ROW_STD_ONCE_FOR_ALL if level.startswith("once-for-all") else ROW_STD


def row_std(result: PublishedResult) -> float:
    is_ablation = "minimal" in result.spec.name or "efficientnet_b0" in result.spec.name
    return ROW_STD_ABLATION if is_ablation else level_std(level_of(result))


def _terms_of(result: PublishedResult) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, value in [
        *features.network_terms(result.spec),
        *level_terms(level_of(result), result.spec.resolution),
    ]:
        row[name] = row.get(name, 0.0) + value
    return row


def fit(results: Sequence[PublishedResult], samples: Samples) -> dict[str, object]:
    """The model as it is committed: JSON of what `imagenet_prior.Model` reads."""
    regression = Regression(results, samples)
    everything = np.ones(len(results), bool)
    coefficients = regression.solve(everything)
    used = [column for column, name in enumerate(regression.names) if not name.startswith("predictor")]
    ranges = regression.ranges()
    factor = np.linalg.cholesky(regression.covariance(everything)[np.ix_(used, used)])
    return {
        "limit": LIMIT,
        "noise": {level: level_std(level) for level in imagenet_prior.RECIPE_LEVELS},
        "terms": {regression.names[c]: _entry(regression.names[c], coefficients[c], ranges) for c in used},
        "covariance_factor": [[round(float(value), DIGITS) for value in row[: i + 1]] for i, row in enumerate(factor)],
    }


def _entry(name: str, value: float, ranges: dict[str, tuple[float, float]]) -> dict[str, object]:
    entry: dict[str, object] = {"value": round(float(value), DIGITS)}
    if name in ranges:
        entry["range"] = [round(end, DIGITS) for end in ranges[name]]
    return entry


def model_json(model: dict[str, object]) -> str:
    """One line a term, so that two fits can be compared with `diff`."""
    lines = []
    for key, value in model.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"    {json.dumps(name)}: {json.dumps(term)}" for name, term in value.items())
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
    write_text(path, model_json(fit([*published_results(), *kindred_results()], load_samples())))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
