"""Names to things: spaces, networks, runtimes, estimators, strategies. Plain dicts, loaded when asked for.

A name is a key of a dict below, a file of `search_spaces`, a published network, or a path to the user's file.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from nas import published
from nas.errors import NasError, unknown_name
from nas.space import SearchSpace
from nas.spec import ArchSpec

# name -> "module:attribute", imported on first use so that naming a thing does not load torch or a runtime.
RUNTIMES = {
    "onnxruntime": "nas.latency.runtimes:OnnxRuntime",
    "openvino": "nas.latency.runtimes:OpenVino",
    "torch": "nas.latency.runtimes:TorchEager",
}
ESTIMATORS = {
    "imagenet-prior": "nas.estimators.imagenet_prior:ImageNetPrior",
    "short-training": "nas.estimators.short_training:ShortTraining",
}
STRATEGIES = {
    "exact": "nas.strategies.samplers:EXACT",
    "evolution": "nas.strategies.samplers:EVOLUTION",
    "once-for-all": "nas.strategies.samplers:ONCE_FOR_ALL",
    "fitted": "nas.strategies.samplers:FITTED",
    "tpe": "nas.strategies.samplers:TPE",
    "nsga2": "nas.strategies.samplers:NSGA2",
    "random": "nas.strategies.samplers:RANDOM",
}


def resolve(kind: str, name: str, known: dict[str, str]) -> Any:
    """The thing a dict above names. Raises NasError listing the known names."""
    if name not in known:
        raise unknown_name(kind, name, sorted(known))
    module, _, attribute = known[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


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

    `scale_head` scales the head with the width, as torchvision does; `resolution` replaces the spec's own.
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


def load_estimator(name: str, recipe_level: str | None = None) -> Any:
    """An accuracy estimator by name, for a level of training effort (its own default by default).

    Raises NasError listing the known names or levels.
    """
    estimator = resolve("estimator", name, ESTIMATORS)
    return estimator() if recipe_level is None else estimator(recipe_level)
