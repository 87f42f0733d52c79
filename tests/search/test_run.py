"""Whole searches on a machine that is known, in a space of few choices: a second each."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from support import synthetic
from support.fine_view import in_fine_view
from support.searching import BUDGET_MS, Recorder, co_runs, found, record, request, result, rows, whole_ms
from support.synthetic import Machine, network_ms

from nas.accuracy.imagenet_prior import RECIPE_LEVELS, ImageNetPrior
from nas.arch.loading import load_space
from nas.arch.parts import NetworkPart
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec, load_results
from nas.console import Progress, Silent
from nas.errors import NasError
from nas.latency import measuring
from nas.latency.fidelity import covered_variants
from nas.latency.measuring import new_table
from nas.latency.networks import Measured
from nas.latency.predictor import LatencyPredictor, open_table
from nas.latency.table import LatencyTable, space_parts
from nas.latency.timing import Timing
from nas.report.writing import write_report
from nas.runs.folder import RunFolder, new_record
from nas.runs.record import TargetResult, Trial
from nas.runs.target import MARGIN, Target
from nas.search import trials
from nas.search.comparison import published_networks
from nas.search.context import SearchContext
from nas.search.request import SMALL_SHARE, SearchRequest, targets_of
from nas.search.run import search

# What is left behind ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["exact", "random"])
def test_a_run_is_whole_and_agrees_with_itself(machine: Machine, strategy: str) -> None:
    out = Path("reports/run")
    run = search(request(strategy=strategy), out)
    assert run.path == out
    names = {path.name for path in out.iterdir()}
    tables = {"trials.csv", "front.csv", "table_rows.csv", "measured.csv", "changes.csv", "optima.jsonl"}
    assert names == {".lock", "run.json", "study.log", "large.json", "small.json", *tables}
    data = record(out)
    assert data == run.record
    assert data.finished >= data.created
    assert {result.target.name for result in data.targets} == {"large", "small"}
    table = LatencyTable.load(data.table.file)
    assert data.table.rows == len(table.rows)
    assert data.table.reference_ms == pytest.approx(network_ms(published_spec("mobilenet_v3_large")), rel=1e-4)
    networks = {network.name: network for network in data.networks}
    assert {"found large", "found small", "mobilenet_v3_large", "mobilenet_v3_small"} <= set(networks)
    trials = rows(out / "trials.csv")
    for target, budget_ms in (("large", BUDGET_MS), ("small", 0.5)):
        spec, network, results = found(out)[target], networks[f"found {target}"], load_results(out / f"{target}.json")
        assert network.spec == spec
        assert network.measured_ms == results["latency"]["measured_ms"]
        assert network.measured_ms == pytest.approx(whole_ms(machine, spec), rel=1e-3)
        held_out = table.predict_held_out(spec)
        assert (network.predicted_ms, network.predicted_std) == pytest.approx((held_out.time, held_out.std), abs=1e-4)
        assert network.predicted_ms == pytest.approx(network_ms(spec), rel=0.03)
        assert abs(network.measured_ms - network.predicted_ms) < 3 * network.predicted_std
        assert sum(ms for _, ms in network.breakdown) == pytest.approx(table.predict_ms([spec])[0], abs=1e-3)
        assert network.estimated_top1 == pytest.approx(ImageNetPrior().estimate([spec]).top1[0], abs=1e-3)
        assert (network.published_top1, results["accuracy"]["source"]) == (None, "estimated")
        assert {level["recipe_level"] for level in results["accuracy"]["recipe_levels"]} == set(RECIPE_LEVELS)
        assert [near["name"] for near in results["accuracy"]["nearest_published"]] == [n.name for n in network.nearest]
        assert len(network.nearest) == 3
        assert network.measured_ms <= budget_ms == results["budget_ms"]
        assert in_fine_view(load_space("few.py"), spec)
        own = [row for row in trials if row["target"] == target]
        assert spec.id in {row["spec_id"] for row in own}
        assert [int(row["number"]) for row in own] == list(range(len(own)))
        by_now = table.predict_ms([logged.trial.spec for logged in run.trials(target)])
        assert [float(row["latency_ms"]) for row in own] == pytest.approx(by_now, abs=1e-4)
        front = [row for row in rows(out / "front.csv") if row["target"] == target]
        assert {row["spec_id"] for row in front} <= {row["spec_id"] for row in own}
        best = max(own, key=lambda row: float(row["top1"]))
        assert best["top1"] in {row["top1"] for row in front}
        assert sum(row["stage"] == strategy for row in own) == 6
    keys = {row["key"] for row in rows(out / "table_rows.csv")}
    assert keys <= set(table.rows)
    assert {row["op"] for row in rows(out / "table_rows.csv")} == {"stem", "sepconv", "mbconv", "head"}


def test_a_space_with_a_stem_of_stride_1_is_searched_alike(machine: Machine) -> None:
    text = Path("few.py").read_text(encoding="utf-8")
    narrow = text.replace("StemSpec(out=16)", "StemSpec(out=16, stride=1)").replace("(96, 128)", "(48, 64)")
    Path("narrow.py").write_text(narrow, encoding="utf-8")
    search(request(only="large", strategy="exact", large_space="narrow.py"), Path("run"))
    assert found(Path("run"))["large"].stem.stride == 1
    stems = [row for row in rows(Path("run/table_rows.csv")) if row["op"] == "stem"]
    assert stems
    assert {(row["key"].split()[3], row["stride"]) for row in stems} == {("s1", "1")}
    assert all(network.extrapolated for network in record(Path("run")).networks if network.found)


def test_published_networks_stand_beside_what_was_found(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.search.run.published_networks", published_networks)
    search(request(only="large"), Path("run"))
    published = [network for network in record(Path("run")).networks if not network.found]
    assert len(published) > 40
    assert len({network.name for network in published}) == len(published)
    judged = {network.name for network in published if network.estimate}
    assert {n.name: n.published_top1 for n in published if n.name not in judged} == {
        "mobilenetv4_conv_small": 73.756,
        "mobilenetv4_conv_small_050": 64.778,
        "mobilenetv4_conv_medium": 79.092,
    }
    assert all(network.measured_ms for network in published)
    assert "MobileNetV4-Conv-M" in write_report(Path("run")).read_text(encoding="utf-8")
    by_name = {network.name: network for network in published}
    large = by_name["mobilenet_v3_large"]
    assert (large.published_top1, large.kind) == (75.2, "published")
    assert large.raw_ms is not None, "measured in the same rounds"
    assert any(n.raw_ms is not None for n in published if n.name.startswith("ofa_"))
    for network in published:
        assert network.measured_ms == pytest.approx(whole_ms(machine, network.spec), rel=1e-3)


def test_exact_finds_more_than_chance_and_both_keep_the_budget(machine: Machine) -> None:
    top1 = {}
    for strategy in ("exact", "random"):
        search(request(strategy=strategy, only="large"), Path(strategy))
        spec = found(Path(strategy))["large"]
        assert whole_ms(machine, spec) <= BUDGET_MS
        top1[strategy] = ImageNetPrior().estimate([spec]).top1[0]
    assert top1["exact"] >= top1["random"]


@pytest.mark.parametrize("budget_ms", [0.4, 0.7])
@pytest.mark.parametrize("bias", [0.93, 1.0, 1.08])
def test_budgets_are_kept_and_used_whatever_the_table_is_off_by(
    machine: Machine, budget_ms: float, bias: float
) -> None:
    spread, plain = machine.whole, {published_spec("mobilenet_v3_large").id, *co_runs()}
    machine.whole = lambda spec: 1.0 if spec.id in plain else bias * spread(spec)
    search(request(budget_ms=budget_ms, only="large", strategy="exact"), Path("run"))
    spec = found(Path("run"))["large"]
    assert 0.93 * budget_ms < whole_ms(machine, spec) <= budget_ms


def test_noise_does_not_break_the_budget(machine: Machine) -> None:
    machine.noise = 0.03
    search(request(only="large", strategy="exact"), Path("run"))
    spec = found(Path("run"))["large"]
    assert 0.9 * BUDGET_MS < whole_ms(machine, spec) <= 1.015 * BUDGET_MS
    assert record(Path("run")).networks[0].measured_ms <= BUDGET_MS


def test_a_second_search_measures_only_what_is_new(machine: Machine) -> None:
    search(request(only="large"), Path("one"))
    rows_before = set(LatencyTable.load(record(Path("one")).table.file).rows)
    machine.compiled.clear()
    search(request(only="large", budget_ms=0.75), Path("two"))
    measured = set(machine.compiled)
    for key in (key for key in measured if not key.startswith("network")):
        assert key not in rows_before
    machine.compiled.clear()
    search(request(only="large", budget_ms=0.75), Path("three"))
    assert all(key.startswith("network") for key in machine.compiled), "nothing but what is to be proven again"
    assert found(Path("three")) == found(Path("two"))


# Budgets ----------------------------------------------------------------------------------------------


def ends_ms(machine: Machine) -> tuple[float, float]:
    space = load_space("few.py")
    return (
        min(whole_ms(machine, space.smallest(variant)) for variant in space.variants),
        max(whole_ms(machine, space.largest(variant)) for variant in space.variants),
    )


def test_a_budget_below_the_range_names_the_smallest_feasible_one(machine: Machine) -> None:
    low, _ = ends_ms(machine)
    with pytest.raises(NasError, match=r"few is as fast as 0\.1 ms .*smallest feasible budget is --budget-ms") as error:
        search(request(budget_ms=0.1), Path("run"))
    named = float(str(error.value).partition("--budget-ms ")[2].split()[0])
    assert low <= named < 1.1 * low
    assert "\n" not in str(error.value)


def test_the_smallest_feasible_budget_is_feasible(machine: Machine) -> None:
    with pytest.raises(NasError) as error:
        search(request(budget_ms=0.1, only="large"), Path("run"))
    named = float(str(error.value).partition("--budget-ms ")[2].split()[0])
    low, _ = ends_ms(machine)
    assert named >= low / (1 - MARGIN)
    for number, budget_ms in enumerate((named, 1.0001 * low / (1 - MARGIN))):
        out = Path(f"run{number}")
        search(request(budget_ms=budget_ms, only="large"), out)
        assert whole_ms(machine, found(out)["large"]) <= budget_ms


def test_smalls_budget_below_the_range_names_its_own_flag(machine: Machine) -> None:
    with pytest.raises(NasError, match=r"--small-budget-ms \d.*--only large"):
        search(request(small_budget_ms=0.1), Path("run"))
    with pytest.raises(NasError, match=r"smallest feasible budget is --budget-ms"):
        search(request(budget_ms=0.1, small_budget_ms=None, only="small"), Path("run2"))


def test_after_a_budget_that_cannot_be_kept_the_folder_is_free(machine: Machine) -> None:
    """The same command with a feasible budget works in that folder."""
    with pytest.raises(NasError, match="smallest feasible"):
        search(request(budget_ms=0.1, only="large"), Path("run"))
    search(request(only="large"), Path("run"))


def test_a_budget_above_the_range_gives_the_best_network_and_is_reported(machine: Machine) -> None:
    console = Recorder()
    search(request(budget_ms=50.0, only="large", strategy="exact"), Path("run"), console=console)
    assert any("does not bind" in line for line in console.lines)
    assert result(Path("run")).binds is False
    space, prior = load_space("few.py"), ImageNetPrior()
    best = max(prior.estimate([space.sample(random.Random(seed)) for seed in range(300)]).top1)
    assert prior.estimate([found(Path("run"))["large"]]).top1[0] >= best
    assert not any(row["stage"] == "seed" for row in rows(Path("run/trials.csv")))


def test_the_range_is_reported_before_the_search(machine: Machine) -> None:
    console = Recorder()
    search(request(only="large"), Path("run"), console=console)
    low, high = ends_ms(machine)
    text = "\n".join(console.lines)
    assert f"spans {low:.2f} to {high:.2f} ms" in text
    assert f"published mobilenet_v3_large: {network_ms(published_spec('mobilenet_v3_large')):.2f} ms" in text
    assert result(Path("run")).feasible_ms == pytest.approx([low, high], rel=1e-5)


def test_smalls_budget_is_its_share_of_larges() -> None:
    def budgets(**changes: Any) -> list[float]:
        return [target.budget_ms for target in targets_of((10.0,), **changes)]

    assert budgets() == [10.0, pytest.approx(10 * 15.8 / 51)] == [10.0, 10 * SMALL_SHARE]
    assert budgets(small_budget_ms=4.0) == [10.0, 4.0]
    assert budgets(only="small") == [10.0]


@pytest.mark.parametrize("target", ["large", "small"])
def test_one_target_alone(machine: Machine, target: str) -> None:
    search(request(only=target, small_budget_ms=None), Path("run"))
    assert [result.target.name for result in record(Path("run")).targets] == [target]
    assert sorted(path.name for path in Path("run").glob("[ls]*.json")) == [f"{target}.json"]
    assert {row["target"] for row in rows(Path("run/trials.csv"))} == {target}


def test_widths_and_resolutions_can_be_asked_for(machine: Machine) -> None:
    search(request(only="large", budget_ms=0.5, widths=(0.75,), resolutions=(96, 128)), Path("run"))
    assert set(result(Path("run")).variants) <= {(0.75, 96), (0.75, 128)}
    for changes, message in (
        ({"widths": (0.9,)}, r"no width 0\.9; it has 0\.75, 1"),
        ({"resolutions": (100,)}, "no resolution 100; it has 96, 128"),
    ):
        with pytest.raises(NasError, match=message):
            search(request(**changes), Path("other"))
    assert not Path("other").exists()


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_budgets_that_are_no_budgets(machine: Machine, budget: float) -> None:
    for changes in ({"budget_ms": budget}, {"small_budget_ms": budget}):
        with pytest.raises(NasError, match="budget"):
            search(request(**changes), Path("run"))
    assert not Path("run").exists()
    assert not machine.ran


def test_a_budget_that_only_the_fastest_network_is_timed_to_keep(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding puts its predicted latency a last bit over the limit that is set for it."""
    monkeypatch.setattr(trials, "SEEDS", 0)  # or trimming makes another, as fast and better, of a network above it
    plain = {published_spec("mobilenet_v3_large").id, *co_runs()}
    machine.whole = lambda spec: 1.0 if spec.id in plain else 0.97
    predict_ms = LatencyTable.predict_ms
    monkeypatch.setattr(LatencyTable, "predict_ms", lambda table, specs: np.nextafter(predict_ms(table, specs), np.inf))
    smallest = load_space("few.py").smallest((0.75, 96))
    search(request(only="large", budget_ms=network_ms(smallest)), Path("run"))
    assert whole_ms(machine, found(Path("run"))["large"]) <= network_ms(smallest)


