"""Workers that come, go and are killed, on a journal file and on a real PostgreSQL."""

import multiprocessing
import os
import pwd
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from problems import TINY, problem

from nas.errors import NasError
from nas.strategies import samplers
from nas.strategies.problem import Problem, Row
from nas.strategies.workers import finished, open_study, retry_trials_of, work

SPAWN = multiprocessing.get_context("spawn")
TRIALS = 16


def case() -> Problem:
    return problem(TINY, 0.3)


def worker(storage: str | Path, name: str, pause: float) -> None:
    """What a worker process does; each trial takes `pause` seconds."""
    made = case()
    study = open_study(storage, "s", heartbeat=1)

    def evaluate(row: Row) -> tuple[float, float]:
        time.sleep(pause)
        return float(made.score(np.array([row]))[0]), made.latency_ms(row)

    work(study, made, samplers.RANDOM, trials=TRIALS, seed=0, worker=name, evaluate=evaluate)


def start(storage: str | Path, number: int, pause: float = 0.1) -> list[multiprocessing.process.BaseProcess]:
    children = [SPAWN.Process(target=worker, args=(storage, f"w{i}", pause)) for i in range(number)]
    for child in children:
        child.start()
    return children


def wait_for(storage: str | Path, finished: int, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    study = open_study(storage, "s", heartbeat=1)
    while time.monotonic() < until:
        if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) >= finished:
            return
        time.sleep(0.5)
    pytest.fail("the workers did nothing")


def check(storage: str | Path) -> Counter[TrialState]:
    made, study = case(), open_study(storage, "s", heartbeat=1)
    known = study.get_trials(deepcopy=False)
    states = Counter(trial.state for trial in known)
    assert states[TrialState.COMPLETE] >= TRIALS
    assert states[TrialState.RUNNING] == states[TrialState.WAITING] == 0
    rows = finished(study, made)[0]
    assert len(rows) >= TRIALS
    # Workers whose evaluations all take as long ask at the same moments.
    assert len(rows) >= 0.7 * states[TrialState.COMPLETE], "more than racing duplicates"
    assert all(made.fits(row) for row in rows)
    for trial in known:
        if trial.state == TrialState.FAIL:
            assert any(other.params == trial.params for other in known if other.state == TrialState.COMPLETE)
    return states


def test_one_worker_does_what_a_search_without_workers_does(tmp_path: Path) -> None:
    made, study = case(), open_study(tmp_path / "log", "s")
    work(study, made, samplers.TPE, trials=20, seed=3, worker="me")
    assert finished(study, made)[0] == list(samplers.optimise(made, samplers.TPE, trials=20, seed=3))
    work(study, made, samplers.TPE, trials=22, seed=3, worker="me")
    assert finished(study, made)[0] == list(samplers.optimise(made, samplers.TPE, trials=22, seed=3))


def test_a_small_space_ends(tmp_path: Path) -> None:
    made, study = problem(TINY.at([(1.0, 32)]), 0.0), open_study(tmp_path / "log", "s")
    work(study, made, samplers.RANDOM, trials=500, seed=0, worker="me")
    assert 0 < len(finished(study, made)[0]) < 10


def test_a_row_that_was_evaluated_takes_the_stored_value(tmp_path: Path) -> None:
    made, study = case(), open_study(tmp_path / "log", "s")
    work(study, made, samplers.RANDOM, trials=1, seed=0, worker="me")
    (first,) = study.trials
    study.enqueue_trial(first.params)
    work(study, made, samplers.RANDOM, trials=2, seed=0, worker="me", evaluate=lambda row: (1e9, 1e9))
    assert study.trials[1].values == first.values


def test_a_killed_childs_trial_is_done_again(tmp_path: Path) -> None:
    children = start(tmp_path / "log", 2, pause=0.3)
    wait_for(tmp_path / "log", 3)
    os.kill(children[0].pid or 0, signal.SIGKILL)
    children[0].join()
    study = open_study(tmp_path / "log", "s")
    retried = retry_trials_of(study, "w0")
    children[1].join(300)
    assert children[1].exitcode == 0
    assert check(tmp_path / "log")[TrialState.FAIL] == retried


# PostgreSQL -------------------------------------------------------------------------------------------


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a server of its own."""
    pytest.importorskip("psycopg", reason="the extra `distributed` is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="nas-postgresql-"))  # pytest's own is for its user alone
    user: str | None = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        users = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in users else "nobody"
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(binaries / program), *arguments], check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL
        )

    data, socket = folder / "data", folder / "socket"
    run("initdb", "-D", str(data), "-A", "trust", "-U", "nas", "--no-sync")
    socket.mkdir()
    if user:
        shutil.chown(socket, user)
    options = f"-c listen_addresses='' -c fsync=off -c unix_socket_directories={socket}"
    run("pg_ctl", "-D", str(data), "-w", "-o", options, "-l", str(folder / "server.log"), "start")
    try:
        yield f"postgresql://nas@/postgres?host={socket}"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_workers_killed_on_postgresql_lose_nothing(postgresql: str) -> None:
    children = start(postgresql, 2, pause=0.3)
    wait_for(postgresql, 3)
    os.kill(children[0].pid or 0, signal.SIGKILL)
    late = start(postgresql, 1)  # one that joins
    for child in (*children[1:], *late):
        child.join(300)
        assert child.exitcode == 0
    check(postgresql)


def test_a_trial_whose_worker_died_before_its_first_heartbeat_is_done_again(postgresql: str) -> None:
    made, study = case(), open_study(postgresql, "silent", heartbeat=1)
    row = made.random_row(random.Random(0))
    params, genes = samplers.params_of(made.space, row), samplers.distributions(made.space)
    study.add_trial(optuna.create_trial(state=TrialState.WAITING, params=params, distributions=genes))
    with pytest.warns(UserWarning, match="Heartbeat"):
        study.ask()  # and no more
    work(study, made, samplers.RANDOM, trials=3, seed=0, worker="me")
    states = Counter(trial.state for trial in study.get_trials())
    assert states == {TrialState.FAIL: 1, TrialState.COMPLETE: 3}
    assert row in finished(study, made)[0]


def test_a_storage_that_is_not_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the extra `distributed` is not installed")
    with pytest.raises(NasError, match="cannot be used") as error:
        open_study(f"postgresql://nas@/postgres?host={tmp_path}", "s")
    assert "\n" not in str(error.value)
    with pytest.raises(NasError, match="cannot be used"):
        open_study("no-such-scheme://", "s")
