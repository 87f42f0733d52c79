"""The log of short trainings, as several processes write and read it."""

from pathlib import Path

import pytest

from nas.accuracy.training_log import Settings, ShortTrainingResult, TrainingLog
from nas.errors import NasError

SETTINGS: Settings = ("fashion-mnist-sample", 32, 4, 0)
RESULT = ShortTrainingResult((40.0, 52.5), 52.5, 1.25)
DIVERGED = ShortTrainingResult((10.0,), 0.0, 0.5, diverged=True)


def test_each_result_is_read_once_by_each_process(tmp_path: Path) -> None:
    one, other = (TrainingLog(tmp_path / "run" / "log", SETTINGS) for _ in range(2))
    assert list(one.read_new()) == []
    one.append("a", RESULT)
    assert list(other.read_new()) == list(one.read_new()) == [("a", RESULT)]
    other.append("b", DIVERGED)
    assert list(one.read_new()) == list(other.read_new()) == [("b", DIVERGED)]
    assert list(one.read_new()) == []


def test_results_of_other_settings_are_skipped(tmp_path: Path) -> None:
    TrainingLog(tmp_path / "log", (*SETTINGS[:3], 1)).append("a", RESULT)
    assert list(TrainingLog(tmp_path / "log", SETTINGS).read_new()) == []


def test_a_line_under_way_is_read_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "log"
    TrainingLog(path, SETTINGS).append("a", RESULT)
    complete = path.read_bytes()
    reader = TrainingLog(path, SETTINGS)
    path.write_bytes(complete[:-20])
    assert list(reader.read_new()) == []
    path.write_bytes(complete)
    assert list(reader.read_new()) == [("a", RESULT)]


def test_a_log_that_is_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, SETTINGS)
    with pytest.raises(NasError, match="this log cannot be written"):
        log.append("a", RESULT)
    with pytest.raises(NasError, match="this log cannot be read"):
        list(log.read_new())
