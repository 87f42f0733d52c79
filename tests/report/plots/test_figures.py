"""All figures of a report: texts lie inside them and apart from each other, files repeat."""

import pytest
from support.drawn_texts import check_texts

from nas.report.plots import FIGURES


def test_a_report_has_every_figure_once(run):
    figures = [figure for of_run in FIGURES.values() for figure in of_run(run)]
    assert [figure.name for figure in figures] == ["front", "breakdown", "large", "small", "latency_table"]
    assert all(figure.heading and figure.caption for figure in figures)


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_apart(run, name):
    for figure in FIGURES[name](run):
        check_texts(figure.draw())


def test_files_repeat_to_the_byte_and_tell_no_date(run, tmp_path):
    (figure,) = FIGURES["front"](run)
    files = [figure.save(tmp_path / folder) for folder in ("a", "b")]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()
    svg = files[0][1].read_text(encoding="utf-8")
    assert "matplotlib.org" not in svg
    assert "<dc:date>" not in svg
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["front.png", "front.svg"]
