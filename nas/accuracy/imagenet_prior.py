"""Estimate ImageNet accuracy by a linear score of the blocks, fitted to published results.

    estimates = ImageNetPrior().estimate([spec])
    print(estimates.top1, estimates.std)

The score is a sum over blocks (`nas.accuracy.features`). The link `top1 = limit - exp(-score)` turns it into an
accuracy. The link is monotone, so that the network with the greatest score, which an integer program finds exactly, has
the greatest accuracy. `nas.accuracy.fit_imagenet_prior` fits the coefficients, and docs/accuracy.md says how good they
are. This module needs no torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from nas.accuracy.estimator import Estimates, NoEstimateError
from nas.accuracy.features import (
    MERGED,
    Features,
    SegmentPlace,
    block_features,
    described_resolution,
    network_features,
    resolution_curve,
    segment_names,
    segment_places,
    skeleton_features,
)
from nas.arch.additive import AdditiveModel
from nas.arch.published import PublishedResult, published_results
from nas.arch.skeleton import Slot, Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError, unknown_name

DATA = files("nas") / "data" / "imagenet_prior.json"

# The recipe levels: groups of published results that were trained alike, and their training.
RECIPE_LEVELS = {
    "mobilenet-v3": "trained from scratch as published for MobileNetV3 (arXiv 1905.02244)",
    "mobilenet-v2": "trained from scratch as published for MobileNetV2 (arXiv 1801.04381, TensorFlow slim)",
    "mobilenet-v1": "trained from scratch as published for MobileNetV1 (arXiv 1704.04861, TensorFlow slim)",
    "mnasnet": "trained from scratch as published for MnasNet (arXiv 1807.11626)",
    "once-for-all-25": "taken from the Once-for-All supernet and fine-tuned for 25 epochs (arXiv 1908.09791)",
    "once-for-all-75": "taken from the Once-for-All supernet and fine-tuned for 75 epochs (arXiv 1908.09791)",
    "tensorflow-port": "trained by Google, checkpoints ported and evaluated by timm",
    "timm-rmsp": "trained by timm's recipe rmsp",
    "timm-lamb": "trained by timm's recipe lamb",
    "timm-ra": "trained by timm's recipe ra (RandAugment)",
    "timm-ra4": "trained by timm's recipe ra4, 3600 epochs",
    "timm-ra2": "trained by timm's recipe ra2 (RandAugment)",
    "hardcore-nas": "taken from HardCoRe-NAS's supernet and fine-tuned for long, distilled (timm's miil_green)",
    "hardcore-short": "taken from HardCoRe-NAS's supernet and fine-tuned briefly, distilled (arXiv 2102.11646)",
    "hardcore-scratch": "trained from scratch as published for HardCoRe-NAS (arXiv 2102.11646)",
    "distilled": "trained with knowledge distillation as published for HardCoRe-NAS (arXiv 2102.11646)",
    "binas": "taken from HardCoRe-NAS's supernet, fine-tuned and distilled as published for BINAS (arXiv 2110.12399)",
    "torchvision": "trained by torchvision's first recipes (IMAGENET1K_V1)",
    "torchvision-2": "trained by torchvision's second recipes (IMAGENET1K_V2)",
    "tinynet": "trained as published for TinyNet (arXiv 2010.14819)",
    "moga": "trained from scratch as published for MoGA (arXiv 1908.01314)",
    "scarlet": "trained from scratch as published for SCARLET-NAS (arXiv 1908.06022)",
    "fairnas": "trained from scratch as published for FairNAS (arXiv 1907.01845)",
    "fairnas-se-swish": "trained as FairNAS's networks with SE and swish were (arXiv 1907.01845)",
    "dna": "trained from scratch for 500 epochs as published for DNA (arXiv 1911.13053)",
    "proxyless": "trained from scratch as published for ProxylessNAS (arXiv 1812.00332)",
    "mnas-schedule": "trained by MnasNet's schedule of 350 epochs (github meijieru/yet_another_mobilenet_series)",
    "coordatt": "trained for 200 epochs as published for coordinate attention (arXiv 2103.02907)",
    "fbnet": "trained as FBNet's networks of 2020 were (github facebookresearch/mobile-vision)",
    "fbnetv2": "trained as published for FBNetV2 (arXiv 2004.05565)",
    "pplcnet": "trained for 360 epochs as published for PP-LCNet (arXiv 2109.15099)",
    "pplcnet-wd4": "trained for 360 epochs with more weight decay as published for PP-LCNet (arXiv 2109.15099)",
    "pplcnet-aa": "trained for 360 epochs with AutoAugment as published for PP-LCNet (arXiv 2109.15099)",
}
DEFAULT_RECIPE_LEVEL = "mobilenet-v3"
_LEVEL_OF_RECIPE = {
    "ofa-25": "once-for-all-25",
    "ofa-75": "once-for-all-75",
    "timm-in1k": "tensorflow-port",
    "timm-rmsp_in1k": "timm-rmsp",
    "timm-lamb_in1k": "timm-lamb",
    "timm-ra_in1k": "timm-ra",
    "timm-ra4_e3600_r224_in1k": "timm-ra4",
    "timm-miil_green_in1k": "hardcore-nas",
}
JUDGED_OPS = ("mbconv", "sepconv")
# The standard deviation, in score, of the effect of each feature that no fitted network has, such as a kernel of 9.
UNKNOWN_STD = 0.1
OUTSIDE_FACTOR = 2.0  # multiplies the standard deviation outside the fitted range
_TOLERANCE = 1e-4  # of the committed ranges, which are rounded


class ImageNetPrior:
    """Estimate ImageNet top-1 at 1000 classes for one recipe level, a key of `RECIPE_LEVELS`.

    Raises NasError for an unknown recipe level.
    """

    name = "imagenet-prior"
    proxy = None

    def __init__(self, recipe_level: str = DEFAULT_RECIPE_LEVEL) -> None:
        if recipe_level not in RECIPE_LEVELS:
            raise unknown_name("recipe level", recipe_level, list(RECIPE_LEVELS))
        self.recipe_level = recipe_level
        self.training_recipe = f"ImageNet-1k, {RECIPE_LEVELS[recipe_level]}"
        self._fit = load_fit()

    def estimate(self, specs: Sequence[ArchSpec]) -> Estimates:
        """Return top-1 (percent) and its standard deviation, one per spec.

        Raises NoEstimateError for a network with blocks that no fitted network has (`is_judged`).
        """
        if unjudged := next((spec for spec in specs if not is_judged(spec)), None):
            raise NoEstimateError(
                f"{unjudged.name}: {self.name} has no estimate of it, because networks with universal or fused blocks "
                "(op uib, fused) are too few to learn from; train it, or name images with --data"
            )
        fit = self._fit
        features = np.zeros((len(specs), len(fit.index)))
        unknown = np.zeros(len(specs))
        for row, spec in enumerate(specs):
            recipe = recipe_level_features(self.recipe_level, described_resolution(spec))
            for name, value in [*network_features(spec), *recipe]:
                column = fit.index.get(name)
                if column is None:
                    unknown[row] += 1
                else:
                    features[row, column] += value
        score = features @ fit.coefficients
        variance = np.einsum("ij,jk,ik->i", features, fit.covariance, features)
        variance = variance + fit.noise[self.recipe_level] ** 2 + unknown * UNKNOWN_STD**2
        error = np.exp(-score)  # also the derivative of the link
        beyond = ((features < fit.low) | (features > fit.high)) & (features != 0)
        outside = beyond.any(axis=1) | (unknown > 0)
        std = error * np.sqrt(variance) * np.where(outside, OUTSIDE_FACTOR, 1.0)
        return Estimates(fit.limit - error, std, outside, np.zeros(len(specs), bool))

    def score(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Return the scores of networks, shape (n,), of which `link` makes their top-1."""
        return -np.log(self._fit.limit - self.estimate(specs).top1)

    def link(self, score: np.ndarray) -> np.ndarray:
        """Return top-1 (percent) of scores. It increases strictly."""
        return self._fit.limit - np.exp(-np.asarray(score, float))

    def additive_model(self, space: SearchSpace) -> AdditiveModel:
        """Return the score of a space's encodings as a sum over slots. `link` turns it into an accuracy.

        Raises NasError for a space in which two stages merge (equal channels, no stride) elsewhere than at stride 16:
        the position of a block would depend on the depth of the stage before.
        """
        constants = np.empty(len(space.variants))
        options: list[list[np.ndarray]] = [[] for _ in space.slots]
        for row, variant in enumerate(space.variants):
            constants[row] = self._constant(space, variant)
            for column, (slot, place) in enumerate(slot_places(space, variant).items()):
                values = [self._value(block_features(placed, place)) for placed in space.options(variant, slot)]
                options[column].append(np.array(values))
        return AdditiveModel(space, constants, [np.array(rows) for rows in options])

    def compile(self, space: SearchSpace) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from encodings, shape (n, decisions), to the top-1 of `estimate` (percent), shape (n,)."""
        score = self.additive_model(space)
        return lambda encodings: self.link(score(encodings))

    def _value(self, features: Features) -> float:
        fit = self._fit
        return sum(fit.coefficients[fit.index[name]] * value for name, value in features if name in fit.index)

    def _constant(self, space: SearchSpace, variant: Variant) -> float:
        spec = space.smallest(variant)
        first, place = next(spec.walk()), segment_places(spec)[0]
        return self._value(
            [
                *skeleton_features(spec),
                *block_features(first, place),
                *recipe_level_features(self.recipe_level, described_resolution(spec)),
            ]
        )


def is_judged(spec: ArchSpec) -> bool:
    """Return whether the prior can judge a network: all its blocks are MBConv or depthwise separable.

    The three published MobileNetV4 networks are not enough for more. With one addend for their family, learnt from two
    of them, the third is estimated up to 3.2 points off (docs/accuracy.md).
    """
    return all(block.op in JUDGED_OPS for block in spec.blocks)


def judged_results() -> tuple[PublishedResult, ...]:
    """Return the published results of networks that the prior can judge, to which it is fitted."""
    return tuple(result for result in published_results() if is_judged(result.spec))


def recipe_level_of(result: PublishedResult) -> str:
    """Return the recipe level, a key of `RECIPE_LEVELS`, of a published result."""
    if result.recipe == "slim":
        # Four papers, four recipes.
        if "MnasNet" in result.source:
            return "mnasnet"
        if "mobilenet_v1" in result.source:
            return "mobilenet-v1"
        return "mobilenet-v2" if "slim mobilenet README" in result.source else DEFAULT_RECIPE_LEVEL
    return _LEVEL_OF_RECIPE.get(result.recipe, result.recipe)


def recipe_level_features(recipe_level: str, resolution: int) -> Features:
    """Return the features of a recipe level.

    Once-for-All's levels have one of the resolution (pixels), because its networks share weights across resolutions.
    """
    if recipe_level == DEFAULT_RECIPE_LEVEL:
        return []
    features: Features = [(f"recipe {recipe_level}", 1.0)]
    if recipe_level.startswith("once-for-all"):
        features.append(("resolution once-for-all", resolution_curve(resolution)))
    return features


class PriorFit:
    """The fitted coefficients and their ranges as arrays, in the order of `index`, a dict from feature to column."""

    def __init__(self, data: dict[str, Any]) -> None:
        features = data["features"]
        self.limit: float = data["limit"]
        self.noise: dict[str, float] = data["noise"]
        self.index = {name: column for column, name in enumerate(features)}
        self.coefficients = np.array([feature["value"] for feature in features.values()])
        ranges = [feature.get("range", (-np.inf, np.inf)) for feature in features.values()]
        self.low = np.array([low for low, _ in ranges]) - _TOLERANCE
        self.high = np.array([high for _, high in ranges]) + _TOLERANCE
        # The lower triangle of a Cholesky factor, row by row.
        self.factor = np.zeros((len(features), len(features)))
        self.factor[np.tril_indices(len(features))] = np.concatenate(data["covariance_factor"])
        self.covariance = self.factor @ self.factor.T


@functools.cache
def load_fit() -> PriorFit:
    """Return the committed fit. It does not change after loading, so that all estimators share it."""
    return PriorFit(json.loads(DATA.read_text(encoding="utf-8")))


def slot_places(space: SearchSpace, variant: Variant) -> dict[Slot, SegmentPlace]:
    """Return the place of each slot's block at a variant. Raises NasError if it depends on the depths."""
    outs, strides = [space.stage_out(-1, variant.width)], [2 * space.first.stride]
    segment_of = []
    for index, stage in enumerate(space.stages):
        out = space.stage_out(index, variant.width)
        if stage.stride == 2 or out != outs[-1]:
            outs.append(out)
            strides.append(strides[-1] * stage.stride)
        segment_of.append(len(outs) - 1)
    names = segment_names(strides)
    found = {}
    for slot in space.slots:
        segment = segment_of[slot.stage]
        name = names[segment]
        merged = segment_of.index(segment) != slot.stage or segment == 0
        if merged and name not in (MERGED, "s2"):
            raise NasError(
                f"space {space.name}: stage {slot.stage + 1} has the same channels as the stage before it at width "
                f"{variant.width:g}, and no stride; give it other channels, or join the two stages"
            )
        found[slot] = SegmentPlace(name, slot.position + merged, strides[0] > 2)
    return found
