import dataclasses

import numpy as np
import pytest
from support.drawn_texts import boxes_of_texts, check_texts

from nas.report.plots.measured import MeasuredData, as_table, draw, measured_data


def test_networks_stand_by_their_populations(run):
    data = measured_data(run)
    assert [one.name for one in data.populations] == ["found", "published", "near-optimal", "random"]
    counts = run.measured.population.value_counts()
    assert {one.name: len(one.measured_ms) for one in data.populations} == counts.to_dict()
    found = data.populations[0]
    assert found.errors_percent == pytest.approx(100 * (np.array(found.predicted_ms) / np.array(found.measured_ms) - 1))


def test_the_table_has_the_error_of_each_network(run):
    table = as_table(measured_data(run))
    assert len(table) == len(run.measured)
    assert np.allclose(table.error_percent, 100 * (table.predicted_ms / table.measured_ms - 1))
    assert as_table(MeasuredData("t", "s", ())).columns.tolist() == table.columns.tolist()


def test_every_population_has_a_shape_of_its_own(run):
    measured = run.measured.copy()
    names = ["found", "finalist", "published", "near-optimal", "random", "anchor", "other"]
    measured["population"] = [names[number % len(names)] for number in range(len(measured))]
    figure = draw(measured_data(dataclasses.replace(run, measured=measured)))
    check_texts(figure)
    (legend,) = figure.legends
    markers = [handle.get_marker() for handle in legend.legend_handles]
    assert len(set(markers)) == len(names)


def test_what_a_logarithm_cannot_show_is_left_out(run):
    measured = run.measured.copy()
    measured.loc[0, "measured_ms"] = 0.0
    data = measured_data(dataclasses.replace(run, measured=measured))
    assert sum(len(one.names) for one in data.populations) == len(measured) - 1


def test_a_run_that_measured_nothing_says_so(run):
    figure = draw(measured_data(dataclasses.replace(run, measured=run.measured.iloc[:0])))
    assert "no network was measured whole" in dict(boxes_of_texts(figure))
