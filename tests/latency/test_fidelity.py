"""Check tables on a machine whose times are known."""

import dataclasses
import random

import numpy as np
import pytest
from support import synthetic
from support.synthetic import Machine, network_ms

from nas.arch.loading import load_space
from nas.arch.parts import NetworkPart
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.fidelity import check, covered, covered_variants, fidelity_of, fidelity_text, held_out
from nas.latency.landmarks import landmarks
from nas.latency.measuring import measure_missing, new_table
from nas.latency.networks import time_networks
from nas.latency.table import LatencyTable, space_parts


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return synthetic.install(monkeypatch)


@pytest.fixture
def space() -> SearchSpace:
    space = load_space("mobilenet_v3_small")
    stages = tuple(dataclasses.replace(s, kernels=(3, 5), expansions=(3,), depths=(1, 2)) for s in space.stages)
    return dataclasses.replace(space, stages=stages)


@pytest.fixture
def table(machine: Machine, space: SearchSpace) -> LatencyTable:
    table = new_table(synthetic.made_runtime())
    measure_missing(table, space_parts(space.at([(0.5, 96), (1.0, 128)])))
    return table


def random_networks(table: LatencyTable, space: SearchSpace, number: int) -> list[ArchSpec]:
    rng = random.Random(0)
    return held_out(table, covered(table, [space]), number, lambda space: space.sample(rng))


def test_figures_by_hand() -> None:
    measured = np.array([1.0, 2.0, 4.0, 5.0])
    found = fidelity_of(measured * [1.02, 0.98, 1.08, 0.8], measured, population="near-optimal", noise_mape=0.02)
    assert found.population == "near-optimal"
    assert (found.networks, found.mape, found.bias) == (4, 0.08, -0.03)
    assert (found.within_5_percent, found.within_10_percent) == (0.5, 0.75)
    assert found.spearman == pytest.approx(0.8)  # 4.32 and 4.0 change places
    assert found.kendall == pytest.approx(2 / 3, abs=1e-4)
    assert fidelity_text(found) == (
        "4 near-optimal networks: mean error 8.0% (measuring twice differs by 2.0%), bias -3.0%, within 5 %: 50%, "
        "within 10 %: 75%, Spearman 0.800, Kendall 0.667"
    )


def test_one_network_has_no_rank_correlation() -> None:
    """JSON has no number for an undefined correlation."""
    found = fidelity_of(np.array([1.0]), np.array([1.1]), population="random", noise_mape=0.0)
    assert (found.spearman, found.kendall) == (0, 0)


def test_only_variants_that_are_whole_are_covered(table: LatencyTable, space: SearchSpace) -> None:
    assert covered_variants(table, space) == [Variant(0.5, 96), Variant(1.0, 128)]
    del table.rows[next(key for key in table.rows if key.startswith("stem 96 "))]
    assert covered_variants(table, space) == [Variant(1.0, 128)]


def test_networks_are_of_the_covered_variants_of_every_space(table: LatencyTable, space: SearchSpace) -> None:
    other = dataclasses.replace(space, name="other", head=dataclasses.replace(space.head, hidden=64))
    measure_missing(table, space_parts(other.at([(0.75, 96)])))
    rng, views = random.Random(0), covered(table, [space, other, load_space("mobilenet_v3_large")])
    assert [(view.name, list(view.variants)) for view in views] == [
        (space.name, [(0.5, 96), (1.0, 128)]),
        ("other", [(0.75, 96)]),
    ]
    specs = held_out(table, views, 40, lambda space: space.sample(rng))
    assert len({spec.id for spec in specs}) > 35
    assert sum(other.at([(0.75, 96)]).contains(spec) for spec in specs) == 20
    assert sum(space.at([(0.5, 96), (1.0, 128)]).contains(spec) for spec in specs) == 20
    assert not table.missing([])
    with pytest.raises(NasError, match=r"all rows of no variant of mobilenet_v3_large; the same command without"):
        covered(table, [load_space("mobilenet_v3_large")])


def test_what_the_table_has_measured_is_not_drawn(table: LatencyTable, space: SearchSpace) -> None:
    """Neither is a network drawn twice, so there are fewer than asked for where a space has no more."""
    specs = random_networks(table, space, 5)
    table.remember(time_networks(specs[:3], table=table))
    drawn = iter([specs[0], specs[3], specs[3], specs[1], specs[4], specs[2]])
    assert held_out(table, [space], 2, lambda space: next(drawn)) == [specs[3], specs[4]]
    assert held_out(table, [space], 4, lambda space: specs[0]) == []
    assert held_out(table, [space], 4, lambda space: specs[4]) == [specs[4]]


def test_a_true_table_has_no_error(table: LatencyTable, space: SearchSpace) -> None:
    specs = random_networks(table, space, 20)
    shares: list[float] = []
    found, predicted, measured, sessions = check(
        table,
        specs,
        population="random",
        rng=random.Random(0),
        on_progress=lambda share, note: shares.append(share),
    )
    assert found.population == "random"
    assert predicted == pytest.approx(measured, rel=1e-4)
    assert (found.mape, found.bias, found.noise_mape) == pytest.approx((0, 0, 0), abs=1e-4)
    assert (found.within_5_percent, found.within_10_percent) == (1, 1)
    assert found.spearman == pytest.approx(1)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert [list(timings) for timings in sessions] == 2 * [[NetworkPart(spec) for spec in (*specs, *landmarks())]]
    assert table.networks == {}, "the caller lets the table learn, once all populations are compared"


def test_what_the_parts_do_not_know_is_found(table: LatencyTable, space: SearchSpace, machine: Machine) -> None:
    """Whole networks that take 4 percent less than their parts, and each up to 3 more or less."""
    reference = table.reference.spec.id

    def whole(spec: ArchSpec) -> float:
        return 1.0 if spec.id == reference else 0.96 * random.Random(spec.id).uniform(0.97, 1.03)

    machine.whole = whole
    specs = random_networks(table, space, 60)
    found, predicted, measured, sessions = check(table, specs, population="random", rng=random.Random(0))
    truth = np.array([network_ms(spec) * whole(spec) for spec in specs])
    assert measured == pytest.approx(truth, rel=1e-4)
    assert found.bias == pytest.approx(float((predicted / truth - 1).mean()), abs=1e-4)
    assert 0.03 < found.bias < 0.055
    assert found.mape >= found.bias
    assert 0.4 < found.within_5_percent < 0.95
    assert found.noise_mape < 1e-4
    for timings in sessions:
        table.remember(timings)
    after = check(table, specs, population="random", rng=random.Random(0)).fidelity
    assert abs(after.bias) < 0.005
    assert after.mape < 0.6 * found.mape


def test_the_noise_of_measuring_is_separated(table: LatencyTable, space: SearchSpace, machine: Machine) -> None:
    machine.noise = 0.03
    found = check(table, random_networks(table, space, 30), population="random", rng=random.Random(0)).fidelity
    assert 0.001 < found.noise_mape < 0.03
