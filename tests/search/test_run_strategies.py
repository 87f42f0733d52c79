"""A search with its limits and strategies, on a known machine, in a space of few choices."""

import functools
import itertools
import json
import shlex
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from support import synthetic
from support.postgresql import Server
from support.searching import found, request, rows, whole_ms
from support.synthetic import Machine
from support.worker_processes import GONE, run_impatient_worker

from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.spec import ArchSpec, load_results
from nas.console import Silent
from nas.errors import NasError
from nas.latency.measuring import new_table
from nas.latency.predictor import LatencyPredictor
from nas.latency.table import LatencyTable
from nas.report.plots.diagram import diagram_data
from nas.report.writing import write_report
from nas.runs.reading import load_run
from nas.search import sharing
from nas.search.optimum import LOOP_TRIALS
from nas.search.request import targets_of
from nas.search.run import search
from nas.search.storage import open_storage, open_study
from nas.search.workers import WORKER


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    synthetic.empty_folder(monkeypatch, tmp_path)
    return synthetic.install(monkeypatch)


def exact(**changes: Any) -> Any:
    return request(**{"strategy": "exact", "only": "large"} | changes)


# Limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"max_params": 1_300_000}, {"max_memory_mb": 5.4}], ids=["parameters", "memory"])
def test_limits_are_kept_by_all_that_was_proposed_and_by_what_is_found(machine: Machine, limit: dict[str, Any]) -> None:
    search(exact(), Path("free"))
    search(exact(**limit), Path("limited"))
    costs = {}
    for folder in ("free", "limited"):
        spec = found(Path(folder))["large"]
        assert whole_ms(machine, spec) <= 0.7
        costs[folder] = count_cost(spec)
        kept = load_results(Path(folder) / "large.json")["cost"]
        assert (kept["params"], kept["param_bytes"]) == (costs[folder].params, 4 * costs[folder].params)
        assert kept["memory_bytes"] == kept["param_bytes"] + kept["peak_activation_bytes"]

    def keeps(params: int, peak_bytes: int) -> bool:
        return params <= limit.get("max_params", 1e9) and 4 * params + peak_bytes <= 1e6 * limit.get(
            "max_memory_mb", 1e9
        )

    assert not keeps(costs["free"].params, costs["free"].peak_activation_bytes), "the limit does not bind"
    assert keeps(costs["limited"].params, costs["limited"].peak_activation_bytes)
    for row in rows(Path("limited/trials.csv")):
        assert keeps(int(row["params"]), int(row["peak_activation_bytes"]))


def test_a_limit_that_nothing_keeps_names_the_smallest_that_can_be_kept(machine: Machine) -> None:
    space = load_space("few.py")
    costs = [count_cost(space.smallest(variant)) for variant in space.variants]
    least = min(cost.params for cost in costs)
    with pytest.raises(NasError, match=f"few has at most 0.01M parameters; .* --max-params {least}") as error:
        search(exact(max_params=10_000), Path("run"))
    assert "\n" not in str(error.value)
    assert not Path("run").exists()
    assert machine.ran == [], "measured before it was refused"
    with pytest.raises(NasError, match=r"few has at most 1 MB of memory; .* --max-memory-mb \d") as error:
        search(exact(max_memory_mb=1), Path("run"))
    named = float(str(error.value).partition("--max-memory-mb ")[2])
    search(exact(max_memory_mb=named, budget_ms=5), Path("run"))
    search(exact(max_params=least, budget_ms=5), Path("run2"))
    assert count_cost(found(Path("run2"))["large"]).params == least


def test_limits_and_costs_are_those_of_the_tables_classes(machine: Machine) -> None:
    space = load_space("few.py")
    table = new_table(synthetic.made_runtime(), 10, "ten.json")
    LatencyPredictor(table, Silent()).fill_space(space.at([(0.75, 96)]), "rows")
    least = min(count_cost(space.smallest(variant), 10).params for variant in space.variants)
    with pytest.raises(NasError, match=f"few has at most 0.01M parameters; .* --max-params {least}$"):
        search(exact(max_params=10_000, table="ten.json"), Path("run"))
    run = search(exact(max_params=least, table="ten.json", budget_ms=5), Path("run"))
    spec, results = found(Path("run"))["large"], load_results(Path("run/large.json"))
    cost = count_cost(spec, 10)
    assert (results["cost"]["params"], results["cost"]["conv_macs"]) == (least, cost.conv_macs)
    assert results["cost"]["memory_bytes"] == cost.memory_bytes
    assert results["notes"] == ["latencies, parameters and memory are those of networks with 10 classes"]
    for network in run.record.networks:
        own = count_cost(network.spec, 10)
        assert (network.macs, network.params) == (own.macs, own.params)
    for row in rows(Path("run/trials.csv")):
        assert int(row["params"]) == least
    boxes = diagram_data(load_run(Path("run")), "large").boxes
    assert boxes[-1].out == 10


