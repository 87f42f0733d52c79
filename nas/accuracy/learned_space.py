"""Mix what a teacher says of a space with the ImageNet prior and the multiply-accumulates, in points of top-1."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.additive import AdditiveModel, values_of_options
from nas.arch.cost import Layer, block_layers
from nas.arch.encoding import encode_network
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.replacement.choices import LEFT_OUT, slots_of
from nas.replacement.effects import Effect
from nas.replacement.learning import Lessons
from nas.replacement.space_effects import SpaceEffects, penalty

POPULATION = 1_000  # random networks, whose spread makes the three parts comparable
# Of the penalty, the prior's score and the multiply-accumulates, each in its standard deviations.
WEIGHTS = (-1.0, 0.25, 0.25)
# The spread of the accuracies of NAS-Bench-Macro in that of the prior, and the share of it that stays unexplained
# (`benchmarks/own_data.py`).
SPREAD, UNEXPLAINED = 0.63, 0.46
OUTSIDE_FACTOR = 2.0  # multiplies the standard deviation of a network that does not fit the space
TOLD = 8  # groups of effects that are told in words, the largest first
NOISY = 2.0  # standard errors below which an effect counts as noise

_Number = TypeVar("_Number", int, float)


class _Scale(NamedTuple):
    """The mean and the standard deviation of a quantity over random networks."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: np.ndarray) -> _Scale:
        return cls(float(values.mean()), float(values.std()) or 1.0)


class LearnedSpace:
    """A space whose lessons are known: the mixture of penalty, prior and multiply-accumulates, in points of top-1.

    Within a variant (width and resolution) the three are weighed against each other. From one width to another only the
    prior tells the difference, and the resolution makes none.
    """

    def __init__(self, space: SearchSpace, lessons: Lessons, prior: ImageNetPrior) -> None:
        self.lessons = lessons
        self.space = dataclasses.replace(space, variants=())
        self._effects = SpaceEffects(self.space, lessons.effects)
        self._prior = prior
        self._home = Variant(lessons.choices.width, _nearest(space.resolutions, lessons.resolution))
        self._of_variant: dict[Variant, LearnedVariant] = {}

    def contains(self, spec: ArchSpec) -> bool:
        """Return whether a network is of the space."""
        return self.space.contains(spec)

    def additive_model(self, space: SearchSpace) -> AdditiveModel:
        """Return top-1 (percent) of the encodings of the space at some of its variants."""
        parts = [self._at(variant).additive_model for variant in space.variants]
        constants = np.array([part.constants[0] for part in parts])
        options = [np.concatenate(rows) for rows in zip(*(part.options for part in parts), strict=True)]
        return AdditiveModel(space, constants, options)

    def estimate(self, spec: ArchSpec) -> tuple[float, float, bool]:
        """Return top-1 and its standard deviation (percent), and whether the network does not fit the space."""
        penalty = self._effects.penalty(spec)
        if penalty is None:
            at = self._at(self._home)
            return at.outside(spec), OUTSIDE_FACTOR * at.std, True
        at = self._at(self.variant_of(spec))
        return at.top1(spec, penalty), at.std, False

    def variant_of(self, spec: ArchSpec) -> Variant:
        """Return the variant of a network: its own, else the nearest one to its channels, else the teacher's."""
        encoding = encode_network(self.space, spec)
        if encoding is not None:
            return self.space.variants[encoding[0]]
        slots = slots_of(self.space, spec)
        if slots is None:
            return self._home
        scales = [math.log(b.out / self.space.stages[s.stage].out) for s, b in zip(slots, spec.blocks[1:], strict=True)]
        width = _nearest(self.space.widths, math.exp(float(np.mean(scales))))
        return Variant(width, _nearest(self.space.resolutions, spec.resolution))

    def nearest_to_teacher(self, variants: Sequence[Variant]) -> Variant:
        """Return the variant whose width, and then resolution, is nearest to the teacher's."""
        width = _nearest([variant.width for variant in variants], self._home.width)
        resolutions = [variant.resolution for variant in variants if variant.width == width]
        return Variant(width, _nearest(resolutions, self._home.resolution))

    def _at(self, variant: Variant) -> LearnedVariant:
        if variant not in self._of_variant:
            # The teacher's width at the same resolution: estimates speak for its training, whatever it saw.
            width = self._home.width
            home = None if variant.width == width else self._at(Variant(width, variant.resolution))
            self._of_variant[variant] = LearnedVariant(
                self.space.at([variant]), self._effects, self._prior, self.lessons, home
            )
        return self._of_variant[variant]

    def in_words(self) -> list[str]:
        """Return what the effects say, in lines for the user."""
        points = self._at(self._home).points_per_penalty
        effects = self.lessons.effects
        told = [change for change, effect in effects.items() if abs(effect.rise) > NOISY * effect.error]
        # Those of left-out blocks are so large that any two halves agree on them.
        halves = np.array([effect.halves for change, effect in effects.items() if change.decision != LEFT_OUT])
        with np.errstate(invalid="ignore"):  # of halves that are all alike
            agreement = float(np.corrcoef(halves.T)[0, 1]) if len(halves) > 2 else math.nan
        lines = [
            f"replacement blocks: {len(told)} of {len(effects)} effects are above the noise ({NOISY:g} standard "
            f"errors); two halves of the held-out images agree on those of single decisions with a correlation of "
            f"{agreement:.2f}"
        ]
        if len(told) < len(effects) / 4:
            lines.append(
                "warning: nearly all effects are noise: the ranking is that of the prior and of the "
                "multiply-accumulates; more --minutes make a better teacher, and more images less noise"
            )
        grouped: dict[tuple[int, str], list[tuple[float, Effect]]] = {}
        for change, effect in effects.items():
            left_out = change.decision == LEFT_OUT
            text = "without one of the later blocks" if left_out else _told(change.decision, change.value)
            grouped.setdefault((change.slot.stage, text), []).append((-points * penalty(change, effect), effect))
        ranked = sorted(grouped.items(), key=lambda item: -abs(sum(value for value, _ in item[1])) / len(item[1]))
        for (stage, text), members in ranked[:TOLD]:
            value = sum(value for value, _ in members) / len(members)
            rise = sum(effect.rise for _, effect in members) / len(members)
            error = math.hypot(*(effect.error for _, effect in members)) / len(members)
            lines.append(
                f"  stage {stage + 1}: {text}: {value + 0.0:+.2f} points a block (log-loss {rise:+.4f} ± {error:.4f})"
            )
        return lines