def test_a_recorded_target_stays_feasible_whatever_is_measured_since(machine: Machine) -> None:
    smallest = load_space("few.py").smallest((0.75, 96))
    wanted = request(only="large", budget_ms=1.1 * network_ms(smallest))
    search(wanted, Path("run"))
    (file,) = Path("latency_tables").iterdir()
    table = LatencyTable.load(file)
    slow = 1.5 * table.part_ms(NetworkPart(smallest)) / table.reference_ms
    table.remember({NetworkPart(smallest): Timing(slow, (slow, slow), 9, 0.001, slow)})
    table.save()
    with pytest.raises(NasError, match="no network of few is as fast as"):
        search(wanted, Path("other"))
    search(wanted, Path("run"), resume=True)


# Tables -----------------------------------------------------------------------------------------------


def test_the_table_that_is_named_is_used_and_filled(machine: Machine) -> None:
    search(request(only="large"), Path("one"))
    Path("latency_tables").rename("tables")
    (file,) = Path("tables").iterdir()
    search(request(only="large", table=str(file)), Path("two"))
    assert not Path("latency_tables").exists()
    assert record(Path("two")).table.file == str(file)
    with pytest.raises(NasError, match="no such file"):
        search(request(table="tables/none.json"), Path("three"))


def test_other_tables_are_refused(machine: Machine) -> None:
    search(request(only="large"), Path("one"))
    (file,) = Path("latency_tables").iterdir()
    table = LatencyTable.load(file)
    replace(table, device=replace(table.device, cpu="Another CPU")).save("other.json")
    with pytest.raises(NasError, match="of another device: Another CPU"):
        search(request(table="other.json"), Path("two"))
    with pytest.raises(NasError, match=r"of synthetic 1\.0, 1 thread, float32; ask for that with --runtime synthetic"):
        open_table(str(file), "onnxruntime")
    console = Recorder()
    replace(table, runtime=replace(table.runtime, version="0.9")).save("old.json")
    open_table("old.json", "synthetic", console=console)
    assert "synthetic 0.9, here is 1.0" in console.lines[0]
    assert not Path("two").exists()


