"""A table with its policy for missing rows, on a machine whose times are known."""

import dataclasses
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic
from support.synthetic import Machine, apart_from_landmarks, network_ms

import nas
from nas import measure
from nas.arch.loading import load_space, load_spec
from nas.arch.parts import NetworkPart, parts_of
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Silent
from nas.errors import NasError
from nas.latency.landmarks import tilt_of, without_tilt
from nas.latency.measuring import new_table
from nas.latency.predictor import LatencyPredictor, OnMissing, open_table
from nas.latency.table import LatencyTable, space_parts
from nas.latency.timing import Timing
from nas.search import __main__ as search


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    synthetic.empty_folder(monkeypatch, tmp_path)
    return synthetic.install(monkeypatch)


@pytest.fixture
def space(machine: Machine) -> SearchSpace:
    return load_space("few.py").at([(0.75, 96)])


def predictor(on_missing: OnMissing = "fill") -> LatencyPredictor:
    return LatencyPredictor(open_table(None, "synthetic"), Silent(), on_missing=on_missing)


def elsewhere(table: LatencyTable) -> LatencyTable:
    """Return the table, saved as one of another device."""
    other = dataclasses.replace(table, device=dataclasses.replace(table.device, cpu="Another CPU"))
    return LatencyTable.load(other.save("other.json"))


def networks(space: SearchSpace) -> list[ArchSpec]:
    return [space.sample(random.Random(seed)) for seed in range(5)]


def test_missing_rows_are_measured_and_saved(space: SearchSpace) -> None:
    """The table is saved where it was opened; nobody passes a path along."""
    found, specs = predictor(), networks(space)
    assert not found.table.path.exists()
    assert not found.table.settled
    assert found.knows(specs[0])
    assert found.predict_ms(specs) == pytest.approx([network_ms(spec) for spec in specs], rel=1e-5)
    assert found.table.settled
    assert found.rows_measured == len(found.table.rows) > 0
    assert LatencyTable.load(found.table.path).rows == found.table.rows
    again = predictor()
    assert again.table.path == found.table.path
    assert again.predict_ms(specs).tolist() == found.predict_ms(specs).tolist()
    assert again.rows_measured == 0


def test_the_rows_of_a_space_are_filled_variant_by_variant(machine: Machine) -> None:
    space, found = load_space("few.py"), predictor()
    found.fill_space(space, "rows")
    assert not found.table.missing(space_parts(space))
    assert found.rows_measured == len(found.table.rows)
    machine.ran.clear()
    found.fill_space(space, "rows")
    assert not machine.ran