def test_limits_that_leave_nothing_within_the_budget_are_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.search.proof.fastest_ms", lambda latency, limits: 0.9)
    with pytest.raises(NasError, match=r"few that keeps the other limits is as fast as 0\.\d+ ms, .* some 0\.9 ms"):
        search(exact(max_params=1_300_000), Path("run"))


def test_a_limit_that_leaves_only_fast_networks_is_not_searched_again(machine: Machine) -> None:
    """The search ends after one attempt, since no network within the other limits is as slow as the budget."""
    space = load_space("few.py")
    least = min(count_cost(space.smallest(variant)).params for variant in space.variants)
    (searched,) = search(exact(max_params=least, widths=(0.75,)), Path("run")).record.targets
    spec = found(Path("run"))["large"]
    assert count_cost(spec).params == least
    assert whole_ms(machine, spec) < 0.9 * 0.7 < 0.7 < searched.feasible_ms[1]
    assert len(searched.attempts) == 1


# The proven optimum -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["exact", "random"])
def test_the_proven_optimum_stands_beside_what_a_loop_found(machine: Machine, strategy: str) -> None:
    run = search(exact(strategy=strategy), Path("run"))
    optimum = run.record.targets[0].optimum
    loop, best = optimum.loop, optimum.best
    assert loop.strategy == ("tpe" if strategy == "exact" else "random")
    trials = rows(Path("run/trials.csv"))
    stage = [row for row in trials if row["stage"] == loop.strategy]
    if strategy == "random":
        stage = [row for row in trials if row["stage"].startswith("random")]
        assert loop.trials == len(stage) >= 6
        assert loop.top1 in [pytest.approx(float(row["top1"]), abs=1e-3) for row in stage]
    else:
        first = next(row for row in trials if row["stage"] == "exact")
        assert loop.trials == LOOP_TRIALS
        assert best.spec_id in {row["spec_id"] for row in trials if row["stage"].startswith("exact")}
        assert best.top1 >= float(first["top1"]) - 1e-3
    ranked = [best, *optimum.runners_up]
    top1 = [network.top1 for network in ranked]
    assert top1 == sorted(top1, reverse=True)
    assert len({network.spec_id for network in ranked}) == 5
    assert loop.top1 <= best.top1 + 1e-4
    assert all(network.predicted_ms <= optimum.limit_ms + 1e-4 for network in ranked)


# Several budgets --------------------------------------------------------------------------------------


def test_several_budgets_are_one_run(machine: Machine) -> None:
    budgets = {"large_0.5ms": 0.5, "large_0.7ms": 0.7}
    run = search(
        request(budgets_ms=(0.5, 0.7), only="large", budget_ms=0.5, strategy="exact", small_budget_ms=None), Path("run")
    )
    assert {result.target.name for result in run.record.targets} == set(budgets)
    top1 = {}
    for target, budget_ms in budgets.items():
        spec = ArchSpec.load(Path("run") / f"{target}.json")
        assert spec.name == target
        assert 0.9 * budget_ms < whole_ms(machine, spec) <= budget_ms
        top1[target] = load_results(Path("run") / f"{target}.json")["accuracy"]["top1"]
        search(exact(budget_ms=budget_ms), Path(target))
        assert found(Path(target))["large"].id == spec.id, "alone it is another"
    assert top1["large_0.5ms"] < top1["large_0.7ms"]
    trials, front = rows(Path("run/trials.csv")), rows(Path("run/front.csv"))
    assert {row["target"] for row in trials} == set(budgets)
    for one in front:
        beaten = [r for r in trials if float(r["latency_ms"]) < float(one["latency_ms"]) and r["top1"] >= one["top1"]]
        assert not beaten, "the front is not that of all budgets together"


def test_smalls_budgets_are_their_share_of_larges(machine: Machine) -> None:
    run = search(request(budgets_ms=(1.1, 1.5), small_budget_ms=None, trials=3), Path("run"))
    wanted = {"large_1.1ms": 1.1, "large_1.5ms": 1.5, "small_0.341ms": 0.341, "small_0.465ms": 0.465}
    assert {r.target.name: round(r.target.budget_ms, 3) for r in run.record.targets} == wanted