def test_a_table_of_other_classes_predicts_their_networks(machine: Machine) -> None:
    table = new_table(synthetic.made_runtime(), 10, "ten.json")
    predictor, space = LatencyPredictor(table, Silent()), load_space("few.py").at([(0.75, 96)])
    predictor.fill_space(space, "rows")
    spec = space.sample(random.Random(0))
    assert predictor.predict_ms([spec])[0] == pytest.approx(network_ms(spec, 10), rel=1e-3)
    assert predictor.measured_ms([spec], "whole")[0] == pytest.approx(
        network_ms(spec, 10) * machine.whole(spec), rel=1e-3
    )
    rows = LatencyTable.load("ten.json").rows
    assert not [key for key in rows if "n1000" in key]
    assert len([key for key in rows if key.startswith("head")]) == 1


# Tables of another device -----------------------------------------------------------------------------


@pytest.fixture
def others(machine: Machine) -> LatencyTable:
    """Return the folder of a search on another device, whose runtime is not installed here."""
    search(request(only="large", strategy="exact"), Path("there"))
    (file,) = Path("latency_tables").iterdir()
    table = LatencyTable.load(file)
    table = replace(table, device=replace(table.device, cpu="Another CPU"))
    table.save("other.json")
    _without_table()
    machine.compiled.clear()
    machine.ran.clear()
    return table


