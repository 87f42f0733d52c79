"""Files that are read whole, and written to the side and renamed, so that none is ever half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.errors import NasError


def read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NasError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise NasError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise NasError(f"{path}: cannot be read ({error.strerror})") from None


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as side:
        side.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` at the end, removed if anything fails.

    Raises NasError if the folder cannot be made or written to.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror})") from None
    side = Path(name)
    try:
        yield side
        # mkstemp makes the file private; the result is as readable as any other file of the user.
        side.chmod(0o666 & ~_umask())
        os.replace(side, path)
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        side.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes the folder and its parents. Raises NasError where that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NasError(f"{path}: this folder cannot be made ({error.strerror}); name another place") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise NasError(f"{path}: this folder cannot be written to; name another place")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
