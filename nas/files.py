"""Read files whole, and write them beside their path and rename them, so that none is ever half-written."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.errors import NasError
from nas.utf8 import ESCAPING


def read_text(path: str | Path) -> str:
    """Return the text of a file, without a byte order mark. Raises NasError for a file that cannot be read."""
    with _reading(path):
        return Path(path).read_text(encoding="utf-8-sig")


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file. Raises NasError for a file that cannot be read."""
    with _reading(path):
        return Path(path).read_bytes()


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turn the errors of reading a file into a NasError."""
    try:
        yield
    except FileNotFoundError:
        raise NasError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise NasError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise NasError(f"{path}: cannot be read ({error.strerror})") from None


def fingerprint(content: bytes) -> str:
    """Return 16 hexadecimal digits that name a content."""
    return hashlib.sha256(content).hexdigest()[:16]


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all. Raises NasError for a path that cannot be written."""
    with replacing(path) as side:
        side.write_text(text, encoding="utf-8", errors=ESCAPING)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to. It is renamed to `path` at the end, or removed if anything fails.

    Raises NasError, before anything is written, if `path` is a folder or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise NasError(f"{path}: this is a folder; name a file")
    make_folder(path.parent)
    side = path.parent / f".{path.name}.{secrets.token_hex(4)}{path.suffix}"
    try:
        side.touch(exist_ok=False)  # with the permissions of the user's other files, unlike tempfile
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        yield side
        os.replace(side, path)
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        side.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and its parents. Raises NasError for a folder that cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NasError(f"{path}: this folder cannot be made ({error.strerror}); name another place") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise NasError(f"{path}: this folder cannot be written to; name another place")