def elsewhere(**changes: Any) -> SearchRequest:
    plain: dict[str, Any] = {"only": "large", "table": "other.json", "allow_other_device": True, "strategy": "exact"}
    return request(**plain | changes)


def test_a_table_of_another_device_is_searched_without_measuring(
    machine: Machine, others: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "made_runtime", None)
    before = Path("other.json").read_bytes()
    console = Recorder()
    out = search(elsewhere(), Path("here"), console=console).path
    assert not machine.ran
    assert not machine.compiled
    assert Path("other.json").read_bytes() == before
    note = "latencies are predicted, not measured: the table is of another device, Another CPU"
    assert f"note: {note}" in console.lines
    data, spec = record(out), found(out)["large"]
    predicted = others.predict_ms([spec])[0]
    assert 0.9 * BUDGET_MS < predicted <= BUDGET_MS
    assert data.notes == (note,)
    assert data.table.other_device is True
    assert data.machine.cpu != data.table.device == "Another CPU"
    network = data.networks[0]
    assert (network.raw_ms, network.quartiles_ms) == (None, None)
    there = found(Path("there"))["large"]
    whole = NetworkPart(spec)  # the other device may have measured it, and nothing else has
    there_ms = others.part_ms(whole) if others.knows(whole) else None
    assert network.measured_ms == (None if there_ms is None else pytest.approx(there_ms, abs=1e-4))
    assert network.predicted_ms == pytest.approx(others.predict_held_out(spec).time, abs=1e-4)
    published = {n.name: n.measured_ms for n in data.networks if not n.found}
    assert published["mobilenet_v3_large"] == pytest.approx(network_ms(published_spec("mobilenet_v3_large")), rel=1e-3)
    results = load_results(out / "large.json")
    assert results["notes"] == [note]
    assert results["latency"]["measured_ms"] == network.measured_ms
    assert results["latency"]["other_device"] is True
    # As accurate as what was found there: the fine view's rows, which trimming needs, came with the table.
    assert ImageNetPrior().estimate([spec, there]).top1 @ [1, -1] > -0.3
    page = write_report(out).read_text(encoding="utf-8")
    assert "(predicted, not measured: the table is of another device)" in page
    assert note in page


