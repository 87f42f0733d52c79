"""Tables measured on a machine that is known to the last digit, and files that are damaged on purpose."""

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic
from support.synthetic import Machine, added_ms, network_ms, part_ms, pool_ms

from nas.arch.loading import load_space
from nas.arch.parts import BlockPart, NetworkPart, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec
from nas.errors import NasError
from nas.latency.device import Device
from nas.latency.fidelity import fidelity_of
from nas.latency.measuring import co_run_networks, measure_missing, new_table
from nas.latency.networks import measure_latency
from nas.latency.runtimes import Runtime
from nas.latency.table import LatencyTable, RuntimeId, space_parts, table_file

REFERENCE_MS = network_ms(published_spec("mobilenet_v3_large"))
# Rows keep seven digits after the point; some forty of them are in a network.
EXACT = 40 * 1e-7 * REFERENCE_MS
VARIANTS = [(0.5, 96), (1.0, 96)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return synthetic.install(monkeypatch)


def runtime() -> Runtime:
    return synthetic.made_runtime()


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """Small enough to be measured in a second, with SE and both activations."""
    space = load_space("mobilenet_v3_small").at(VARIANTS)
    stages = tuple(dataclasses.replace(s, kernels=(3, 5), expansions=(3, 4), depths=(1, 2)) for s in space.stages)
    return dataclasses.replace(space, stages=stages)


@pytest.fixture(scope="module")
def measured(space: SearchSpace) -> Iterator[LatencyTable]:
    with pytest.MonkeyPatch.context() as patch:
        synthetic.install(patch)
        table = new_table(runtime())
        measure_missing(table, space_parts(space))
        yield table


@pytest.fixture
def table(machine: Machine, measured: LatencyTable) -> LatencyTable:
    """Every row of the space, not yet saved."""
    return dataclasses.replace(measured, rows=dict(measured.rows))


# Prediction -------------------------------------------------------------------------------------------


def test_predictions_are_what_networks_take(table: LatencyTable, space: SearchSpace) -> None:
    """The contexts and poolings around the parts cancel."""
    specs = [space.sample(random.Random(seed)) for seed in range(50)]
    predicted = table.predict_ms(specs)
    assert predicted == pytest.approx([network_ms(spec) for spec in specs], abs=EXACT)
    assert table.reference_ms == pytest.approx(REFERENCE_MS)
    measured = measure_latency(specs[:5], table=table)
    assert [m.normalised_ms for m in measured] == pytest.approx(list(predicted[:5]), abs=EXACT)
    assert table.predict_ms([]).shape == (0,)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet_a1"])
def test_published_networks_too(machine: Machine, name: str) -> None:
    """ReLU6, activations behind the last convolution, heads without a hidden layer."""
    table, spec = new_table(runtime()), published_spec(name)
    measure_missing(table, parts_of(spec))
    assert table.predict_ms([spec])[0] == pytest.approx(network_ms(spec), abs=EXACT)


def test_compiled_predictions_are_the_predictions(table: LatencyTable, space: SearchSpace) -> None:
    specs = [space.sample(random.Random(seed)) for seed in range(200)]
    assert table.compile(space)(space.encode(specs)) == pytest.approx(table.predict_ms(specs), rel=1e-12)


def test_the_breakdown_sums_to_the_prediction(table: LatencyTable, space: SearchSpace) -> None:
    spec = space.sample(random.Random(1))
    rows = table.breakdown(spec)
    assert [name for name, _ in rows] == ["stem", *(f"block {n + 1}" for n in range(len(spec.blocks))), "head"]
    assert sum(ms for _, ms in rows) == pytest.approx(table.predict_ms([spec])[0])
    # A block carries the pooling behind it, and leaves out the one behind the block before.
    placed = list(spec.walk())[2]
    pools = pool_ms(placed.block.out, placed.out_size) - pool_ms(placed.in_channels, placed.in_size)
    assert rows[3][1] == pytest.approx(added_ms(BlockPart(*placed)) + pools, abs=EXACT)


def test_stairs_are_kept_and_never_smoothed(machine: Machine) -> None:
    """Every width has its measured latency, also where a wider one is faster."""
    table, widths = new_table(runtime()), range(96, 201, 8)
    parts = [BlockPart(BlockSpec(kernel=5, expanded=e, out=80, se=24), 80, 14) for e in widths]
    measure_missing(table, parts)
    times = [table.part_ms(part) for part in parts]
    assert times == pytest.approx([added_ms(part) for part in parts], abs=EXACT)
    time_ms = dict(zip(widths, times, strict=True))
    assert time_ms[184] > 1.02 * time_ms[192]
    assert all(time_ms[width] > time_ms[width + 8] for width in widths[1:-1:2])


# Rows -------------------------------------------------------------------------------------------------


def test_only_what_is_missing_is_measured(table: LatencyTable, space: SearchSpace, machine: Machine) -> None:
    rows = dict(table.rows)
    wanted = {part.key for part in space_parts(space)}
    contexts = {context.key for part in space_parts(space) if (context := context_of(part))}
    assert set(rows) == wanted | contexts
    machine.ran.clear()
    assert measure_missing(table, space_parts(space)) == 0
    assert not machine.ran
    table.bench  # noqa: B018, compiles the reference
    machine.compiled.clear()
    other = load_space("mobilenet_v3_small").at([(1.0, 96)])
    new = len(table.missing(space_parts(other)))
    assert measure_missing(table, space_parts(other)) == new > 0
    assert len(machine.compiled) == len(set(machine.compiled)) == new
    assert not set(machine.compiled) & set(rows)
    assert len(table.rows) == len(rows) + new
    assert {key: table.rows[key] for key in rows} == rows


def test_a_missing_row_is_named_with_what_fills_it(table: LatencyTable, space: SearchSpace) -> None:
    spec = load_space("mobilenet_v3_large").sample(random.Random(0))
    with pytest.raises(NasError, match=r"lacks \d+ of the rows of .*, such as '(stem|mbconv|sepconv|head) .*predict"):
        table.predict_ms([spec])
    with pytest.raises(NasError, match=r"lacks \d+ of the rows of mobilenet_v3_large, such as .*LatencyPredictor"):
        table.compile(load_space("mobilenet_v3_large"))


def test_a_row_measured_later_changes_earlier_predictions(machine: Machine, space: SearchSpace) -> None:
    """Predictions are remembered until a row or the reference time changes."""
    table, spec = new_table(runtime()), space.sample(random.Random(0))
    machine.speed = lambda now: 0.5
    measure_missing(table, parts_of(spec))
    assert table.predict_ms([spec])[0] == pytest.approx(2 * network_ms(spec), abs=2 * EXACT)
    machine.speed = lambda now: 1.0
    measure_missing(table, parts_of(published_spec("mobilenet_v2")))
    assert table.predict_ms([spec])[0] == pytest.approx(network_ms(spec), abs=2 * EXACT)


def test_the_reference_time_is_settled_once_saved(machine: Machine, space: SearchSpace, tmp_path: Path) -> None:
    """Normalised latencies stay the same when the machine is faster or slower."""
    table = new_table(runtime())
    measure_missing(table, parts_of(space.sample(random.Random(0))))
    table.save(tmp_path / "table.json")
    saved = table.reference_ms
    machine.speed = lambda now: 2.0
    spec = published_spec("mobilenet_v2")
    for again in (table, LatencyTable.load(tmp_path / "table.json")):
        measure_missing(again, parts_of(spec))
        assert again.reference_ms == saved
        assert again.predict_ms([spec])[0] == pytest.approx(network_ms(spec), abs=EXACT)


def test_noise_does_not_bias_a_network(machine: Machine, space: SearchSpace) -> None:
    machine.noise, machine.outliers = 0.03, 0.05
    table, specs = new_table(runtime()), [space.sample(random.Random(seed)) for seed in range(20)]
    measure_missing(table, [part for spec in specs for part in parts_of(spec)])
    truth = np.array([network_ms(spec) for spec in specs])
    error = table.predict_ms(specs) / truth * REFERENCE_MS / table.reference_ms - 1
    assert np.abs(error).mean() < 0.02
    assert all(row.quartiles[0] < row.ratio < row.quartiles[1] for row in table.rows.values())


def test_a_few_rows_more_take_the_factor_of_the_others(machine: Machine, space: SearchSpace) -> None:
    """They are too few for a factor of their own; without one, trimmed networks would look slower than others."""
    table, at = new_table(runtime()), space.at(space.variants[:1])
    co_run = co_run_networks(at)
    machine.whole = lambda spec: 0.9 if spec in co_run else 1.0
    measure_missing(table, space_parts(at), co_run=co_run)
    network = at.smallest(at.variants[0])
    assert table.predict_ms([network])[0] == pytest.approx(0.9 * network_ms(network), rel=1e-3)
    finer = network.with_block(1, expanded=328)  # which is no option of the space
    assert measure_missing(table, parts_of(finer), co_run=[finer]) > 0
    assert table.predict_ms([finer])[0] == pytest.approx(0.9 * network_ms(finer), rel=1e-3)
    assert [noted.rows for noted in table.calibrations] == [len(table.rows)]


def test_progress_of_measuring_goes_up_to_the_end(machine: Machine, space: SearchSpace) -> None:
    shares: list[float] = []
    measure_missing(new_table(runtime()), space_parts(space), on_progress=lambda share, text: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


# Files ------------------------------------------------------------------------------------------------


def test_a_table_comes_back_as_it_was_saved(table: LatencyTable, space: SearchSpace, tmp_path: Path) -> None:
    table.fidelity = fidelity_of(np.array([1.0, 2.0]), np.array([1.01, 1.99]), noise_mape=0.01)
    path = table.save(tmp_path / "folder" / "table.json")
    loaded = LatencyTable.load(path)
    assert loaded.path == path
    for field in ("device", "runtime", "reference_ms", "num_classes", "rows", "created", "fidelity", "calibrations"):
        assert getattr(loaded, field) == getattr(table, field), field
    specs = [space.sample(random.Random(seed)) for seed in range(20)]
    assert loaded.predict_ms(specs).tolist() == table.predict_ms(specs).tolist()
    text = path.read_text(encoding="utf-8")
    loaded.save()
    assert path.read_text(encoding="utf-8") == text
    assert len(text.splitlines()) > len(table.rows), "one line a row, for diff"


def test_a_name_says_device_runtime_and_threads() -> None:
    device = Device("Intel(R) Core(TM) i7-8565U CPU @ 1.80GHz", ("avx", "avx2"), 4, "x86_64", "Linux 6", None, None)
    name = table_file(device, RuntimeId("onnxruntime", "1.20", 2, "float32"))
    assert name == "intel-core-i7-8565u-1-80ghz-avx2-1ce647-onnxruntime-t2.json"
    assert table_file(device, RuntimeId("onnxruntime", "1.20", 1, "int8")).endswith("-onnxruntime-t1-int8.json")
    assert table_file(device, RuntimeId("onnxruntime", "1.20", 1, "float32"), 10).endswith("-onnxruntime-t1-n10.json")


def test_another_identity_has_another_name() -> None:
    """Processors of one name can differ: a virtual machine that moves may get other instruction sets."""
    device = Device("A CPU", ("avx", "avx2", "fma"), 4, "x86_64", "Linux 6", None, None)
    others = [{"flags": ("avx", "avx2")}, {"architecture": "riscv64"}, {"cpu": "A (CPU)"}, {"cpu": "B"}]
    names = {device.name, *(dataclasses.replace(device, **other).name for other in others)}
    assert len(names) == 5
    same = dataclasses.replace(device, cores=1, os="Another 1.0", governor="powersave", max_mhz=1)
    assert same.name == device.name == "a-avx2-27f7d2"


Change = Callable[[dict[str, Any]], object]


def first_row(data: dict[str, Any]) -> dict[str, Any]:
    return next(iter(data["rows"].values()))


BROKEN: dict[str, tuple[Change, str]] = {
    "newer": (lambda d: d.update(version=4), "version is 4; this program reads version 3"),
    "version true": (lambda d: d.update(version=True), "version is True"),
    "no version": (lambda d: d.pop("version"), "version is None"),
    "unknown key": (lambda d: d.update(colour="red"), "unknown key 'colour'; known: .*rows"),
    "missing key": (lambda d: d.pop("device"), "'device' is missing"),
    "edited": (lambda d: first_row(d).update(ratio=first_row(d)["ratio"] * 1.01), "do not fit its hash"),
    "row gone": (lambda d: d["rows"].pop(next(iter(d["rows"]))), "do not fit its hash"),
    "row renamed": (lambda d: d["rows"].update(new=d["rows"].pop(next(iter(d["rows"])))), "do not fit its hash"),
    "reference edited": (lambda d: d["reference"].update(ms=d["reference"]["ms"] * 2), "do not fit its hash"),
    "no hash": (lambda d: d.pop("hash"), "'hash' is missing"),
    "NaN": (lambda d: first_row(d).update(ratio=float("nan")), r"row '.*' has the time nan; .*positive"),
    "infinite": (lambda d: first_row(d).update(ratio=float("inf")), "has the time inf"),
    "negative": (lambda d: first_row(d).update(ratio=-0.5), r"has the time -0\.5"),
    "zero": (lambda d: first_row(d).update(ratio=0), "has the time 0"),
    "text": (lambda d: first_row(d).update(ratio="fast"), "has the time 'fast'"),
    "yes": (lambda d: first_row(d).update(ratio=True), "has the time True"),
    "endless": (lambda d: first_row(d).update(ratio=10**400), "hash"),
    "bad quartile": (lambda d: first_row(d).update(quartiles=[0.1, float("nan")]), "has the time nan"),
    "no quartiles": (lambda d: first_row(d).pop("quartiles"), "damaged"),
    "one quartile": (lambda d: first_row(d).update(quartiles=[0.1]), "damaged"),
    "rows a list": (lambda d: d.update(rows=[]), "damaged"),
    "row a number": (lambda d: d["rows"].update(new=1), "damaged"),
    "device a text": (lambda d: d.update(device="laptop"), "device cannot be read"),
    "device incomplete": (lambda d: d["device"].pop("cpu"), "device cannot be read"),
    "device with more": (lambda d: d["device"].update(colour="red"), "device cannot be read"),
    "runtime with more": (lambda d: d["runtime"].update(colour="red"), "damaged"),
    "reference NaN": (lambda d: d["reference"].update(ms=float("nan")), "the reference's time is nan"),
    "reference negative": (lambda d: d["reference"].update(ms=-1), "the reference's time is -1"),
    "reference gone": (lambda d: d["reference"].pop("ms"), "damaged"),
    "another reference": (lambda d: d["reference"].update(spec_id="0" * 12), "reference"),
    "fidelity a number": (lambda d: d.update(fidelity=3), "damaged"),
    "fidelity incomplete": (lambda d: d.update(fidelity={"mape": 0.1}), "damaged"),
    "fidelity of text": (lambda d: d["fidelity"].update(mape="good"), "its fidelity has mape 'good'; check it again"),
    "calibration of more": (lambda d: d.update(calibrations=[{"colour": 1}]), "damaged"),
    "classes": (lambda d: d.update(num_classes="many"), "damaged"),
    "endless classes": (lambda d: d.update(num_classes=float("inf")), "damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_tables_are_refused(table: LatencyTable, tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    table.fidelity = fidelity_of(np.array([1.0, 2.0]), np.array([1.01, 1.99]), noise_mape=0.01)
    path = table.save(tmp_path / "table.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(NasError, match=message) as error:
        LatencyTable.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "not JSON"), ("[]", "must be a JSON object"), ("null", "must be a JSON object"), ("[" * 9999, "not JSON")],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NasError, match=message):
        LatencyTable.load(path)
    with pytest.raises(NasError, match="no such file"):
        LatencyTable.load(tmp_path / "none.json")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_table_is_refused(table: LatencyTable, tmp_path: Path, share: float) -> None:
    path = table.save(tmp_path / "table.json")
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: int(share * len(text))], encoding="utf-8")
    with pytest.raises(NasError, match="not JSON"):
        LatencyTable.load(path)


