"""Log every finished trial of a run in Optuna studies, two a target, in one journal file.

Trials of the search space have parameters, networks that NetAdapt trimmed have none. They are in a study of their own,
for Optuna's tools compare the parameters that all trials of a study have. The names are those that a reader of
Optuna's dashboard sees.

The log is an output. A run decides from what it holds in memory, and reads the log only when it resumes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.quiet import quiet_optuna
from nas.runs.parameters import distributions, params_of
from nas.runs.record import LoggedTrial, Trial

TRIMMED = ", trimmed by NetAdapt"  # behind the name of a target, in that of the study of its trials without parameters
METRICS = ("top-1, %", "latency, ms")
DEVIATION = "top-1 deviation, points"
WRITE_EVERY = 0.5  # seconds between two writes of the log


class TrialLog:
    """The trials of a run, in memory and in a journal file.

    Raises NasError for a file that is damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._journal, self._storage = _open_journal(path)
        self._study_ids: dict[str, int] = {}
        self._trials: dict[str, list[LoggedTrial]] = {}
        try:
            for name in optuna.get_all_study_names(self._storage):
                self._study_ids[name] = study_id = self._storage.get_study_id_from_name(name)
                target = name.removesuffix(TRIMMED)
                read = [_read(target, trial) for trial in self._storage.get_all_trials(study_id)]
                merged = [*self._trials.get(target, []), *read]
                self._trials[target] = sorted(merged, key=lambda logged: logged.number)
        except (LookupError, TypeError, NasError):
            raise _damaged(path) from None

    def append(self, target: str, stage: str, trial: Trial, space: SearchSpace | None = None) -> None:
        """Add a finished trial. `space` names the parameters of a trial that has an encoding."""
        trials = self._trials.setdefault(target, [])
        params: dict[str, Any] = {}
        if space is not None and trial.encoding is not None:
            params = {"params": params_of(space, trial.encoding), "distributions": distributions(space)}
        frozen = optuna.trial.create_trial(
            values=[trial.top1, trial.latency_ms],
            user_attrs={
                "number": len(trials),
                "stage": stage,
                "network": trial.spec.id,
                "resolution, px": trial.spec.resolution,
                DEVIATION: trial.std,
                "score": trial.score,
                "diverged": trial.diverged,
                "encoding": trial.encoding,
                "spec": trial.spec.to_dict(),
            },
            **params,
        )
        # What `study.add_trial` does, without checking a second time that the trial is one.
        self._storage.create_new_trial(self._study_id(target if params else target + TRIMMED), frozen)
        trials.append(LoggedTrial(target, stage, len(trials), trial))

    def trials(self, target: str, stage: str | None = None) -> list[LoggedTrial]:
        """Return the trials of a target, or those of one of its stages, in order."""
        return [logged for logged in self._trials.get(target, []) if stage is None or logged.stage == stage]

    def flush(self) -> None:
        """Write what was added; until then up to `WRITE_EVERY` seconds of it are in memory only."""
        self._journal.flush()

    def _study_id(self, name: str) -> int:
        if name not in self._study_ids:
            with quiet_optuna():
                study = optuna.create_study(
                    storage=self._storage,
                    study_name=name,
                    directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE],
                )
                study.set_metric_names(list(METRICS))
            self._study_ids[name] = self._storage.get_study_id_from_name(name)
        return self._study_ids[name]


def _read(target: str, frozen: FrozenTrial) -> LoggedTrial:
    attributes = frozen.user_attrs
    encoding = attributes["encoding"]
    trial = Trial(
        encoding=None if encoding is None else tuple(encoding),
        spec=ArchSpec.from_dict(attributes["spec"]),
        top1=frozen.values[0],
        std=attributes[DEVIATION],
        latency_ms=frozen.values[1],
        score=attributes["score"],
        diverged=attributes["diverged"],
    )
    return LoggedTrial(target, attributes["stage"], attributes["number"], trial)


class _NoLock(JournalFileOpenLock):
    """The lock of a journal that the lock of the run's folder guards already.

    Optuna's own lock leaves a file behind where a process is killed, and the next one waits half a minute for it.
    """

    def acquire(self) -> bool:
        """Return True."""
        return True

    def release(self) -> None:
        """Do nothing."""


class _Journal(JournalFileBackend):
    """A journal that one process alone writes: in batches, for each write waits for the disk.

    What a killed process had not written is proposed again when its run resumes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_NoLock(str(path)))
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
            size = os.path.getsize(self._file_path) if os.path.exists(self._file_path) else 0
            try:
                super().append_logs(self._waiting)
            except OSError as error:
                with suppress(OSError):  # without what was written in part, so that another attempt adds no line twice
                    os.truncate(self._file_path, size)
                raise NasError(
                    f"{self._file_path}: cannot be written ({error.strerror}); make room, and continue with --resume"
                ) from None
            self._written = (self._written or 0) + len(self._waiting)
            self._waiting = []
        self._next_write = time.monotonic() + WRITE_EVERY


def _open_journal(path: Path) -> tuple[_Journal, JournalStorage]:
    """Open the journal without the half line that a killed process may have left."""
    try:
        if path.exists():
            with path.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        with quiet_optuna():
            journal = _Journal(path)
            return journal, JournalStorage(journal)
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError):  # all are seen
        raise _damaged(path) from None


def _damaged(path: Path) -> NasError:
    return NasError(f"{path}: the log of the run is damaged; start a new run with another --out")