def test_without_being_allowed_a_table_of_another_device_is_refused(others: LatencyTable) -> None:
    with pytest.raises(NasError, match=r"of another device: Another CPU .*--allow-other-device"):
        search(elsewhere(allow_other_device=False), Path("here"))
    with pytest.raises(NasError, match="ask for that with --threads 1"):
        search(elsewhere(threads=2), Path("here"))
    assert not Path("here").exists()


def test_only_what_another_devices_table_has_is_searched(others: LatencyTable) -> None:
    space = load_space("few.py")
    (one,) = covered_variants(others, space)
    keys = {part.key for part in space_parts(space.at([one]))}
    contexts = {key for key in others.rows if key.startswith("context")}
    others.rows = {key: row for key, row in others.rows.items() if key in keys | contexts}
    others.networks = {}
    others.save("other.json")
    console = Recorder()
    low, high = others.predict_ms([space.smallest(one), space.largest(one)])
    data = search(elsewhere(budget_ms=float(low + high) / 2), Path("here"), console=console).record
    assert data.targets[0].variants == (one,)
    assert f"other.json has all rows of 1 of the {len(space.variants)} variants of few" in console.lines
    names = [network.name for network in data.networks]
    assert names == ["found large", "mobilenet_v3_large"], "no other published one can be predicted"
    with pytest.raises(NasError, match=r"no network of few is as fast as 0\.1 ms on that device"):
        search(elsewhere(budget_ms=0.1), Path("none"))
    lost = next(key for key in keys if key.startswith("mbconv"))
    del others.rows[lost]
    others.save("other.json")
    with pytest.raises(NasError, match=r"other\.json is of another device \(Another CPU\) and lacks .* on that device"):
        search(elsewhere(), Path("none"))
    assert not Path("none").exists()


