"""What the commands share: how they end when the user made a mistake or pressed Ctrl-C."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

from nas.errors import NasError


def run(main: Callable[[list[str] | None], None]) -> None:
    """Runs a command's `main`: a NasError becomes one line on stderr and status 2, Ctrl-C status 130."""
    name = f"nas.{Path(sys.argv[0]).stem}".removesuffix(".__main__")
    try:
        main(None)
    except NasError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


def positive_int(text: str) -> int:
    """For argparse's `type`: a whole number of at least 1."""
    return _integer(text, 1)


def natural_int(text: str) -> int:
    """For argparse's `type`: a whole number of at least 0, such as a seed."""
    return _integer(text, 0)


def _integer(text: str, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
    return value


def positive_float(text: str) -> float:
    """For argparse's `type`: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return value
