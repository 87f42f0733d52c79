"""Silence libraries for a while, without changing their settings for the rest of the process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna in a `with` block: its messages below errors, and its warnings of experimental features.

    The verbosity and the warning filters are restored after the block.
    """
    import optuna  # not at the top, where it would cost every command half a second
    from optuna.exceptions import ExperimentalWarning

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what a library that is not Python's writes to stderr in a `with` block."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
