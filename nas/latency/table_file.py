"""The file of a latency table: its rows, what was measured on what, a hash over all of it.

Apart from `nas.latency.table`, which knows networks, so that a device without the package can write the same file.
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
NOISY = 0.1  # relative standard error of a row; in a network, a row is some 6 % of the time
DIGITS = 7  # of a ratio to the reference
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
    """What a table was measured with."""

    name: str
    version: str
    threads: int
    precision: str

    @classmethod
    def of(cls, runtime: Runtime) -> RuntimeId:
        return cls(runtime.name, runtime.version, runtime.threads, runtime.precision)

    def __str__(self) -> str:
        plural = "s" if self.threads > 1 else ""
        return f"{self.name} {self.version}, {self.threads} thread{plural}, {self.precision}"


@dataclass(frozen=True, slots=True)
class Row:
    """A timed part: ratios to the reference, its context included."""

    ratio: float
    quartiles: tuple[float, float]
    count: int
    error: float  # relative standard error of `ratio`

    @classmethod
    def of(cls, timing: Timing) -> Row:
        q1, q3 = timing.quartiles
        ratio, q1, q3 = (round(value, DIGITS) for value in (timing.ratio, q1, q3))
        return cls(ratio, (q1, q3), timing.count, round(timing.error, 5))

    def scaled(self, factor: float) -> Row:
        """The row, its times multiplied by a factor."""
        q1, q3 = self.quartiles
        ratio, q1, q3 = (round(factor * value, DIGITS) for value in (self.ratio, q1, q3))
        return Row(ratio, (q1, q3), self.count, self.error)

    @classmethod
    def from_dict(cls, key: str, data: Any) -> Row:
        """Inverse of `to_dict`. Raises NasError, naming the row by its key, for a time that cannot be."""
        row = cls(data["ratio"], (data["quartiles"][0], data["quartiles"][1]), data["count"], data["error"])
        for value in (row.ratio, *row.quartiles):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise NasError(f"row {key!r} has the time {reprlib.repr(value)}; a ratio must be a positive number")
        return row

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"quartiles": list(self.quartiles)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How well a table predicts random networks, measured whole. Errors and shares are between 0 and 1."""

    networks: int
    date: str
    mape: float  # mean absolute error, relative
    bias: float  # mean error, relative; positive where the table predicts too much
    within_5_percent: float
    within_10_percent: float
    spearman: float
    kendall: float
    noise_mape: float  # mean difference of two measurements of one network: what no table can beat


@dataclass(frozen=True, slots=True)
class Reference:
    """The network that all ratios are to, and its undisturbed time when the table was made."""

    network: str
    spec_id: str
    ms: float


def date() -> str:
    """Now, to the second, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def table_text(
    *,
    created: str,
    device: Device,
    runtime: RuntimeId,
    reference: Reference,
    num_classes: int,
    fidelity: Mapping[str, Any] | None,
    calibrations: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Row],
) -> str:
    """The whole file, one line a row."""
    head = {
        "version": JSON_VERSION,
        "created": created,
        "device": device.to_dict(),
        "runtime": asdict(runtime),
        "reference": asdict(reference),
        "num_classes": num_classes,
        "fidelity": fidelity,
        "calibrations": list(calibrations),
        "hash": rows_hash(reference.ms, rows),
    }
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(row.to_dict())}" for key, row in sorted(rows.items()))
    text = json.dumps(head, indent=2, ensure_ascii=False)
    return text.removesuffix("\n}") + ',\n  "rows": {\n' + lines + "\n  }\n}\n"


def noisy_rows(rows: Mapping[str, Row]) -> list[str]:
    """Keys of the rows of blocks whose times stayed uncertain by more than `NOISY`."""
    return [key for key, row in rows.items() if row.error > NOISY and not key.startswith("network ")]


def rows_hash(reference_ms: float, rows: Mapping[str, Row]) -> str:
    """16 hexadecimal digits that change with any row, and with the reference's time."""
    text = json.dumps({key: row.to_dict() for key, row in rows.items()}, sort_keys=True)
    return hashlib.sha256(f"{reference_ms:.6f} {text}".encode()).hexdigest()[:16]


def table_file(device: Device, runtime: RuntimeId) -> str:
    """The file name of a device's table."""
    precision = "" if runtime.precision == "float32" else f"-{runtime.precision}"
    return f"{device.name}-{runtime.name}-t{runtime.threads}{precision}.json"
