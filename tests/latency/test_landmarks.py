"""Sessions that slow large networks more than small ones, with a tilt that is known."""

import dataclasses
import math
import random
from collections.abc import Callable, Mapping

import pytest
from support import synthetic
from support.synthetic import Machine, network_ms

from nas.arch.loading import load_space
from nas.arch.parts import NetworkPart, parts_of
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec
from nas.latency.landmarks import DEVIATION, SCATTER, Tilt, landmarks, tilt_of, without_tilt
from nas.latency.measuring import measure_missing, new_table
from nas.latency.networks import time_networks
from nas.latency.table_file import WholeNetwork
from nas.latency.timing import Timing

REFERENCE_MS = network_ms(published_spec("mobilenet_v3_large"))
ERROR = 0.005


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return synthetic.install(monkeypatch)


def known(*ratios: float) -> dict[str, WholeNetwork]:
    return {f"network {number}": WholeNetwork({}, ratio, ERROR, 1) for number, ratio in enumerate(ratios)}


def timing(ratio: float, error: float = ERROR) -> Timing:
    return Timing(ratio, (0.98 * ratio, 1.03 * ratio), 8, error, 20 * ratio)


def tilted(networks: Mapping[str, WholeNetwork], tilt: Tilt) -> dict[str, Timing]:
    """Return what a session with this tilt times."""
    return {key: timing(one.ratio ** (1 + tilt.of(one.ratio))) for key, one in networks.items()}


# Tilts that are made up -------------------------------------------------------------------------------


@pytest.mark.parametrize("tilt", [Tilt(0.08, -0.05), Tilt(-0.03, 0.0), Tilt(0.0, 0.06), Tilt()])
def test_known_networks_tell_the_tilt_below_and_above(tilt: Tilt) -> None:
    networks = known(0.03, 0.08, 0.15, 0.4, 0.9, 1.1, 2.0, 3.0, 5.0)
    assert tilt_of(networks, tilted(networks, tilt)) == pytest.approx(tilt, abs=0.003)


def test_one_side_says_nothing_about_the_other() -> None:
    small, large = known(0.05, 0.2), known(2.0, 5.0)
    assert tilt_of(small, tilted(small, Tilt(0.05, 0.05))).above == 0
    assert tilt_of(large, tilted(large, Tilt(0.05, 0.05))).below == 0


def test_without_known_networks_there_is_no_tilt() -> None:
    networks = known(0.05, 0.2, 3.0)
    timings = tilted(networks, Tilt(0.1, 0.1))
    assert tilt_of({}, timings) == Tilt(0, 0)
    assert tilt_of(networks, {}) == Tilt(0, 0)
    assert tilt_of({f"other {key}": one for key, one in networks.items()}, timings) == Tilt(0, 0)
    assert tilt_of(known(1.0), {"network 0": timing(1.02)}) == Tilt(0, 0)  # as fast as the reference: no share of it


def test_little_evidence_is_shrunk() -> None:
    """A network that is nearly as fast as the reference says little, and so does one that was timed badly.

    What can be chance counts for nothing.
    """
    tilt = Tilt(0.06, 0.06)
    found = [tilt_of(known(ratio), tilted(known(ratio), tilt)).below for ratio in (0.95, 0.7, 0.3, 0.05)]
    assert found == sorted(found)
    assert found[0] == found[1] == 0
    assert found[-1] == pytest.approx(tilt.below, rel=0.02)
    size = math.log(0.3)
    precision = size**2 / (2 * ERROR**2 + SCATTER**2)
    assert found[2] == pytest.approx(tilt.below * precision / (precision + DEVIATION**-2))
    small = 0.3 ** (1 + tilt.below)
    badly = [tilt_of(known(0.3), {"network 0": timing(small, error)}).below for error in (0.5, 0.1, 0.02, 0.001)]
    assert badly == sorted(badly)
    assert badly[0] == 0 < badly[-1]
    many = known(*[0.7] * 20)
    assert found[1] < tilt_of(many, tilted(many, tilt)).below < tilt.below


