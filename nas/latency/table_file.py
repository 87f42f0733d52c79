"""Define the file of a latency table: its rows, networks, the device and runtime, a hash over both.

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
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nas.errors import NasError

if TYPE_CHECKING:
    from pathlib import Path

    from nas.latency.device import Device
    from nas.latency.runtimes import Runtime
    from nas.latency.timing import Timing

JSON_VERSION = 4
OLDER_VERSION = 3  # is read, too: its rows were multiplied by a factor a session, and it holds no networks
IMAGENET_CLASSES = 1000  # of the tables whose names leave the number of classes out
NOISY = 0.1  # relative standard error of a row; in a network, a row is some 6 % of the time
DIGITS = 7  # of a ratio to the reference network
SESSION_ERROR = 0.005  # relative: two sessions differ by this much, however long each lasts
KEYS = (
    "version",
    "created",
    "device",
    "runtime",
    "reference",
    "num_classes",
    "fidelity",
    "hash",
    "networks",
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

    def search_command(self, table: str | Path) -> str:
        """Return the command that searches elsewhere than on the device with a table of this runtime."""
        return (
            f"python -m nas.search --budget-ms MS --table {table} --allow-other-device --runtime {self.name} "
            f"--threads {self.threads} --precision {self.precision}"
        )


@dataclass(frozen=True)
class Row:
    """A timed part, its context included: ratios to the reference network."""

    ratio: float  # as it was timed, less the noise that the other rows of its place tell
    timed: float  # as it was timed
    quartiles: tuple[float, float]
    count: int
    error: float  # relative standard error of `timed`
    session: int = 0  # that timed it; rows of one session share what the machine did meanwhile

    @classmethod
    def of(cls, timing: Timing, session: int = 0, ratio: float | None = None) -> Row:
        """Return the row of a timing, rounded as the file keeps it; `ratio` is by default as it was timed."""
        q1, q3 = timing.quartiles
        ratio = timing.ratio if ratio is None else ratio
        ratio, timed, q1, q3 = (round(value, DIGITS) for value in (ratio, timing.ratio, q1, q3))
        return cls(ratio, timed, (q1, q3), timing.count, round(timing.error, 5), session)

    @classmethod
    def from_dict(cls, key: str, data: Any) -> Row:
        """Return the object that `to_dict` wrote. Raises NasError that names the row for an impossible time."""
        quartiles = data["quartiles"][0], data["quartiles"][1]
        timed, session = data.get("timed", data["ratio"]), int(data.get("session", 0))
        row = cls(data["ratio"], timed, quartiles, data["count"], data["error"], session)
        for value in (row.ratio, row.timed, *row.quartiles):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise NasError(f"row {key!r} has the time {reprlib.repr(value)}; a ratio must be a positive number")
        return row

    def to_dict(self) -> dict[str, Any]:
        """Return the row in the form of JSON."""
        return asdict(self) | {"quartiles": list(self.quartiles)}

    @cached_property
    def line(self) -> str:
        """Return one line of JSON with sorted keys. It is made once, for a search saves its table many times."""
        return json.dumps(self.to_dict(), sort_keys=True)


@dataclass(frozen=True)
class WholeNetwork:
    """A network that was measured whole, in all sessions together: a ratio to the reference network."""

    spec: Mapping[str, Any]  # in the form of JSON
    ratio: float
    error: float  # relative standard error of `ratio`
    session: int  # the last one whose rows were there: a table learns from a network only about rows from before it
    times: int = 1  # that it was measured

    @classmethod
    def of(cls, spec: Mapping[str, Any], ratio: float, error: float, session: int, times: int = 1) -> WholeNetwork:
        """Return a measurement, rounded as the file keeps it. `error` is at least what sessions differ by."""
        error = max(error, SESSION_ERROR / math.sqrt(times))
        return cls(spec, round(ratio, DIGITS), round(error, 5), session, times)

    def merged(self, other: WholeNetwork) -> WholeNetwork:
        """Return the combination with another measurement of the same network; each counts by its error."""
        own, others = self.error**-2, other.error**-2
        ratio = math.exp((own * math.log(self.ratio) + others * math.log(other.ratio)) / (own + others))
        session = max(self.session, other.session)
        return WholeNetwork.of(self.spec, ratio, (own + others) ** -0.5, session, self.times + other.times)

    @classmethod
    def from_dict(cls, key: str, data: Any) -> WholeNetwork:
        """Return the object that `to_dict` wrote. Raises NasError that names the network for an impossible time."""
        network = cls(data["spec"], data["ratio"], data["error"], int(data["session"]), data["times"])
        for value in (network.ratio, network.error, network.times):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise NasError(f"{key!r} has the time {reprlib.repr(value)}; a ratio must be a positive number")
        return network

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement in the form of JSON."""
        values = {"ratio": self.ratio, "error": self.error, "session": self.session, "times": self.times}
        return values | {"spec": dict(self.spec)}

    @cached_property
    def line(self) -> str:
        """Return one line of JSON with sorted keys, made once."""
        return json.dumps(self.to_dict(), sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """The errors of a table's predictions for networks that were measured whole, as shares between 0 and 1.

    None of the networks was learned from before. The population is "random", networks drawn from a space, or
    "near-optimal", the most accurate within random budgets: those that a search ends with.
    """

    population: str
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
            if not (isinstance(value, str) if name in ("population", "date") else number):
                raise NasError(f"its fidelity has {name} {reprlib.repr(value)}; check it again with `--check`")
        return fidelity


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
    fidelity: Sequence[Fidelity],
    networks: Mapping[str, WholeNetwork],
    rows: Mapping[str, Row],
) -> str:
    """Return the text of the file, one line a row and one a network."""
    head = {
        "version": JSON_VERSION,
        "created": created,
        "device": device.to_dict(),
        "runtime": asdict(runtime),
        "reference": asdict(reference),
        "num_classes": num_classes,
        "fidelity": [asdict(one) for one in fidelity],
        "hash": content_hash(reference.ms, rows, networks),
    }
    text = json.dumps(head, indent=2, ensure_ascii=False)
    return text.removesuffix("\n}") + f",\n{_lines('networks', networks)},\n{_lines('rows', rows)}\n}}\n"


