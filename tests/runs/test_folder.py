"""The folder of a run: what is logged comes back, what was half-written does no harm, nothing is overwritten."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.runs.folder import COLUMNS, LOG, MANIFEST, RunFolder, last_folder, unused_folder, versions
from nas.search.parameters import distributions, params_of

COMMAND = "python -m nas.search"
ARGUMENTS = {"budget_ms": 20.0, "small_budget_ms": None, "width": (0.5, 1.0), "strategy": "exact", "seed": 0}
SPACE = load_space("mobilenet_v3_small").at([(0.5, 96)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "reports" / "run"


def networks(number: int) -> list[ArchSpec]:
    rng = random.Random(0)
    return [SPACE.sample(rng) for _ in range(number)]


def log(run: RunFolder, role: str, spec: ArchSpec, stage: str = "exact", **values: float) -> None:
    row = tuple(SPACE.encode([spec])[0].tolist())
    figures = {"latency_ms": 1.25, "top1": 70.5, "top1_std": 0.5} | values
    run.log(role, stage, spec, **figures, params=params_of(SPACE, row), distributions=distributions(SPACE))
    run.flush()


# Begun, resumed, refused ------------------------------------------------------------------------------


def test_a_new_run_says_how_it_was_begun(folder: Path) -> None:
    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert manifest == run.manifest
    assert manifest["arguments"] == {**ARGUMENTS, "width": [0.5, 1.0]}
    assert manifest["versions"] == versions()
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["finished"] is None


def test_a_folder_that_holds_a_run_is_left_alone(folder: Path) -> None:
    RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(NasError, match="already holds a run; continue it with --resume, or name another"):
        RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_with_other_files_is_taken(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_only_a_run_is_resumed(folder: Path) -> None:
    with pytest.raises(NasError, match="holds no run to resume; leave --resume out"):
        RunFolder(folder, ARGUMENTS, COMMAND, resume=True)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"budget_ms": 21.0}, "begun with --budget-ms 20.0, not with --budget-ms 21.0"),
        ({"small_budget_ms": 5.0}, "begun without --small-budget-ms, not with --small-budget-ms 5.0"),
        ({"width": (0.5,)}, "begun with --width 0.5 1.0, not with --width 0.5"),
        ({"width": ()}, "begun with --width 0.5 1.0, not without --width"),
        ({"strategy": "tpe"}, "begun with --strategy exact, not with --strategy tpe"),
        ({"seed": 1, "strategy": "tpe"}, "begun with --seed 0, not with --seed 1"),
    ],
)
def test_other_arguments_are_refused_by_flag(folder: Path, change: dict[str, Any], said: str) -> None:
    RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    with pytest.raises(NasError, match=said):
        RunFolder(folder, ARGUMENTS | change, COMMAND, resume=True)
    RunFolder(folder, ARGUMENTS, COMMAND, resume=True)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 2, "arguments": {}}', "[" * 9999, '{"a": 1e999}']
)
def test_a_broken_manifest_is_an_error_in_one_line(folder: Path, text: str) -> None:
    RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(NasError, match="start a new run with another --out") as error:
        RunFolder(folder, ARGUMENTS, COMMAND, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["file/run", "x" * 300, "file"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(NasError, match="cannot be made"):
        RunFolder(tmp_path / name, ARGUMENTS, COMMAND, resume=False)


def test_names_of_folders(tmp_path: Path) -> None:
    path = tmp_path / "20ms"
    assert unused_folder(path) == last_folder(path) == path
    for number in ("", "-2", "-3"):
        wanted = tmp_path / f"20ms{number}"
        assert unused_folder(path) == wanted
        RunFolder(unused_folder(path), ARGUMENTS, COMMAND, resume=False)
        assert last_folder(path) == wanted
    assert unused_folder(path) == tmp_path / "20ms-4"
    assert unused_folder(tmp_path / "4ms") == tmp_path / "4ms"


# Log --------------------------------------------------------------------------------------------------


def test_what_is_logged_comes_back_in_order(folder: Path) -> None:
    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    specs = networks(6)
    for index, spec in enumerate(specs):
        log(run, ("large", "small")[index % 2], spec, stage="exact" if index < 4 else "seed", latency_ms=1.0 + index)
    run.log("large", "netadapt", specs[0].replace(name="trimmed"), 1 / 3, 70.125, 0.1)
    run.flush()
    for read in (run, RunFolder(folder, ARGUMENTS, COMMAND, resume=True)):
        large = read.trials("large")
        assert [trial.spec for trial in large] == [specs[0], specs[2], specs[4], specs[0].replace(name="trimmed")]
        assert [trial.stage for trial in large] == ["exact", "exact", "seed", "netadapt"]
        assert [trial.number for trial in large] == [0, 1, 2, 3]
        assert [trial.latency_ms for trial in large] == [1.0, 3.0, 5.0, 1 / 3]
        assert (large[3].top1, large[3].top1_std, large[3].params) == (70.125, 0.1, {})
        assert [trial.spec for trial in read.trials("small", "exact")] == [specs[1], specs[3]]
        assert read.trials("small", "netadapt") == []
        row = tuple(SPACE.encode([specs[2]])[0].tolist())
        assert large[1].params == params_of(SPACE, row)


def test_a_resumed_run_logs_on(folder: Path) -> None:
    specs = networks(4)
    for number, spec in enumerate(specs):
        log(RunFolder(folder, ARGUMENTS, COMMAND, resume=number > 0), "large", spec)
    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=True)
    assert [trial.spec for trial in run.trials("large")] == specs
    assert [trial.number for trial in run.trials("large")] == [0, 1, 2, 3]


@pytest.mark.parametrize("lost", [1, 10, 200])
def test_a_line_that_a_killed_process_left_half_written_is_left_out(folder: Path, lost: int) -> None:
    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    specs = networks(4)
    for spec in specs[:3]:
        log(run, "large", spec)
    text = (folder / LOG).read_bytes()
    assert lost < len(text.splitlines()[-1])
    (folder / LOG).write_bytes(text[:-lost])
    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=True)
    assert [trial.spec for trial in run.trials("large")] == specs[:2]
    log(run, "large", specs[3])
    for read in (run, RunFolder(folder, ARGUMENTS, COMMAND, resume=True)):
        assert [trial.spec for trial in read.trials("large")] == [*specs[:2], specs[3]]


@pytest.mark.parametrize("line", [b"{]\n", b"12\n", b"{}\n", b'{"op_code": "x"}\n', b"\xff\n"])
def test_a_broken_log_is_an_error_in_one_line(folder: Path, line: bytes) -> None:
    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    log(run, "large", networks(1)[0])
    text = (folder / LOG).read_bytes()
    (folder / LOG).write_bytes(line + text)
    with pytest.raises(NasError, match=r"study\.log: the log of the run is damaged"):
        RunFolder(folder, ARGUMENTS, COMMAND, resume=True)


def test_a_new_run_does_not_take_over_a_log_without_a_manifest(folder: Path) -> None:
    log(RunFolder(folder, ARGUMENTS, COMMAND, resume=False), "large", networks(1)[0])
    (folder / MANIFEST).unlink()
    assert RunFolder(folder, ARGUMENTS, COMMAND, resume=False).trials("large") == []


def test_a_study_that_optunas_own_tools_can_read(folder: Path) -> None:
    """Its dashboard, for one: parameters and both values."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    log(run, "small", networks(1)[0])
    study = optuna.load_study(study_name="small", storage=JournalStorage(JournalFileBackend(str(folder / LOG))))
    (trial,) = study.trials
    assert trial.values == [70.5, 1.25]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert trial.params["stage1.depth"] in SPACE.stages[0].depths


