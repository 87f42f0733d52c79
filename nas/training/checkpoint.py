"""Write and read checkpoints of trainings. Files are written whole or not at all, and nothing in them is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import replacing
from nas.models.mobilenet import MobileNet, build_model

VERSION = 1
BEST = "best.pt"  # of a training
# In the folder of a training, and in that of nas.netadapt: the first of them that is there is the network to use.
CHECKPOINTS = (BEST, f"fine-tune/{BEST}", f"scratch/{BEST}", "final.pt")


def find_checkpoint(name: str | Path) -> Path:
    """Return the checkpoint that a user names: by its file, by the spec beside it, or by the folder of its run.

    Raises NasError for a spec without weights beside it, and for a folder of nas.netadapt without any.
    """
    path = Path(name)
    if path.is_dir():
        found = next((path / file for file in CHECKPOINTS if (path / file).exists()), None)
        if found is None and (spec := path / "final.json").exists():  # trimmed from a seed without weights
            raise NasError(f"{path}: its network has no weights; train it with `python -m nas.train {spec}` first")
        return found or path / BEST
    if path.suffix == ".json" and path.exists():
        beside = path.with_suffix(".pt")
        if not beside.exists():
            raise NasError(f"{path}: is a spec without weights beside it; name a checkpoint, or a training's folder")
        return beside
    return path


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
    contents = load_torch_file(path)
    if not isinstance(contents, dict) or "version" not in contents:
        if isinstance(contents, dict) and any(str(key).startswith("backbone.") for key in contents):
            raise NasError(
                f"{path}: weights of a network with a head for segmentation or detection; commands take classifiers "
                "only, whose checkpoint nas.train writes"
            )
        raise NasError(f"{path}: not a checkpoint of nas.train")
    if contents["version"] != VERSION:
        raise NasError(f"{path}: version is {contents['version']!r}; this program reads version {VERSION}")
    return contents


def load_torch_file(path: str | Path) -> Any:
    """Return what torch wrote into a file, on the CPU.

    Raises NasError for any other file: it says what the file seems to be.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NasError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise NasError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # the unpickler raises many types for bytes that torch did not write
        if seems := _damage(Path(path)):
            message = f"not a file of weights: it {seems}; remove it, and fetch or make it again"
        else:
            # torch goes on with advice on how to run what is in the file.
            reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
            message = f"not a file of weights, or not a whole one ({reason}); remove it, or name another"
        raise NasError(f"{path}: {message}") from None


def _damage(path: Path) -> str:
    """Return what the content of a file is that torch cannot have written, or "" where that is not known."""
    with path.open("rb") as file:
        start = file.read(1024)
    if not start:
        return "is empty"
    if not start.strip(b"\0"):
        return "begins with nothing but zeros, as after a crash or a download that was cut off"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file that it points to"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "seems to be a web page"
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "seems to be cut off"
    return ""


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
