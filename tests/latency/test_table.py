"""Tables measured on a machine that is known to the last digit, and files that are damaged on purpose."""

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic
from support.synthetic import Machine, added_ms, apart_from_landmarks, network_ms, part_ms, pool_ms

from nas.arch.loading import load_space
from nas.arch.parts import BlockPart, NetworkPart, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec
from nas.errors import NasError
from nas.latency.device import Device
from nas.latency.fidelity import fidelity_of
from nas.latency.measuring import co_run_networks, measure_missing, new_table
from nas.latency.networks import measure_latency, time_networks
from nas.latency.runtimes import Runtime
from nas.latency.table import LatencyTable, RuntimeId, space_parts, table_file
from nas.latency.table_file import SESSION_ERROR, Fidelity
from nas.latency.timing import Timing

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
    return dataclasses.replace(measured, rows=dict(measured.rows), networks=dict(measured.networks))


def measured_whole(table: LatencyTable, specs: Sequence[ArchSpec]) -> dict[NetworkPart, Timing]:
    return time_networks(specs, table=table)


def checked() -> tuple[Fidelity, ...]:
    """Return the figures of two populations."""
    predicted, measured = np.array([1.0, 2.0]), np.array([1.01, 1.99])
    both = ("random", "near-optimal")
    return tuple(fidelity_of(predicted, measured, population=name, noise_mape=0.01) for name in both)


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


def test_another_reference_time_changes_earlier_predictions(machine: Machine, space: SearchSpace) -> None:
    """Predictions are remembered until the reference time changes, which the first rows only guess at."""
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


