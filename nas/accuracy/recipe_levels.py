"""Estimate what a network would reach by each training that the ImageNet prior knows.

    estimates_by_level(spec)   # one `LevelEstimate` a recipe level, the least accurate first

Users ask first why their own training ends below an estimate. Often its training was longer, or had a teacher.
"""

from __future__ import annotations

import csv
import functools
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple

from nas.accuracy.evidence import evidence
from nas.accuracy.imagenet_prior import RECIPE_LEVELS, ImageNetPrior
from nas.arch.spec import ArchSpec

DATA = files("nas") / "data" / "trainings.csv"


class Training(NamedTuple):
    """A training in words, for users who compare theirs with it. Empty texts: nothing is told of it."""

    title: str = ""
    epochs: str = ""
    teacher: str = ""
    source: str = ""


class LevelEstimate(NamedTuple):
    """The estimate of a network for one recipe level: top-1 (percent) and its standard deviation (points)."""

    recipe_level: str
    description: str  # of `RECIPE_LEVELS`
    training: Training
    networks: int  # published networks of this level, which its estimates rest on
    top1: float
    std: float


def estimates_by_level(spec: ArchSpec) -> list[LevelEstimate]:
    """Return the estimates of a network for all recipe levels, the least accurate first."""
    told, counts = trainings(), networks_by_level()
    found = []
    for level, description in RECIPE_LEVELS.items():
        estimates = ImageNetPrior(level).estimate([spec])
        top1, std = float(estimates.top1[0]), float(estimates.std[0])
        found.append(LevelEstimate(level, description, told.get(level, Training()), counts[level], top1, std))
    return sorted(found, key=lambda one: one.top1)


@functools.cache
def trainings() -> Mapping[str, Training]:
    """Return the trainings that nas/data tells more of, by recipe level."""
    with DATA.open(encoding="utf-8") as file:
        return {row.pop("recipe_level"): Training(**row) for row in csv.DictReader(file)}


@functools.cache
def networks_by_level() -> Counter[str]:
    """Return how many networks were published at each recipe level. Resolutions and checkpoints do not count twice."""
    known = {(one.level, one.result.spec.replace(resolution=224).id) for one in evidence()}
    return Counter(level for level, _ in known if level in RECIPE_LEVELS)
