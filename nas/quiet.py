"""Silence libraries for a while, without changing their settings for the rest of the process."""

from __future__ import annotations

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
