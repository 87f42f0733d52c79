"""Describe a network in its exported file, so that prediction needs nothing but the file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.deploy.images import Preparation
from nas.errors import NasError

KEY = "nas"  # in the metadata of the file


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The description of a network in its exported file: names of the classes, and the preparation of images."""

    name: str
    spec_id: str
    classes: tuple[str, ...]
    preparation: Preparation

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> About:
        data = json.loads(text)
        preparation: dict[str, Any] = data["preparation"]
        return cls(
            name=data["name"],
            spec_id=data["spec_id"],
            classes=tuple(data["classes"]),
            preparation=Preparation(
                resolution=preparation["resolution"],
                crop=preparation["crop"],
                mean=tuple(preparation["mean"]),
                std=tuple(preparation["std"]),
            ),
        )

    @classmethod
    def of_file(cls, path: str | Path, text: str | None) -> About:
        """Return the description of a file that holds it as `text`. Raises NasError if it is missing or damaged."""
        if text is None:
            raise NasError(
                f"{path}: it does not name its classes, nor how images are prepared for it; only files that nas.export "
                "wrote do"
            )
        try:
            return cls.from_json(text)
        except (KeyError, TypeError, ValueError) as error:
            raise NasError(f"{path}: its description of classes and images cannot be read ({error})") from None
