"""Load search spaces and networks by name or from a file."""

from __future__ import annotations

import functools
import os
from importlib.resources import files
from pathlib import Path
from types import ModuleType

from nas.arch.families import FAMILIES
from nas.arch.published import published_names, published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError, unknown_name
from nas.files import fingerprint


def space_names() -> list[str]:
    """Return the names of the files in `search_spaces`, without `.py`."""
    found = (Path(file.name) for file in files("search_spaces").iterdir())
    return sorted(path.stem for path in found if path.suffix == ".py" and path.stem != "__init__")


def load_space(name: str | Path) -> SearchSpace:
    """Return a space of `search_spaces` by name, or the `SPACE` of a Python file of the user by path.

    A file is executed once in a process, and once more for every change of its content. Raises NasError for an unknown
    name, and for a file that does not load or does not set SPACE.
    """
    return load_fingerprinted_space(name)[0]


def load_fingerprinted_space(name: str | Path) -> tuple[SearchSpace, str]:
    """Return a space as `load_space` does, with 16 hexadecimal digits that name the content of its file.

    The file is read once: the digits are those of the space that is returned. Raises NasError as `load_space` does.
    """
    path, content = _read_space(str(name))
    try:
        module = _execute(path, content)
    except Exception as error:  # the user's own code can raise anything
        raise _load_error(name, error) from error
    space = getattr(module, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise NasError(
            f"{name}: the file must set SPACE to a nas.SearchSpace; search_spaces/mobilenet_v3_large.py is an example"
        )
    return space, fingerprint(content)


def _read_space(name: str) -> tuple[Path, bytes]:
    """Return the path without links and the content of a space's file."""
    if name in space_names():
        path = str(files("search_spaces") / f"{name}.py")
    elif name.endswith(".py"):
        path = name
    else:
        raise unknown_name("search space", name, [*space_names(), "a path to a .py file"])
    try:
        return Path(os.path.realpath(path)), Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _load_error(name, error) from error


@functools.cache
def _execute(path: Path, content: bytes) -> ModuleType:
    """Return the module that a file's content makes. The cache keeps the space of a content one object."""
    module = ModuleType(f"search_space_{path.stem}")
    module.__file__ = str(path)
    # Not by an importer: it would read the file once more, and could take stale bytecode for an edit within a second.
    exec(compile(content, str(path), "exec"), module.__dict__)
    return module


def _load_error(name: str | Path, error: Exception) -> NasError:
    return NasError(f"{name}: this search space does not load ({type(error).__name__}: {error})")


def is_published(name: str) -> bool:
    """Return whether a name is that of a published network, with or without a width."""
    return name.partition("@")[0] in FAMILIES or name in published_names()


def load_spec(
    name: str | Path, *, width: float | None = None, scale_head: bool = False, resolution: int | None = None
) -> ArchSpec:
    """Return a published network by name (`mobilenet_v3_large@0.75` for a width), or a spec's file by path.

    `scale_head` scales the head with the width, as torchvision does. `resolution` (pixels) replaces the spec's own.
    Raises NasError for an unknown name, an unreadable file, and a width for a spec that has none.
    """
    text = str(name)
    if is_published(text):
        spec = published_spec(text, width, scale_head)
    elif text.endswith(".json") or "/" in text or os.path.exists(text):
        if width is not None or scale_head:
            raise NasError(f"{text}: the spec in a file has one width only; leave the width out")
        spec = ArchSpec.load(text)
    else:
        raise unknown_name(
            "network",
            text,
            [*FAMILIES, "…@WIDTH", "the other names of `python -m nas`", "a path to a spec.json"],
        )
    return spec if resolution is None else spec.replace(resolution=resolution)
