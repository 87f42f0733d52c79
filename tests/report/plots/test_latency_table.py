import dataclasses

import pytest
from support.drawn_texts import boxes_of_texts

from nas.report.plots.figure import ReportFigure
from nas.report.plots.latency_table import TableData, as_table, draw, table_data


def test_table_keeps_kinds_of_rows_and_drops_what_a_logarithm_cannot_show(run):
    whole = table_data(run)
    assert len(whole.rows) == len(run.table_rows)
    assert [(row.op, row.kernel, row.se) for row in whole.rows[:2]] == [("stem", 3, False), ("head", 0, False)]
    assert {row.se for row in whole.rows} == {False, True}
    rows = run.table_rows.copy()
    rows.loc[len(rows) - 1, "ms"] = -0.001
    data = table_data(dataclasses.replace(run, table_rows=rows))
    assert len(data.rows) == len(rows) - 1
    assert data.rows == whole.rows[:-1]
    assert data.subtitle.endswith(f": {len(rows) - 1} of its 4,812 rows served this run")


def test_hundreds_of_rows_are_an_image(run, tmp_path):
    data = table_data(run)
    assert len(data.rows) > 500
    svg, _ = ReportFigure("table", "", "", lambda: draw(data), lambda: as_table(data)).save(tmp_path, ["svg"])
    assert svg.read_text(encoding="utf-8").count("<use") < len(data.rows)


def test_an_empty_table_is_drawn():
    assert "this run used no rows of the table" in dict(boxes_of_texts(draw(TableData("t", "s", ()))))


def test_names_are_never_formulas(run, tmp_path):
    data = dataclasses.replace(table_data(run), subtitle=r"$\broken{ & <b>")
    png, _ = ReportFigure("table", "", "", lambda: draw(data), lambda: as_table(data)).save(tmp_path, ["png"])
    assert png.stat().st_size > 1000


@pytest.mark.parametrize("column", ["macs", "ms"])
def test_a_row_of_nothing_is_left_out(run, column):
    rows = run.table_rows.copy()
    rows.loc[0, column] = 0
    assert table_data(dataclasses.replace(run, table_rows=rows)).rows == table_data(run).rows[1:]
