"""The folder of a run: what is logged comes back, what was half-written does no harm, nothing is overwritten."""

import csv
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.searching import Recorder

from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.runs.folder import LOG, RunFolder, last_folder, new_record, trial_row, unused_folder, versions
from nas.runs.log import TrialLog
from nas.runs.parameters import params_of
from nas.runs.record import RECORD, TRIAL_COLUMNS, Trial

COMMAND = "python -m nas.search"
ARGUMENTS = {"budget_ms": 20.0, "small_budget_ms": None, "width": (0.5, 1.0), "strategy": "exact", "seed": 0}
SPACE = load_space("mobilenet_v3_small").at([(0.5, 96)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "reports" / "run"


def networks(number: int) -> list[ArchSpec]:
    rng = random.Random(0)
    return [SPACE.sample(rng) for _ in range(number)]


def encoding_of(spec: ArchSpec) -> tuple[int, ...]:
    return tuple(SPACE.encode([spec])[0].tolist())


def log(run: RunFolder, target: str, spec: ArchSpec, stage: str = "exact", latency_ms: float = 1.25) -> None:
    run.log(target, stage, Trial(encoding_of(spec), spec, 70.5, 0.5, latency_ms, 70.5), SPACE)
    run.flush()


def begin(folder: Path) -> RunFolder:
    return RunFolder.begin(folder, new_record(COMMAND, ARGUMENTS))


def resume(folder: Path) -> RunFolder:
    return RunFolder.resume(folder, ARGUMENTS)


def specs_of(run: RunFolder, target: str = "large", stage: str | None = None) -> list[ArchSpec]:
    return [logged.trial.spec for logged in run.trials(target, stage)]


# Begun, resumed, refused ------------------------------------------------------------------------------


def test_a_new_run_says_how_it_was_begun(folder: Path) -> None:
    run = begin(folder)
    written = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    assert written["arguments"] == run.record.arguments == {**ARGUMENTS, "width": [0.5, 1.0]}
    assert written["versions"] == run.record.versions == versions()
    assert written["versions"]["numpy"] == np.__version__
    assert written["finished"] is run.record.finished is None


def test_a_folder_that_holds_a_run_is_left_alone(folder: Path) -> None:
    begin(folder).close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(NasError, match="already holds a run; continue it with --resume, or name another"):
        begin(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_with_other_files_is_taken(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    begin(folder)
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_only_a_run_is_resumed(folder: Path) -> None:
    with pytest.raises(NasError, match="holds no run to resume; leave --resume out"):
        resume(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget_ms": 21.0}, "begun with --budget-ms 20.0, not with --budget-ms 21.0"),
        ({"small_budget_ms": 5.0}, "begun without --small-budget-ms, not with --small-budget-ms 5.0"),
        ({"width": (0.5,)}, "begun with --width 0.5 1.0, not with --width 0.5"),
        ({"width": ()}, "begun with --width 0.5 1.0, not without --width"),
        ({"strategy": "tpe"}, "begun with --strategy exact, not with --strategy tpe"),
        ({"seed": 1, "strategy": "tpe"}, "begun with --seed 0, not with --seed 1"),
    ],
)
def test_other_arguments_are_refused_by_flag(folder: Path, change: dict[str, Any], message: str) -> None:
    begin(folder).close()
    with pytest.raises(NasError, match=message):
        RunFolder.resume(folder, ARGUMENTS | change)
    resume(folder)


def test_the_same_content_in_another_place_is_said(folder: Path) -> None:
    given = ARGUMENTS | {"data": f"imagefolder:old ({'a' * 16})", "data_dir": "here"}
    RunFolder.begin(folder, new_record(COMMAND, given)).close()
    for other in (f"imagefolder:new ({'b' * 16})", "imagefolder:new", None):
        with pytest.raises(NasError, match="begun with --data imagefolder:old"):
            RunFolder.resume(folder, given | {"data": other})
    console = Recorder()
    moved = given | {"data": f"imagefolder:new ({'a' * 16})", "data_dir": None}
    run = RunFolder.resume(folder, moved, console)
    assert console.lines == [
        f"note: {folder} was begun with --data {given['data']}, and goes on with --data {moved['data']}",
        f"note: {folder} was begun with --data-dir here, and goes on without --data-dir",
    ]
    run.close()
    RunFolder.resume(folder, moved, console).close()
    assert len(console.lines) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 3, "arguments": {}}', "[" * 9999, '{"a": 1e999}']
)
def test_a_broken_record_is_an_error_in_one_line(folder: Path, text: str) -> None:
    begin(folder).close()
    (folder / RECORD).write_text(text, encoding="utf-8")
    with pytest.raises(NasError, match="start a new run with another --out") as error:
        resume(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["file/run", "x" * 300, "file"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(NasError, match="cannot be made"):
        begin(tmp_path / name)


def test_names_of_folders(tmp_path: Path) -> None:
    path = tmp_path / "20ms"
    assert unused_folder(path) == last_folder(path) == path
    for number in ("", "-2", "-3"):
        wanted = tmp_path / f"20ms{number}"
        assert unused_folder(path) == wanted
        begin(unused_folder(path))
        assert last_folder(path) == wanted
    assert unused_folder(path) == tmp_path / "20ms-4"
    assert unused_folder(tmp_path / "4ms") == tmp_path / "4ms"


# Log --------------------------------------------------------------------------------------------------


def test_what_is_logged_comes_back_in_order(folder: Path) -> None:
    run = begin(folder)
    specs = networks(6)
    for index, spec in enumerate(specs):
        log(run, ("large", "small")[index % 2], spec, stage="exact" if index < 4 else "seed", latency_ms=1.0 + index)
    trimmed = Trial(None, specs[0].replace(name="trimmed"), 70.125, 0.1, 1 / 3, 7.5, diverged=True)
    run.log("large", "netadapt", trimmed)
    before = {target: run.trials(target) for target in ("large", "small")}
    run.close()
    read = resume(folder)
    large = read.trials("large")
    assert {target: read.trials(target) for target in ("large", "small")} == before
    assert [logged.trial.spec for logged in large] == [specs[0], specs[2], specs[4], specs[0].replace(name="trimmed")]
    assert [logged.stage for logged in large] == ["exact", "exact", "seed", "netadapt"]
    assert [logged.number for logged in large] == [0, 1, 2, 3]
    assert [logged.trial.latency_ms for logged in large] == [1.0, 3.0, 5.0, 1 / 3]
    assert large[3].trial == trimmed
    assert specs_of(read, "small", "exact") == [specs[1], specs[3]]
    assert read.trials("small", "netadapt") == []
    assert large[1].trial.encoding == encoding_of(specs[2])


def test_a_resumed_run_logs_on(folder: Path) -> None:
    specs = networks(4)
    for number, spec in enumerate(specs):
        run = resume(folder) if number else begin(folder)
        log(run, "large", spec)
        run.close()
    run = resume(folder)
    assert specs_of(run) == specs
    assert [trial.number for trial in run.trials("large")] == [0, 1, 2, 3]


@pytest.mark.parametrize("lost", [1, 10, 200])
def test_a_line_that_a_killed_process_left_half_written_is_left_out(folder: Path, lost: int) -> None:
    run = begin(folder)
    specs = networks(4)
    for spec in specs[:3]:
        log(run, "large", spec)
    run.close()
    text = (folder / LOG).read_bytes()
    assert lost < len(text.splitlines()[-1])
    (folder / LOG).write_bytes(text[:-lost])
    run = resume(folder)
    assert specs_of(run) == specs[:2]
    log(run, "large", specs[3])
    assert specs_of(run) == [*specs[:2], specs[3]]
    run.close()
    assert specs_of(resume(folder)) == [*specs[:2], specs[3]]


@pytest.mark.parametrize("line", [b"{]\n", b"12\n", b"{}\n", b'{"op_code": "x"}\n', b"\xff\n"])
def test_a_broken_log_is_an_error_in_one_line(folder: Path, line: bytes) -> None:
    run = begin(folder)
    log(run, "large", networks(1)[0])
    run.close()
    text = (folder / LOG).read_bytes()
    (folder / LOG).write_bytes(line + text)
    with pytest.raises(NasError, match=r"study\.log: the log of the run is damaged"):
        resume(folder)


def test_a_new_run_does_not_take_over_a_log_without_a_record(folder: Path) -> None:
    run = begin(folder)
    log(run, "large", networks(1)[0])
    run.close()
    (folder / RECORD).unlink()
    assert begin(folder).trials("large") == []


def test_a_study_that_optunas_own_tools_can_read(folder: Path) -> None:
    """Optuna reads the parameters and both values of every trial."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    run = begin(folder)
    log(run, "small", networks(1)[0])
    study = optuna.load_study(study_name="small", storage=JournalStorage(JournalFileBackend(str(folder / LOG))))
    (trial,) = study.trials
    assert trial.values == [70.5, 1.25]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert trial.params == params_of(SPACE, encoding_of(networks(1)[0]))


@pytest.mark.parametrize("every", [0.0, 9e9])
def test_what_is_logged_is_written_soon_or_when_it_must_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, every: float
) -> None:
    """All but the last entry at once, or nothing until something else is saved; both are known to the run itself."""
    monkeypatch.setattr("nas.runs.log.WRITE_EVERY", every)
    run = begin(folder)
    run.update()
    for index, spec in enumerate(networks(5)):
        run.log("large", "exact", Trial(None, spec, 70.0, 1.0, 1.0, 70.0))
        assert specs_of(run) == networks(5)[: index + 1]
        seen = TrialLog(folder / LOG).trials("large")
        assert [logged.trial.spec for logged in seen] == networks(5)[: 0 if every else index]
    run.update()
    run.close()
    assert specs_of(resume(folder)) == networks(5)


# Two processes ----------------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_process(folder: Path) -> None:
    """Of two searches that begin in one folder together, or resume it together, the second is refused."""
    run = begin(folder)
    code = """
import sys
from pathlib import Path
from nas.errors import NasError
from nas.runs.folder import RunFolder, new_record
try:
    RunFolder.{}
except NasError as error:
    print(error)
"""
    resumed = code.format(f"resume(Path({str(folder)!r}), {ARGUMENTS!r})")
    assert "is in use by another process; wait for it, or name another folder with --out" in python(resumed)
    (folder / RECORD).unlink()  # as if the other had not written it yet
    begun = code.format(f"begin(Path({str(folder)!r}), new_record('nas', {{}}))")
    assert "is in use by another process" in python(begun)
    assert unused_folder(folder) == folder.with_name("run-2")
    run.update()
    run.close()
    assert python(resumed) == ""


def test_a_process_that_was_killed_leaves_its_folder_free(folder: Path) -> None:
    begins = f"""
import os, signal
from pathlib import Path
from nas.runs.folder import RunFolder, new_record
run = RunFolder.begin(Path({str(folder)!r}), new_record('nas', {ARGUMENTS!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", begins], check=False).returncode == -signal.SIGKILL
    resume(folder).close()


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Tables -----------------------------------------------------------------------------------------------


def test_tables_hold_what_trials_say(folder: Path) -> None:
    run = begin(folder)
    for spec in networks(3):
        log(run, "large", spec, latency_ms=1.23456789)
    run.write_csv("trials.csv", (trial_row(logged) for logged in run.trials("large")), TRIAL_COLUMNS)
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["spec_id"] for row in rows] == [spec.id for spec in networks(3)]
    assert list(rows[0]) == list(TRIAL_COLUMNS)
    cost = count_cost(networks(3)[0])
    assert (rows[0]["target"], rows[0]["stage"], rows[0]["latency_ms"]) == ("large", "exact", "1.23457")
    assert int(rows[0]["macs"]) == cost.macs
    assert int(rows[0]["params"]) == cost.params
    assert int(rows[0]["peak_activation_bytes"]) == cost.peak_activation_bytes
    run.write_csv("empty.csv", [], TRIAL_COLUMNS)
    assert (folder / "empty.csv").read_text(encoding="utf-8") == ",".join(TRIAL_COLUMNS) + "\n"
