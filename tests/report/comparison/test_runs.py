"""Fronts of several runs: what is put together, and what does not compare."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.drawn_texts import check_texts

from nas.report.comparison.runs import RunsComparison, compare_runs
from nas.report.comparison.runs_figure import STYLES, as_table, draw, figures, fronts_data
from nas.runs.record import OPTIMA, RECORD

Changed = Callable[[Callable[[dict[str, Any]], object]], RunsComparison]


@pytest.fixture
def changed(run_folders: list[Path], tmp_path: Path) -> Changed:
    """Return a function that compares the first run with a copy whose record it changes."""

    def compare(change: Callable[[dict[str, Any]], object]) -> RunsComparison:
        copy = Path(shutil.copytree(run_folders[0], tmp_path / "copy"))
        data = json.loads((copy / RECORD).read_text(encoding="utf-8"))
        change(data)
        (copy / RECORD).write_text(json.dumps(data), encoding="utf-8")
        return compare_runs([run_folders[0], copy])

    return compare


def test_runs_that_compare_share_a_chart(run_folders):
    comparison = compare_runs(run_folders)
    (group,) = comparison.groups
    assert group.runs == comparison.runs
    assert [run.name for run in comparison.runs] == ["first", run_folders[1].name]
    assert (group.images, group.estimator) == ("ImageNet", "imagenet-prior")
    (warning,) = comparison.warnings
    assert warning.startswith("Latencies are of different devices or runtimes (first: Example CPU 3.0, onnxruntime")
    assert comparison.label(comparison.runs[0]) == "first · Example 3.0"


def test_a_front_is_the_best_of_all_skeletons(run_folders):
    first = compare_runs(run_folders).runs[0]
    latency, top1 = (np.array([one[place] for one in first.front]) for place in (0, 1))
    assert (np.diff(latency) > 0).all()
    assert (np.diff(top1) > 0).all()
    assert {one.skeleton for one in first.front} == {"large", "small"}
    best = max(one.top1 for one in first.run.optima if one.latency_ms <= 3)
    found = first.best_within(3)
    assert found is not None
    assert found.top1 == best
    assert first.best_within(0.001) is None


def test_a_run_without_optima_has_the_front_of_its_trials(run_folders, tmp_path):
    copy = Path(shutil.copytree(run_folders[0], tmp_path / "copy"))
    (copy / OPTIMA).unlink()
    comparison = compare_runs([run_folders[0], copy])
    run = comparison.runs[1]
    assert not run.proven
    assert {one.spec_id for one in run.front} <= set(run.run.front.spec_id)
    assert comparison.warnings == [
        "The front of copy is one of trials, not of proven optima: it may be lower than need be."
    ]
    names = [name for name, _, _ in fronts_data(comparison, comparison.groups[0]).fronts]
    assert names == ["first", "copy (best trials)"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data["arguments"].update(data="imagefolder:/my/birds (0123456789abcdef)"),
            "they differ in images (first: ImageNet; copy: birds (0123456789abcdef))",
        ),
        (
            lambda data: data["estimator"].update(training_recipe="short"),
            "they differ in training recipe (first: as Once-for-All trains, 25 epochs of fine-tuning; copy: short)",
        ),
        (
            lambda data: data["estimator"].update(name="replacement", training_recipe="short"),
            "they differ in estimator and training recipe (first: imagenet-prior, as Once-for-All",
        ),
    ],
)
def test_accuracies_that_do_not_compare_are_apart_and_said_so(changed: Changed, change, message):
    comparison = changed(change)
    assert [[run.name for run in group.runs] for group in comparison.groups] == [["first"], ["copy"]]
    (warning,) = comparison.warnings
    assert warning.startswith("Accuracies of these runs do not compare, for")
    assert message in warning
    assert [figure.name for figure in figures(comparison)] == ["fronts", "fronts_2"]


def test_two_folders_of_one_name_hold_different_images(run_folders, tmp_path):
    folders = []
    for number in range(2):
        folders.append(Path(shutil.copytree(run_folders[0], tmp_path / str(number))))
        data = json.loads((folders[-1] / RECORD).read_text(encoding="utf-8"))
        data["arguments"]["data"] = f"imagefolder:/{number}/birds ({number}123456789abcdef)"
        (folders[-1] / RECORD).write_text(json.dumps(data), encoding="utf-8")
    comparison = compare_runs(folders)
    assert [group.title for group in comparison.groups] == ["birds", "birds"]
    assert "0: birds (0123456789abcdef); 1: birds (1123456789abcdef)" in comparison.warnings[0]


def test_predicted_latencies_are_said_so(changed: Changed):
    comparison = changed(lambda data: data["table"].update(other_device=True))
    assert "Latencies of copy are predicted, not measured: its table is of another device." in comparison.warnings


def test_equal_folders_are_told_apart_by_their_parents(run_folders, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(run_folders[0], tmp_path / name / "20ms")
    comparison = compare_runs([tmp_path / "a" / "20ms", tmp_path / "b" / "20ms"])
    assert [run.name for run in comparison.runs] == ["a/20ms", "b/20ms"]


def test_budgets_are_round_and_few(run_folders):
    (group,) = compare_runs(run_folders).groups
    budgets = group.budgets_ms()
    assert 5 <= len(budgets) <= 12
    assert budgets == sorted(set(budgets))
    assert all(f"{ms:.2g}" == f"{ms:g}" for ms in budgets)


@pytest.mark.filterwarnings("ignore:Glyph")  # of the odd name
def test_the_figure_names_every_found_network(run_folders):
    comparison = compare_runs(run_folders)
    (figure,) = figures(comparison)
    drawn = figure.draw()
    check_texts(drawn)
    written = {text.get_text() for text in drawn.axes[0].texts}
    assert {"first: Large", "first: Small"} <= written
    assert len(drawn.legends[0].texts) == 4


def test_runs_differ_without_colour():
    for place in ("line", "marker", "hatch"):
        assert len({str(getattr(style, place)) for style in STYLES}) == len(STYLES)


def test_a_front_of_one_network_is_drawn(run_folders):
    comparison = compare_runs(run_folders[:1])
    run = dataclasses.replace(comparison.runs[0], front=comparison.runs[0].front[:1])
    group = dataclasses.replace(comparison.groups[0], runs=(run,))
    check_texts(draw(fronts_data(dataclasses.replace(comparison, runs=(run,), groups=(group,)), group)))


def test_the_table_of_the_figure_names_runs_and_devices(run_folders):
    comparison = compare_runs(run_folders)
    table = as_table(comparison.groups[0])
    assert set(table.run) == {run.name for run in comparison.runs}
    counts = table[table.run == "first"].kind.value_counts()
    assert counts["front"] == len(comparison.runs[0].front)
    assert counts["found"] == counts["published"] == 2
    assert table.device.nunique() == 2
