"""Optuna's dashboard opens the log of a run, with names that people read."""

import io
import json
import random
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna_dashboard
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.arch.loading import load_space
from nas.runs.folder import LOG
from nas.runs.log import TRIMMED, TrialLog
from nas.runs.record import Trial

SPACE = load_space("mobilenet_v3_small").at([(0.5, 96), (1.0, 224)])


def logged(file: Path) -> list[Trial]:
    """Log a few trials of the space and one that NetAdapt trimmed."""
    rng, log, trials = random.Random(0), TrialLog(file), []
    for number in range(4):
        spec = SPACE.sample(rng)
        encoding = tuple(SPACE.encode([spec])[0].tolist()) if number != 2 else None
        trials.append(Trial(encoding, spec, 60.0 + number, 0.7, 1.0 + number, 60.0 + number))
        log.append("small", "netadapt" if encoding is None else "exact", trials[-1], SPACE)
    log.flush()
    return trials


class Dashboard:
    """The application of the dashboard, asked without a server."""

    def __init__(self, file: Path) -> None:
        self._application = optuna_dashboard.wsgi(JournalStorage(JournalFileBackend(str(file))))

    def get(self, path: str) -> Any:
        """Return the JSON of an answer."""
        environment: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()}
        setup_testing_defaults(environment)
        answered: list[str] = []
        body = b"".join(self._application(environment, lambda status, headers, *_: answered.append(status)))
        assert answered == ["200 OK"]
        return json.loads(body)


@pytest.fixture
def dashboard(tmp_path: Path) -> Dashboard:
    logged(tmp_path / LOG)
    return Dashboard(tmp_path / LOG)


def studies(dashboard: Dashboard) -> dict[str, Any]:
    """Return the details of each study by its name."""
    summaries = dashboard.get("/api/studies")["study_summaries"]
    return {one["study_name"]: dashboard.get(f"/api/studies/{one['study_id']}") for one in summaries}


def test_studies_and_objectives_have_names(dashboard: Dashboard) -> None:
    found = studies(dashboard)
    assert list(found) == ["small", f"small{TRIMMED}"]
    for study in found.values():
        assert study["objective_names"] == ["top-1, %", "latency, ms"]
        assert study["directions"] == ["maximize", "minimize"]
    assert [trial["values"] for trial in found["small"]["trials"]] == [[60.0, 1.0], [61.0, 2.0], [63.0, 4.0]]


def test_choices_are_parameters_with_their_values(dashboard: Dashboard) -> None:
    study = studies(dashboard)["small"]
    choices = {
        one["name"]: sorted(choice["value"] for choice in one["distribution"]["choices"])
        for one in study["union_search_space"]
    }
    assert choices["variant"] == ["0.5@96", "1@224"]
    assert choices["stage2.depth"] == ["2", "3", "4"]
    assert choices["stage2.block1.kernel"] == ["3", "5", "7"]
    assert choices["stage2.block1.se"] == ["False", "True"]
    assert choices["stage2.block1.activation"] == ["hswish", "relu"]
    # Those that all trials have: without them the dashboard draws no parallel coordinates of its own accord.
    assert {one["name"] for one in study["intersection_search_space"]} == set(choices)
    first = {one["name"]: one["param_external_value"] for one in study["trials"][0]["params"]}
    assert set(first) == set(choices)
    assert first["stage1.block1.kernel"] in ("3", "5", "7")


def test_attributes_of_a_trial_are_readable(dashboard: Dashboard) -> None:
    trial = studies(dashboard)["small"]["trials"][0]
    attributes = {one["key"]: one["value"] for one in trial["user_attrs"]}
    assert attributes["stage"] == "exact"
    assert attributes["top-1 deviation, points"] == "0.7"
    assert attributes["resolution, px"] in ("96", "224")
    assert len(attributes["network"]) == 12


def test_both_studies_are_read_as_the_trials_of_one_target(tmp_path: Path) -> None:
    trials = logged(tmp_path / LOG)
    read = TrialLog(tmp_path / LOG).trials("small")
    assert [one.trial for one in read] == trials
    assert [one.number for one in read] == [0, 1, 2, 3]
