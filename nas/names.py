"""Resolve a name to the thing that a registry lists under it.

A registry is a plain dict from a name to `"module:attribute"`. Nothing is imported before it is asked for, so that
listing names loads neither torch nor a runtime.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from nas.errors import unknown_name


def resolve(kind: str, name: str, registry: Mapping[str, str]) -> Any:
    """Return the attribute that `registry` lists under `name`, importing its module.

    Raises NasError for an unknown name; it lists the known ones. `kind` says in that message what the name is of.
    """
    if name not in registry:
        raise unknown_name(kind, name, sorted(registry))
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