def test_a_front_covers_the_range_and_resumes(machine: Machine) -> None:
    wanted = request(front=4, only="large", budget_ms=0.0, strategy="exact", trials=3, small_budget_ms=None)
    run = search(wanted, Path("run"))
    results = run.record.targets
    assert len(results) == 4
    low, high = results[0].feasible_ms
    budgets = [result.target.budget_ms for result in results]
    assert low < budgets[0] < 1.1 * low
    assert budgets[-1] == pytest.approx(high, abs=1e-3)
    ratios = [after / before for before, after in itertools.pairwise(budgets)]
    assert max(ratios) == pytest.approx(min(ratios), rel=1e-2)
    for result in results:
        spec = ArchSpec.load(Path("run") / f"{result.target.name}.json")
        assert whole_ms(machine, spec) <= result.target.budget_ms
    again = search(wanted, Path("run"), resume=True)
    assert {n.name: n.spec for n in again.record.networks} == {n.name: n.spec for n in run.record.networks}


def test_budgets_that_are_nearly_equal_are_refused(machine: Machine) -> None:
    with pytest.raises(NasError, match=r"two budgets of Large are \(nearly\) 0\.7 ms; name each once"):
        search(request(budgets_ms=(0.7, 0.7001), small_budget_ms=None), Path("run"))
    with pytest.raises(NasError, match="--small-budget-ms goes with one budget"):
        targets_of((0.7, 0.8), small_budget_ms=0.5)
    with pytest.raises(NasError, match=r"the budget of Large is -1 ms"):
        search(request(budgets_ms=(0.7, -1.0), small_budget_ms=None), Path("run"))


def test_the_report_shows_all_budgets(machine: Machine) -> None:
    wanted = request(budgets_ms=(1.1, 1.5, 1.9), small_budget_ms=None, trials=3, strategy="exact")
    search(wanted, Path("run"))
    page = write_report(Path("run")).read_text(encoding="utf-8")
    for name in ("Large at 1.1 ms", "Large at 1.9 ms", "Small at 0.465 ms"):
        assert f"<strong>Found {name}</strong>" in page
        assert f"<summary>In found {name}</summary>" in page
    assert {path.stem for path in Path("run/figures").glob("*.png")} >= {"front", "large_1.1ms", "small_0.341ms"}
    assert page.count("run/small_0.341ms.json") >= 1


# MnasNet's reward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["exact", "random"])
def test_a_reward_weighs_latency_instead_of_limiting_it(machine: Machine, strategy: str) -> None:
    chosen, rewards = {}, {}
    for w in (-0.02, -1.0):
        out = Path(f"run{w}")
        run = search(exact(strategy=strategy, objective="mnasnet", reward_w=w, trials=40), out)
        spec = found(out)["large"]
        (network,) = (n for n in run.record.networks if n.found)
        chosen[w] = whole_ms(machine, spec)
        assert network.measured_ms == pytest.approx(chosen[w], rel=1e-3)
        for row in rows(out / "trials.csv"):
            rewards[w] = max(rewards.get(w, 0), float(row["top1"]) * (float(row["latency_ms"]) / 0.7) ** w)
        assert network.estimated_top1 * (chosen[w] / 0.7) ** w == pytest.approx(rewards[w], rel=2e-3)
    assert chosen[-0.02] > 0.7 > chosen[-1.0]
    assert search(exact(strategy=strategy), Path("hard")).record.networks[0].measured_ms <= 0.7


def test_objectives_that_make_no_sense_are_refused(machine: Machine) -> None:
    with pytest.raises(NasError, match="unknown objective 'speed'; known: top1, mnasnet"):
        search(exact(objective="speed"), Path("run"))
    with pytest.raises(NasError, match=r"--reward-w is 0.07; it must be below 0"):
        search(exact(objective="mnasnet", reward_w=0.07), Path("run"))


# Workers ----------------------------------------------------------------------------------------------


def test_workers_share_a_search(machine: Machine) -> None:
    search(exact(strategy="random", workers=2, trials=8), Path("run"))
    assert whole_ms(machine, found(Path("run"))["large"]) <= 0.7
    own = [row for row in rows(Path("run/trials.csv")) if row["stage"] == "random"]
    assert 8 <= len({row["spec_id"] for row in own}) == len(own) <= 9


def test_what_a_killed_run_was_evaluating_is_done_by_the_resumed_one(machine: Machine) -> None:
    wanted = exact(strategy="random", workers=2, trials=4)
    search(wanted, Path("run"))
    study = open_study(Path("run/workers.log"), "large/random")
    before = len(study.trials)
    lost = study.trials[0]
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params=lost.params,
            distributions=lost.distributions,
            user_attrs={WORKER: "a process that is gone"},
        )
    )
    file = Path("run/run.json")  # of a run that was killed in its first attempt
    data = json.loads(file.read_text(encoding="utf-8"))
    data["targets"][0] |= {"attempts": [], "measured": {}, "optimum": None}
    file.write_text(json.dumps(data), encoding="utf-8")
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(600)
    search(wanted, Path("run"), resume=True)
    signal.alarm(0)
    states = Counter(trial.state for trial in study.get_trials()[before:])
    assert states == {TrialState.FAIL: 1, TrialState.COMPLETE: 1}


