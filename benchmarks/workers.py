"""Kill two of eight workers on PostgreSQL midway: count the lost trials, and compare eight workers with one.

    uv run --extra distributed python benchmarks/workers.py      # two minutes

Each evaluation waits for four seconds, as for a training on a machine of its own. So the figures are those of
proposing, of the data base and of starting again, on whatever cores there are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState
from search_efficiency import SPACES, TABLE, problem_of

from nas.arch.encoding import Encoding
from nas.arch.loading import load_space
from nas.cpu import usable_cores
from nas.latency.table import LatencyTable
from nas.names import resolve
from nas.runs.folder import versions
from nas.runs.record import Trial
from nas.search.problem import Problem
from nas.search.storage import open_study
from nas.search.strategies import STRATEGIES
from nas.search.workers import finished_trials, work

RESULTS = Path(__file__).parent / "results" / "workers.json"
WORKERS, KILLED = 8, 2
EVALUATION = 4.0  # seconds
HEARTBEAT = 2  # seconds; 15 where trials take minutes
STRATEGY = "tpe"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--trials", type=int, default=96)
    parser.add_argument("--alone", type=int, default=12, help="trials of the one worker that eight are compared with")
    arguments = parser.parse_args()
    if _binaries() is None:
        print("skipped: PostgreSQL is not installed (Debian: apt-get install postgresql)")
        return
    with server() as url:
        alone = run(url, "alone", arguments.table, arguments.alone, workers=1, killed=0)
        many = run(url, "many", arguments.table, arguments.trials, workers=WORKERS, killed=KILLED)
    each = alone["seconds"] / alone["networks"]
    many["times_as_fast"] = round(each * many["networks"] / many["seconds"], 2)
    many["efficiency"] = round(each * many["networks"] / many["worker_seconds"], 3)
    print(f"{many['times_as_fast']} times as fast as one worker, {many['efficiency']:.0%} of the workers' time used")
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {usable_cores()} cores",
        "versions": versions(),
        "evaluation_s": EVALUATION,
        "heartbeat_s": HEARTBEAT,
        "strategy": STRATEGY,
        "alone": alone,
        "many": many,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def run(url: str, name: str, table: Path, trials: int, *, workers: int, killed: int) -> dict[str, Any]:
    """Seconds from the moment at which all workers are ready; those that are killed are so at half of the trials."""
    problem, study = problem_for(table), open_study(url, name, HEARTBEAT)
    spawn = multiprocessing.get_context("spawn")
    ready, go = spawn.Semaphore(0), spawn.Event()
    children = [
        spawn.Process(target=worker, args=(url, name, table, trials, f"w{i}", ready, go)) for i in range(workers)
    ]
    for child in children:
        child.start()
    for _ in children:
        ready.acquire()
    go.set()
    begun, ends = time.monotonic(), dict.fromkeys(range(workers), 0.0)
    while killed and len(_of(study, TrialState.COMPLETE)) < trials / 2:
        time.sleep(0.1)
    for number in range(killed):
        os.kill(children[number].pid or 0, signal.SIGKILL)
    while not all(ends.values()):
        for number, child in enumerate(children):
            child.join(0.05)
            if child.exitcode is not None and not ends[number]:
                ends[number] = time.monotonic() - begun
    assert [child.exitcode for child in children] == [-signal.SIGKILL] * killed + [0] * (workers - killed)
    found = counts(study, problem) | {
        "workers": workers,
        "killed": killed,
        "seconds": round(max(ends.values()), 1),
        "worker_seconds": round(sum(ends.values()), 1),
    }
    print(", ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    return found


def counts(study: Study, problem: Problem) -> dict[str, int]:
    """`lost` are networks whose trial failed and that nobody evaluated after that."""
    known = study.get_trials(deepcopy=False)
    states = Counter(trial.state for trial in known)
    complete = [trial.params for trial in known if trial.state == TrialState.COMPLETE]
    failed = [trial.params for trial in known if trial.state == TrialState.FAIL]
    return {
        "done": len(complete),
        "networks": len(finished_trials(study, problem)),
        "retried": sum(params in complete for params in failed),
        "lost": sum(params not in complete for params in failed),
        "running": states[TrialState.RUNNING],
        "waiting": states[TrialState.WAITING],
    }


def _of(study: Study, state: TrialState) -> list[Any]:
    return study.get_trials(deepcopy=False, states=(state,))


def problem_for(table: Path) -> Problem:
    return problem_of(LatencyTable.load(table), load_space(SPACES[0]))


def worker(url: str, name: str, table: Path, trials: int, own: str, ready: Any, go: Any) -> None:
    """Run one worker process."""
    problem, study = problem_for(table), open_study(url, name, HEARTBEAT)

    def evaluate(encoding: Encoding) -> Trial:
        time.sleep(EVALUATION)
        return problem.evaluate(encoding)

    ready.release()
    go.wait()
    strategy = resolve("strategy", STRATEGY, STRATEGIES)
    work(study, problem, strategy, trials=trials, seed=0, worker=own, evaluate=evaluate)


# PostgreSQL -------------------------------------------------------------------------------------------


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextmanager
def server() -> Iterator[str]:
    """The URL of a data base of its own, which is gone afterwards."""
    binaries, folder = _binaries(), Path(tempfile.mkdtemp(prefix="nas-postgresql-"))
    assert binaries is not None
    user: str | None = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
        shutil.chown(folder, user)

    def call(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(binaries / program), *arguments], check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL
        )

    data = str(folder / "data")
    call("initdb", "-D", data, "-A", "trust", "-U", "nas", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    call("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(folder / "server.log"), "start")
    try:
        yield f"postgresql://nas@/postgres?host={folder}"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
