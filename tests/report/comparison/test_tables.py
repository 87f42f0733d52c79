"""Two latency tables in words, rows and figures."""

import dataclasses
from pathlib import Path

import pytest
from support.drawn_texts import boxes_of_texts, check_texts

from nas.latency.table import LatencyTable
from nas.latency.table_comparison import TableComparison
from nas.report.comparison.tables import LISTED, TablesView
from nas.report.comparison.tables_figures import blocks_table, draw_networks, figures, networks_table


def test_tables_are_named_by_what_differs(view: TablesView) -> None:
    assert view.names == ("Intel Xeon 6-167-1", "Other <b>EPYC</b>")


def test_tables_of_one_device_are_named_by_their_runtimes(table_files: list[Path]) -> None:
    first, second = LatencyTable.load(table_files[0]), LatencyTable.load(table_files[0])
    second.runtime = dataclasses.replace(second.runtime, threads=2, precision="int8")
    view = TablesView(TableComparison((first, second), (), (), 0))
    assert view.names == ("Intel Xeon 6-167-1, 1 thread, float32", "Intel Xeon 6-167-1, 2 threads, int8")
    same = TablesView(TableComparison((first, LatencyTable.load(table_files[0])), (), (), 0))
    assert same.names == ("one.json", "one.json")


def test_networks_are_sorted_by_where_they_are_fast(view: TablesView) -> None:
    relative = [row.relative for row in view.rows]
    assert relative == sorted(relative)
    assert view.faster_on_first[0].relative == max(relative)
    assert all(row.relative > 1 for row in view.faster_on_first)
    assert len(view.faster_on_first) == LISTED
    assert [row.name for row in view.faster_on_second] == ["mobilenet_v1"]
    assert view.faster_on_second[0].difference_percent == pytest.approx(-10, abs=0.1)


def test_sentences_say_how_the_networks_are_known(view: TablesView) -> None:
    measured = sum(row.measured for row in view.rows)
    assert measured == 3
    assert view.networks_text == (
        f"Both tables know {len(view.rows)} networks: 3 measured whole on both and {len(view.rows) - 3} predicted by "
        "both tables."
    )
    assert f"Spearman's rank correlation of their times is {view.comparison.spearman:.3f}" in view.ranks_text
    swapped = (1 - view.comparison.kendall) / 2  # Kendall's correlation counts the pairs
    assert view.swapped_percent == pytest.approx(100 * swapped, abs=0.1)


def test_figures_hold_all_numbers(view: TablesView) -> None:
    for figure in figures(view):
        check_texts(figure.draw())
    networks = networks_table(view)
    assert len(networks) == len(view.rows)
    assert set(networks.latency) == {"measured", "predicted"}
    blocks = blocks_table(view)
    row = blocks[blocks.name == "5×5"].iloc[0]
    assert (row.of, round(row.relative_time_median, 2)) == ("kernel", 2.0)
    assert len(blocks) == len(view.comparison.kinds) + len(view.comparison.prices)


def test_tables_that_share_no_network_say_so(view: TablesView) -> None:
    empty = TablesView(dataclasses.replace(view.comparison, networks=()))
    assert "both tables know no network" in dict(boxes_of_texts(draw_networks(empty)))
    assert empty.ranks_text == "These are too few for a rank correlation."
