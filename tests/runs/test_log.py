"""The log of a run on a full disk, and logs that an earlier run left."""

import random
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend

from nas.arch.loading import load_space
from nas.errors import NasError
from nas.runs.folder import LOG, WORKERS_LOG, RunFolder, new_record
from nas.runs.log import TrialLog
from nas.runs.record import RECORD, Trial

SPECS = [load_space("mobilenet_v3_small").at([(0.5, 96)]).sample(random.Random(seed)) for seed in range(3)]


def trial(number: int) -> Trial:
    return Trial(None, SPECS[number], 70.0, 1.0, 1.0, 70.0)


def test_a_full_disk_is_an_error_in_one_line_and_no_trial_is_written_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nas.runs.log.WRITE_EVERY", 9e9)
    log = TrialLog(tmp_path / LOG)
    log.append("large", "exact", trial(0))
    log.flush()
    append = JournalFileBackend.append_logs

    def full(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        append(self, logs[:1])
        with (tmp_path / LOG).open("ab") as file:
            file.write(b'{"half')
        raise OSError(28, "No space left on device")

    for number in (1, 2):
        log.append("large", "exact", trial(number))
    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(NasError, match=r"study\.log: cannot be written \(No space left on device\); make room"):
        log.flush()
    monkeypatch.setattr(JournalFileBackend, "append_logs", append)
    log.flush()
    assert [logged.trial.spec for logged in TrialLog(tmp_path / LOG).trials("large")] == SPECS


def test_a_folder_is_free_after_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise NasError("no space")

    record = new_record("python -m nas.search", {})
    with monkeypatch.context() as patched:
        patched.setattr("nas.runs.folder.write_text", full)
        with pytest.raises(NasError, match="no space"):
            RunFolder.begin(tmp_path / "run", record)
    run = RunFolder.begin(tmp_path / "run", record)
    with monkeypatch.context() as patched:
        patched.setattr(TrialLog, "flush", full)
        with pytest.raises(NasError, match="no space"):
            run.close()
    RunFolder.resume(tmp_path / "run", {}).close()


def test_what_workers_of_an_earlier_run_logged_is_not_taken_over(tmp_path: Path) -> None:
    record = new_record("python -m nas.search", {})
    run = RunFolder.begin(tmp_path / "run", record)
    (tmp_path / "run" / WORKERS_LOG).write_text("trials", encoding="utf-8")
    run.close()
    (tmp_path / "run" / RECORD).unlink()
    run = RunFolder.begin(tmp_path / "run", record)
    assert not (tmp_path / "run" / WORKERS_LOG).exists()
    (tmp_path / "run" / WORKERS_LOG).write_text("trials", encoding="utf-8")
    run.discard()
    assert not (tmp_path / "run").exists()
