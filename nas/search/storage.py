"""Open the storage where workers meet: a journal file, or a data base, which may go away for a while."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study, StudyDirection
from sqlalchemy import event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)

from nas.errors import NasError, hide_passwords, holds_password_of
from nas.quiet import quiet_optuna

T = TypeVar("T")

HEARTBEAT = 15  # seconds between two signs of life; a worker without one for twice as long counts as dead
PATIENCE = 120.0  # seconds within which a data base that went away is waited for
_PAUSE = 0.5  # seconds between two attempts to reach it
_LONG = 10.0  # seconds of waiting for a lock that are said
_RACES = 4  # times that processes which open a new data base together may meet
_STATEMENT = 60_000  # milliseconds after which the server ends a statement, or a transaction in which nothing happens
# A server that is gone without a word is noticed within half a minute. The names are libpq's; a URL may have them too.
_LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_ENCODE = "write @ / : ? & as %40 %2F %3A %3F %26"  # of a URL, for messages


class JournalLock(JournalFileOpenLock):
    """A lock of a journal file that ends with the process that holds it.

    Optuna's own lock leaves a file behind where a process is killed, and others wait half a minute for it. `say` gets a
    line before a long wait, such as for a process that was stopped.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(str(path))
        self._path, self._say = path, say
        self._file_lock = FileLock(path.with_name(f".{path.name}.lock"))

    def acquire(self) -> bool:
        """Wait for the lock, cut off the half line of a process that died while it wrote, and return True."""
        try:
            self._file_lock.acquire(timeout=_LONG, poll_interval=0.01)
        except Timeout:
            self._say(f"note: another process has held the lock of {self._path} for {_LONG:.0f} s; it is waited for")
            self._file_lock.acquire(poll_interval=0.01)
        try:
            _cut_half_line(self._path)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Release the lock."""
        self._file_lock.release()


def _cut_half_line(path: Path) -> None:
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read() not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


class Journal(JournalFileBackend):
    """A journal file that several processes write.

    Where it is damaged, a method raises NasError. Where it cannot be written, all do from then on.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        super().__init__(str(path), lock_obj=JournalLock(path, say))
        self._given_up: NasError | None = None

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from that number on."""
        if self._given_up:
            raise self._given_up
        try:
            yield from super().read_logs(log_number_from)
        except ValueError:  # of JSON
            raise NasError(f"{self._file_path}: this log is damaged; start a new run with another --out") from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries."""
        if self._given_up:
            raise self._given_up
        try:
            super().append_logs(logs)
        except OSError as error:
            self._given_up = NasError(
                f"{self._file_path}: cannot be written ({error.strerror}); make room, and continue with --resume"
            )
            raise self._given_up from None


