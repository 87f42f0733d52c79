"""The last rounds, in which all found networks are measured once more, decide what a run returns."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.searching import found, record, request, result

from nas.arch.spec import ArchSpec
from nas.latency.networks import Measured
from nas.latency.predictor import LatencyPredictor
from nas.latency.timing import StoppingRule
from nas.runs.reading import load_run
from nas.runs.record import Trial
from nas.runs.target import MARGIN
from nas.search import run as search_run
from nas.search.context import SearchContext
from nas.search.proof import RIVAL_DEPTHS
from nas.search.run import search

pytestmark = pytest.mark.usefixtures("machine")


def measured_in_the_last_rounds(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Let the first network be measured at a share of Large's budget in the first of the last rounds."""
    measure = LatencyPredictor.measure
    left = [share]

    def changed(self: LatencyPredictor, specs: Sequence[ArchSpec], title: str, *rule: StoppingRule) -> list[Measured]:
        measured = measure(self, specs, title, *rule)
        if title == "measuring the comparison" and left:
            budget_ms = result(Path("run")).target.budget_ms
            measured[0] = dataclasses.replace(measured[0], normalised_ms=left.pop() * budget_ms)
        return measured

    monkeypatch.setattr(LatencyPredictor, "measure", changed)


def test_a_network_that_breaks_its_limit_there_is_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    search(request(only="large"), Path("plain"))
    measured_in_the_last_rounds(monkeypatch, 1 - MARGIN / 2 + 0.001)
    search(request(only="large"), Path("run"))
    before, after = found(Path("plain"))["large"], found(Path("run"))["large"]
    assert after.id != before.id
    (network,) = (network for network in record(Path("run")).networks if network.found)
    assert network.spec.id == after.id
    assert network.measured_ms is not None
    assert network.measured_ms <= (1 - MARGIN / 2) * result(Path("run")).target.budget_ms
    assert after.id in set(load_run("run").trials.query("stage == 'finalist'").spec_id)


def test_a_second_measurement_may_use_half_of_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    search(request(only="large"), Path("plain"))
    measured_in_the_last_rounds(monkeypatch, 1 - MARGIN / 2 - 0.001)
    search(request(only="large"), Path("run"))
    assert found(Path("run"))["large"].id == found(Path("plain"))["large"].id


def test_rivals_are_measured_before_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def last(context: SearchContext, measured: Sequence[Trial], others: Sequence[Trial]) -> list[ArchSpec]:
        new = [trial.spec for trial in others if trial not in measured]
        asked.append((len({trial.spec.id for trial in measured}), new[-1]))
        return new[-1:]

    monkeypatch.setattr("nas.search.proof.rivals", last)
    search(request(only="large"), Path("run"))
    (known, _), *_ = asked
    assert len(asked) == len(RIVAL_DEPTHS)
    new = {rival.id for _, rival in asked}
    measured = result(Path("run")).measured
    assert new <= set(measured)
    assert len(measured) == known + len(new)


def test_an_edit_of_the_space_during_a_run_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    search(request(only="large"), Path("plain"))
    text, find = Path("few.py").read_text(encoding="utf-8"), search_run.find

    def edited(*arguments: object) -> ArchSpec:
        Path("few.py").write_text(text.replace("kernels=(3, 5)", "kernels=(3, 7)"), encoding="utf-8")
        return find(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(search_run, "find", edited)
    for file in Path("latency_tables").iterdir():
        file.unlink()
    search(request(only="large"), Path("run"))
    assert found(Path("run")) == found(Path("plain"))
    assert Path("run/table_rows.csv").read_bytes() == Path("plain/table_rows.csv").read_bytes()
