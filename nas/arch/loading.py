"""Load search spaces and networks by name or from a file.

A name is a file of `search_spaces`, a published network, or a path to the user's own file.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pkgutil
from pathlib import Path
from types import ModuleType

from nas.arch import published
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError, unknown_name


def space_names() -> list[str]:
    """The files of `search_spaces`, without `.py`."""
    import search_spaces

    return sorted(module.name for module in pkgutil.iter_modules(search_spaces.__path__))


def load_space(name: str | Path) -> SearchSpace:
    """A space of `search_spaces` by name, or the `SPACE` of a Python file of one's own by path.

    Raises NasError for an unknown name, and for a file that does not load or sets no SPACE.
    """
    text = str(name)
    if text in space_names():
        load = functools.partial(importlib.import_module, f"search_spaces.{text}")
    elif text.endswith(".py"):
        load = functools.partial(_import_file, Path(text))
    else:
        raise unknown_name("search space", text, [*space_names(), "a path to a .py file"])
    try:
        module = load()
    except Exception as error:  # the user's own code: whatever it raises is theirs to read
        raise NasError(f"{text}: this search space does not load ({type(error).__name__}: {error})") from error
    space = getattr(module, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise NasError(
            f"{text}: the file must set SPACE to a nas.SearchSpace; search_spaces/mobilenet_v3_large.py is an example"
        )
    return space


def _import_file(path: Path) -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(f"user_space_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def load_spec(
    name: str | Path, *, width: float | None = None, scale_head: bool = False, resolution: int | None = None
) -> ArchSpec:
    """A published network by name (`mobilenet_v3_large@0.75` for a width), or a spec's file by path.

    `scale_head` variants the head with the width, as torchvision does; `resolution` replaces the spec's own.
    Raises NasError for unknown names, unreadable files, and a width for a spec that has none.
    """
    text = str(name)
    if text.partition("@")[0] in published.FAMILIES or text in published.published_names():
        spec = published.published_spec(text, width, scale_head)
    elif text.endswith(".json") or "/" in text or os.path.exists(text):
        if width is not None or scale_head:
            raise NasError(f"{text}: a spec's file has one width only; leave the width out")
        spec = ArchSpec.load(text)
    else:
        raise unknown_name(
            "network",
            text,
            [*published.FAMILIES, "…@WIDTH", "the other names of `python -m nas`", "a path to a spec.json"],
        )
    return spec if resolution is None else spec.replace(resolution=resolution)