def _lines(name: str, values: Mapping[str, Row | WholeNetwork]) -> str:
    lines = ",\n".join(f"    {json.dumps(key)}: {value.line}" for key, value in sorted(values.items()))
    return f'  "{name}": {{\n{lines}\n  }}'


def noisy_rows(rows: Mapping[str, Row]) -> list[str]:
    """Return the keys of the rows of blocks whose times are uncertain by more than `NOISY`."""
    return [key for key, row in rows.items() if row.error > NOISY]


def content_hash(reference_ms: float, rows: Mapping[str, Row], networks: Mapping[str, WholeNetwork]) -> str:
    """Return 16 hexadecimal digits that change with any row or network, and with the reference network's time."""
    both = ", ".join(_object(values) for values in (rows, networks))
    return hashlib.sha256(f"{reference_ms:.6f} [{both}]".encode()).hexdigest()[:16]


def _object(values: Mapping[str, Row | WholeNetwork]) -> str:
    """Return the JSON object of rows or networks with sorted keys, in one line."""
    return "{" + ", ".join(f"{json.dumps(key)}: {value.line}" for key, value in sorted(values.items())) + "}"


def older_hash(reference_ms: float, rows: Mapping[str, Any]) -> str:
    """Return the hash of a table of `OLDER_VERSION`, whose rows are given in the form of JSON."""
    return hashlib.sha256(f"{reference_ms:.6f} {json.dumps(rows, sort_keys=True)}".encode()).hexdigest()[:16]


def table_file(device: Device, runtime: RuntimeId, num_classes: int = IMAGENET_CLASSES) -> str:
    """Return the file name of a device's table."""
    precision = "" if runtime.precision == "float32" else f"-{runtime.precision}"
    classes = "" if num_classes == IMAGENET_CLASSES else f"-n{num_classes}"
    return f"{device.name}-{runtime.name}-t{runtime.threads}{precision}{classes}.json"