def test_ones_own_table_is_measured_for_whatever_is_allowed(machine: Machine) -> None:
    out = search(request(only="large", allow_other_device=True), Path("one")).path
    data = record(out)
    assert data.table.other_device is False
    assert data.notes == ()
    assert data.networks[0].measured_ms is not None
    with pytest.raises(NasError, match=r"begun with --allow-other-device, not without --allow-other-device"):
        search(request(only="large"), out, resume=True)


# Threads and precision --------------------------------------------------------------------------------


def test_int8_is_noted_wherever_a_latency_stands(machine: Machine) -> None:
    console = Recorder()
    out = search(request(only="large", precision="int8"), Path("one"), console=console).path
    note = "latencies are those of int8; accuracies are still estimates for float32"
    assert console.lines.count(f"note: {note}") == 1
    assert list(record(out).notes) == load_results(out / "large.json")["notes"] == [note]
    assert record(out).table.precision == "int8"
    (file,) = Path("latency_tables").iterdir()
    assert file.name.endswith("-t1-int8.json")
    page = write_report(out).read_text(encoding="utf-8")
    assert note in page
    assert "1 thread, int8" in page


def test_threads_beyond_the_cores_are_warned_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.latency.predictor.usable_cores", lambda: 2)
    monkeypatch.setattr("nas.latency.predictor.quota_warning", lambda threads: None)
    for threads, warned in ((2, 0), (3, 1)):
        console = Recorder()
        table = open_table(None, "synthetic", threads, console)
        assert table.runtime.threads == threads
        assert sum("warning: 3 threads" in line for line in console.lines) == len(console.lines) == warned


def test_threads_beyond_a_quota_are_warned_of_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quota counts among the usable cores, too; a line of these would say the same."""
    monkeypatch.setattr("nas.latency.predictor.usable_cores", lambda: 2)
    monkeypatch.setattr("nas.latency.predictor.quota_warning", lambda threads: f"a quota stops {threads} threads")
    console = Recorder()
    open_table(None, "synthetic", 3, console)
    assert console.lines == ["a quota stops 3 threads"]


# Stopped and resumed ----------------------------------------------------------------------------------


class Stopping(Silent):
    """Ctrl-C at the n-th sign of life."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.seen = 0

    def _live(self) -> None:
        self.seen += 1
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self._live()

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        yield lambda share, text: self._live()


def outcome(folder: Path) -> tuple[dict[str, ArchSpec], list[str], dict[str, Any]]:
    figures = {n.name: (n.measured_ms, n.predicted_ms, n.estimated_top1) for n in record(folder).networks}
    return found(folder), [row["spec_id"] for row in rows(folder / "trials.csv")], figures


