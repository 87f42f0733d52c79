"""Open TFLite models in LiteRT, an optional package, for measuring as for prediction."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from nas.names import installed
from nas.quiet import quiet_stderr

INSTALL = "`uv sync --extra litert` or `pip install ai-edge-litert`"


def import_litert() -> ModuleType:
    """Return LiteRT's module of interpreters. Raises NasError if the package is not installed."""
    return installed("the runtime litert", "ai_edge_litert.interpreter", INSTALL)


def open_interpreter(model: bytes, threads: int = 1) -> Any:
    """Return an interpreter of a TFLite model with its tensors allocated.

    Raises NasError if LiteRT is not installed, ValueError for bytes that are no model, and RuntimeError for a model
    with operators that it does not have.
    """
    litert = import_litert()
    with quiet_stderr():  # it tells of its kernels there, each time it loads some
        interpreter = litert.Interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter
