"""Workers that come, go and are killed, on a journal file and on a real PostgreSQL."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text
from support.postgresql import Server
from support.problems import TINY, problem
from support.searching import Recorder
from support.worker_processes import run_worker_that_starts_a_process

from nas.arch.encoding import Encoding
from nas.errors import NasError
from nas.runs.parameters import distributions, encoding_of, params_of
from nas.runs.record import Trial
from nas.search import sharing, workers
from nas.search.loop import next_encoding, run_trials
from nas.search.problem import Problem
from nas.search.storage import PatientStorage, open_storage, open_study
from nas.search.strategies import nsga2
from nas.search.strategies.base import Strategy
from nas.search.strategies.exact import EXACT
from nas.search.strategies.random_search import RANDOM
from nas.search.strategies.tpe import TPE
from nas.search.workers import _Watched, agree, finished_trials, retry_trials_of, work

SPAWN = multiprocessing.get_context("spawn")
TRIALS = 16


def encodings_of(study: optuna.Study, made: Problem) -> list[Encoding | None]:
    return [trial.encoding for trial in finished_trials(study, made)]


def case() -> Problem:
    return problem(TINY, 0.3)


def worker(storage: str | Path, name: str, pause: float, study_name: str) -> None:
    """Run one worker process; each trial takes `pause` seconds."""
    made = case()
    study = open_study(storage, study_name, heartbeat=1)

    def evaluate(encoding: Encoding) -> Trial:
        time.sleep(pause)
        return made.evaluate(encoding)

    work(study, made, RANDOM, trials=TRIALS, seed=0, worker=name, evaluate=evaluate)


def start(
    storage: str | Path, number: int, pause: float = 0.1, study: str = "s"
) -> list[multiprocessing.process.BaseProcess]:
    children = [SPAWN.Process(target=worker, args=(storage, f"w{i}", pause, study)) for i in range(number)]
    for child in children:
        child.start()
    return children


def wait_for(storage: str | Path, finished: int, seconds: float = 300, name: str = "s") -> None:
    until = time.monotonic() + seconds
    study = open_study(storage, name, heartbeat=1)
    while time.monotonic() < until:
        if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) >= finished:
            return
        time.sleep(0.5)
    pytest.fail("the workers did nothing")


def check(storage: str | Path, name: str = "s") -> Counter[TrialState]:
    made, study = case(), open_study(storage, name, heartbeat=1)
    known = study.get_trials(deepcopy=False)
    states = Counter(trial.state for trial in known)
    assert states[TrialState.COMPLETE] >= TRIALS
    assert states[TrialState.RUNNING] == states[TrialState.WAITING] == 0
    encodings = encodings_of(study, made)
    assert len(encodings) == TRIALS
    assert len(encodings) >= states[TrialState.COMPLETE] - 1, "more than a racing duplicate"
    assert all(made.fits(encoding) for encoding in encodings)
    for trial in known:
        if trial.state == TrialState.FAIL:
            # PRUNED where another network was proposed in its place before it was enqueued again.
            again = (TrialState.COMPLETE, TrialState.PRUNED)
            assert any(other.params == trial.params for other in known if other.state in again)
    return states


def test_one_worker_does_what_a_search_without_workers_does(tmp_path: Path) -> None:
    made, study = case(), open_study(tmp_path / "log", "s")
    work(study, made, TPE, trials=20, seed=3, worker="me")
    assert finished_trials(study, made) == list(run_trials(made, TPE, trials=20, seed=3))
    work(study, made, TPE, trials=22, seed=3, worker="me")
    assert finished_trials(study, made) == list(run_trials(made, TPE, trials=22, seed=3))


def test_a_small_space_ends(tmp_path: Path) -> None:
    made, study = problem(TINY.at([(1.0, 32)]), 0.0), open_study(tmp_path / "log", "s")
    work(study, made, RANDOM, trials=500, seed=0, worker="me")
    assert 0 < len(encodings_of(study, made)) < 10


def test_an_encoding_that_was_evaluated_takes_the_stored_value(tmp_path: Path) -> None:
    made, study = case(), open_study(tmp_path / "log", "s")
    work(study, made, RANDOM, trials=1, seed=0, worker="me")
    (first,) = study.trials
    study.enqueue_trial(first.params)
    work(
        study,
        made,
        RANDOM,
        trials=2,
        seed=0,
        worker="me",
        evaluate=lambda encoding: msgspec.structs.replace(made.evaluate(encoding), score=1e9),
    )
    assert study.trials[1].values == first.values


@pytest.mark.parametrize("strategy", [RANDOM, EXACT], ids=["random", "exact"])
def test_who_thinks_of_the_same_network_at_the_same_moment_takes_another(
    tmp_path: Path, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four workers as threads: each looks at the study before any has proposed."""
    together, met = threading.Barrier(4), threading.local()
    monkeypatch.setattr(workers, "next_encoding", lambda *arguments: _meet(together, met, next_encoding(*arguments)))

    def one(name: str) -> None:
        work(open_study(tmp_path / "log", "s"), problem(TINY, 0.3), strategy, trials=4, seed=0, worker=name)

    threads = [threading.Thread(target=one, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    study = open_study(tmp_path / "log", "s")
    encodings = encodings_of(study, case())
    assert len(encodings) == len(study.get_trials(states=(TrialState.COMPLETE,))) == 4


def test_workers_that_race_evaluate_as_many_networks_as_they_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four workers as threads: each sees room for one more, and all of them propose."""
    together, met = threading.Barrier(4), threading.local()
    monkeypatch.setattr(workers, "next_encoding", lambda *arguments: _meet(together, met, next_encoding(*arguments)))
    evaluated: list[Encoding] = []

    def one(name: str) -> None:
        made = problem(TINY, 0.3)

        def evaluate(encoding: Encoding) -> Trial:
            evaluated.append(encoding)
            return made.evaluate(encoding)

        study = open_study(tmp_path / "log", "s")
        work(study, made, RANDOM, trials=2, seed=0, worker=name, evaluate=evaluate)

    threads = [threading.Thread(target=one, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    study = open_study(tmp_path / "log", "s")
    assert len(encodings_of(study, case())) == len(evaluated) == 2
    assert not study.get_trials(states=(TrialState.WAITING, TrialState.RUNNING))
    monkeypatch.undo()
    work(study, case(), RANDOM, trials=5, seed=0, worker="more")
    assert len(encodings_of(study, case())) == 5


def _meet(together: threading.Barrier, met: threading.local, encoding: Encoding) -> Encoding:
    """Wait, the first time, until all workers have an encoding."""
    if not hasattr(met, "once"):
        met.once = True
        together.wait(300)
    return encoding


def test_who_finds_that_another_took_what_was_waiting_evaluates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna would sample a network itself, which need not keep the limits."""
    made, study = case(), open_study(tmp_path / "log", "s")
    optimize, late = optuna.Study.optimize, open_study(tmp_path / "log", "s")

    def too_late(self: optuna.Study, *arguments: Any, **options: Any) -> None:
        if not late.get_trials(states=(TrialState.COMPLETE,)):
            late.tell(late.ask(), (0.0, 0.0))  # the one that was waiting
        optimize(self, *arguments, **options)

    monkeypatch.setattr(optuna.Study, "optimize", too_late)
    work(study, made, RANDOM, trials=4, seed=0, worker="me")
    states = Counter(trial.state for trial in study.trials)
    assert states == {TrialState.COMPLETE: 4, TrialState.PRUNED: 1}
    assert all(made.fits(encoding) for encoding in encodings_of(study, made))


def test_who_was_taken_for_dead_goes_on(tmp_path: Path) -> None:
    made, study, lost = case(), open_study(tmp_path / "log", "s"), []

    def evaluate(encoding: Encoding) -> Trial:
        if not lost:
            lost.append(encoding)
            assert retry_trials_of(study, "me") == 1
        return made.evaluate(encoding)

    work(study, made, RANDOM, trials=4, seed=0, worker="me", evaluate=evaluate)
    assert Counter(trial.state for trial in study.trials) == {TrialState.FAIL: 1, TrialState.COMPLETE: 4}
    assert lost[0] in encodings_of(study, made)


@pytest.mark.parametrize("error", [ValueError("a bug"), NasError("cannot be read")])
def test_what_goes_wrong_in_an_evaluation_ends_the_worker(tmp_path: Path, error: Exception) -> None:
    def evaluate(encoding: Encoding) -> Trial:
        raise error

    with pytest.raises(type(error), match=str(error)):
        work(open_study(tmp_path / "log", "s"), case(), RANDOM, trials=2, seed=0, worker="me", evaluate=evaluate)


def test_all_workers_agree_on_what_the_first_one_stored(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    together = threading.Barrier(4)

    def come(number: int) -> None:
        together.wait(300)
        heard.append(agree(tmp_path / "log", "s", {"limit_ms": float(number)}))

    threads = [threading.Thread(target=come, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    heard.append(agree(tmp_path / "log", "s", {"limit_ms": 9.0}))
    assert len(heard) == 5
    assert all(agreed == heard[0] for agreed in heard)
    assert heard[0]["limit_ms"] < 4


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


def test_a_trial_that_finishes_late_comes_last(tmp_path: Path) -> None:
    """A trial that finishes after its successor is appended to the history, neither lost nor counted twice."""
    made, study = case(), open_study(tmp_path / "log", "s")
    watched, rng = _Watched(made), random.Random(0)
    encodings = [made.sampler.sample(rng) for _ in range(4)]
    assert len(set(encodings)) == 4
    parameters = distributions(made.space)
    asked = []
    for encoding in encodings:
        study.enqueue_trial(params_of(made.space, encoding))
        asked.append(study.ask(parameters))
    seen = []
    for number in (0, 2, 1, 3):
        study.tell(asked[number], (float(number), 1.0))
        history = watched.update(study.get_trials())
        seen.append([trial.encoding for trial in history.trials])
        assert history.seen == set(encodings), "networks that others evaluate are proposed again"
    assert seen == [[encodings[n] for n in order] for order in ((0,), (0, 2), (0, 2, 1), (0, 2, 1, 3))]


def test_nsga2_learns_from_every_trial_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial counts once, in whatever order the trials of several workers finish."""
    monkeypatch.setattr(nsga2, "POPULATION", 4)
    made, parents = case(), []
    elite = nsga2.elite
    monkeypatch.setattr(nsga2, "elite", lambda *arguments: parents.append(arguments[2]) or elite(*arguments))
    study = open_study(tmp_path / "log", "s")
    watched, propose, rng = _Watched(made), nsga2.NSGA2.proposer(made), random.Random(0)
    parameters = distributions(made.space)
    waiting: list[optuna.Trial] = []
    for number in range(16):
        encoding = next_encoding(watched.update(study.get_trials()), propose, 0, number)
        study.enqueue_trial(params_of(made.space, encoding))
        waiting.append(study.ask(parameters))
        if len(waiting) == 3:
            trial = waiting.pop(rng.randrange(3))
            result = made.evaluate(encoding_of(made.space, trial.params))
            study.tell(trial, (result.score, result.latency_ms))
    generations = len(parents)
    assert generations >= 2
    for generation, members in enumerate(parents, start=1):
        children = range((generation - 1) * 4, generation * 4)
        assert set(children) <= set(members)
        assert len(members) == len(set(members)), "a trial counts twice"


def test_workers_are_free_to_start_processes_and_a_death_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaders of images start processes, which no daemon may. One worker of two does so, the other dies."""
    monkeypatch.setattr(sharing, "run_worker", run_worker_that_starts_a_process)
    console = Recorder()
    context = SimpleNamespace(console=console, say_once=console.say)
    shared = SimpleNamespace(request=SimpleNamespace(processes=2))
    sharing._run_workers(context, shared, open_study(tmp_path / "log", "s"), "here")
    assert console.lines == ["warning: worker here-2 died"] or console.lines == [
        "warning: worker here-2 died; no worker is left, this process evaluates the other trials"
    ]


def test_a_trial_has_a_heartbeat_before_it_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's own is late here. Nobody would find the trial of a worker that dies after its claim."""
    monkeypatch.setattr("optuna.study._optimize.get_heartbeat_thread", lambda *arguments: nullcontext())
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    assert isinstance(storage, PatientStorage)
    beats: list[int] = []
    claim = optuna.Trial.set_user_attr

    def claimed(trial: optuna.Trial, key: str, value: Any) -> None:
        with storage.engine.connect() as connection:
            beats.append(connection.execute(text("SELECT count(*) FROM trial_heartbeats")).scalar_one())
        claim(trial, key, value)

    monkeypatch.setattr(optuna.Trial, "set_user_attr", claimed)
    work(open_study(storage, "s"), case(), RANDOM, trials=2, seed=0, worker="me")
    assert beats == [1, 1, 1, 1, 2, 2, 2, 2]  # a claim and three results a trial


# PostgreSQL -------------------------------------------------------------------------------------------


def test_workers_killed_on_postgresql_lose_nothing(postgresql: Server) -> None:
    children = start(postgresql.url, 2, pause=0.3)
    wait_for(postgresql.url, 3)
    os.kill(children[0].pid or 0, signal.SIGKILL)
    late = start(postgresql.url, 1)  # one that joins
    for child in (*children[1:], *late):
        child.join(300)
        assert child.exitcode == 0
    check(postgresql.url)


def test_a_trial_whose_worker_died_before_its_first_heartbeat_is_done_again(postgresql: Server) -> None:
    made, study = case(), open_study(postgresql.url, "silent", heartbeat=1)
    encoding = made.sampler.sample(random.Random(0))
    params, decisions = params_of(made.space, encoding), distributions(made.space)
    study.add_trial(optuna.create_trial(state=TrialState.WAITING, params=params, distributions=decisions))
    with pytest.warns(UserWarning, match="Heartbeat"):
        study.ask()  # and no more
    work(study, made, RANDOM, trials=3, seed=0, worker="me")
    states = Counter(trial.state for trial in study.get_trials())
    assert states == {TrialState.FAIL: 1, TrialState.COMPLETE: 3}
    assert encoding in encodings_of(study, made)


def test_commands_that_open_a_new_data_base_together_all_do(postgresql: Server) -> None:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgresql.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE new")
    together, opened = threading.Barrier(8), []

    def one() -> None:
        together.wait(300)
        opened.append(open_study(postgresql.url.replace("/postgres?", "/new?"), "s"))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(opened) == 8


def test_workers_wait_for_a_data_base_that_restarts(postgresql: Server) -> None:
    """Both are at work when it stops, and the trials that they evaluate are stored when it is back."""
    children = start(postgresql.url, 2, pause=0.3, study="restarts")
    for mode, finished in (("fast", 3), ("immediate", 8)):
        wait_for(postgresql.url, finished, name="restarts")
        postgresql.stop(mode)
        time.sleep(0.5)
        postgresql.start()
    for child in children:
        child.join(300)
        assert child.exitcode == 0
    check(postgresql.url, "restarts")


def test_a_storage_that_is_not_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the extra `distributed` is not installed")
    with pytest.raises(NasError, match="cannot be used") as error:
        open_study(f"postgresql://nas@/postgres?host={tmp_path}", "s")
    assert "\n" not in str(error.value)
    with pytest.raises(NasError, match="cannot be used"):
        open_study("nosuch://", "s")
