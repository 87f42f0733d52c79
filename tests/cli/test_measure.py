"""The command that makes and checks tables, on a machine that is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import synthetic
from support.synthetic import Machine, network_ms

from nas import measure
from nas.arch.loading import load_space
from nas.arch.published import published_spec
from nas.errors import NasError
from nas.latency.fidelity import covered_variants
from nas.latency.measuring import new_table
from nas.latency.table import LatencyTable


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


def test_one_variant_of_each_space_by_default(measured: Callable[..., str]) -> None:
    out = measured()
    table = own_table()
    assert covered_variants(table, load_space("few.py")) == [(0.75, 96)]
    assert f"{table.path}: {len(table.rows)} rows, {len(table.rows)} of them new; reference mobilenet_v3_large" in out
    assert f"{network_ms(published_spec('mobilenet_v3_large')):.2f} ms" in out
    assert "0 of them new" in measured()


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


def test_a_check_is_written_into_the_table(measured: Callable[..., str], machine: Machine) -> None:
    measured()
    out = measured("--check", "--networks", "10")
    assert "10 random networks: mean error 0.0%" in out
    fidelity = own_table().fidelity
    assert fidelity is not None
    assert fidelity.networks == 10
    assert fidelity.within_5_percent == 1
    assert "no longer holds" not in out
    machine.whole = lambda spec: 1.25 if spec.name == "mobilenet_v3_large" else 1.0
    assert "the table no longer holds: its times multiplied by 0.800 would agree" in measured(
        "--check", "--networks", "5"
    )
    assert "multiplied by 0.800" in measured("--check", "--networks", "5", "--recalibrate")
    assert "mean error 0.0%" in measured("--check", "--networks", "5")
    assert own_table().calibrations[-1].factor == pytest.approx(0.8)


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
    assert f": {rows} rows, {rows} of them new; " in out
    assert f": {rows} rows, 0 of them new; " in measured()


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
    out = measured("--table", "other.json", "--check", "--allow-other-device", "--networks", "5")
    assert "note: the table is of another device; its predictions are compared" in out
    assert "5 random networks: mean error 0.0%" in out
    assert Path("other.json").read_bytes() == before


def test_a_check_of_a_space_that_was_never_measured(measured: Callable[..., str]) -> None:
    measured()
    with pytest.raises(NasError, match="has all rows of no variant of mobilenet_v3_large"):
        measure.main(["--space", "mobilenet_v3_large", "--runtime", "synthetic", "--check"])
    assert json.loads(Path(str(own_table().path)).read_text(encoding="utf-8"))["fidelity"] is None


@pytest.mark.parametrize("options", [[], ["--recalibrate"]])
def test_the_command_without_check_measures_what_a_check_needs(
    measured: Callable[..., str], options: list[str]
) -> None:
    Path("others.py").write_text(synthetic.SPACE.replace('"few"', '"others"').replace("out=40", "out=48"))
    measured("--table", "own.json")
    command = ["--space", "others.py", "--runtime", "synthetic", "--table", "own.json", "--networks", "5"]
    with pytest.raises(NasError, match="no variant of others; the same command without --check and --recalibrate meas"):
        measure.main([*command, "--check", *options])
    measure.main(command)
    measure.main([*command, "--check", *options])


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