def test_what_was_measured_is_kept_when_the_rest_is_interrupted(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.latency.measuring.BATCH", 20)
    found, shares = predictor(), []

    class Interrupting(Silent):
        def progress(self, title):  # type: ignore[no-untyped-def]
            return self

        def __enter__(self):  # type: ignore[no-untyped-def]
            return self

        def __exit__(self, *error: object) -> None: ...

        def __call__(self, share: float, note: str) -> None:
            shares.append(share)
            if share > 0.7:
                raise KeyboardInterrupt

    found.console = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        found.fill(list(space_parts(space)), "rows")
    rows = LatencyTable.load(found.table.path).rows
    assert 20 <= len(rows) == found.rows_measured < len({part.key for part in space_parts(space)})


def test_whole_networks_are_measured_once(space: SearchSpace, machine: Machine) -> None:
    found, specs = predictor(), networks(space)[:2]
    machine.whole = lambda spec: 1.1 if spec.id == specs[0].id else 1.0
    expected = [1.1 * network_ms(specs[0]), network_ms(specs[1])]
    assert found.measured_ms(specs, "whole") == pytest.approx(expected, rel=1e-5)
    machine.ran.clear()
    assert found.measured_ms(specs[::-1], "again") == pytest.approx(expected[::-1], rel=1e-5)
    assert not machine.ran
    rows = dict(found.table.rows)
    assert [m.normalised_ms for m in found.measure(specs, "now")] == pytest.approx(expected, rel=1e-5)
    assert machine.ran
    assert found.table.rows == rows


def test_measuring_again_combines_and_lets_the_table_learn(space: SearchSpace, machine: Machine) -> None:
    """The time is that of all measurements together, and the raw one is what the clock shows now.

    The network was known, so it tells a tilt, which the landmarks deny.
    """
    found, (spec, other, *_) = predictor(), networks(space)
    found.predict_ms([spec, other])
    ms = network_ms(spec)
    (first,) = found.measure([spec], "now")
    assert (first.normalised_ms, first.median_ms) == (pytest.approx(ms, rel=1e-5), pytest.approx(ms, rel=1e-5))
    known = dict(found.table.networks)
    told = {key: Timing(one.ratio, (one.ratio, one.ratio), 8, 0.0, 1.0) for key, one in known.items()}
    key = found.network(spec).key
    told[key] = dataclasses.replace(told[key], ratio=1.1 * known[key].ratio)
    tilt = tilt_of(known, told)
    factor = without_tilt(told[key], tilt).ratio / known[key].ratio
    assert 1.05 < factor < 1.1
    machine.whole = apart_from_landmarks(lambda spec: 1.1)
    (second,) = found.measure([spec], "now")
    assert second.normalised_ms == pytest.approx(factor**0.5 * ms, rel=1e-5)
    assert second.median_ms == pytest.approx(1.1 * ms, rel=1e-5)
    assert second.quartiles_ms == pytest.approx((second.normalised_ms, second.normalised_ms), rel=1e-5)
    assert second.error == pytest.approx(first.error / 2**0.5, rel=0.01)
    assert found.table.part_ms(found.network(spec)) == second.normalised_ms
    assert ms < found.predict_ms([spec])[0] < 1.1 * ms
    assert found.predict_ms([other])[0] > 1.01 * network_ms(other)
    saved = LatencyTable.load(found.table.path)
    assert saved.networks == found.table.networks
    assert saved.predict_ms([spec, other]).tolist() == found.table.predict_ms([spec, other]).tolist()


@pytest.mark.parametrize("on_missing", ["fill", "refuse"])
def test_another_devices_missing_rows_are_named(space: SearchSpace, machine: Machine, on_missing: OnMissing) -> None:
    specs = networks(space)
    here = predictor()
    here.predict_ms(specs[:1])
    there = LatencyPredictor(elsewhere(here.table), Silent(), on_missing=on_missing)
    machine.ran.clear()
    assert there.knows(specs[0])
    assert there.predict_ms(specs[:1]).tolist() == here.table.predict_ms(specs[:1]).tolist()
    missing = there.table.missing(part for spec in specs for part in parts_of(spec))
    assert len(missing) > 3
    assert not all(map(there.knows, specs))
    with pytest.raises(NasError) as error:
        there.predict_ms(specs)
    assert str(error.value).startswith(
        f"other.json is of another device (Another CPU) and lacks {len(missing)} rows that are asked for: "
        f"{missing[0].key}; {missing[1].key}; {missing[2].key}; …. Run the same command on that device, which"
    )
    with pytest.raises(NasError) as again:
        there.fill(missing, "rows")
    assert str(again.value) == str(error.value)
    with pytest.raises(NasError, match="of another device: Another CPU"):
        there.measure(specs, "now")
    assert not machine.ran


def test_the_advice_for_a_published_network_without_rows_adds_them(space: SearchSpace) -> None:
    """No space holds these rows."""
    table, spec = open_table(None, "synthetic"), load_spec("ofa_note10_lat-16ms")
    predictor().fill_space(space, "few")
    with pytest.raises(NasError, match=r"lacks \d+ of the rows of ofa_note10_lat-16ms, such as '") as error:
        table.predict_ms([spec])
    (advice,) = re.findall("`(.*?)`", str(error.value))
    (predicted,) = eval(advice, {"nas": nas, "table": table, "spec": spec})
    assert LatencyTable.load(table.path).predict_ms([spec])[0] == predicted == pytest.approx(network_ms(spec), rel=1e-3)


def test_the_advice_about_missing_rows_adds_them(space: SearchSpace) -> None:
    """In Python a table is asked for a network, a space, a part, or a network that was measured."""
    spec = load_spec("ofa_note10_lat-16ms")
    part = next(iter(parts_of(load_spec("mobilenet_v2"))))
    questions: dict[str, Callable[[LatencyTable], Any]] = {
        "ofa_note10_lat-16ms": lambda table: table.breakdown(spec),
        "few": lambda table: table.compile(space),
        "a part": lambda table: table.part_ms(part),
        "a measured network": lambda table: table.part_ms(NetworkPart(spec)),
    }
    for name, ask in questions.items():
        table = open_table(None, "synthetic")
        with pytest.raises(NasError, match=rf"lacks \d+ of the rows of {name}, such as '") as error:
            ask(table)
        (advice,) = re.findall("`(.*?)`", str(error.value))
        eval(advice, {"nas": nas, "table": table, "spec": spec, "space": space, "part": part})
        ask(LatencyTable.load(table.path))


def test_this_devices_missing_rows_can_be_refused(space: SearchSpace, machine: Machine) -> None:
    spec = networks(space)[0]
    found = predictor("refuse")
    with pytest.raises(NasError, match=r"lacks \d+ rows that are asked for: stem .*`nas\.LatencyPredictor\(table\)"):
        found.predict_ms([spec])
    assert not found.knows(spec)
    assert not machine.ran


def test_another_devices_missing_rows_can_be_infinite(space: SearchSpace, machine: Machine) -> None:
    specs = networks(space)
    here = predictor()
    here.predict_ms(specs[:1])
    here.measured_ms(specs[1:2], "whole")
    there = LatencyPredictor(elsewhere(here.table), Silent(), on_missing="infinite")
    machine.ran.clear()
    assert there.predict_ms([]).shape == (0,)
    times = there.predict_ms(specs)
    assert times[0] == here.table.predict_ms(specs[:1])[0]
    assert np.isinf(times[1:]).all()
    # A whole network's own row is its measurement; without it the prediction speaks.
    known = there.measured_ms(specs[:3], "whole")
    assert known[:2].tolist() == [times[0], here.table.part_ms(NetworkPart(specs[1]))]
    assert np.isinf(known[2])
    assert [there.knows(spec) for spec in specs[:3]] == [True, True, False]
    assert not machine.ran


def test_tables_of_other_classes_have_a_file_of_their_own(space: SearchSpace) -> None:
    spec = networks(space)[0]
    ten = LatencyPredictor(open_table(None, "synthetic", num_classes=10), Silent())
    assert ten.predict_ms([spec])[0] == pytest.approx(network_ms(spec, 10), rel=1e-5)
    thousand = predictor()
    assert thousand.predict_ms([spec])[0] == pytest.approx(network_ms(spec), rel=1e-5)
    assert ten.table.path.name == f"{thousand.table.path.stem}-n10.json"
    assert open_table(None, "synthetic", num_classes=10).rows == ten.table.rows
    assert open_table(ten.table.path, "synthetic").num_classes == 10
    for allowed in (False, True):
        with pytest.raises(NasError, match="is of networks with 1000 classes, and these have 10; leave --table out"):
            open_table(thousand.table.path, "synthetic", num_classes=10, allow_other_device=allowed)
    with pytest.raises(NasError, match="is of networks with 1000 classes, and these have 10; leave --table out"):
        open_table(elsewhere(thousand.table).path, "synthetic", num_classes=10, allow_other_device=True)
    assert new_table(synthetic.made_runtime(), path="mine.json").path == Path("mine.json")


def test_a_machine_that_moved_gets_a_table_of_its_own(
    space: SearchSpace, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor's name stays, and its instruction sets change, as when a virtual machine moves to another host."""
    specs, here = networks(space), predictor()
    here.predict_ms(specs)
    content = here.table.path.read_bytes()
    with monkeypatch.context() as patch:
        synthetic.become(patch, flags=("avx2",))  # which no processor has alone
        machine.speed = lambda now: 0.5
        there = predictor()
        assert there.table.path != here.table.path
        assert there.table.rows == {}
        assert there.predict_ms(specs) == pytest.approx([2 * network_ms(spec) for spec in specs], rel=1e-5)
        with pytest.raises(
            NasError, match=r"is of another device: .*; measure a table here with `python -m nas\.measure`"
        ):
            open_table(here.table.path, "synthetic")
    assert here.table.path.read_bytes() == content
    assert predictor().table.rows == here.table.rows


def test_the_commands_go_on_on_a_machine_that_moved(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default table is that of the identity, so that neither command finds one that it must refuse."""
    measured = ["--space", "few.py", "--runtime", "synthetic"]
    searched = ["--large-space", "few.py", "--only", "large", "--runtime", "synthetic", "--budget-ms", "0.7"]
    measure.main(measured)
    (before,) = Path("latency_tables").iterdir()
    content = before.read_bytes()
    synthetic.become(monkeypatch, flags=("avx2",))  # which no processor has alone
    measure.main(measured)
    search.main([*searched, "--trials", "6", "--strategy", "random", "--out", "run"])
    (after,) = set(Path("latency_tables").iterdir()) - {before}
    assert before.read_bytes() == content
    assert LatencyTable.load(after).device.flags == ("avx2",)