@pytest.mark.parametrize(
    ("changes", "shares"),
    [({}, [0.02, 0.35, 0.7, 0.95]), ({"strategy": "exact", "only": "large"}, [0.5, 0.75, 0.9])],
    ids=["both targets", "exact"],
)
def test_a_run_that_was_stopped_ends_as_if_it_never_was(
    machine: Machine, changes: dict[str, Any], shares: list[float]
) -> None:
    """Stopped at some moments, each in a run of its own that begins without a table; then in one run over and over."""
    console = Stopping(-1)
    search(request(**changes), Path("whole"), console=console)
    wanted = outcome(Path("whole"))
    for share in shares:
        _without_table()
        out = Path(f"stopped{share}")
        with pytest.raises(KeyboardInterrupt):
            search(request(**changes), out, console=Stopping(max(1, int(share * console.seen))))
        search(request(**changes), out, resume=True)
        assert outcome(out) == wanted, f"stopped at {share:.0%}"
    _without_table()
    stops, out = 0, Path("often")
    while stops < 50:
        try:
            search(request(**changes), out, resume=stops > 0, console=Stopping(30 + 10 * stops))
        except KeyboardInterrupt:
            stops += 1
        else:
            break
    assert stops > 2
    assert outcome(out) == wanted


def test_what_was_logged_after_an_attempt_is_no_candidate_of_it(machine: Machine) -> None:
    """A resumed run chooses among the same networks as an uninterrupted one."""
    folder = RunFolder.begin(Path("run"), new_record("nas", {}))
    table, target = new_table(synthetic.made_runtime()), Target("large", 1.0)
    folder.update(targets=(TargetResult(target=target, space="few", feasible_ms=(0.1, 2.0), binds=True),))
    predictor, console = LatencyPredictor(table, Silent()), Silent()
    context = SearchContext(request(), predictor, ImageNetPrior(), folder, console, console.say)
    space = load_space("few.py")
    stages = [*trials.stages_of("random", 0), *trials.stages_of("random", 1), "finalist"]
    specs = [space.sample(random.Random(seed)) for seed in range(len(stages) + 1)]
    for index, (stage, spec) in enumerate(zip([*stages, stages[0]], specs, strict=True)):
        folder.log("large", stage, Trial(None, spec, 70.0 + index, 1.0, 0.1, 70.0 + index))
    folder.log("small", stages[0], Trial(None, specs[0], 99.0, 1.0, 1.0, 99.0))
    now_ms = {spec.id: network_ms(spec) for spec in specs}  # the table's by now, whatever the log says
    for attempt in (0, 1):
        wanted = [*specs[: 3 * (attempt + 1)], specs[-1]][::-1]
        found = trials.candidates(context, target, 9.0, attempt)
        assert [logged.trial.spec for logged in found] == wanted
    limit_ms = sorted(now_ms.values())[2] + 1e-3
    found = trials.candidates(context, target, limit_ms, 1)
    assert {logged.trial.spec.id for logged in found} == {key for key, ms in now_ms.items() if ms <= limit_ms}
    slow = max(specs, key=lambda spec: now_ms[spec.id])
    measured = {slow.id: Measured(0.1, 0.1, (0.1, 0.1), 0.01)}
    folder.update_target("large", measured=measured)
    assert slow in [logged.trial.spec for logged in trials.candidates(context, target, limit_ms, 1)], "measured"


def _without_table() -> None:
    for file in Path("latency_tables").iterdir():
        file.unlink()


@pytest.mark.parametrize("before", [True, False])
def test_a_process_that_dies_while_it_logs_loses_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    search(request(only="large"), Path("whole"))
    wanted = outcome(Path("whole"))
    _without_table()
    original, calls = RunFolder.log, [0]

    def dying(self: RunFolder, *values: Any) -> None:
        calls[0] += 1
        if before and calls[0] % 7 == 0:
            raise KeyboardInterrupt
        original(self, *values)
        if calls[0] % 7 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "log", dying)
    resume = False
    for _ in range(20):
        try:
            search(request(only="large"), Path("run"), resume=resume)
        except KeyboardInterrupt:
            resume = True
        else:
            break
    assert resume
    assert outcome(Path("run")) == wanted


