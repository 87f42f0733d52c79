"""Keep what a bundle's program has measured: a file that grows by a line a batch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nas.errors import NasError
from nas.files import make_folder
from nas.latency.device import Device
from nas.latency.rows import Measurement
from nas.latency.table_file import Calibration, Row, RuntimeId

DECIMALS = 6  # of the reference time, as tables keep it


@dataclass(frozen=True)
class LogHead:
    """The first line of a log. A later call resumes it only if all fields but the date are its own."""

    created: str
    bundle: str  # the id of the bundle
    device: Device
    runtime: RuntimeId

    def to_dict(self) -> dict[str, Any]:
        """Return the head in the form of JSON."""
        return asdict(self) | {"device": self.device.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LogHead:
        """Return the object that `to_dict` wrote."""
        device, runtime = Device.from_dict(data["device"]), RuntimeId(**data["runtime"])
        return cls(created=data["created"], bundle=data["bundle"], device=device, runtime=runtime)


@dataclass
class MeasurementLog:
    """The rows that were measured so far, in a file from which a run that was killed at any moment resumes."""

    path: Path
    head: LogHead
    reference_ms: float = float("inf")
    rows: dict[str, Row] = field(default_factory=dict)
    calibrations: list[Calibration] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, head: LogHead) -> MeasurementLog:
        """Begin a log, or resume the one at `path`. Raises NasError if that has another head or is damaged."""
        make_folder(path.parent)
        log = cls(path, head)
        try:
            text = path.read_bytes() if path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]  # a line without its end was cut by a kill or a full disk
            if whole != text:
                os.truncate(path, len(whole))
        except OSError as error:
            raise NasError(f"{path}: cannot be read ({error.strerror})") from None
        if whole:
            log._read(whole.decode("utf-8", "replace").splitlines())
        else:
            log._append(head.to_dict())
        return log

    def _read(self, lines: Sequence[str]) -> None:
        try:
            first, *batches = map(json.loads, lines)
            head = LogHead.from_dict(first)
            for name in ("bundle", "device", "runtime"):
                if getattr(head, name) != getattr(self.head, name):
                    raise NasError(f"{self.path} is of another {name}")
            self.head = head
            for batch in batches:
                rows = {key: Row.from_dict(key, row) for key, row in batch["rows"].items()}
                calibrations = [Calibration(**calibration) for calibration in batch["calibrations"]]
                self._take(rows, batch["reference_ms"], calibrations)
        except NasError as error:
            raise NasError(f"{error}; remove it to begin anew, or name another table with --out") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NasError(f"{self.path} is damaged ({error}); remove it to begin anew") from None

    def add(self, measured: Measurement) -> None:
        """Keep a batch. Raises NasError if the disk takes no more."""
        reference_ms = round(measured.reference_ms, DECIMALS)
        calibrations = [] if measured.factor == 1.0 else [measured.calibration]
        rows = {key: row.to_dict() for key, row in measured.rows.items()}
        noted = [asdict(calibration) for calibration in calibrations]
        self._append({"reference_ms": reference_ms, "calibrations": noted, "rows": rows})
        self._take(measured.rows, reference_ms, calibrations)

    def _take(self, rows: dict[str, Row], reference_ms: float, calibrations: list[Calibration]) -> None:
        self.rows |= rows
        self.reference_ms = min(self.reference_ms, reference_ms)
        self.calibrations += calibrations

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise NasError(
                f"{self.path}: cannot be written ({error.strerror}); what was measured is kept: make room, or allow "
                "writing there, and run the same command again"
            ) from None
