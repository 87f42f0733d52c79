"""Define the file of a latency table: its rows, the device and runtime they were measured on, a hash over the rows.

Unlike `nas.latency.table` this module knows no networks, so that a device without the package writes the same file.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nas.errors import NasError

if TYPE_CHECKING:
    from nas.latency.device import Device
    from nas.latency.runtimes import Runtime
    from nas.latency.timing import Timing

JSON_VERSION = 3
IMAGENET_CLASSES = 1000  # of the tables whose names leave the number of classes out
NOISY = 0.1  # relative standard error of a row; in a network, a row is some 6 % of the time
DIGITS = 7  # of a ratio to the reference network
KEYS = (
    "version",
    "created",
    "device",
    "runtime",
    "reference",
    "num_classes",
    "fidelity",
    "calibrations",
    "hash",
    "rows",
)


@dataclass(frozen=True, slots=True)
class RuntimeId:
    """The runtime that a table was measured with."""

    name: str
    version: str
    threads: int
    precision: str

    @classmethod
    def of(cls, runtime: Runtime) -> RuntimeId:
        """Return the description of a runtime."""
        return cls(runtime.name, runtime.version, runtime.threads, runtime.precision)

    def __str__(self) -> str:
        plural = "s" if self.threads > 1 else ""
        return f"{self.name} {self.version}, {self.threads} thread{plural}, {self.precision}"


@dataclass(frozen=True, slots=True)
class Row:
    """A timed part, its context included: ratios to the reference network."""

    ratio: float
    quartiles: tuple[float, float]
    count: int
    error: float  # relative standard error of `ratio`

    @classmethod
    def of(cls, timing: Timing) -> Row:
        """Return the row of a timing, rounded as the file keeps it."""
        q1, q3 = timing.quartiles
        ratio, q1, q3 = (round(value, DIGITS) for value in (timing.ratio, q1, q3))
        return cls(ratio, (q1, q3), timing.count, round(timing.error, 5))

    def scaled(self, factor: float) -> Row:
        """Return the row with its times multiplied by a factor."""
        q1, q3 = self.quartiles
        ratio, q1, q3 = (round(factor * value, DIGITS) for value in (self.ratio, q1, q3))
        return Row(ratio, (q1, q3), self.count, self.error)

    @classmethod
    def from_dict(cls, key: str, data: Any) -> Row:
        """Return the object that `to_dict` wrote. Raises NasError that names the row for an impossible time."""
        row = cls(data["ratio"], (data["quartiles"][0], data["quartiles"][1]), data["count"], data["error"])
        for value in (row.ratio, *row.quartiles):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise NasError(f"row {key!r} has the time {reprlib.repr(value)}; a ratio must be a positive number")
        return row

    def to_dict(self) -> dict[str, Any]:
        """Return the row in the form of JSON."""
        return asdict(self) | {"quartiles": list(self.quartiles)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """The errors of a table's predictions for random networks that were measured whole, as shares between 0 and 1."""

    networks: int
    date: str
    mape: float  # mean absolute error, relative
    bias: float  # mean error, relative; positive where the table predicts too much
    within_5_percent: float
    within_10_percent: float
    spearman: float  # 0 where there are too few networks for a rank correlation
    kendall: float
    noise_mape: float  # mean difference of two measurements of one network: what no table can beat

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fidelity:
        """Return the object that `asdict` wrote. Raises NasError for a figure that is no number."""
        fidelity = cls(**data)
        for name, value in asdict(fidelity).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (isinstance(value, str) if name == "date" else number):
                raise NasError(f"its fidelity has {name} {reprlib.repr(value)}; check it again with `--check`")
        return fidelity


@dataclass(frozen=True, slots=True)
class Calibration:
    """The factor that rows of one session were multiplied by, so that they add up to whole networks."""

    date: str
    rows: int
    factor: float


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference network, and its undisturbed time when the table was made."""

    network: str
    spec_id: str
    ms: float


def date() -> str:
    """Return the time now, to the second, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def table_text(
    *,
    created: str,
    device: Device,
    runtime: RuntimeId,
    reference: Reference,
    num_classes: int,
    fidelity: Fidelity | None,
    calibrations: Sequence[Calibration],
    rows: Mapping[str, Row],
) -> str:
    """Return the text of the file, one line a row."""
    head = {
        "version": JSON_VERSION,
        "created": created,
        "device": device.to_dict(),
        "runtime": asdict(runtime),
        "reference": asdict(reference),
        "num_classes": num_classes,
        "fidelity": None if fidelity is None else asdict(fidelity),
        "calibrations": [asdict(calibration) for calibration in calibrations],
        "hash": rows_hash(reference.ms, rows),
    }
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(row.to_dict())}" for key, row in sorted(rows.items()))
    text = json.dumps(head, indent=2, ensure_ascii=False)
    return text.removesuffix("\n}") + ',\n  "rows": {\n' + lines + "\n  }\n}\n"


def noisy_rows(rows: Mapping[str, Row]) -> list[str]:
    """Return the keys of the rows of blocks whose times are uncertain by more than `NOISY`."""
    return [key for key, row in rows.items() if row.error > NOISY and not key.startswith("network ")]


def rows_hash(reference_ms: float, rows: Mapping[str, Row]) -> str:
    """Return 16 hexadecimal digits that change with any row and with the reference network's time."""
    text = json.dumps({key: row.to_dict() for key, row in rows.items()}, sort_keys=True)
    return hashlib.sha256(f"{reference_ms:.6f} {text}".encode()).hexdigest()[:16]


def table_file(device: Device, runtime: RuntimeId, num_classes: int = IMAGENET_CLASSES) -> str:
    """Return the file name of a device's table."""
    precision = "" if runtime.precision == "float32" else f"-{runtime.precision}"
    classes = "" if num_classes == IMAGENET_CLASSES else f"-n{num_classes}"
    return f"{device.name}-{runtime.name}-t{runtime.threads}{precision}{classes}.json"
