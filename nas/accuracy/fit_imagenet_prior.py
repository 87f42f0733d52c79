"""Fit the ImageNet prior to the published figures in `nas/data` and write its coefficients there.

    python -m nas.accuracy.fit_imagenet_prior

takes seconds on one core and writes the same file every time. The fit is a Bayesian linear regression of
`-log(limit - top1)` on the features of `nas.accuracy.features`. Each coefficient has a prior with a mean and a standard
deviation. Coefficients of one kind (SE, kernel, width, h-swish) also share a deviation, so that what is learnt of one
place is learnt of the others. A coefficient of which more must not lower the accuracy is bounded at zero. The data are
of two sorts. Published networks are one row each, and each recipe level has a coefficient of its own. Networks that
differ in kernels, SE, activations or resolution only share an error that cancels in their difference: so a published
pair is evidence on its difference. The 12,000 samples of Once-for-All's accuracy predictor give differences within one
space only, and count as a few hundred rows.
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas.accuracy import features, imagenet_prior
from nas.accuracy.evidence import Evidence, evidence
from nas.accuracy.imagenet_prior import recipe_level_features
from nas.arch.published import DATA
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, round_channels
from nas.files import write_text

LIMIT = 100.0  # percent; of the link
PREDICTOR_LIMIT = 105.0  # the predictor is about 5 points too high
PREDICTOR_SLOPE = 1.3  # its differences are larger than those between trained networks
# The standard deviations of a published row around the model, in score (0.01 is 0.25 points of top-1 at 75 %): of a
# network, shared by its trainings and its ablations, and of one training. The Once-for-All networks share their
# weights, one code and one fine-tuning. All others were trained apart.
NETWORK_STD = 0.007
TRAINING_STD = 0.0125
ONCE_FOR_ALL_STD = 0.005
SAMPLES_COUNT_AS = 375  # rows; samples share the predictor's own errors
SAMPLE_STD = 0.009
DIGITS = 5
POSITION_DECAY = 0.65  # of an expansion's mean and deviation, from a block of a segment to the next
# A recipe level of which only differences are known: what its networks are else is not told.
DIFFERENCES_ONLY = "mnasnet-uniform"


class CoefficientPrior(NamedTuple):
    """The prior distribution of a coefficient, in score (0.01 is 0.25 points of top-1 at 75 %)."""

    mean: float
    std: float  # of the coefficient around those of its kind
    positive: bool = True  # whether the coefficient is bounded at zero
    std_of_kind: float = 0.0  # shared by all coefficients of the kind
    std_of_stage: float = 0.0  # shared by those of a segment


# By the whole name of a feature or by its first word. The deviations of expansions, widths, SE, h-swish and kernels
# were chosen by hand with `held_out_density` in sight: docs/accuracy.md, "The deviations were chosen by hand".
PRIORS = {
    "level": CoefficientPrior(-3.2, 1.0, False),
    "recipe": CoefficientPrior(0.0, 0.08, False),
    f"recipe {DIFFERENCES_ONLY}": CoefficientPrior(0.0, 1.0, False),
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
    "width": CoefficientPrior(0.025, 0.014, std_of_kind=0.01),
    "kernel5": CoefficientPrior(0.002, 0.003, std_of_kind=0.0015, std_of_stage=0.0015),
    "kernel7": CoefficientPrior(0.001, 0.0015, std_of_kind=0.001),
    "hswish stem": CoefficientPrior(0.002, 0.002),
    "hswish head": CoefficientPrior(0.006, 0.004),
    "hswish": CoefficientPrior(0.0022, 0.001, std_of_kind=0.001),
    "se": CoefficientPrior(0.002, 0.0045, std_of_kind=0.001, std_of_stage=0.0014),
    "se small": CoefficientPrior(0.0, 0.007, False),
    "se plain": CoefficientPrior(0.0, 0.015, False),  # of depthwise-separable blocks: SE before their second activation
    # Wherever the evidence has sigmoid gates, SE also has a quarter of the block's input channels, not of the expanded.
    "sigmoid": CoefficientPrior(0.0, 0.004, False),
    "kin": CoefficientPrior(0.0, 0.005, False),
    "expansion": CoefficientPrior(0.064, 0.009),
}
KINDS = ("width", "kernel5", "kernel7", "hswish", "se")  # whose coefficients share deviations
PLACES = tuple(  # every place of a block with a coefficient of its own
    f"{segment}.{position}"
    for segment in features.REFERENCE_OUT
    for position in range(1 if segment in ("s2", "s32b") else features.POSITIONS)
)


def prior_of(feature: str) -> CoefficientPrior:
    """Return the prior of a feature's coefficient."""
    words = feature.split()
    found = PRIORS.get(feature) or PRIORS.get(" ".join(words[:2])) or PRIORS[words[0]]
    if words[0] == "expansion":
        less = POSITION_DECAY ** int(feature[-1])
        return found._replace(mean=found.mean * less, std=found.std * less)
    return found


