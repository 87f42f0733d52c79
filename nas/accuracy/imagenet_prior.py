"""ImageNet accuracy without ImageNet: a linear score of the blocks, fitted to published results.

    prior = ImageNetPrior()
    top1, std, extrapolated = prior.estimate([spec])

The score is a sum over blocks (`nas.accuracy.features`); the link `top1 = limit - exp(-score)` makes it an
accuracy. The link is monotone, so what maximises the score, found exactly by an integer program, maximises the
accuracy. How the coefficients came about: `nas.accuracy.fit_imagenet_prior`; what they are worth:
docs/accuracy.md. Nothing here needs torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from nas.accuracy.estimator import Estimates
from nas.accuracy.features import (
    POOLED,
    Role,
    Terms,
    block_terms,
    network_terms,
    resolution_curve,
    roles,
    segment_names,
    skeleton_terms,
)
from nas.arch.additive import AdditiveModel
from nas.arch.published import PublishedResult
from nas.arch.space import SearchSpace, Slot, Variant
from nas.arch.spec import ArchSpec
from nas.errors import NasError, unknown_name

DATA = files("nas") / "data" / "imagenet_prior.json"

# Named levels of training effort: what the published numbers of that origin speak for.
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
    "hardcore-nas": "trained and distilled as published for HardCoRe-NAS (timm's miil_green)",
    "torchvision": "trained by torchvision's recipes",
    "tinynet": "trained as published for TinyNet (arXiv 2010.14819)",
}
DEFAULT_LEVEL = "mobilenet-v3"
_LEVELS = {
    "ofa-25": "once-for-all-25",
    "ofa-75": "once-for-all-75",
    "timm-in1k": "tensorflow-port",
    "timm-rmsp_in1k": "timm-rmsp",
    "timm-lamb_in1k": "timm-lamb",
    "timm-ra_in1k": "timm-ra",
    "timm-ra4_e3600_r224_in1k": "timm-ra4",
    "timm-miil_green_in1k": "hardcore-nas",
}
# Of each thing that no fitted network has (a kernel of 9, say): its effect is unknown by this much, in score.
UNKNOWN_STD = 0.1
OUTSIDE_FACTOR = 2.0  # on the standard deviation outside the fitted range
_TOLERANCE = 1e-4  # of the committed ranges, which are rounded


class ImageNetPrior:
    """Estimated ImageNet top-1 at 1000 classes for one level of training effort (`RECIPE_LEVELS`).

    Raises NasError for an unknown level.
    """

    name = "imagenet-prior"
    proxy = None

    def __init__(self, recipe_level: str = DEFAULT_LEVEL) -> None:
        if recipe_level not in RECIPE_LEVELS:
            raise unknown_name("recipe level", recipe_level, list(RECIPE_LEVELS))
        self.recipe_level = recipe_level
        self.training_recipe = f"ImageNet-1k, {RECIPE_LEVELS[recipe_level]}"
        self._model = load_model()

    def estimate(self, specs: Sequence[ArchSpec]) -> Estimates:
        """Top-1 in percent with its standard deviation, one per spec."""
        model = self._model
        features = np.zeros((len(specs), len(model.index)))
        unknown = np.zeros(len(specs))
        for row, spec in enumerate(specs):
            for name, value in [*network_terms(spec), *level_terms(self.recipe_level, spec.resolution)]:
                column = model.index.get(name)
                if column is None:
                    unknown[row] += 1
                else:
                    features[row, column] += value
        score = features @ model.coefficients
        variance = np.einsum("ij,jk,ik->i", features, model.covariance, features)
        variance = variance + model.noise[self.recipe_level] ** 2 + unknown * UNKNOWN_STD**2
        error = np.exp(-score)  # the link's derivative, up to sign
        beyond = ((features < model.low) | (features > model.high)) & (features != 0)
        outside = beyond.any(axis=1) | (unknown > 0)
        std = error * np.sqrt(variance) * np.where(outside, OUTSIDE_FACTOR, 1.0)
        return Estimates(model.limit - error, std, outside)

    def link(self, score: np.ndarray) -> np.ndarray:
        """Top-1 in percent of a score; strictly increasing."""
        return self._model.limit - np.exp(-np.asarray(score, float))

    def additive_model(self, space: SearchSpace) -> AdditiveModel:
        """The score of a space's encoded networks as a sum over slots; `link` makes it an accuracy.

        Raises NasError for a space in which stages run together (equal channels, no stride) elsewhere than
        at stride 16: there a block's position would depend on the depth of the stage before.
        """
        constants = np.empty(len(space.variants))
        options: list[list[np.ndarray]] = [[] for _ in space.slots]
        for row, variant in enumerate(space.variants):
            constants[row] = self._constant(space, variant)
            for column, (slot, role) in enumerate(slot_roles(space, variant).items()):
                values = [self._value(block_terms(placed, role)) for placed in space.options(variant, slot)]
                options[column].append(np.array(values))
        return AdditiveModel(space, constants, [np.array(rows) for rows in options])

    def compile(self, space: SearchSpace) -> Callable[[np.ndarray], np.ndarray]:
        """A function from codes, shape (n, decisions), to top-1 in percent, shape (n,); equal to `estimate`."""
        terms = self.additive_model(space)
        return lambda codes: self.link(terms(codes))

    def _value(self, terms: Terms) -> float:
        model = self._model
        return sum(model.coefficients[model.index[name]] * value for name, value in terms if name in model.index)

    def _constant(self, space: SearchSpace, variant: Variant) -> float:
        row = space.at([variant]).draw(lambda decision: 0)
        spec = space.at([variant]).decode([row])[0]
        first, role = next(spec.walk()), roles(spec)[0]
        return self._value(
            [*skeleton_terms(spec), *block_terms(first, role), *level_terms(self.recipe_level, variant.resolution)]
        )


def level_of(result: PublishedResult) -> str:
    """The level of training (a key of RECIPE_LEVELS) that a published figure speaks for."""
    if result.recipe == "slim":
        # Four papers, four recipes.
        if "MnasNet" in result.source:
            return "mnasnet"
        if "mobilenet_v1" in result.source:
            return "mobilenet-v1"
        return "mobilenet-v2" if "slim mobilenet README" in result.source else DEFAULT_LEVEL
    return _LEVELS.get(result.recipe, result.recipe)


def level_terms(level: str, resolution: int) -> Terms:
    """Features of a level of training. Once-for-All's networks share weights across resolutions."""
    if level == DEFAULT_LEVEL:
        return []
    terms: Terms = [(f"recipe {level}", 1.0)]
    if level.startswith("once-for-all"):
        terms.append(("resolution once-for-all", resolution_curve(resolution)))
    return terms