class PatientStorage(RDBStorage):
    """A data base that is asked again, and waited for, where it goes away for a while, as in a restart.

    `say` gets a line before it is waited for. A method raises NasError where `patience` seconds were not enough, and so
    does every later one, at once.
    """

    def __init__(self, url: str, patience: float, say: Callable[[str], None], **options: Any) -> None:
        self._shown_url, self._patience, self._say = url, patience, say
        self._given_up: NasError | None = None
        address = make_url(_with_driver(url))
        libpq = address.get_driver_name() in ("psycopg", "psycopg2")
        timeouts = {name: value for name, value in _LIBPQ.items() if libpq and name not in address.query}
        super().__init__(_with_driver(url), {"pool_pre_ping": True, "connect_args": timeouts}, **options)
        if address.get_backend_name() == "postgresql":
            event.listen(self.engine, "connect", _limit_statements)
            self.engine.dispose()  # the connection that was made without the limits

    def ask(self, method: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a method of Optuna's until the data base answers."""
        if self._given_up:
            raise self._given_up
        try:
            return _repeated(lambda: method(self, *arguments, **options), self._patience, self._shown_url, self._say)
        except NasError as error:
            self._given_up = error
            raise

    def record_heartbeat(self, trial_id: int) -> None:
        """Give a sign of life. Where that cannot be stored, the next one is due soon: no training ends for it."""
        with suppress(NasError):
            beat = super().record_heartbeat
            _repeated(lambda: beat(trial_id), self._patience, self._shown_url, lambda text: None)


def _patient(method: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(method)
    def asked(self: PatientStorage, *arguments: Any, **options: Any) -> T:
        return self.ask(method, *arguments, **options)

    return asked


# All that Optuna's cache in front of a data base calls.
for _name in (
    *("create_new_study", "delete_study", "get_all_studies", "get_study_id_from_name", "get_study_name_from_id"),
    *("get_study_directions", "get_study_user_attrs", "get_study_system_attrs", "set_study_user_attr"),
    *("set_study_system_attr", "_create_new_trial", "_get_trials", "_get_best_trial_id", "_get_stale_trial_ids"),
    *("get_trial", "get_trial_id_from_study_id_trial_number", "_set_trial_param", "set_trial_state_values"),
    *("set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr"),
):
    setattr(PatientStorage, _name, _patient(getattr(RDBStorage, _name)))


def _repeated(call: Callable[[], T], patience: float, url: str, say: Callable[[str], None]) -> T:
    """Return what `call` returns, once the data base is there. Raises NasError after `patience` seconds."""
    until, waits = time.monotonic() + patience, False
    while True:
        try:
            return call()
        except Exception as error:
            if not _is_away(error):
                raise
            line = _line_of(error.__cause__ or error, url)
        if time.monotonic() > until:
            raise NasError(
                f"the storage {hide_passwords(url)} did not answer for {patience:.0f} s ({line}); what was finished is "
                "kept: continue with --resume when it is back"
            )
        if not waits:
            say(f"note: the storage {hide_passwords(url)} does not answer; it is waited for up to {patience:.0f} s")
        waits = True
        time.sleep(_PAUSE)


def _is_away(error: Exception) -> bool:
    """Return whether an error says that a data base cannot be reached, or could not while it was asked."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, DBAPIError) and cause.connection_invalidated:
        return True
    # The last is what follows where Optuna goes on after one of the others.
    return isinstance(cause, (OperationalError, InterfaceError, PendingRollbackError))


def _limit_statements(connection: Any, record: object) -> None:
    """Let a new connection's server end what takes too long, such as the wait for a lock of a machine that is gone."""
    with connection.cursor() as cursor:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            cursor.execute(f"SET {name} = {_STATEMENT}")
    connection.commit()


def open_storage(
    storage: str | Path,
    heartbeat: int = HEARTBEAT,
    *,
    patient: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> BaseStorage:
    """Open a data base (a URL) or a journal file (a path).

    `say` gets a line where it is waited for. A data base is so once it was open, and with `patient` also before.
    Raises NasError if it cannot be reached.
    """
    with _reaching(storage), quiet_optuna():
        if isinstance(storage, Path):
            return JournalStorage(Journal(storage, say))
        _check_url(storage)

        def connected() -> PatientStorage:
            return PatientStorage(
                storage,
                PATIENCE,
                say,
                heartbeat_interval=heartbeat,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )

        for _ in range(_RACES):
            with suppress(IntegrityError, ProgrammingError):  # another process makes the same tables at this moment
                return _repeated(connected, PATIENCE, storage, say) if patient else connected()
            time.sleep(_PAUSE)
        return connected()


def open_study(storage: str | Path | BaseStorage, name: str, heartbeat: int = HEARTBEAT) -> Study:
    """Return the study of that name on a storage; both are opened, and the study is made, where need be.

    The values of its trials are score and latency (ms). Raises NasError for a storage that cannot be reached.
    """
    opened = storage if isinstance(storage, BaseStorage) else open_storage(storage, heartbeat)
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    with _reaching(storage), quiet_optuna():
        return optuna.create_study(storage=opened, study_name=name, directions=directions, load_if_exists=True)


@contextmanager
def _reaching(storage: str | Path | BaseStorage) -> Iterator[None]:
    """Turn the errors of a storage or its driver into a NasError, which holds no password."""
    url = "" if isinstance(storage, BaseStorage) else str(storage)
    named = f" {hide_passwords(url)}" if url else ""
    try:
        yield
    except ImportError as error:
        raise NasError(f"the storage{named}: {error}; install the driver with: uv sync --extra distributed") from None
    except Exception as error:  # the driver's own, of which there are many
        if type(error).__module__.split(".")[0] not in ("sqlalchemy", "psycopg", "optuna"):
            raise
        raise NasError(f"the storage{named} cannot be used ({_line_of(error, url)})") from None


def _line_of(error: BaseException, url: str) -> str:
    """Return the first line of a driver's message, unless it has a part of the password."""
    line = " ".join(str(error).split("\n")[0].split())
    if holds_password_of(line, url):  # a driver names what it takes for the host or the database
        return f"the driver's message has a part of the password; {_ENCODE} in it"
    return line


def _check_url(url: str) -> None:
    """Raise NasError, without naming it, for a text that is no URL of a data base."""
    try:
        make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise NasError(
            "--storage is not the URL of a data base, such as postgresql://USER:PASSWORD@HOST/NAME; "
            f"{_ENCODE} in the password"
        ) from None


def _with_driver(url: str) -> str:
    """Name the installed driver for PostgreSQL, which is not SQLAlchemy's default."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url
