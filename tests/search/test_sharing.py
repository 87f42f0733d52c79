"""Workers start, die and end with the process that started them."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend
from support.problems import TINY, problem
from support.searching import Recorder
from support.worker_processes import TalkingRequest

from nas.arch.encoding import Encoding
from nas.console import said_once
from nas.errors import NasError
from nas.runs.record import Trial
from nas.search import sharing, storage
from nas.search.storage import JournalLock, open_study
from nas.search.strategies.random_search import RANDOM
from nas.search.workers import finished_trials, retry_running, work

ROOT = Path(__file__).parents[2]


def test_a_diverged_training_is_marked_for_all_workers(tmp_path: Path) -> None:
    made, study = problem(TINY, 0.3), open_study(tmp_path / "log", "s")
    work(
        study,
        made,
        RANDOM,
        trials=2,
        seed=0,
        worker="one",
        evaluate=lambda encoding: msgspec.structs.replace(made.evaluate(encoding), top1=0.0, std=2.5, diverged=True),
    )
    assert [(trial.diverged, trial.std) for trial in finished_trials(study, made)] == [(True, 2.5)] * 2


def test_workers_that_did_start_are_ended_where_another_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Process:
        """A process of which the second cannot be started."""

        def __init__(self, target: object, args: object) -> None:
            self.pid: int | None = None
            self.ended = False
            made.append(self)

        def start(self) -> None:
            if len([process for process in made if process.pid]):
                raise OSError(11, "Resource temporarily unavailable")
            self.pid = 1

        def terminate(self) -> None:
            assert self.pid
            self.ended = True

        def join(self) -> None:
            assert self.pid

    methods = SimpleNamespace(Process=Process, Pipe=multiprocessing.Pipe)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: methods)
    shared = SimpleNamespace(request=SimpleNamespace(processes=3))
    with pytest.raises(OSError, match="temporarily"):
        sharing._run_workers(SimpleNamespace(), shared, None, "here")  # type: ignore[arg-type]
    assert [process.ended for process in made] == [True, False]


def test_what_all_workers_say_is_said_once_and_an_error_ends_the_search_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    console = Recorder()
    context = SimpleNamespace(console=console, say_once=said_once(console.say))
    study = open_study(tmp_path / "log", "s")
    for error in (None, "the images are gone"):
        shared: Any = SimpleNamespace(request=TalkingRequest("left out 2.png: broken", error), folder=tmp_path)
        with pytest.raises(NasError, match=f"^{error}$") if error else nullcontext():
            sharing._run_workers(context, shared, study, "here")  # type: ignore[arg-type]
    assert console.lines == ["left out 2.png: broken"]
    assert capfd.readouterr().err == ""


def test_a_worker_ends_with_its_parent() -> None:
    """Its end closes the pipe that both write to."""
    code = """
import multiprocessing
from types import SimpleNamespace
from nas.search.sharing import run_worker
from support.worker_processes import WaitingRequest
shared = SimpleNamespace(request=WaitingRequest(), folder=None)
_, told = multiprocessing.Pipe()
worker = multiprocessing.get_context("spawn").Process(target=run_worker, args=(shared, "w", told))
worker.start()
worker.join()
"""
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=paths) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "waiting\n"
        parent.kill()
        rest, _ = parent.communicate(timeout=300)
    assert rest == ""


def test_a_lock_that_a_killed_process_left_behind_is_nobodys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that is killed holds the lock of the journal; the next one need not wait."""
    code = """
import os, sys
from pathlib import Path
from nas.search.storage import JournalLock
JournalLock(Path(sys.argv[1])).acquire()
os.kill(os.getpid(), 9)
"""
    path = tmp_path / "log"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL

    def wait(seconds: float) -> None:
        raise AssertionError(f"waited for {seconds} s")

    monkeypatch.setattr(time, "sleep", wait)
    study = open_study(path, "s")
    study.enqueue_trial({"x": 1})
    assert len(open_study(path, "s").trials) == 1


def test_the_half_line_of_a_killed_process_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reading = open_study(path, "s")
    reading.enqueue_trial({"x": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"wor')
    assert len(reading.trials) == len(open_study(path, "s").trials) == 1
    open_study(path, "s").enqueue_trial({"x": 2})
    assert len(reading.trials) == len(open_study(path, "s").trials) == 2
    path.write_bytes(whole + b'{"op_code":4,"wor\n' + whole)
    with pytest.raises(NasError, match=r"log: this log is damaged; start a new run with another --out$"):
        open_study(path, "s")


def test_a_full_disk_ends_a_worker_in_one_line_and_a_resumed_run_does_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = problem(TINY, 0.3), tmp_path / "log"
    append = JournalFileBackend.append_logs

    def full(*_: object) -> None:
        with path.open("ab") as file:
            file.write(b'{"half')
        raise OSError(28, "No space left on device")

    def fill(encoding: Encoding) -> Trial:
        monkeypatch.setattr(JournalFileBackend, "append_logs", full)
        return made.evaluate(encoding)

    with pytest.raises(NasError, match=r"log: cannot be written \(No space left on device\); make room, and continue"):
        work(open_study(path, "s"), made, RANDOM, trials=2, seed=0, worker="one", evaluate=fill)
    monkeypatch.setattr(JournalFileBackend, "append_logs", append)
    study = open_study(path, "s")
    retry_running(study)
    work(study, made, RANDOM, trials=2, seed=0, worker="one")
    assert len(finished_trials(open_study(path, "s"), made)) == 2


def test_a_long_wait_for_the_lock_of_a_journal_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_LONG", 1.0)
    path, said = tmp_path / "log", list[str]()
    first, second = JournalLock(path), JournalLock(path, said.append)
    first.acquire()
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    until = time.monotonic() + 300
    while not said and time.monotonic() < until:
        time.sleep(0.05)
    first.release()
    waiting.join(300)
    assert said == [f"note: another process has held the lock of {path} for 1 s; it is waited for"]


def test_a_journal_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = JournalLock(tmp_path / "log"), FileLock(tmp_path / ".log.lock", timeout=0)
    first.acquire()
    with pytest.raises(Timeout):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
