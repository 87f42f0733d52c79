"""Argument types and the parser of the commands."""

from __future__ import annotations

import argparse
import math
import sys
from typing import NoReturn

from nas.arch.spec import MAX_RESOLUTION, MIN_RESOLUTION
from nas.errors import hide_passwords


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _integer(text, 1)


def natural_int(text: str) -> int:
    """Parse a whole number of at least 0, such as a seed."""
    return _integer(text, 0)


def positive_int_or_auto(text: str) -> int | None:
    """Parse a whole number of at least 1, or the word auto, which is None."""
    return None if text == "auto" else positive_int(text)


def _integer(text: str, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
    return value


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return value


def positive_floats(text: str) -> tuple[float, ...]:
    """Parse finite numbers above 0 with commas between them."""
    return tuple(positive_float(part) for part in text.split(","))


def count(text: str) -> int:
    """Parse a whole number of at least 1, also in the form 800k or 3.5M."""
    units = {"k": 1e3, "m": 1e6, "g": 1e9}
    unit = units.get(text[-1:].lower())
    try:
        value = float(text) if unit is None else float(text[:-1]) * unit
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1, such as 3.5M or 800k")
    return round(value)


def resolution(text: str) -> int:
    """Parse a resolution that a network can have, in pixels."""
    value = positive_int(text)
    if not MIN_RESOLUTION <= value <= MAX_RESOLUTION:
        raise argparse.ArgumentTypeError(f"{value} pixels; it must be from {MIN_RESOLUTION} to {MAX_RESOLUTION}")
    return value


class Parser(argparse.ArgumentParser):
    """Parse the arguments of a command. Its help is the docstring of the command's module, its errors are one line."""

    def __init__(self, command: str, doc: str | None) -> None:
        first, _, rest = (doc or "").partition("\n")
        super().__init__(
            prog=program(command),
            description=first,
            epilog=rest.strip("\n"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: error: {hide_passwords(message)}\n")


def program(command: str) -> str:
    """Return the words that called a command: `nas search`, `python -m nas search` or `python -m nas.search`.

    `command` is "overview" for `nas` alone.
    """
    words = "nas" if command == "overview" else f"nas {command}"
    called = sys.argv[0]  # `nas.__main__.main` puts the words there
    return called if called in (words, f"python -m {words}") else f"python -m {words.replace(' ', '.')}"
