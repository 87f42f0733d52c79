"""Resolve a name to the attribute that a registry lists under it, and import optional packages.

A registry is a plain dict from a name to `"module:attribute"`. The module is imported when its name is resolved, so
that listing names loads neither torch nor a runtime.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from nas.errors import NasError, unknown_name


def resolve(category: str, name: str, registry: Mapping[str, str]) -> Any:
    """Return the attribute that `registry` lists under `name`, importing its module.

    Raises NasError for an unknown name, with the known ones and `category`, such as "runtime".
    """
    if name not in registry:
        raise unknown_name(category, name, sorted(registry))
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def installed(what: str, module: str, install: str) -> ModuleType:
    """Import a module of an optional package only now, and return it.

    Raises NasError that names `what` is missing, such as "the runtime litert", and how to `install` it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NasError(f"{what} is not installed ({error}); install it with {install}") from None
