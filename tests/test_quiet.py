"""Silence that ends."""

import logging
import os
import warnings
from collections.abc import Iterator

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning

from nas.quiet import quiet_optuna, quiet_stderr


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Optuna's messages at the level INFO and above."""
    kept: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    handler, logger = Keep(), logging.getLogger("optuna")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    logger.addHandler(handler)
    yield kept
    logger.removeHandler(handler)
    optuna.logging.set_verbosity(before)


def speak() -> None:
    optuna.create_study()
    warnings.warn("experimental", ExperimentalWarning, stacklevel=1)


def test_optuna_is_silent_inside_and_speaks_again_after(messages: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet_optuna():
            speak()
        assert messages == []
        with pytest.raises(ExperimentalWarning):
            speak()
        assert len(messages) == 1


def test_an_error_ends_the_silence_too(messages: list[str]) -> None:
    with pytest.raises(ZeroDivisionError), quiet_optuna(), quiet_optuna():
        raise ZeroDivisionError
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    filters = list(warnings.filters)
    with quiet_optuna():
        pass
    assert warnings.filters == filters


def test_other_warnings_are_heard() -> None:
    with quiet_optuna(), pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


def test_stderr_is_silent_inside_and_speaks_again_after(capfd: pytest.CaptureFixture[str]) -> None:
    def speak_and_fail() -> None:
        os.write(2, b"of a library in C")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), quiet_stderr():
        speak_and_fail()
    os.write(2, b"spoken")
    assert capfd.readouterr().err == "spoken"
