"""A data base that does not answer ends what waits for it."""

import socket
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from support.postgresql import Server

from nas.errors import NasError
from nas.search import storage
from nas.search.storage import PatientStorage, open_storage, open_study


def test_a_lock_that_nobody_releases_is_not_waited_for_without_end(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a machine that is gone in the middle of a transaction."""
    monkeypatch.setattr(storage, "PATIENCE", 1.0)
    pauses: list[float] = []  # alone they count: a busy machine may take longer for a single statement

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(storage, "time", SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pause))
    said: list[str] = []
    opened, other = open_storage(postgresql.url, say=said.append), open_storage(postgresql.url)
    assert isinstance(opened, PatientStorage)
    assert isinstance(other, PatientStorage)
    study = open_study(opened, "s")
    study.enqueue_trial({})

    def limit(connection: Any, record: object) -> None:
        connection.execute("SET statement_timeout = 300")  # milliseconds; a process that is stopped may stay idle
        connection.commit()

    event.listen(opened.engine, "connect", limit)
    opened.engine.dispose()
    with other.engine.connect() as holder:
        holder.execute(text("SET idle_in_transaction_session_timeout = 0"))
        holder.execute(text("SELECT * FROM trials FOR UPDATE"))
        begun = time.monotonic()
        refused = pytest.raises(NasError, match=r"did not answer for 1 s .*canceling statement due to statement")
        with refused, pytest.warns(UserWarning, match="Heartbeat"):
            study.ask()
        assert time.monotonic() - begun < 100
        # One line a call that had to wait: on a busy machine, the limit may end another statement before this one.
        (line,) = set(said)
        assert line.startswith("note: the storage postgresql://nas@/postgres?host=")
        with pytest.raises(NasError, match="did not answer"):
            study.get_trials()  # though a read would do: it has given up


def test_a_data_base_that_comes_back_is_waited_for_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PAUSE", 0.0)
    away = OperationalError("SELECT 1", {}, ConnectionError("server closed the connection"))
    answers = iter([away, away, away, "there"])
    said: list[str] = []

    def call() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert storage._repeated(call, patience=60, url="postgresql://me:secret@host/db", say=said.append) == "there"
    assert len(said) == 1
    assert "postgresql://me" in said[0]
    assert "secret" not in said[0]


def test_a_worker_that_starts_while_the_data_base_restarts_waits_for_it(postgresql: Server) -> None:
    postgresql.stop("fast")
    with pytest.raises(NasError, match="cannot be used"):
        open_storage(postgresql.url)
    starting = threading.Timer(1, postgresql.start)
    starting.start()
    assert open_study(open_storage(postgresql.url, patient=True), "late").trials == []
    starting.join()


def test_a_server_that_accepts_and_says_nothing_is_an_error() -> None:
    pytest.importorskip("psycopg", reason="the extra `distributed` is not installed")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/db?connect_timeout=2"  # the least there is
        begun = time.monotonic()
        with pytest.raises(NasError, match=r"cannot be used \(.*timeout"):
            open_storage(address)
        assert time.monotonic() - begun < 100


def test_timeouts_in_the_url_are_those_that_hold(postgresql: Server) -> None:
    opened = open_storage(f"{postgresql.url}&connect_timeout=3&keepalives_idle=7")
    assert isinstance(opened, PatientStorage)
    with opened.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        parameters = driver.info.get_parameters()
    assert {name: parameters[name] for name in ("connect_timeout", "keepalives_idle", "tcp_user_timeout")} == {
        "connect_timeout": "3",
        "keepalives_idle": "7",
        "tcp_user_timeout": "30000",
    }