def prior_covariance(names: Sequence[str]) -> np.ndarray:
    """Return the prior covariance of the coefficients of some features, shape (features, features)."""
    priors = [prior_of(name) for name in names]
    covariance = np.diag([prior.std**2 for prior in priors])
    # Those of a kind by name and place, without its special cases such as "hswish stem".
    kinds = [
        name.split()[0] if prior is PRIORS.get(name.split()[0]) else ""
        for name, prior in zip(names, priors, strict=True)
    ]
    stages = [name.split()[-1].partition(".")[0] for name in names]
    for i, kind in enumerate(kinds):
        for j, other in enumerate(kinds):
            if kind in KINDS and kind == other:
                covariance[i, j] += priors[i].std_of_kind ** 2
                if stages[i] == stages[j]:
                    covariance[i, j] += priors[i].std_of_stage ** 2
    return covariance


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

    def __init__(self, rows: Sequence[Evidence], samples: Samples) -> None:
        described = [_features_of(row) for row in rows]
        columns = sample_features(samples)
        names = {name for row in described for name in row} | set(columns)
        names |= {f"hswish {segment}" for segment in features.REFERENCE_OUT} | {f"se {place}" for place in PLACES}
        self.names = sorted(names)
        self.rows = np.array([[row.get(name, 0.0) for name in self.names] for row in described])
        self.scores = np.array([-np.log(LIMIT - row.result.top1) for row in rows])
        self.noise = noise_covariance(rows)
        priors = [prior_of(name) for name in self.names]
        self.bound = np.array([0.0 if prior.positive else -np.inf for prior in priors])
        self.samples = np.array([columns.get(name, np.zeros(len(samples.top1))) for name in self.names]).T
        sample_scores = -np.log(PREDICTOR_LIMIT - samples.top1)
        weight = SAMPLES_COUNT_AS / len(self.samples) / SAMPLE_STD**2
        self._means = np.array([prior.mean for prior in priors])
        # What the samples say, and then what they say with the priors: precision, and precision times mean.
        self._sampled = weight * self.samples.T @ self.samples, weight * self.samples.T @ sample_scores
        self._set_prior(prior_covariance(self.names))

    def _set_prior(self, covariance: np.ndarray) -> None:
        precision = np.linalg.inv(covariance)
        self._precision = precision + self._sampled[0]
        self._target = precision @ self._means + self._sampled[1]

    def with_deviations(self, covariance: np.ndarray, noise: np.ndarray) -> Regression:
        """Return this regression with another prior covariance of its coefficients and another noise of its rows."""
        changed = copy.copy(self)
        changed.noise = noise
        changed._set_prior(covariance)
        return changed

    def _posterior(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows[kept]
        weighted = np.linalg.solve(self.noise[np.ix_(kept, kept)], np.column_stack([rows, self.scores[kept]]))
        return self._precision + rows.T @ weighted[:, :-1], self._target + rows.T @ weighted[:, -1]

    def solve(self, kept: np.ndarray) -> np.ndarray:
        """Return the coefficients by the kept rows (bool, shape (rows,)), the samples and the priors."""
        return bounded_minimum(*self._posterior(kept), self.bound)

    def covariance(self, kept: np.ndarray) -> np.ndarray:
        """Return the covariance of the coefficients, shape (features, features), without regard to their bounds."""
        return np.linalg.inv(self._posterior(kept)[0])

    def expected(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the covariance of the kept rows by the priors and the samples, and how far off they are."""
        spread = np.linalg.inv(self._precision)
        rows = self.rows[kept]
        covariance = rows @ spread @ rows.T + self.noise[np.ix_(kept, kept)]
        return covariance, self.scores[kept] - rows @ spread @ self._target

    def log_likelihood(self, kept: np.ndarray) -> float:
        """Return the marginal log likelihood of the kept rows, given the samples, without regard to bounds."""
        covariance, errors = self.expected(kept)
        return log_normal(errors, covariance)

    def held_out_density(self, families: Sequence[Sequence[np.ndarray]], kept: np.ndarray | None = None) -> float:
        """Return the log density of families, each given all other kept rows, without regard to bounds.

        A family is a list of groups of row numbers. The mean of a group does not count: only how its rows differ.
        `kept` (bool, shape (rows,)) holds the families; by default it is all rows.
        """
        kept = np.ones(len(self.rows), bool) if kept is None else kept
        place = np.cumsum(kept) - 1  # of a row among those kept
        covariance, errors = self.expected(kept)
        precision = np.linalg.inv(covariance)
        weighted = precision @ errors
        total = 0.0
        for family in families:
            left_out = place[np.concatenate(family)]
            sizes = np.array([len(group) for group in family])
            group_of = np.repeat(np.arange(len(sizes)), sizes)
            mean = (group_of[:, None] == group_of) / sizes[group_of]
            contrasts = np.linalg.svd(np.eye(len(left_out)) - mean)[0][:, : len(left_out) - len(sizes)]
            covariance = np.linalg.inv(precision[np.ix_(left_out, left_out)])
            error = contrasts.T @ covariance @ weighted[left_out]
            total += log_normal(error, contrasts.T @ covariance @ contrasts)
        return total

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


def log_normal(errors: np.ndarray, covariance: np.ndarray) -> float:
    """Return the log density of errors, shape (n,), of mean zero and a covariance, shape (n, n)."""
    return float(-np.linalg.slogdet(2 * np.pi * covariance)[1] - errors @ np.linalg.solve(covariance, errors)) / 2


def bounded_minimum(matrix: np.ndarray, target: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Return x of the least `x @ matrix @ x / 2 - target @ x` with x >= bound, by block pivoting (Kunisch, Rendl 2003).

    `matrix` is positive definite, shape (n, n); `target` and `bound` have shape (n,), where -inf is no bound.
    """
    at_bound = np.zeros(len(target), bool)
    least = np.where(np.isfinite(bound), bound, 0.0)
    for step in itertools.count():
        free = ~at_bound
        found = np.where(at_bound, least, 0.0)
        rest = target[free] - matrix[np.ix_(free, at_bound)] @ found[at_bound]
        found[free] = np.linalg.solve(matrix[np.ix_(free, free)], rest)
        gradient = matrix @ found - target
        wrong = np.flatnonzero((free & (found < bound)) | (at_bound & (gradient < 0)))
        if not len(wrong):
            return found
        # One at a time is slower, but never returns to where it was (Murty 1974).
        change = wrong if step < 20 else wrong[-1:]
        at_bound[change] = ~at_bound[change]
    raise AssertionError


def recipe_level_std(recipe_level: str) -> float:
    """Return the standard deviation, in score, of the networks of a recipe level around the model."""
    return ONCE_FOR_ALL_STD if recipe_level.startswith("once-for-all") else math.hypot(NETWORK_STD, TRAINING_STD)


def noise_covariance(rows: Sequence[Evidence]) -> np.ndarray:
    """Return the covariance of published rows around the model, shape (rows, rows), in score."""
    covariance = np.diag([recipe_level_std(row.level) ** 2 for row in rows])
    shared: dict[object, list[int]] = {}
    for number, row in enumerate(rows):
        if not row.level.startswith("once-for-all"):
            shared.setdefault(row.network, []).append(number)
    for numbers in shared.values():
        for one, other in itertools.permutations(numbers, 2):
            covariance[one, other] = NETWORK_STD**2
    return covariance


def _features_of(published: Evidence) -> dict[str, float]:
    row: dict[str, float] = dict.fromkeys(published.kin, 1.0)
    spec = published.result.spec
    for name, value in [*features.network_features(spec), *recipe_level_features(published.level, spec.resolution)]:
        row[name] = row.get(name, 0.0) + value
    return row


def fit(rows: Sequence[Evidence], samples: Samples) -> dict[str, object]:
    """Return the fit as it is committed: the JSON values that `imagenet_prior.PriorFit` reads."""
    regression = Regression(rows, samples)
    everything = np.ones(len(rows), bool)
    coefficients = regression.solve(everything)
    # No estimate uses the others.
    used = [
        column
        for column, name in enumerate(regression.names)
        if not name.startswith(("predictor", "kin ", f"recipe {DIFFERENCES_ONLY}"))
    ]
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
    write_text(path, fit_json(fit(evidence(), load_samples())))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