def test_progress_of_measuring_goes_up_to_the_end(machine: Machine, space: SearchSpace) -> None:
    shares: list[float] = []
    measure_missing(new_table(runtime()), space_parts(space), on_progress=lambda share, text: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


# Files ------------------------------------------------------------------------------------------------


def test_a_table_comes_back_as_it_was_saved(table: LatencyTable, space: SearchSpace, tmp_path: Path) -> None:
    table.fidelity = checked()
    table.remember(measured_whole(table, [space.sample(random.Random(seed)) for seed in range(3)]))
    path = table.save(tmp_path / "folder" / "table.json")
    loaded = LatencyTable.load(path)
    assert loaded.path == path
    for field in ("device", "runtime", "reference_ms", "num_classes", "rows", "networks", "created", "fidelity"):
        assert getattr(loaded, field) == getattr(table, field), field
    specs = [space.sample(random.Random(seed)) for seed in range(20)]
    assert loaded.predict_ms(specs).tolist() == table.predict_ms(specs).tolist()
    text = path.read_text(encoding="utf-8")
    loaded.save()
    assert path.read_text(encoding="utf-8") == text
    assert len(text.splitlines()) > len(table.rows) + len(table.networks), "one line a row and a network, for diff"


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


def first_network(data: dict[str, Any]) -> dict[str, Any]:
    return next(iter(data["networks"].values()))


BROKEN: dict[str, tuple[Change, str]] = {
    "newer": (
        lambda d: d.update(version=5),
        "version is 5; this program reads versions 3 and 4: a newer program wrote it",
    ),
    "older": (
        lambda d: d.update(version=2),
        "version is 2; this program reads versions 3 and 4; remove it and measure it again with `",
    ),
    "version true": (lambda d: d.update(version=True), "version is True"),
    "no version": (lambda d: d.pop("version"), "version is None"),
    "unknown key": (lambda d: d.update(colour="red"), "unknown key 'colour'; known: .*rows"),
    "missing key": (lambda d: d.pop("device"), "'device' is missing"),
    "edited": (lambda d: first_row(d).update(ratio=first_row(d)["ratio"] * 1.01), "do not fit its hash"),
    "row gone": (lambda d: d["rows"].pop(next(iter(d["rows"]))), "do not fit its hash"),
    "row renamed": (lambda d: d["rows"].update(new=d["rows"].pop(next(iter(d["rows"])))), "do not fit its hash"),
    "reference edited": (lambda d: d["reference"].update(ms=d["reference"]["ms"] * 2), "do not fit its hash"),
    "network edited": (lambda d: first_network(d).update(ratio=0.5), "do not fit its hash"),
    "network's error edited": (lambda d: first_network(d).update(error=0.5), "do not fit its hash"),
    "network's spec edited": (lambda d: first_network(d)["spec"].update(resolution=192), "do not fit its hash"),
    "network gone": (lambda d: d["networks"].clear(), "do not fit its hash"),
    "network negative": (
        lambda d: first_network(d).update(ratio=-0.5),
        r"'network .*' has the time -0\.5; a ratio must",
    ),
    "network without error": (lambda d: first_network(d).update(error=0), "has the time 0; a ratio must"),
    "network of no times": (lambda d: first_network(d).pop("times"), "damaged"),
    "network a number": (lambda d: d["networks"].update(new=1), "damaged"),
    "network of no blocks": (lambda d: first_network(d)["spec"].pop("blocks"), "blocks"),
    "networks a list": (lambda d: d.update(networks=[]), "damaged"),
    "no networks": (lambda d: d.pop("networks"), "'networks' is missing"),
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
    "fidelity incomplete": (lambda d: d.update(fidelity=[{"mape": 0.1}]), "damaged"),
    "fidelity of old": (lambda d: d.update(fidelity=d["fidelity"][0]), "damaged"),
    "fidelity of text": (
        lambda d: d["fidelity"][1].update(mape="good"),
        "its fidelity has mape 'good'; check it again",
    ),
    "calibrations": (lambda d: d.update(calibrations=[]), "unknown key 'calibrations'"),
    "classes": (lambda d: d.update(num_classes="many"), "damaged"),
    "endless classes": (lambda d: d.update(num_classes=float("inf")), "damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_tables_are_refused(table: LatencyTable, tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    table.fidelity = checked()
    table.remember(measured_whole(table, [published_spec("mobilenet_v2")]))
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
    with pytest.raises(NasError, match="unknown runtime 'abacus'; known: litert, onnxruntime"):
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


def test_whole_networks_are_kept_beside_the_rows(table: LatencyTable, machine: Machine) -> None:
    """A whole network has its measured time, which the sum over its parts misses."""
    machine.whole = lambda spec: 1.5 if spec.name == "mobilenet_v2" else 1.0
    spec, rows = published_spec("mobilenet_v2"), dict(table.rows)
    assert not table.knows(NetworkPart(spec))
    with pytest.raises(NasError, match=r"lacks 1 of the rows of a measured network, such as 'network .*measured_ms"):
        table.part_ms(NetworkPart(spec))
    measure_missing(table, [NetworkPart(spec)])
    assert table.part_ms(NetworkPart(spec)) == pytest.approx(1.5 * network_ms(spec), abs=EXACT)
    assert part_ms(NetworkPart(spec)) == network_ms(spec)
    assert table.knows(NetworkPart(spec))
    assert table.rows == rows
    assert table.networks[NetworkPart(spec).key].spec == spec.to_dict()
    table.forget([NetworkPart(spec).key])
    assert not table.knows(NetworkPart(spec))


def test_a_network_measured_twice_has_one_time(table: LatencyTable, machine: Machine, space: SearchSpace) -> None:
    """Each measurement counts by its error; two sessions differ however long each lasts."""
    spec = space.sample(random.Random(0))
    network = NetworkPart(spec)
    timing = measured_whole(table, [spec])[network]
    truth = network_ms(spec) / REFERENCE_MS
    table.remember({network: dataclasses.replace(timing, ratio=1.02 * truth, error=0.01)})
    first = table.measurement(network)
    assert (first.ratio, first.error, first.times) == (pytest.approx(1.02 * truth, rel=1e-5), 0.01, 1)
    table.remember({network: dataclasses.replace(timing, ratio=0.98 * truth, error=0.01)})
    both = table.measurement(network)
    assert both.ratio == pytest.approx(math.sqrt(1.02 * 0.98) * truth, rel=1e-5)
    assert (both.error, both.times) == (pytest.approx(0.01 / math.sqrt(2), abs=1e-5), 2)
    table.remember({network: dataclasses.replace(timing, ratio=1.5 * truth, error=0.5)})
    assert table.measurement(network).ratio == pytest.approx(both.ratio, rel=1e-3)
    assert table.part_ms(network) == table.measurement(network).ratio * table.reference_ms
    (evidence,) = table.correction.evidence
    assert (evidence.ratio, evidence.error) == (table.measurement(network).ratio, table.measurement(network).error)
    table.remember({network: dataclasses.replace(timing, ratio=0.9 * truth, error=0.001)})
    (evidence,) = table.correction.evidence
    assert evidence.ratio == table.measurement(network).ratio == pytest.approx(0.94 * truth, rel=0.02)
    exact = dataclasses.replace(timing, ratio=truth, error=0.0)
    other = NetworkPart(space.sample(random.Random(1)))
    for sessions in (1, 2):
        table.remember({other: exact})
        assert table.measurement(other).error == pytest.approx(SESSION_ERROR / math.sqrt(sessions), abs=1e-5)


def test_the_reference_takes_its_own_time_by_definition(table: LatencyTable, machine: Machine) -> None:
    machine.whole = lambda spec: 1.1
    reference = table.reference
    assert table.knows(reference)
    assert table.part_ms(reference) == table.reference_ms
    machine.ran.clear()
    assert measure_missing(table, [reference]) == 0
    assert not machine.ran
    timing = measured_whole(table, [reference.spec])[reference]
    table.remember({reference: dataclasses.replace(timing, ratio=0.9)})
    assert table.networks == {}
    assert table.part_ms(reference) == table.reference_ms
    ten = dataclasses.replace(table, num_classes=10, networks={})
    assert not ten.knows(NetworkPart(reference.spec, 10))  # a network of other classes is another one


# Learning ---------------------------------------------------------------------------------------------


def test_learning_corrects_parts_and_keeps_what_was_timed(
    table: LatencyTable, machine: Machine, space: SearchSpace
) -> None:
    """Whole networks take a tenth more than their parts. The reference is the unit of both."""
    machine.whole = lambda spec: 1.0 if spec.name == "mobilenet_v3_large" else 1.1
    specs = [space.sample(random.Random(seed)) for seed in range(50)]
    parts, rows = list(dict.fromkeys(part for spec in specs for part in parts_of(spec))), dict(table.rows)
    timed = [table.timed_ms(part) for part in parts]
    assert timed == pytest.approx([table.part_ms(part) for part in parts])
    before = table.predict(specs[-1])
    table.remember(measured_whole(table, specs[:30]))
    assert [table.timed_ms(part) for part in parts] == timed
    assert table.rows == rows
    assert table.predict_ms(specs[30:]) == pytest.approx([1.1 * network_ms(spec) for spec in specs[30:]], rel=0.01)
    after = table.predict(specs[-1])
    assert after.time == pytest.approx(table.predict_ms(specs[-1:])[0])
    assert sum(table.part_ms(part) for part in parts_of(specs[-1])) == pytest.approx(after.time)
    assert after.time / before.time == pytest.approx(1.1, abs=0.01)
    assert after.std / after.time < 0.3 * before.std / before.time
    assert table.compile(space)(space.encode(specs)) == pytest.approx(table.predict_ms(specs), rel=1e-9)


def test_held_out_is_as_if_it_had_not_been_measured(table: LatencyTable, machine: Machine, space: SearchSpace) -> None:
    machine.whole = lambda spec: random.Random(spec.id).uniform(1.0, 1.1)
    *specs, last = [space.sample(random.Random(seed)) for seed in range(12)]
    table.remember(measured_whole(table, specs))
    before = table.predict(last)
    assert table.predict_held_out(last) == before
    table.remember(measured_whole(table, [last]))
    assert table.predict_held_out(last).time == pytest.approx(before.time, rel=1e-6)
    assert table.predict(last).time != pytest.approx(before.time, rel=1e-4)
    assert table.predict(last).std < table.predict_held_out(last).std


def test_rows_alone_change_no_earlier_predictions(machine: Machine, space: SearchSpace) -> None:
    """A network whose rows come later is learned from once it is measured again."""
    table, at = new_table(runtime()), space.at(space.variants[:1])
    machine.whole = apart_from_landmarks(lambda spec: 1.1)
    measure_missing(table, space_parts(at), co_run=co_run_networks(at))
    early, later = at.sample(random.Random(0)), published_spec("mobilenet_v2")
    measure_missing(table, [NetworkPart(later)])
    predicted = table.predict_ms([early])[0]
    assert predicted == pytest.approx(1.1 * network_ms(early), rel=0.02)
    measure_missing(table, parts_of(later))
    assert table.predict_ms([early])[0] == predicted
    learned_from = len(table.correction.evidence)
    table.remember(measured_whole(table, [at.sample(random.Random(1))]))
    assert len(table.correction.evidence) == learned_from + 1
    timed = sum(table.timed_ms(part) for part in parts_of(later))
    assert table.predict_ms([later])[0] < 1.095 * timed
    table.remember(measured_whole(table, [later]))
    assert len(table.correction.evidence) == learned_from + 2
    assert table.predict_ms([later])[0] == pytest.approx(1.1 * timed, rel=0.003)
    assert table.predict_ms([early])[0] != predicted


def test_a_table_that_was_read_has_learned_the_same(machine: Machine, space: SearchSpace, tmp_path: Path) -> None:
    """Rows alone teach nothing, those of the reference network neither: its time is known without measuring it."""
    table, at = new_table(runtime()), space.at(space.variants[:1])
    machine.whole = apart_from_landmarks(lambda spec: 1.1)
    measure_missing(table, space_parts(at), co_run=co_run_networks(at))
    spec = at.sample(random.Random(0))
    predicted = table.predict_ms([spec]).tolist()
    measure_missing(table, parts_of(table.reference.spec))
    assert table.predict_ms([spec]).tolist() == predicted
    read = LatencyTable.load(table.save(tmp_path / "table.json"))
    assert len(read.correction.evidence) == len(table.correction.evidence)
    assert read.predict_ms([spec]).tolist() == pytest.approx(predicted, rel=1e-6)
    table.remember(measured_whole(table, [at.sample(random.Random(1))]))
    assert table.reference.key in [one.key for one in table.correction.evidence]


def test_few_rows_more_are_corrected_as_their_like(machine: Machine, space: SearchSpace) -> None:
    """Trimming asks for a few rows. Uncorrected, trimmed networks would look faster than others."""
    table, at = new_table(runtime()), space.at(space.variants[:1])
    machine.whole = lambda spec: 1.0 if spec.name == "mobilenet_v3_large" else 1.1
    measure_missing(table, space_parts(at), co_run=[at.sample(random.Random(seed)) for seed in range(20)])
    finer = at.smallest(at.variants[0]).with_block(1, expanded=328)  # which is no option of the space
    assert measure_missing(table, parts_of(finer)) > 0
    assert table.predict_ms([finer])[0] == pytest.approx(1.1 * network_ms(finer), rel=0.02)
    assert {row.session for row in table.rows.values()} == {1, 2}


def test_contradicting_networks_are_listed(table: LatencyTable, machine: Machine, space: SearchSpace) -> None:
    specs = [space.sample(random.Random(seed)) for seed in range(10)]
    machine.whole = lambda spec: 1.6 if spec.id == specs[3].id else 1.0
    table.remember(measured_whole(table, specs))
    assert table.contradicting == [specs[3]]
    assert table.predict_ms(specs) == pytest.approx([network_ms(spec) for spec in specs], rel=0.005)
    assert table.part_ms(NetworkPart(specs[3])) == pytest.approx(1.6 * network_ms(specs[3]), rel=1e-5)
    machine.whole = lambda spec: 1.0
    table.forget([NetworkPart(specs[3]).key])
    assert table.contradicting == []
    table.remember(measured_whole(table, specs[3:4]))
    assert table.contradicting == []


def test_a_contradicting_reference_is_not_listed(table: LatencyTable, machine: Machine, space: SearchSpace) -> None:
    """It cannot be measured again: its time is one by definition."""
    measure_missing(table, parts_of(table.reference.spec))
    machine.whole = lambda spec: 1.0 if spec.name == "mobilenet_v3_large" else 0.5
    table.remember(measured_whole(table, [space.sample(random.Random(seed)) for seed in range(20)]))
    assert table.correction.contradicting == (table.reference.key,)
    assert table.contradicting == []


# Older files ------------------------------------------------------------------------------------------


def older(table: LatencyTable, **changes: Any) -> dict[str, Any]:
    """Return a table in the form of version 3: rows without sessions, whole networks among them, one fidelity."""
    rows = {}
    for key, row in table.rows.items():
        rows[key] = {"ratio": row.ratio, "quartiles": list(row.quartiles), "count": row.count, "error": row.error}
    rows["network 0123456789ab n1000"] = {"ratio": 0.5, "quartiles": [0.4, 0.6], "count": 9, "error": 0.01}
    text = f"{table.reference_ms:.6f} {json.dumps(rows, sort_keys=True)}"
    fidelity = dataclasses.asdict(checked()[0])
    del fidelity["population"]
    return {
        "version": 3,
        "created": table.created,
        "device": table.device.to_dict(),
        "runtime": dataclasses.asdict(table.runtime),
        "reference": {
            "network": "mobilenet_v3_large",
            "spec_id": table.reference.spec.id,
            "ms": round(table.reference_ms, 6),
        },
        "num_classes": table.num_classes,
        "fidelity": fidelity,
        "calibrations": [{"factor": 0.9, "rows": len(rows), "date": "2026-01-01"}],
        "hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "rows": rows,
    } | changes


def test_a_table_of_the_version_before_is_read(table: LatencyTable, space: SearchSpace, tmp_path: Path) -> None:
    """Its rows are as they are. Its networks have no specs, and its fidelity was that of another prediction."""
    path = tmp_path / "older.json"
    path.write_text(json.dumps(older(table)), encoding="utf-8")
    loaded = LatencyTable.load(path)
    assert {key: dataclasses.replace(row, session=1) for key, row in loaded.rows.items()} == table.rows
    assert {row.session for row in loaded.rows.values()} == {0}
    assert loaded.networks == {}
    assert loaded.fidelity == ()
    assert loaded.created == table.created
    specs = [space.sample(random.Random(seed)) for seed in range(5)]
    assert loaded.predict_ms(specs) == pytest.approx(table.predict_ms(specs))
    loaded.save()
    again = LatencyTable.load(path)
    assert json.loads(path.read_text(encoding="utf-8"))["version"] == 4
    assert (again.rows, again.networks) == (loaded.rows, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: first_row(d).update(ratio=0.5), "its rows do not fit its hash: it was edited or cut"),
        (lambda d: d["rows"].popitem(), "do not fit its hash"),
        (lambda d: d["reference"].update(ms=1.0), "do not fit its hash"),
        (lambda d: d["reference"].update(ms=10**400), "damaged"),
        (lambda d: d["reference"].pop("ms"), "damaged"),
        (lambda d: d.update(rows=[]), "hash"),
        (lambda d: d.pop("device"), "'device' is missing"),
        (lambda d: d.update(hash=1), "do not fit its hash"),
    ],
    ids=["edited", "row gone", "reference edited", "endless", "no time", "rows a list", "no device", "another hash"],
)
def test_a_broken_table_of_the_version_before_is_refused(
    table: LatencyTable, tmp_path: Path, change: Change, message: str
) -> None:
    data, path = older(table), tmp_path / "older.json"
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(NasError, match=message) as error:
        LatencyTable.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


# Timing -----------------------------------------------------------------------------------------------


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
