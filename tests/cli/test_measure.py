"""The command that makes and checks tables, on a machine that is known."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import synthetic
from support.synthetic import Machine, apart_from_landmarks, network_ms

from nas import measure
from nas.accuracy import load_estimator
from nas.arch.loading import load_space
from nas.arch.parts import NetworkPart
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.fidelity import covered_variants
from nas.latency.landmarks import landmarks
from nas.latency.measuring import CO_RUN_NETWORKS, co_run_networks, measure_missing, new_table
from nas.latency.table import LatencyTable, space_parts
from nas.search.near_optimum import PER_VARIANT

LANDMARKS = {NetworkPart(spec).key for spec in landmarks()}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    synthetic.empty_folder(monkeypatch, tmp_path)
    return synthetic.install(monkeypatch)


@pytest.fixture
def measured(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        measure.main(["--space", "few.py", "--runtime", "synthetic", *arguments])
        return capsys.readouterr().out

    return call


def own_table() -> LatencyTable:
    return LatencyTable.load(new_table(synthetic.made_runtime()).path)


def test_one_variant_of_each_space_by_default(measured: Callable[..., str], machine: Machine) -> None:
    out = measured()
    table = own_table()
    assert covered_variants(table, load_space("few.py")) == [(0.75, 96)]
    assert f"{table.path}: {len(table.rows)} rows, {len(table.rows)} of them new, corrected by " in out
    # Those that ran among the rows, and those near the optima. The table lacks the rows of the reference network and of
    # the landmarks.
    learned = table.networks.keys() - LANDMARKS
    assert len(learned) == len(table.networks) - len(LANDMARKS)
    assert CO_RUN_NETWORKS + 1 < len(learned) <= CO_RUN_NETWORKS + PER_VARIANT
    assert f"corrected by {len(learned)} networks; reference mobilenet_v3_large" in out
    assert f"{network_ms(published_spec('mobilenet_v3_large')):.2f} ms" in out
    machine.ran.clear()
    assert "0 of them new" in measured()
    assert not machine.ran
    assert own_table().networks == table.networks


def test_all_variants(measured: Callable[..., str]) -> None:
    measured("--all")
    assert covered_variants(own_table(), load_space("few.py")) == list(load_space("few.py").variants)


def test_rows_that_a_budget_needs(measured: Callable[..., str]) -> None:
    measured("--budget-ms", "0.3")
    variants = covered_variants(own_table(), load_space("few.py"))
    assert variants
    assert all(network_ms(load_space("few.py").smallest(variant)) <= 0.3 for variant in variants)


def test_rows_that_a_budget_needs_at_the_widths_asked_for(measured: Callable[..., str]) -> None:
    measured("--budget-ms", "0.3", "--widths", "1.0")
    variants = covered_variants(own_table(), load_space("few.py"))
    assert {variant.width for variant in variants} == {1.0}


def test_a_table_elsewhere(measured: Callable[..., str]) -> None:
    """The table is made at the path that is named, and filled there the next time."""
    assert "tables/mine.json: " in measured("--table", "tables/mine.json")
    rows = len(LatencyTable.load("tables/mine.json").rows)
    assert f"tables/mine.json: {rows} rows, 0 of them new" in measured("--table", "tables/mine.json")
    measured("--table", "tables/mine.json", "--all")
    assert len(LatencyTable.load("tables/mine.json").rows) > rows
    assert not Path("latency_tables").exists()


def test_a_check_of_two_populations_is_written_into_the_table(measured: Callable[..., str]) -> None:
    measured()
    known = set(own_table().networks)
    out = measured("--check", "--networks", "10")
    table = own_table()
    for population, fidelity in zip(("random", "near-optimal"), table.fidelity, strict=True):
        assert f"5 {population} networks: mean error 0.0%" in out
        assert (fidelity.population, fidelity.networks, fidelity.within_5_percent) == (population, 5, 1)
    assert f"{table.path} has learned from them; another check shows what it is worth by now" in out
    assert known < set(table.networks)
    assert len(table.networks) == len(known) + 10
    assert {table.networks[key].times for key in table.networks.keys() - known} == {2}


def test_half_of_a_check_is_near_the_front(measured: Callable[..., str]) -> None:
    """Random networks are seldom as accurate as a near-optimal one that is faster."""
    measured()
    known, estimator = set(own_table().networks), load_estimator("imagenet-prior")
    measured("--check", "--networks", "40")
    new = [ArchSpec.from_dict(one.spec) for key, one in own_table().networks.items() if key not in known]
    space = load_space("few.py").at([(0.75, 96)])
    assert all(space.contains(spec) for spec in new)
    times = own_table().predict_ms(new)
    top1 = estimator.estimate(new).top1
    on_front = [not ((times < time) & (top1 > score + 1e-6)).any() for time, score in zip(times, top1, strict=True)]
    assert 15 <= sum(on_front) < 30


def errors_of_checks(measured: Callable[..., str], machine: Machine) -> list[float]:
    """Return the larger error of two populations in each of three checks, no two of which measure one network."""
    errors, drawn = [], []
    for _ in range(3):
        machine.compiled.clear()
        measured("--check", "--networks", "40")
        errors.append(max(fidelity.mape for fidelity in own_table().fidelity))
        networks = {key for key in machine.compiled if key.startswith("network ")}
        drawn.append(networks - {own_table().reference.key, *LANDMARKS})
    assert not drawn[0] & drawn[1]
    assert not (drawn[0] | drawn[1]) & drawn[2]
    assert all(len(keys) == 40 for keys in drawn)
    return errors


def test_a_check_lets_the_table_learn_and_the_next_draws_others(measured: Callable[..., str], machine: Machine) -> None:
    """The table has rows alone, and whole networks take 10 percent more beside the reference network."""
    table = new_table(synthetic.made_runtime())
    measure_missing(table, space_parts(load_space("few.py").at([(0.75, 96)])))
    table.save()
    machine.whole = apart_from_landmarks(lambda spec: 1.1)
    errors = errors_of_checks(measured, machine)
    assert errors[0] == pytest.approx(1 - 1 / 1.1, abs=0.005)
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.2 * errors[0]


def test_checks_overcome_what_the_table_learned_before(measured: Callable[..., str], machine: Machine) -> None:
    """Since the table was made, whole networks take 10 percent more. The first ones still say otherwise."""
    measured()
    assert len(own_table().networks) > CO_RUN_NETWORKS
    machine.whole = apart_from_landmarks(lambda spec: 1.1)
    errors = errors_of_checks(measured, machine)
    assert errors[0] == pytest.approx(1 - 1 / 1.1, abs=0.005)
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.5 * errors[0]


def test_a_check_where_no_network_is_left(measured: Callable[..., str]) -> None:
    """A check of a space of one network measures it, and the next finds none; the figures of the first stay."""
    source = Path("few.py").read_text(encoding="utf-8")
    choices = re.search(r"few = dict\(.*", source)
    assert choices
    one = 'few = dict(depths=(1,), kernels=(3,), expansions=(3,), se=(False,), activations=("relu",))'
    Path("one.py").write_text(source.replace(choices[0], one), encoding="utf-8")
    measured()
    assert "1 random networks: mean error 0.0%" in measured("--space", "one.py", "--check")
    before = own_table().fidelity
    out = measured("--space", "one.py", "--check")
    for population in ("random", "near-optimal"):
        assert f"all {population} networks that were drawn are measured already" in out
    assert "nan" not in out
    assert own_table().fidelity == before != ()


def test_contradicting_networks_are_measured_again_and_listed(measured: Callable[..., str], machine: Machine) -> None:
    odd = co_run_networks(load_space("few.py").at([(0.75, 96)]))[2]
    machine.whole = lambda spec: 1.6 if spec.id == odd.id else 1.0
    out = measured()
    assert "1 networks contradict their rows by over 25%; they are measured again" in out
    assert "1 networks still do, and the table does not learn from them:" in out
    ms = network_ms(odd)
    assert f"  {odd.id} at 96 px: {1.6 * ms:.3f} ms measured, {ms:.3f} ms predicted" in out
    table, key = own_table(), NetworkPart(odd).key
    assert machine.compiled.count(key) == 2
    assert table.contradicting == [odd]
    assert table.networks[key].times == 1, "the first measurement is forgotten"
    machine.whole = lambda spec: 1.0
    out = measured()
    assert "1 networks contradict" in out
    assert "still do" not in out
    assert own_table().contradicting == []
    assert "contradict" not in measured()


def test_rows_that_stay_uncertain_are_listed_and_measured_again(measured: Callable[..., str], machine: Machine) -> None:
    machine.noise = 0.8
    out = measured()
    noisy = own_table().noisy()
    assert noisy
    assert f"{len(noisy)} rows are still uncertain by over 10%" in out
    assert all(f"  {key}: " in out for key in noisy)
    machine.noise = 0.0
    machine.compiled.clear()
    out = measured()
    assert f"{len(noisy)} rows were uncertain" in out
    assert set(noisy) <= set(machine.compiled)
    assert not own_table().noisy()


def test_a_row_that_is_measured_twice_is_counted_once(measured: Callable[..., str], machine: Machine) -> None:
    """The second space shares its rows with the first, which left them uncertain."""
    machine.noise = 0.8
    out = measured("--space", "few.py", "few.py")
    rows = len(own_table().rows)
    assert " rows were uncertain by over 10%; they are measured again" in out
    assert f": {rows} rows, {rows} of them new, corrected by " in out
    assert f": {rows} rows, 0 of them new, corrected by " in measured()


def test_uncertain_rows_of_other_variants_are_kept(measured: Callable[..., str], machine: Machine) -> None:
    machine.noise = 0.8
    measured("--widths", "1.0", "--resolutions", "96")
    noisy = own_table().noisy()
    machine.noise = 0.0
    out = measured("--widths", "1.0", "--resolutions", "128")
    assert "were uncertain" not in out
    assert noisy
    assert own_table().noisy() == noisy


def test_another_devices_table_is_checked_where_that_is_allowed(measured: Callable[..., str], machine: Machine) -> None:
    measured()
    table = own_table()
    replace(table, device=replace(table.device, cpu="Another CPU")).save("other.json")
    before = Path("other.json").read_bytes()
    machine.ran.clear()
    with pytest.raises(NasError, match="of another device: Another CPU"):
        measured("--table", "other.json", "--allow-other-device")
    assert not machine.ran
    out = measured("--table", "other.json", "--check", "--allow-other-device", "--networks", "10")
    assert "note: the table is of another device; its predictions are compared" in out
    assert "5 random networks: mean error 0.0%" in out
    assert "5 near-optimal networks: mean error 0.0%" in out
    assert "learned" not in out
    assert Path("other.json").read_bytes() == before


def test_what_another_device_differs_by_is_no_tilt(measured: Callable[..., str], machine: Machine) -> None:
    """Here, small networks are the faster the smaller they are, the landmarks as well."""
    measured()
    table = own_table()
    replace(table, device=replace(table.device, cpu="Another CPU")).save("other.json")
    reference_ms = network_ms(published_spec("mobilenet_v3_large"))
    machine.whole = lambda spec: min(1.0, (network_ms(spec) / reference_ms) ** 0.08)
    out = measured("--table", "other.json", "--check", "--allow-other-device", "--networks", "10")
    at = load_space("few.py").at([(0.75, 96)])
    fastest, slowest = (machine.whole(spec) for spec in (at.smallest((0.75, 96)), at.largest((0.75, 96))))
    assert fastest < slowest < 0.9
    for population in ("random", "near-optimal"):
        found = re.search(rf"5 {population} networks: mean error ([\d.]+)%", out)
        assert found
        assert 100 * (1 / slowest - 1) - 0.2 < float(found[1]) < 100 * (1 / fastest - 1) + 0.2


def test_a_check_of_a_space_that_was_never_measured(measured: Callable[..., str]) -> None:
    measured()
    with pytest.raises(NasError, match="has all rows of no variant of mobilenet_v3_large"):
        measure.main(["--space", "mobilenet_v3_large", "--runtime", "synthetic", "--check"])
    assert json.loads(Path(str(own_table().path)).read_text(encoding="utf-8"))["fidelity"] == []


def test_the_command_without_check_measures_what_a_check_needs(measured: Callable[..., str]) -> None:
    Path("others.py").write_text(synthetic.SPACE.replace('"few"', '"others"').replace("out=40", "out=48"))
    measured("--table", "own.json")
    command = ["--space", "others.py", "--runtime", "synthetic", "--table", "own.json", "--networks", "5"]
    with pytest.raises(NasError, match="no variant of others; the same command without --check measures them"):
        measure.main([*command, "--check"])
    measure.main(command)
    measure.main([*command, "--check"])


def test_a_damaged_table_is_measured_again_as_it_says(measured: Callable[..., str]) -> None:
    measured()
    path = own_table().path
    path.write_text(path.read_text(encoding="utf-8")[:500], encoding="utf-8")
    with pytest.raises(NasError, match=r"not JSON .*; remove it and measure it again with `python -m nas\.measure`"):
        measured()
    path.unlink()
    measured()
    assert own_table().rows


def test_threads_and_precision_have_tables_of_their_own(
    measured: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.latency.predictor.usable_cores", lambda: 1)
    monkeypatch.setattr("nas.latency.predictor.quota_warning", lambda threads: None)
    out = measured("--threads", "2", "--precision", "int8")
    assert "warning: 2 threads wait for each other on 1 core" in out
    assert "synthetic 1.0, 2 threads, int8" in out
    (file,) = Path("latency_tables").iterdir()
    assert file.name.endswith("-synthetic-t2-int8.json")
    assert "warning" not in measured()
    assert len(list(Path("latency_tables").iterdir())) == 2


def test_a_profile_is_of_runtimes_that_have_one(measured: Callable[..., str]) -> None:
    with pytest.raises(NasError, match="synthetic cannot profile"):
        measured("--profile", "mobilenet_v3_small")
    Path("tiny.json").write_text(load_space("few.py").smallest((0.75, 96)).to_json(), encoding="utf-8")
    out = measured("--profile", "tiny.json", "--runtime", "onnxruntime", "--precision", "int8")
    assert "few" in out.splitlines()[0]
    assert "QLinearConv" in out
    assert not Path("latency_tables").exists()