class Model:
    """The fitted coefficients as arrays in the order of `index`, a dict from name to column."""

    def __init__(self, data: dict[str, Any]) -> None:
        terms = data["terms"]
        self.limit: float = data["limit"]
        self.noise: dict[str, float] = data["noise"]
        self.index = {name: column for column, name in enumerate(terms)}
        self.coefficients = np.array([term["value"] for term in terms.values()])
        ranges = [term.get("range", (-np.inf, np.inf)) for term in terms.values()]
        self.low = np.array([low for low, _ in ranges]) - _TOLERANCE
        self.high = np.array([high for _, high in ranges]) + _TOLERANCE
        # The lower triangle of a Cholesky factor, row by row.
        factor = np.zeros((len(terms), len(terms)))
        factor[np.tril_indices(len(terms))] = np.concatenate(data["covariance_factor"])
        self.covariance = factor @ factor.T


@functools.cache
def load_model() -> Model:
    """The committed model. It is not changed after loading, so that all estimators share it."""
    return Model(json.loads(DATA.read_text(encoding="utf-8")))


def slot_roles(space: SearchSpace, variant: Variant) -> dict[Slot, Role]:
    """The role of each slot's block at a variant, whatever the depths. Raises NasError where depths decide."""
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
        if merged and name not in (POOLED, "s2"):
            raise NasError(
                f"space {space.name}: stage {slot.stage + 1} has the channels of the stage before at width "
                f"{variant.width:g} and no stride; give it other channels, or make the two one stage"
            )
        found[slot] = Role(name, slot.position + merged, strides[0] > 2)
    return found
