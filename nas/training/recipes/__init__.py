"""How a network is trained, as files: one recipe a file, each naming its source.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """AdamW on one cycle of the learning rate, with an exponential moving average of the weights.

    `learning_rate` is the cycle's largest: it starts at `start` of that, gets there after `warmup` of the steps
    and falls to nothing. `crop_padding` is the part of an image's side by which it is padded before a random
    crop. Raises NasError for impossible values.
    """

    name: str
    source: str
    epochs: int
    batch_size: int
    learning_rate: float
    start: float
    warmup: float
    weight_decay: float
    label_smoothing: float
    dropout: float
    ema_decay: float
    crop_padding: float
    flip: bool

    def __post_init__(self) -> None:
        for field, low in (("epochs", 1), ("batch_size", 2)):
            value = getattr(self, field)
            if type(value) is not int or value < low:
                raise NasError(f"{field} is {value!r}; it must be a whole number of at least {low}")
        if not (_is_number(self.learning_rate) and self.learning_rate > 0):
            raise NasError(f"learning_rate is {self.learning_rate!r}; it must be a finite number above 0")
        if not (_is_number(self.weight_decay) and self.weight_decay >= 0):
            raise NasError(f"weight_decay is {self.weight_decay!r}; it must be a finite number of at least 0")
        if not (_is_number(self.start) and 0 < self.start <= 1):
            raise NasError(f"start is {self.start!r}; it must be a number above 0, at most 1")
        for field in ("warmup", "label_smoothing", "dropout", "ema_decay", "crop_padding"):
            value = getattr(self, field)
            if not (_is_number(value) and 0 <= value < 1):
                raise NasError(f"{field} is {value!r}; it must be a number from 0 to below 1")
        if not isinstance(self.flip, bool):
            raise NasError(f"flip is {self.flip!r}; it must be true or false")

    def replace(self, **changes: Any) -> Recipe:
        return dataclasses.replace(self, **changes)

    def with_batch_size(self, batch_size: int) -> Recipe:
        """The learning rate follows by the square root, as suits Adam (arXiv 2205.10287)."""
        scale = math.sqrt(batch_size / self.batch_size)
        return self.replace(batch_size=batch_size, learning_rate=self.learning_rate * scale)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Inverse of `to_dict`. Raises NasError naming the first thing that is wrong."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in data:
            if key not in known:
                raise NasError(f"unknown key {key!r}; known: {', '.join(known)}")
        for key in known:
            if key not in data:
                raise NasError(f"{key!r} is missing")
        return cls(**data)


def recipe_names() -> list[str]:
    return sorted(file.name.removesuffix(".toml") for file in files(__name__).iterdir() if file.name.endswith(".toml"))


def load_recipe(name: str) -> Recipe:
    """A recipe of this folder by name, or a file of one's own by path."""
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