def test_a_tilt_is_undone() -> None:
    tilt = Tilt(0.08, -0.05)
    for ratio in (0.03, 0.5, 0.99, 1.0, 1.2, 4.0):
        before = timing(ratio ** (1 + tilt.of(ratio)))
        after = without_tilt(before, tilt)
        assert after.ratio == pytest.approx(ratio)
        assert after.quartiles == pytest.approx((0.98 * ratio, 1.03 * ratio))
        assert dataclasses.replace(after, ratio=before.ratio, quartiles=before.quartiles) == before
        assert without_tilt(before, Tilt()) == before


# Sessions of a machine --------------------------------------------------------------------------------


def size_of(spec: ArchSpec) -> float:
    return network_ms(spec) / REFERENCE_MS


def sped_up(share: float) -> Callable[[ArchSpec], float]:
    """Return `Machine.whole` of a session whose small networks are the faster the smaller they are."""
    return lambda spec: min(1.0, size_of(spec) ** share)


def test_landmarks_are_on_both_sides_of_the_reference() -> None:
    sizes = [size_of(spec) for spec in landmarks()]
    assert len({spec.id for spec in landmarks()}) == 3
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.15
    assert sizes[1] < 1 < sizes[2]


def networks() -> list[ArchSpec]:
    """Return random networks, all smaller than the reference network."""
    space = load_space("mobilenet_v3_small").at([(0.5, 96), (0.75, 160), (1.0, 224)])
    specs = [space.sample(random.Random(seed)) for seed in range(20)]
    assert max(map(size_of, specs)) < 1
    return specs


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_two_sessions_of_one_machine_agree(machine: Machine, noise: float) -> None:
    """Landmarks are all that the second session shares with the first. Without them, networks differ by up to 15 %."""
    table, specs = new_table(synthetic.made_runtime()), networks()
    machine.noise = noise
    measure_missing(table, [NetworkPart(specs[0])])
    first = time_networks(specs, table=table)
    table.remember({NetworkPart(spec): first[NetworkPart(spec)] for spec in landmarks()})
    machine.whole = sped_up(0.06)
    second = time_networks(specs, table=table)
    parts = [NetworkPart(spec) for spec in specs]
    sped = [machine.whole(spec) for spec in specs]
    assert min(sped) < 0.9
    allowed = 0.006 + noise
    for part in parts:
        assert second[part].ratio == pytest.approx(first[part].ratio, rel=allowed)
    table.networks.clear()
    untold = time_networks(specs, table=table)
    for part, factor in zip(parts, sped, strict=True):
        assert untold[part].ratio == pytest.approx(factor * first[part].ratio, rel=allowed)


def test_rows_come_with_landmarks_only_where_networks_do(machine: Machine) -> None:
    """Trimming asks for a few rows, from which nothing is learned."""
    space = load_space("mobilenet_v3_small").at([(0.5, 96)])
    specs, keys = [space.sample(random.Random(seed)) for seed in range(2)], [NetworkPart(s).key for s in landmarks()]
    table = new_table(synthetic.made_runtime())
    measure_missing(table, parts_of(specs[0]))
    assert table.networks == {}
    measure_missing(table, parts_of(specs[1]), co_run=specs)
    assert set(table.networks) == {*keys, *(NetworkPart(spec).key for spec in specs)}


def test_rows_of_a_tilted_session_teach_what_other_sessions_do(machine: Machine) -> None:
    """The networks that run among rows lose the tilt, too."""
    table, specs = new_table(synthetic.made_runtime()), networks()[:5]
    measure_missing(table, [NetworkPart(spec) for spec in specs[:1]])
    table.settled = True
    machine.whole = sped_up(0.06)
    measure_missing(table, [NetworkPart(spec) for spec in specs[1:]])
    for spec in specs[1:]:
        assert table.part_ms(NetworkPart(spec)) == pytest.approx(network_ms(spec), rel=0.01)
