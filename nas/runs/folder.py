"""A run's folder and its log: one Optuna study a role in a journal file, every finished trial in one write."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import TrialState

from nas.arch.cost import NUM_CLASSES, count_cost
from nas.arch.spec import ArchSpec
from nas.errors import NasError, hide_passwords
from nas.files import make_folder, read_text, write_text

JSON_VERSION = 1
MANIFEST, LOG = "run.json", "study.log"
WRITE_EVERY = 0.5  # seconds between two writes of the log
COLUMNS = (
    "role",
    "stage",
    "number",
    "spec_id",
    "latency_ms",
    "top1",
    "top1_std",
    "macs",
    "params",
    "peak_activation_bytes",
)
_PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "optuna", "numpy", "scipy")


class LoggedTrial(NamedTuple):
    """A finished trial: predicted latency in normalised milliseconds, estimated top-1 in percent."""

    role: str
    stage: str
    number: int  # within its role, over all stages
    spec: ArchSpec
    latency_ms: float
    top1: float
    top1_std: float
    params: dict[str, Any]  # Optuna's; empty for what no sampler proposed

    def row(self, num_classes: int = NUM_CLASSES) -> dict[str, Any]:
        """By column; its costs are those with that many classes."""
        cost = count_cost(self.spec, num_classes)
        values = (self.role, self.stage, self.number, self.spec.id, round(self.latency_ms, 5), round(self.top1, 4))
        costs = (round(self.top1_std, 4), cost.macs, cost.params, cost.peak_activation_bytes)
        return dict(zip(COLUMNS, (*values, *costs), strict=True))


class RunFolder:
    """`run.json`, `study.log` and what is written beside them.

    `command` is how the program is called, as `python -m nas.search`; the manifest has it with the process's arguments.

    Raises NasError for a folder that holds a run already, unless it is resumed with the same arguments.
    """

    def __init__(self, path: Path, arguments: Mapping[str, Any], command: str, *, resume: bool) -> None:
        self.path = path
        manifest, log = path / MANIFEST, path / LOG
        arguments = json.loads(json.dumps(dict(arguments)))  # as they are read back
        if _holds_run(path) and not resume:
            raise NasError(f"{path} already holds a run; continue it with --resume, or name another folder with --out")
        if resume and not _holds_run(path):
            raise NasError(f"{path} holds no run to resume; leave --resume out to start one there")
        if resume:
            self.manifest = _load_manifest(manifest)
            _check_same(self.manifest["arguments"], arguments, path)
        else:
            make_folder(path)
            log.unlink(missing_ok=True)  # of a run whose manifest somebody removed
            self.manifest = {
                "version": JSON_VERSION,
                "command": hide_passwords(" ".join([command, *sys.argv[1:]])),
                "arguments": arguments,
                "versions": versions(),
                "created": now(),
                "finished": None,
                "seconds": {},
                "roles": {},
                "networks": [],
            }
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._log, self._storage = _open_log(log)
        self._studies: dict[str, optuna.Study] = {}
        self._logged: dict[str, list[LoggedTrial]] = {}
        if not resume:
            self.save()

    def save(self) -> None:
        self.flush()
        write_text(
            self.path / MANIFEST, json.dumps(self.manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )

    def flush(self) -> None:
        """Writes what was logged; until then up to `WRITE_EVERY` seconds of it are in memory only."""
        self._log.flush()

    def discard(self) -> None:
        """Takes away what makes the folder a run's, for a run that cannot be."""
        for name in (MANIFEST, LOG):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # there is more in it
            self.path.rmdir()

    def add_seconds(self, what: str, begun: float) -> None:
        """Adds the time since `begun` (of time.monotonic) to what a stage took, resumed runs included."""
        seconds = self.manifest["seconds"]
        seconds[what] = round(seconds.get(what, 0.0) + time.monotonic() - begun, 1)
        self.save()

    def _study(self, role: str) -> optuna.Study:
        if role not in self._studies:
            directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
            self._studies[role] = optuna.create_study(
                storage=self._storage, study_name=role, directions=directions, load_if_exists=True
            )
        return self._studies[role]

    def log(
        self,
        role: str,
        stage: str,
        spec: ArchSpec,
        latency_ms: float,
        top1: float,
        top1_std: float,
        params: Mapping[str, Any] | None = None,
        distributions: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        """Appends a finished trial."""
        trial = optuna.trial.create_trial(
            values=[top1, latency_ms],
            params=dict(params or {}),
            distributions=dict(distributions or {}),
            user_attrs={"stage": stage, "spec": spec.to_dict(), "top1_std": top1_std},
        )
        # What `study.add_trial` does, without checking a second time that the trial is one.
        self._storage.create_new_trial(self._storage.get_study_id_from_name(self._study(role).study_name), trial)

    def trials(self, role: str, stage: str | None = None) -> list[LoggedTrial]:
        """What was logged for a role, in order."""
        logged = self._logged.setdefault(role, [])
        for trial in self._study(role).get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[len(logged) :]:
            attributes = trial.user_attrs
            spec = ArchSpec.from_dict(attributes["spec"])
            top1, latency_ms = trial.values
            entry = (role, attributes["stage"], trial.number, spec, latency_ms, top1, attributes["top1_std"])
            logged.append(LoggedTrial(*entry, trial.params))
        return [trial for trial in logged if stage is None or trial.stage == stage]

    def write_csv(self, name: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
        import pandas as pd  # a second that no command's --help should take

        frame = pd.DataFrame.from_records(list(rows), columns=list(columns)).convert_dtypes()
        write_text(self.path / name, frame.to_csv(index=False, lineterminator="\n"))


def unused_folder(path: Path) -> Path:
    """`path`, or `path-2`, `path-3`, … if runs are there."""
    candidate, number = path, 1
    while _holds_run(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def last_folder(path: Path) -> Path:
    """The last of `path`, `path-2`, … that holds a run; `path` if none does."""
    candidate, number = path, 2
    while _holds_run(following := path.with_name(f"{path.name}-{number}")):
        candidate, number = following, number + 1
    return candidate


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("nas-playground", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _load_manifest(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NasError(f"{path}: not JSON ({error}); start a new run with another --out") from None
    if not isinstance(manifest, dict) or manifest.get("version") != JSON_VERSION or "arguments" not in manifest:
        raise NasError(f"{path}: not the file of a run of this version; start a new run with another --out")
    return manifest


def _holds_run(path: Path) -> bool:
    return os.path.exists(path / MANIFEST)  # unlike Path's, no error for a name that is too long or not to be read


class _Log(JournalFileBackend):
    """A journal that one process alone writes: in batches, for each write waits for the disk.

    What a killed process had not written is proposed again when its run is resumed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=JournalFileOpenLock(str(path)))
        self._waiting: list[dict[str, Any]] = []
        self._written: int | None = None  # entries in the file, once it was read
        self._next_write = 0.0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        if self._written is None:
            entries = list(super().read_logs(0))
            self._written = len(entries)
            yield from entries[log_number_from:]
        yield from self._waiting[max(0, log_number_from - self._written) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if time.monotonic() >= self._next_write:
            self.flush()  # what came before: the storage has yet to read these
        self._waiting += logs

    def flush(self) -> None:
        if self._waiting:
            super().append_logs(self._waiting)
            self._written = (self._written or 0) + len(self._waiting)
            self._waiting = []
        self._next_write = time.monotonic() + WRITE_EVERY


def _open_log(path: Path) -> tuple[_Log, JournalStorage]:
    """The log, less the half line that a killed process may have left. Raises NasError if it is damaged."""
    try:
        if path.exists():
            with path.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        log = _Log(path)
        return log, JournalStorage(log)
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError):  # all are seen
        raise NasError(f"{path}: the log of the run is damaged; start a new run with another --out") from None


def _check_same(before: Mapping[str, Any], arguments: Mapping[str, Any], path: Path) -> None:
    for key in sorted({*before, *arguments}):
        if before.get(key) != arguments.get(key):
            flag = "--" + key.replace("_", "-")
            raise NasError(
                f"{path} was begun {_said(flag, before.get(key))}, not {_said(flag, arguments.get(key))}; "
                "resume it with the same arguments, or start another with --out"
            )


def _said(flag: str, value: Any) -> str:
    """How an argument would be given on the command line."""
    if value is None or value is False or value == []:
        return f"without {flag}"
    if value is True:
        return f"with {flag}"
    return " ".join(map(str, [f"with {flag}", *value] if isinstance(value, list) else [f"with {flag}", value]))
