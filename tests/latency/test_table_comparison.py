"""Two tables: networks and blocks that both know, their ranks, and what is relatively faster where."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.made_up_table import made_up_table, other_device, slow_kernels

from nas.arch.loading import load_space
from nas.arch.published import published_spec
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.errors import NasError
from nas.latency.table import LatencyTable
from nas.latency.table_comparison import MEMBERS, TableComparison, compare_tables

OTHER = other_device("Other")


def small(width: float = 1.0, resolution: int = 224) -> list[SearchSpace]:
    return [load_space("mobilenet_v3_small").at([Variant(width, resolution)])]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatencyTable, LatencyTable]:
    """Two devices; the second takes twice as long for 5x5 kernels and for MobileNetV2."""
    folder, v2, v1 = tmp_path_factory.mktemp("tables"), published_spec("mobilenet_v2"), published_spec("mobilenet_v1")
    here, there = other_device("Example CPU 3.0"), other_device("Other CPU")
    one = made_up_table(folder / "one.json", small(), device=here, measured=[(v2, 1.0), (v1, 1.0)])
    other = made_up_table(folder / "other.json", small(), device=there, slower=slow_kernels, measured=[(v2, 2.0)])
    return one, other


@pytest.fixture(scope="module")
def comparison(tables: tuple[LatencyTable, LatencyTable]) -> TableComparison:
    return compare_tables(*tables)


def test_kinds_tell_what_is_slow(comparison: TableComparison) -> None:
    kernels = {kind.name: kind for kind in comparison.kinds if kind.decision == "kernel"}
    assert list(kernels) == ["3×3", "5×5", "7×7"]
    assert kernels["5×5"].quartiles == pytest.approx((2.0, 2.0, 2.0), rel=0.01)
    assert kernels["3×3"].quartiles == pytest.approx((1.0, 1.0, 1.0), rel=0.01)
    assert sum(kind.blocks for kind in kernels.values()) == len(comparison.blocks)
    maps = [kind.name for kind in comparison.kinds if kind.decision == "map"]
    assert maps == ["below 14 px", "14 to 27 px", "28 to 55 px", "56 px and more"]


def test_prices_change_one_thing(comparison: TableComparison) -> None:
    prices = {price.name: price for price in comparison.prices}
    first, second = prices["5×5 instead of 3×3"].added
    assert second == pytest.approx(2 * (1 + first) - 1, rel=1e-2)
    for name in ("7×7 instead of 3×3", "SE", "h-swish instead of ReLU", "twice the channels inside"):
        assert prices[name].added[0] > 0
        assert prices[name].added[1] == pytest.approx(prices[name].added[0], rel=0.05)
        assert prices[name].pairs > 50


def test_networks_are_measured_on_both_or_predicted_by_both(comparison: TableComparison) -> None:
    measured = {network.spec.name: network for network in comparison.networks if network.measured}
    assert measured.keys() == {"mobilenet_v2", "mobilenet_v3_large"}  # the second table does not know V1
    assert comparison.relative(measured["mobilenet_v2"].ms) == pytest.approx(2.0, rel=1e-3)
    assert comparison.relative(measured["mobilenet_v3_large"].ms) == 1.0  # the reference network
    members = [network for network in comparison.networks if network.source == "member"]
    assert 0 < len(members) <= MEMBERS
    first, second = comparison.tables
    for network in members[:3]:
        assert network.ms == pytest.approx([float(table.predict_ms([network.spec])[0]) for table in (first, second)])
    assert len({network.spec.id for network in comparison.networks}) == len(comparison.networks)


def test_ranks_are_of_all_networks(comparison: TableComparison) -> None:
    ranks = comparison.ranks
    assert ranks.shape == (len(comparison.networks), 2)
    for column in ranks.T:
        assert sorted(column) == list(range(1, len(ranks) + 1))
    fastest = int(np.argmin([network.ms[1] for network in comparison.networks]))
    assert ranks[fastest, 1] == 1
    assert comparison.spearman is not None
    assert comparison.kendall is not None
    assert 0.3 < comparison.kendall < comparison.spearman < 1


def test_two_networks_have_no_rank_correlation(comparison: TableComparison) -> None:
    few = TableComparison(comparison.tables, comparison.networks[:2], comparison.blocks, 0)
    assert (few.spearman, few.kendall) == (None, None)


def test_tables_that_cannot_be_compared(tables: tuple[LatencyTable, LatencyTable], tmp_path: Path) -> None:
    one, _ = tables
    with pytest.raises(NasError, match="are the same table; name those of two devices"):
        compare_tables(one, one)
    copy = LatencyTable.load(shutil.copy(one.path, tmp_path / "copy.json"))
    with pytest.raises(NasError, match=r"one\.json and .*copy\.json are the same table"):
        compare_tables(one, copy)
    with pytest.raises(NasError, match=r"with 1000 classes, .* of 10; compare tables of one number of classes"):
        compare_tables(one, made_up_table(tmp_path / "ten.json", small(), device=OTHER, num_classes=10))
    elsewhere = made_up_table(tmp_path / "narrow.json", small(0.35, 96), device=OTHER)
    for key in elsewhere.rows.keys() & one.rows.keys():
        del elsewhere.rows[key]
    with pytest.raises(NasError, match="have no row of a block in common; measure the same space and variant"):
        compare_tables(one, elsewhere)