def test_a_finished_run_can_be_resumed_to_the_same_end(machine: Machine) -> None:
    search(request(), Path("run"))
    wanted = outcome(Path("run"))
    search(request(), Path("run"), resume=True)
    assert outcome(Path("run")) == wanted


def test_a_job_that_is_started_again_continues(machine: Machine) -> None:
    recorder = Recorder()
    search(request(only="large"), Path("run"), resume=True, console=recorder)
    assert "run holds no run to resume; a new one begins there" in recorder.lines
    before = Path("run/large.json").read_bytes()
    again = Recorder()
    search(request(only="large"), Path("run"), resume=True, console=again)
    assert not any("holds no run" in line for line in again.lines)
    assert Path("run/large.json").read_bytes() == before


def test_a_run_is_not_overwritten(machine: Machine) -> None:
    search(request(only="large"), Path("run"))
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    with pytest.raises(NasError, match="already holds a run"):
        search(request(only="large"), Path("run"))
    with pytest.raises(NasError, match=r"begun with --budget-ms 0\.7, not with --budget-ms 0\.8"):
        search(request(only="large", budget_ms=0.8), Path("run"), resume=True)
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before


def test_a_run_does_not_resume_on_an_edited_space(machine: Machine) -> None:
    """A run never holds networks of two spaces."""
    search(request(only="large"), Path("run"))
    text = Path("few.py").read_text(encoding="utf-8")
    Path("few.py").write_text(text.replace("kernels=(3, 5)", "kernels=(3, 7)"), encoding="utf-8")
    with pytest.raises(NasError, match=r"begun with --large-space few\.py \(\w+\), not with --large-space few\.py \("):
        search(request(only="large"), Path("run"), resume=True)
    Path("few.py").write_text(text, encoding="utf-8")
    search(request(only="large"), Path("run"), resume=True)


def test_optunas_messages_are_left_as_they_were(machine: Machine) -> None:
    before = optuna.logging.get_verbosity(), list(warnings.filters)
    search(request(only="large", workers=1, storage="sqlite:///s.db", study="s", trials=2), Path("run"))
    assert (optuna.logging.get_verbosity(), list(warnings.filters)) == before


def test_what_was_measured_before_a_stop_is_kept(machine: Machine) -> None:
    """A resumed run does not measure rows again, which would take minutes on a real device."""
    with pytest.raises(KeyboardInterrupt):
        search(request(only="large"), Path("run"), console=_StopsAt("latency table"))
    machine.compiled.clear()
    search(request(only="large"), Path("run"), resume=True)
    ofa = {NetworkPart(r.spec).key for r in published_networks() if r.spec.name.startswith("ofa_")}
    assert len(ofa & set(machine.compiled)) <= 1, "the published networks were measured again"


def test_rows_of_a_table_that_was_stopped_halfway_are_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BATCH", 20)
    with pytest.raises(KeyboardInterrupt):
        search(request(only="large"), Path("run"), console=_StopsAt("latency table", 0.6))
    (file,) = Path("latency_tables").iterdir()
    kept = [key for key in LatencyTable.load(file).rows if key.startswith("mbconv")]
    assert len(kept) >= 20
    machine.compiled.clear()
    search(request(only="large"), Path("run"), resume=True)
    assert not set(kept) & set(machine.compiled)


class _StopsAt(Silent):
    def __init__(self, title: str, share: float = 0.0) -> None:
        self._title = title
        self._share = share

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        def report(share: float, text: str) -> None:
            if title.startswith(self._title) and share >= self._share:
                raise KeyboardInterrupt

        yield report


# Strategies -------------------------------------------------------------------------------------------


def test_the_seed_decides_and_nothing_else(machine: Machine) -> None:
    ids = []
    for number, seed in enumerate((1, 1, 2)):
        search(request(only="large", seed=seed), Path(f"run{number}"))
        ids.append([row["spec_id"] for row in rows(Path(f"run{number}/trials.csv")) if row["stage"] == "random"])
    assert ids[0] == ids[1] != ids[2]
