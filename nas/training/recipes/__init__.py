"""Training recipes, one a file. Each names its source and the results that were reached with it.

recipe = load_recipe("quick").replace(epochs=5)
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from nas.errors import NasError, unknown_name
from nas.files import read_text

OPTIMIZERS = ("adamw", "rmsprop", "sgd")
SCHEDULES = ("one_cycle", "cosine", "steps")
AUGMENTS = ("none", "autoaugment", "randaugment", "trivialaugment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Optimiser, schedule, regularisation and augmentation of a training. Raises NasError for impossible values.

    The learning rate begins at the share `start` of `learning_rate`, and reaches `learning_rate` after the share
    `warmup` of the steps. Then `one_cycle` (arXiv 1708.07120) and `cosine` (arXiv 1608.03983) let it fall to nothing,
    and `steps` multiplies it by `step_factor` every `step_epochs`. A training of too few steps for that begins at
    `learning_rate`.
    """

    name: str
    source: str
    published: str  # results that were reached with it
    epochs: int
    epoch_steps: int = 0  # steps after which an epoch ends, where it has more; 0: it shows all images
    batch_size: int  # images a step, over all processes and accumulated parts
    optimizer: str
    learning_rate: float  # the largest, for that batch size
    momentum: float = 0.0  # of rmsprop and sgd
    smoothing: float = 0.99  # of rmsprop's squared gradients
    epsilon: float = 1e-8  # of adamw and rmsprop
    weight_decay: float
    decay_norms: bool = False  # whether batch norm and biases decay too
    schedule: str
    start: float = 1.0
    warmup: float = 0.0
    step_epochs: float = 1.0
    step_factor: float = 1.0
    label_smoothing: float = 0.0
    dropout: float = 0.2
    ema_decay: float = 0.0  # of the averaged weights, a step; 0 keeps the last weights
    crop_padding: float = 0.0  # part of the side by which images in memory are padded before a random crop
    crop_scale: float = 0.08  # smallest part of an image from disk that a random crop shows
    flip: bool = True
    augment: str = "none"
    erase: float = 0.0  # share of images with a rectangle erased (arXiv 1708.04896)
    mixup: float = 0.0  # alpha, 0 for none (arXiv 1710.09412)
    cutmix: float = 0.0  # alpha, 0 for none (arXiv 1905.04899); with both, each batch gets one of them at random

    @property
    def length(self) -> str:
        """Return its epochs as text, such as "60 epochs"."""
        return f"{self.epochs} epoch{'s'[: self.epochs > 1]}"

    def steps_of_epoch(self, images: int) -> int:
        """Return the steps of an epoch on so many training images."""
        whole = max(1, images // self.batch_size)
        return min(whole, self.epoch_steps or whole)

    def __post_init__(self) -> None:
        for field in ("name", "source", "published"):
            if not isinstance(getattr(self, field), str):
                raise NasError(f"{field} is {getattr(self, field)!r}; it must be a text")
        for field, low in (("epochs", 1), ("epoch_steps", 0), ("batch_size", 2)):
            value = getattr(self, field)
            if type(value) is not int or value < low:
                raise NasError(f"{field} is {value!r}; it must be a whole number of at least {low}")
        for field in ("learning_rate", "epsilon", "step_epochs"):
            if not (_is_number(getattr(self, field)) and getattr(self, field) > 0):
                raise NasError(f"{field} is {getattr(self, field)!r}; it must be a finite number above 0")
        for field in ("weight_decay", "mixup", "cutmix"):
            if not (_is_number(getattr(self, field)) and getattr(self, field) >= 0):
                raise NasError(f"{field} is {getattr(self, field)!r}; it must be a finite number of at least 0")
        for field in ("start", "step_factor", "crop_scale"):
            if not (_is_number(getattr(self, field)) and 0 < getattr(self, field) <= 1):
                raise NasError(f"{field} is {getattr(self, field)!r}; it must be a number above 0, at most 1")
        for field in ("momentum", "smoothing", "warmup", "label_smoothing", "dropout", "ema_decay", "crop_padding"):
            if not (_is_number(getattr(self, field)) and 0 <= getattr(self, field) < 1):
                raise NasError(f"{field} is {getattr(self, field)!r}; it must be a number from 0 to below 1")
        if not (_is_number(self.erase) and 0 <= self.erase <= 1):
            raise NasError(f"erase is {self.erase!r}; it must be a number from 0 to 1")
        for field in ("decay_norms", "flip"):
            if not isinstance(getattr(self, field), bool):
                raise NasError(f"{field} is {getattr(self, field)!r}; it must be true or false")
        for field, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("augment", AUGMENTS)):
            if getattr(self, field) not in known:
                raise NasError(f"{field} is {getattr(self, field)!r}; it must be one of {', '.join(known)}")
        if self.schedule == "one_cycle" and not self.warmup:
            raise NasError("warmup is 0; one_cycle needs a warm-up above 0")

    def replace(self, **changes: Any) -> Recipe:
        return dataclasses.replace(self, **changes)

    def with_batch_size(self, batch_size: int) -> Recipe:
        """Return the recipe with another batch size and the learning rate that goes with it.

        The learning rate changes in proportion (arXiv 1706.02677), with AdamW by the square root (arXiv 2205.10287).
        """
        ratio = batch_size / self.batch_size
        scale = math.sqrt(ratio) if self.optimizer == "adamw" else ratio
        return self.replace(batch_size=batch_size, learning_rate=self.learning_rate * scale)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Return the recipe that `to_dict` wrote. Raises NasError that names the first thing that is wrong."""
        fields = dataclasses.fields(cls)
        known = [field.name for field in fields]
        for key in data:
            if key not in known:
                raise NasError(f"unknown key {key!r}; known: {', '.join(known)}")
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in data:
                raise NasError(f"{field.name!r} is missing")
        return cls(**data)


def recipe_names() -> list[str]:
    return sorted(file.name.removesuffix(".toml") for file in files(__name__).iterdir() if file.name.endswith(".toml"))


def load_recipe(name: str) -> Recipe:
    """Return a recipe of this folder by its name, or one of a .toml file by its path. Raises NasError."""
    if name in recipe_names():
        text = (files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
    elif name.endswith(".toml"):
        text = read_text(name)
    else:
        raise unknown_name("recipe", name, [*recipe_names(), "a path to a .toml file"])
    try:
        return Recipe.from_dict({"name": Path(name).stem} | tomllib.loads(text))
    except (tomllib.TOMLDecodeError, NasError) as error:
        raise NasError(f"recipe {name}: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
