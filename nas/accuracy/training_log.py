"""Keep the results of short trainings in a log: one line of JSON a network, shared by processes and resumed runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nas.errors import NasError

Settings = tuple[str, int, int, int]  # images, resolution (pixels), epochs, seed


class ShortTrainingResult(NamedTuple):
    """The result of a short training.

    `curve` holds the validation top-1 (percent) after each epoch. It is shorter than the training if that was stopped
    or diverged, and empty if the result comes from another machine. `top1` (percent) counts for the network: that of
    the last epoch, the one expected there if the training was stopped, or 0 if it diverged.
    """

    curve: tuple[float, ...]
    top1: float
    std: float  # percentage points
    diverged: bool = False


class TrainingLog:
    """A log file of results. Several processes may append to it. Lines of other settings are skipped."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._settings = list(settings)
        self._bytes_read = self._lines_read = 0

    def append(self, spec_id: str, result: ShortTrainingResult) -> None:
        """Append a network's result in one write. Raises NasError for a log that cannot be written."""
        entry = {"spec_id": spec_id, "settings": self._settings, **result._asdict()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+") as file:
                # A killed process may have left half a line: begin a new one behind it.
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                begin = b"" if file.read(1) in (b"", b"\n") else b"\n"
                file.write(begin + json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise NasError(f"{self._path}: this log cannot be written ({error.strerror})") from None

    def read_new(self) -> Iterator[tuple[str, ShortTrainingResult]]:
        """Yield spec id and result of each line that was added since the last call, in order.

        Raises NasError for a log that cannot be read, and for a line that is no result.
        """
        if not self._path.exists():
            return
        try:
            with self._path.open("rb") as file:
                file.seek(self._bytes_read)
                text = file.read()
        except OSError as error:
            raise NasError(f"{self._path}: this log cannot be read ({error.strerror})") from None
        complete = text.rfind(b"\n") + 1
        self._bytes_read += complete
        for line in text[:complete].splitlines():
            self._lines_read += 1
            try:
                entry = json.loads(line)
            except ValueError:  # half a line of a killed process
                continue
            try:
                spec_id, settings, result = _parsed(entry)
            except (KeyError, TypeError, ValueError):
                raise NasError(
                    f"{self._path}: line {self._lines_read} is not the result of a short training; remove the line, "
                    "and the network is trained again"
                ) from None
            if settings == self._settings:
                yield spec_id, result


def _parsed(entry: Any) -> tuple[str, list[Any], ShortTrainingResult]:
    """Return spec id, settings and result of a line. Raises KeyError, TypeError or ValueError for another line."""
    curve, top1, std = tuple(map(float, entry["curve"])), float(entry["top1"]), float(entry["std"])
    spec_id, diverged = entry["spec_id"], entry["diverged"]
    if not (isinstance(spec_id, str) and isinstance(diverged, bool) and all(map(math.isfinite, (*curve, top1, std)))):
        raise ValueError
    return spec_id, list(entry["settings"]), ShortTrainingResult(curve, top1, std, diverged)
