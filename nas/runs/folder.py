"""The folder of a run: its record, its log, and the files written beside them."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from nas.arch.cost import NUM_CLASSES, count_cost
from nas.arch.space import SearchSpace
from nas.console import Console, Silent
from nas.errors import NasError, hide_passwords
from nas.files import make_folder, write_text
from nas.runs.blocks import blocks_text
from nas.runs.log import TrialLog
from nas.runs.record import RECORD, TRIAL_COLUMNS, LoggedTrial, RunRecord, TargetResult, Trial, load_record
from nas.utf8 import as_utf8

LOG, LOCK = "study.log", ".lock"
WORKERS_LOG = "workers.log"  # where the workers of one machine meet
PLACES = ("data_dir",)  # arguments that say only where something lies
CONTENT = re.compile(r"\([0-9a-f]{16}\)\Z")  # the fingerprint at the end of an argument that names a file or a folder
_PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "ai-edge-litert", "optuna", "numpy", "scipy")


class RunFolder:
    """A run that this process works on: its record and its log, kept in memory and in the folder.

    Made by `begin` or `resume`. While it is open no other process can work on the same folder.
    """

    def __init__(self, path: Path, record: RunRecord, log: TrialLog, lock: FileLock) -> None:
        self.path = path
        self._record, self._log, self._lock = record, log, lock

    @classmethod
    def begin(cls, path: Path, record: RunRecord) -> RunFolder:
        """Begin a run in a folder, which is made if it is not there.

        Raises NasError for a folder that holds a run, that another process works on, or that cannot be written to.
        """
        _check_unused(path)
        make_folder(path)
        lock = _locked(path)
        try:
            _check_unused(path)  # another process may have begun and ended a run meanwhile
            for name in (LOG, WORKERS_LOG):  # of a run whose record somebody removed
                (path / name).unlink(missing_ok=True)
            folder = cls(path, record, TrialLog(path / LOG), lock)
            folder._save()
        except BaseException:
            lock.release()
            raise
        return folder

    @classmethod
    def resume(cls, path: Path, arguments: Mapping[str, Any], console: Console | None = None) -> RunFolder:
        """Open the run in a folder to continue it with the same arguments.

        What an argument names may lie in another place, which the console says and the record then holds. Raises
        NasError for a folder without a run, a run with other arguments, and a run that another process works on.
        """
        if not holds_run(path):
            raise NasError(f"{path} holds no run to resume; leave --resume out to start one there")
        lock = _locked(path)
        try:
            record = load_record(path)
            moved = _check_same(record.arguments, as_json(arguments), path)
            folder = cls(path, record, TrialLog(path / LOG), lock)
            if moved:
                folder.update(arguments=as_json(arguments))
            for line in moved:
                (console or Silent()).say(line)
            return folder
        except BaseException:
            lock.release()
            raise

    @property
    def record(self) -> RunRecord:
        """Return the record as it is now."""
        return self._record

    def update(self, **changes: Any) -> None:
        """Replace fields of the record and write it."""
        self._record = msgspec.structs.replace(self._record, **changes)
        self._save()

    def result_of(self, name: str) -> TargetResult:
        """Return the result of the target of that name, as it is now."""
        return next(result for result in self._record.targets if result.target.name == name)

    def update_target(self, name: str, **changes: Any) -> None:
        """Replace fields of the result of one target and write the record."""
        results = self._record.targets
        replaced = (msgspec.structs.replace(r, **changes) if r.target.name == name else r for r in results)
        self.update(targets=tuple(replaced))

    def add_seconds(self, stage: str, begun: float) -> None:
        """Add the seconds since `begun` (of time.monotonic) to the total of a stage, over resumed runs too."""
        seconds = self._record.seconds
        self.update(seconds=seconds | {stage: round(seconds.get(stage, 0.0) + time.monotonic() - begun, 1)})

    def log(self, target: str, stage: str, trial: Trial, space: SearchSpace | None = None) -> None:
        """Add a finished trial to the log. `space` names the parameters of a trial that has an encoding."""
        self._log.append(target, stage, trial, space)

    def trials(self, target: str, stage: str | None = None) -> list[LoggedTrial]:
        """Return the trials of a target, or those of one of its stages, in order."""
        return self._log.trials(target, stage)

    def flush(self) -> None:
        """Write the trials that are in memory only."""
        self._log.flush()

    def write_csv(self, name: str, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
        """Write rows as a CSV file of the folder."""
        import pandas as pd  # a second that no command's --help should take

        frame = pd.DataFrame.from_records(list(rows), columns=list(columns)).convert_dtypes()
        write_text(self.path / name, frame.to_csv(index=False, lineterminator="\n"))

    def close(self) -> None:
        """Write the trials that are in memory only, and let other processes work on the folder."""
        try:
            self.flush()
        finally:
            self._lock.release()

    def discard(self) -> None:
        """Remove the record and the logs of a run that decided nothing, and the folder if nothing else is in it."""
        for name in (RECORD, LOG, WORKERS_LOG, f".{WORKERS_LOG}.lock"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(PermissionError):  # Windows keeps a file that is open
            (self.path / LOCK).unlink(missing_ok=True)  # before the release, after which another process can take it
        self._lock.release()
        with suppress(OSError):  # there is more in it
            self.path.rmdir()

    def _save(self) -> None:
        self.flush()
        text = msgspec.json.format(_encoded(self._record), indent=2).decode()
        write_text(self.path / RECORD, text + "\n")


def new_record(command: str, arguments: Mapping[str, Any]) -> RunRecord:
    """Return the record of a run that begins now.

    `command` is how the program is called, such as `python -m nas.search`; the record holds it with the arguments of
    the process, passwords left out.
    """
    return RunRecord(
        command=" ".join([command, *(shlex.quote(hide_passwords(argument)) for argument in sys.argv[1:])]),
        arguments=as_json(arguments),
        versions=versions(),
        created=now(),
    )


def as_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as they are read back from a record."""
    read: dict[str, Any] = msgspec.json.decode(_encoded(dict(arguments)))
    return read


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(as_utf8(msgspec.to_builtins(value)))


