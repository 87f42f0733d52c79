"""Keep what a bundle's program has measured: a file that grows by a line a batch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nas.errors import NasError
from nas.files import make_folder
from nas.latency.device import Device
from nas.latency.rows import Measurement
from nas.latency.table_file import Row, RuntimeId, WholeNetwork

NETWORK = "network "  # the keys of whole networks begin with it
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
    """The rows and networks that were measured so far, in a file from which a run that was killed resumes.

    `specs` are those of the networks, in the form of JSON, by keys.
    """

    path: Path
    head: LogHead
    specs: Mapping[str, Mapping[str, Any]]
    reference_ms: float = float("inf")
    rows: dict[str, Row] = field(default_factory=dict)
    networks: dict[str, WholeNetwork] = field(default_factory=dict)
    sessions: int = 0

    @classmethod
    def open(cls, path: Path, head: LogHead, specs: Mapping[str, Mapping[str, Any]]) -> MeasurementLog:
        """Begin a log, or resume the one at `path`. Raises NasError if that has another head or is damaged."""
        make_folder(path.parent)
        log = cls(path, head, specs)
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
                networks = {key: (float(ratio), float(error)) for key, (ratio, error) in batch["networks"].items()}
                for key, (ratio, error) in networks.items():
                    if not (0 < ratio < math.inf and 0 <= error < math.inf):
                        raise ValueError(f"{key!r} has the time {ratio} with the error {error}")
                self._take(rows, networks, batch["reference_ms"])
        except NasError as error:
            raise NasError(f"{error}; remove it to begin anew, or name another table with --out") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NasError(f"{self.path} is damaged ({error}); remove it to begin anew") from None

    def add(self, measured: Measurement) -> None:
        """Keep a batch. Raises NasError if the disk takes no more."""
        reference_ms = round(measured.reference_ms, DECIMALS)
        rows = {
            key: Row.of(timing, self.sessions + 1)
            for key, timing in measured.timings.items()
            if not key.startswith(NETWORK)
        }
        networks = {key: (timing.ratio, timing.error) for key, timing in measured.timings.items() if key in self.specs}
        written = {key: row.to_dict() for key, row in rows.items()}
        self._append({"reference_ms": reference_ms, "networks": networks, "rows": written})
        self._take(rows, networks, reference_ms)

    def has(self, keys: Iterable[str]) -> bool:
        """Return whether all of these parts were measured. The reference network is in every session."""
        return all(key in self.rows or key in self.networks or self._is_measured_reference(key) for key in keys)

    def _is_measured_reference(self, key: str) -> bool:
        return key.startswith(NETWORK) and key not in self.specs and self.sessions > 0

    def _take(self, rows: dict[str, Row], networks: Mapping[str, tuple[float, float]], reference_ms: float) -> None:
        self.rows |= rows
        for key, (ratio, error) in networks.items():
            new, known = WholeNetwork.of(self.specs[key], ratio, error, self.sessions + 1), self.networks.get(key)
            self.networks[key] = known.merged(new) if known else new
        self.reference_ms = min(self.reference_ms, reference_ms)
        self.sessions += 1

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