def _late(*_: object) -> None:
    raise TimeoutError("it waits for a process that is gone")


def test_a_storage_is_shared_by_name(machine: Machine) -> None:
    shared = {"strategy": "random", "storage": "sqlite:///shared.db", "study": "common", "trials": 5}
    search(exact(**shared), Path("one"))
    search(exact(**shared), Path("two"))
    of = {
        name: [row["spec_id"] for row in rows(Path(name) / "trials.csv") if row["stage"] == "random"]
        for name in ("one", "two")
    }
    assert of["one"] == of["two"], "the second evaluated what the first had"
    with pytest.raises(NasError, match=r"study common belongs to another search \(strategy\); name another --study"):
        search(exact(**shared | {"strategy": "tpe"}), Path("three"))
    with pytest.raises(NasError, match=r"study common belongs to another search \(budget_ms\); name another --study"):
        search(exact(**shared | {"budget_ms": 0.701}), Path("four"))
    with pytest.raises(NasError, match="--storage and --study go together"):
        search(exact(**shared | {"study": None}), Path("three"))


def test_what_workers_elsewhere_predicted_is_measured_on_the_device(machine: Machine) -> None:
    search(exact(), Path("first"))
    (file,) = Path("latency_tables").iterdir()
    table = LatencyTable.load(file)
    replace(table, device=replace(table.device, cpu="Another CPU")).save("other.json")
    shared = {"strategy": "random", "storage": "sqlite:///shared.db", "study": "s", "trials": 5}
    search(exact(**shared, table="other.json", allow_other_device=True), Path("worker"))
    run = search(exact(**shared), Path("device"))
    searched = [
        [r["spec_id"] for r in rows(Path(f) / "trials.csv") if r["stage"] == "random"] for f in ("worker", "device")
    ]
    assert len(searched[0]) == 5
    assert searched[0] == searched[1]
    assert run.record.networks[0].measured_ms == pytest.approx(whole_ms(machine, found(run.path)["large"]), rel=1e-3)


def test_a_data_base_that_goes_away_for_good_ends_the_search_in_one_line(
    machine: Machine, postgresql: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was finished is kept, and the resumed run evaluates the rest."""
    gone = Path("run").absolute().with_name(GONE)
    monkeypatch.setattr(sharing, "run_worker", run_impatient_worker)
    monkeypatch.setattr("nas.search.run.open_storage", functools.partial(open_storage, heartbeat=1))
    wanted = exact(strategy="random", storage=postgresql.url, study="s", workers=2, trials=8)
    kept: list[FrozenTrial] = []

    def stop() -> None:
        study = open_study(postgresql.url, "s/large/random")
        while len(kept) < 3:
            time.sleep(0.1)
            kept[:] = study.get_trials(states=(TrialState.COMPLETE,))
        postgresql.stop()
        gone.touch()

    stopping = threading.Thread(target=stop, daemon=True)
    stopping.start()
    with pytest.raises(NasError, match=r"did not answer for 1 s \(.*continue with --resume") as error:
        search(wanted, Path("run"))
    stopping.join()
    postgresql.start()
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
    search(replace(wanted, workers=1), Path("run"), resume=True)
    trials = open_study(postgresql.url, "s/large/random").get_trials()
    assert not [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert kept == [trials[trial.number] for trial in kept]
    assert len({row["spec_id"] for row in rows(Path("run/trials.csv")) if row["stage"] == "random"}) == 8


@pytest.mark.parametrize("url", ["postgresql://me:secret@host/db", "postgresql://me:x /secret@x@host/db"])
def test_passwords_are_not_written_down(monkeypatch: pytest.MonkeyPatch, machine: Machine, url: str) -> None:
    monkeypatch.setattr("sys.argv", ["nas", "--storage", url, "--study", "s"])
    run = search(exact(trials=2), Path("run"))
    assert shlex.split(run.record.command)[-4:] == ["--storage", "postgresql://me:***@host/db", "--study", "s"]
    assert not any(b"secret" in file.read_bytes() for file in Path("run").rglob("*") if file.is_file())
    with pytest.raises(NasError) as error:
        search(exact(storage="nosuch://me:secret@host/db", study="s"), Path("other"))
    assert "secret" not in str(error.value)