# Devices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [{"cpu": "Another CPU"}, {"flags": ("avx2",)}, {"architecture": "riscv64"}],
    ids=lambda changes: next(iter(changes)),
)
def test_another_devices_table_predicts_but_does_not_measure(
    table: LatencyTable, space: SearchSpace, tmp_path: Path, other: dict[str, Any]
) -> None:
    table.device = dataclasses.replace(table.device, **other)
    foreign = LatencyTable.load(table.save(tmp_path / "table.json"))
    spec = space.sample(random.Random(0))
    assert foreign.predict_ms([spec])[0] == pytest.approx(network_ms(spec), abs=EXACT)
    rows = dict(foreign.rows)
    for attempt in (
        foreign.check_device,
        lambda: measure_missing(foreign, parts_of(published_spec("mobilenet_v2"))),
        lambda: measure_latency([spec], table=foreign),
    ):
        with pytest.raises(NasError, match=r"of another device: .*this machine is"):
            attempt()
    assert foreign.rows == rows


def test_what_changes_without_the_machine_changing_is_no_other_device(table: LatencyTable) -> None:
    table.device = dataclasses.replace(table.device, os="Another 1.0", governor="powersave", max_mhz=1, cores=1)
    table.check_device()


def test_a_precision_that_the_runtime_lacks_is_refused(table: LatencyTable) -> None:
    table.runtime = dataclasses.replace(table.runtime, precision="int4")
    with pytest.raises(NasError, match="no precision 'int4'; it has float32, int8"):
        table.runtime_here()