def trial_row(logged: LoggedTrial, num_classes: int = NUM_CLASSES) -> dict[str, Any]:
    """Return a trial by `TRIAL_COLUMNS`; its costs are those with that many classes."""
    trial, cost = logged.trial, count_cost(logged.trial.spec, num_classes)
    place = (logged.target, logged.stage, logged.number, trial.spec.id)
    values = (round(trial.latency_ms, 5), round(trial.top1, 4), round(trial.std, 4))
    costs = (cost.macs, cost.params, cost.peak_activation_bytes)
    network = (trial.spec.resolution, blocks_text(trial.spec))
    return dict(zip(TRIAL_COLUMNS, (*place, *values, *costs, *network), strict=True))


def holds_run(path: Path) -> bool:
    """Return whether a folder holds the record of a run."""
    return os.path.exists(path / RECORD)  # unlike Path's, no error for a name that is too long or not to be read


def resumes(path: Path, wanted: bool, console: Console) -> bool:
    """Return whether a run is resumed: if that is wanted and the folder holds one.

    A job that is started again with the same command thus begins the first time and continues after that.
    """
    if wanted and not holds_run(path):
        console.say(f"{path} holds no run to resume; a new one begins there")
    return wanted and holds_run(path)


def unused_folder(path: Path) -> Path:
    """Return `path`, or the first of `path-2`, `path-3`, … that holds no run and that no process works on."""
    candidate, number = path, 1
    while holds_run(candidate) or _in_use(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def last_folder(path: Path) -> Path:
    """Return the last of `path`, `path-2`, … that holds a run; `path` if none does."""
    candidate, number = path, 2
    while holds_run(following := path.with_name(f"{path.name}-{number}")):
        candidate, number = following, number + 1
    return candidate


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("nas-playground", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_unused(path: Path) -> None:
    """Raise NasError for a folder that holds a run."""
    if holds_run(path):
        raise NasError(f"{path} already holds a run; continue it with --resume, or name another folder with --out")


def _locked(path: Path) -> FileLock:
    """Lock the folder for this process, which frees it when it ends. Raises NasError if another process has it."""
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise NasError(f"{path} is in use by another process; wait for it, or name another folder with --out") from None
    except OSError as error:
        raise NasError(f"{path}: this folder cannot be locked ({error.strerror}); name another place") from None
    return lock


def _in_use(path: Path) -> bool:
    if not (path / LOCK).exists():
        return False
    try:
        _locked(path).release()
    except NasError:
        return True
    return False


def _check_same(before: Mapping[str, Any], arguments: Mapping[str, Any], path: Path) -> list[str]:
    """Return a line for each argument that names what the run's names, in another place.

    Raises NasError, naming the flag, for the first argument that differs from the run's otherwise.
    """
    moved = []
    for key in sorted({*before, *arguments}):
        old, new = before.get(key), arguments.get(key)
        if old == new:
            continue
        flag = "--" + key.replace("_", "-")
        begun = f"{path} was begun {_as_given(flag, old)}"
        if key not in PLACES and (_content(old) is None or _content(old) != _content(new)):
            raise NasError(
                f"{begun}, not {_as_given(flag, new)}; resume it with the same arguments, or start another with --out"
            )
        moved.append(f"note: {begun}, and goes on {_as_given(flag, new)}")
    return moved


def _content(value: Any) -> str | None:
    """Return the fingerprint that an argument ends with, None if it has none."""
    found = CONTENT.search(value) if isinstance(value, str) else None
    return found and found[0]


def _as_given(flag: str, value: Any) -> str:
    """Return an argument as it would be given on the command line."""
    if value is None or value is False or value == []:
        return f"without {flag}"
    if value is True:
        return f"with {flag}"
    return " ".join(map(str, [f"with {flag}", *value] if isinstance(value, list) else [f"with {flag}", value]))
