"""Write and read checkpoints of trainings. Files are written whole or not at all, and nothing in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import replacing
from nas.models.mobilenet import MobileNet, build_model

VERSION = 1


def save_checkpoint(path: str | Path, contents: dict[str, Any]) -> None:
    """Write tensors and plain values into a file.

    Raises NasError if the file cannot be written; an old one then stays as it was.
    """
    with replacing(path) as side:
        try:
            torch.save({"version": VERSION, **contents}, side)
        except RuntimeError as error:  # torch raises this where a disk is full
            raise NasError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the contents that `save_checkpoint` wrote, on the CPU.

    Raises NasError for a file that is not whole or not a checkpoint.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NasError(f"{path}: no such file") from None
    except Exception as error:  # the unpickler raises many types for bytes that are no checkpoint
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NasError(f"{path}: not a checkpoint, or not a whole one ({reason})") from None
    if not isinstance(contents, dict) or "version" not in contents:
        raise NasError(f"{path}: not a checkpoint of nas.train")
    if contents["version"] != VERSION:
        raise NasError(f"{path}: version is {contents['version']!r}; this program reads version {VERSION}")
    return contents


def load_model(path: str | Path) -> MobileNet:
    """Return the trained network of a checkpoint, in evaluation mode.

    Its inputs are images (n, 3, resolution, resolution), normalised as in `nas.training.images`. Raises NasError for
    a file that is no such checkpoint.
    """
    contents = load_checkpoint(path)
    try:
        model = build_model(ArchSpec.from_dict(contents["spec"]), len(contents["classes"]))
        model.load_state_dict(contents["average"])
    except (KeyError, TypeError, RuntimeError, NasError) as error:
        raise NasError(f"{path}: not a checkpoint of nas.train ({str(error).splitlines()[0]})") from None
    return model.eval()
