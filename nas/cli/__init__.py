"""What the commands share: how they end, how they tell how far they are, and types of their arguments."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nas.errors import NasError


def run(main: Callable[[list[str] | None], None]) -> None:
    """Runs a command's `main`: a NasError becomes one line on stderr and status 2, Ctrl-C status 130."""
    file = Path(sys.argv[0])
    name = f"nas.{file.parent.name if file.stem == '__main__' else file.stem}".replace("nas.nas", "nas")
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


def positive_floats(text: str) -> tuple[float, ...]:
    """For argparse's `type`: finite numbers above 0 with commas between them."""
    return tuple(positive_float(part) for part in text.split(","))


def count(text: str) -> int:
    """For argparse's `type`: a whole number of at least 1, also as 800k or 3.5M."""
    units = {"k": 1e3, "m": 1e6, "g": 1e9}
    unit = units.get(text[-1:].lower())
    try:
        value = float(text) if unit is None else float(text[:-1]) * unit
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1, such as 3.5M or 800k")
    return round(value)


class Parser(argparse.ArgumentParser):
    """argparse, its errors one line like all others; --help shows the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: error: {message}\n")


class RichConsole:
    """What a command says: lines, tables, and progress bars with time left (these on a terminal only)."""

    def __init__(self) -> None:
        from rich.console import Console

        # Into a file or a pipe goes every column whole; a terminal is as wide as it is.
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
        self._bars = Console(stderr=True)  # not on stdout, which the exact solver keeps shut while it works

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[float, str], None]]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._bars, transient=True, disable=not self._bars.is_terminal) as bar:
            task = bar.add_task(title, total=1.0, note="")
            yield lambda share, note: bar.update(task, completed=share, note=note)

    def print(self, thing: Any) -> None:
        """A table, or anything else that rich can draw."""
        self._console.print(thing)