@pytest.mark.parametrize("every", [0.0, 9e9])
def test_what_is_logged_is_written_soon_or_when_it_must_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, every: float
) -> None:
    """All but the last entry at once, or nothing until something else is saved; both are known to the run itself."""
    monkeypatch.setattr("nas.runs.folder.WRITE_EVERY", every)
    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    run.trials("large")
    run.save()
    for index, spec in enumerate(networks(5)):
        run.log("large", "exact", spec, 1.0, 70.0, 1.0)
        assert [trial.spec for trial in run.trials("large")] == networks(5)[: index + 1]
        seen = RunFolder(folder, ARGUMENTS, COMMAND, resume=True).trials("large")
        assert [trial.spec for trial in seen] == networks(5)[: 0 if every else index]
    run.save()
    assert [trial.spec for trial in RunFolder(folder, ARGUMENTS, COMMAND, resume=True).trials("large")] == networks(5)


# Tables -----------------------------------------------------------------------------------------------


def test_tables_hold_what_trials_say(folder: Path) -> None:
    run = RunFolder(folder, ARGUMENTS, COMMAND, resume=False)
    for spec in networks(3):
        log(run, "large", spec, latency_ms=1.23456789)
    run.write_csv("trials.csv", (trial.row() for trial in run.trials("large")), COLUMNS)
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["spec_id"] for row in rows] == [spec.id for spec in networks(3)]
    assert list(rows[0]) == list(COLUMNS)
    cost = count_cost(networks(3)[0])
    assert (rows[0]["role"], rows[0]["stage"], rows[0]["latency_ms"]) == ("large", "exact", "1.23457")
    assert int(rows[0]["macs"]) == cost.macs
    assert int(rows[0]["params"]) == cost.params
    assert int(rows[0]["peak_activation_bytes"]) == cost.peak_activation_bytes
    run.write_csv("empty.csv", [], COLUMNS)
    assert (folder / "empty.csv").read_text(encoding="utf-8") == ",".join(COLUMNS) + "\n"