def test_an_unknown_runtime_is_refused_by_name(table: LatencyTable) -> None:
    table.runtime = dataclasses.replace(table.runtime, name="abacus")
    with pytest.raises(NasError, match="unknown runtime 'abacus'; known: onnxruntime"):
        table.runtime_here()


def test_threads_and_precision_are_the_tables(table: LatencyTable) -> None:
    table.runtime = dataclasses.replace(table.runtime, threads=2, precision="int8")
    runtime = table.runtime_here()
    assert (runtime.threads, runtime.precision) == (2, "int8")


def test_this_device_is_the_same_twice_and_survives_json() -> None:
    device = Device.this()
    assert device == Device.this() == Device.from_dict(json.loads(json.dumps(device.to_dict())))
    assert device.cpu
    assert device.cores >= 1
    assert device.name.replace("-", "").isalnum()
    assert device.name == device.name.lower()


# Whole networks ---------------------------------------------------------------------------------------


def test_whole_networks_are_rows_of_their_own(table: LatencyTable, machine: Machine) -> None:
    """The row of a whole network holds its measured time, which the sum over its parts misses."""
    machine.whole = lambda spec: 1.5 if spec.name == "mobilenet_v2" else 1.0
    spec = published_spec("mobilenet_v2")
    measure_missing(table, [NetworkPart(spec)])
    assert table.part_ms(NetworkPart(spec)) == pytest.approx(1.5 * network_ms(spec), abs=EXACT)
    assert part_ms(NetworkPart(spec)) == network_ms(spec)


def test_measured_latency_is_normalised_and_raw(table: LatencyTable, machine: Machine) -> None:
    """On a machine that is half as fast today, raw milliseconds double and normalised ones stay."""
    spec = published_spec("mobilenet_v3_small")
    (before,) = measure_latency([spec], table=table)
    machine.speed = lambda now: 0.5
    (after,) = measure_latency([spec], table=table)
    assert after.normalised_ms == pytest.approx(before.normalised_ms) == pytest.approx(network_ms(spec))
    assert after.median_ms == pytest.approx(2 * before.median_ms) == pytest.approx(2 * network_ms(spec))
    assert after.quartiles_ms == pytest.approx((network_ms(spec), network_ms(spec)))
    assert before.error == pytest.approx(0, abs=1e-6)
    assert not before.disturbed
    assert after.disturbed, "the machine never reached its speed, and nothing reports it"