class LearnedVariant:
    """The mixture at one variant: top-1 is `level` plus a slope times the sum of the three parts.

    `home` is the variant of the teacher's width at the same resolution, from which the level is counted; None for that
    itself.
    """

    def __init__(
        self,
        space: SearchSpace,
        effects: SpaceEffects,
        prior: ImageNetPrior,
        lessons: Lessons,
        home: LearnedVariant | None,
    ) -> None:
        self._prior = prior
        (variant,) = space.variants
        self._penalty, self._score = effects.additive_model(space), prior.additive_model(space)
        self._macs = _macs_model(space)
        rng = random.Random(0)
        population = np.array(
            [space.build_encoding(lambda decision: rng.randrange(len(decision.choices))) for _ in range(POPULATION)]
        )
        self._scales = [_Scale.of(model(population)) for model in (self._penalty, self._score, self._macs)]
        prior_top1 = prior.link(self._score(population))
        mixed = self._mixture(self._penalty(population), self._score(population), self._macs(population))
        self._slope = SPREAD * float(prior_top1.std()) / _Scale.of(mixed).std
        self.std = UNEXPLAINED * SPREAD * float(prior_top1.std())
        largest = np.array([space.encode([space.largest(variant)])[0]])
        self._largest_top1 = float(prior.link(self._score(largest))[0])
        at_largest = float(self._mixture(self._penalty(largest), self._score(largest), self._macs(largest))[0])
        if home is None:
            own = lessons.teacher.spec.replace(resolution=variant.resolution)
            own_penalty = effects.penalty(own)
            assert own_penalty is not None
            self._level: float = lessons.top1 - self._slope * self._mixture_of(own, own_penalty)
        else:
            # Levels of variants differ as the prior says of their largest networks.
            difference = SPREAD * (self._largest_top1 - home._largest_top1)
            self._level = home.top1_of_largest + difference - self._slope * at_largest
        self.top1_of_largest: float = self._level + self._slope * at_largest

    @property
    def points_per_penalty(self) -> float:
        """Return how many points of top-1 a penalty of 1 costs."""
        return self._slope / self._scales[0].std

    @property
    def additive_model(self) -> AdditiveModel:
        """Return top-1 (percent) as a sum over blocks."""
        constant, weights = self._level, []
        for scale, weight in zip(self._scales, WEIGHTS, strict=True):
            weights.append(self._slope * weight / scale.std)
            constant -= weights[-1] * scale.mean
        models = (self._penalty, self._score, self._macs)
        constants = constant + np.array(weights) @ np.array([model.constants for model in models])
        options = [
            np.tensordot(weights, np.array(rows), axes=1)
            for rows in zip(*(model.options for model in models), strict=True)
        ]
        return AdditiveModel(self._penalty.space, constants, options)

    def top1(self, spec: ArchSpec, penalty: float) -> float:
        """Return the top-1 (percent) of a network whose penalty is known."""
        return self._level + self._slope * self._mixture_of(spec, penalty)

    def outside(self, spec: ArchSpec) -> float:
        """Return the top-1 (percent) of a network that does not fit the space, from the prior's difference alone."""
        return self.top1_of_largest + SPREAD * (float(self._prior.estimate([spec]).top1[0]) - self._largest_top1)

    def _mixture_of(self, spec: ArchSpec, penalty: float) -> float:
        score = self._prior.score([spec])
        macs = np.array([_block_macs(spec)])
        return float(self._mixture(np.array([penalty]), score, macs)[0])

    def _mixture(self, penalty: np.ndarray, score: np.ndarray, macs: np.ndarray) -> np.ndarray:
        parts = [
            (values - scale.mean) / scale.std
            for values, scale in zip((penalty, score, macs), self._scales, strict=True)
        ]
        mixed: np.ndarray = np.array(WEIGHTS) @ np.array(parts)
        return mixed


def _macs_model(space: SearchSpace) -> AdditiveModel:
    """Return the multiply-accumulates of a space's blocks, without stem, first block and head, as a sum over blocks."""
    return AdditiveModel(space, np.zeros(len(space.variants)), values_of_options(space, _macs))


def _block_macs(spec: ArchSpec) -> int:
    """Return the multiply-accumulates of a network's blocks behind the first one."""
    return sum(_macs(list(block_layers(placed))) for placed in list(spec.walk())[1:])


def _macs(layers: Sequence[Layer]) -> int:
    return sum(layer.macs for layer in layers)


def _told(decision: str, value: object) -> str:
    """Return a choice in words."""
    if decision == "se":
        return "SE" if value else "no SE"
    return str(value) if decision == "activation" else f"{decision} {value}"


def _nearest(known: Sequence[_Number], wanted: float) -> _Number:
    return min(known, key=lambda one: abs(math.log(one / wanted)))
