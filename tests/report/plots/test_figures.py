"""All figures of a report: texts lie inside them and apart from each other, files repeat, grey is enough."""

import csv
import itertools
import re

import matplotlib as mpl
import pytest
from support.drawn_texts import check_texts
from support.pdf_texts import texts_of_pdf

from nas.report.formats import FORMATS
from nas.report.plots import FIGURES
from nas.report.plots.style import KERNEL_COLORS, KERNEL_POINTS

UNITS = ("_ms", "_percent", "_points", "_channels", "_px")
PURE = (  # columns that are counts, names or yes and no
    *("kind", "skeleton", "name", "variant", "macs", "params", "target", "network", "part", "kernel", "stride"),
    *("activation", "residual", "op", "se", "population", "spec_id"),
)


def test_a_report_has_every_figure_once(run):
    figures = [figure for of_run in FIGURES.values() for figure in of_run(run)]
    names = ["front", "breakdown", "large", "small", "measured", "latency_table"]
    assert [figure.name for figure in figures] == names
    assert all(figure.heading and figure.caption for figure in figures)


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_apart(run, name):
    for figure in FIGURES[name](run):
        check_texts(figure.draw())


@pytest.mark.parametrize("name", FIGURES)
def test_the_data_of_a_figure_have_units(run, name):
    for figure in FIGURES[name](run):
        table = figure.table()
        assert len(table) > 1
        for column in table.columns:
            assert column in PURE or column.endswith(UNITS), column


def test_files_repeat_to_the_byte_and_tell_no_date(run, tmp_path):
    (figure,) = FIGURES["breakdown"](run)
    files = [figure.save(tmp_path / folder, FORMATS) for folder in ("a", "b")]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()
    names = [path.name for path in files[0]]
    assert names == ["breakdown.png", "breakdown.svg", "breakdown.pdf", "breakdown.csv"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)
    svg = files[0][1].read_text(encoding="utf-8")
    assert "matplotlib.org" not in svg
    assert "<dc:date>" not in svg
    assert "Where the milliseconds go</dc:title>" in svg
    assert not re.search(rb"/CreationDate|/ModDate|/Producer|/Creator", files[0][2].read_bytes())


def test_a_pdf_holds_its_text_in_embedded_fonts(run, tmp_path):
    (figure,) = FIGURES["breakdown"](run)
    pdf, _ = figure.save(tmp_path, ("pdf",))
    content = pdf.read_bytes()
    assert b"/FontFile2" in content  # TrueType, as journals ask for
    assert b"/Type3" not in content
    texts = texts_of_pdf(content)
    assert "Where the milliseconds go, by the latency table" in texts
    assert "MobileNetV3-Large" in texts


def test_a_table_keeps_the_digits_of_its_figure(run, tmp_path):
    (figure,) = FIGURES["breakdown"](run)
    (written,) = figure.save(tmp_path, ())
    with written.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    network = run.record.networks[2]
    own = [float(row["time_ms"]) for row in rows if row["network"] == "MobileNetV3-Large"]
    assert sum(own) == pytest.approx(network.predicted_ms, rel=1e-4)
    assert {row["target"] for row in rows} == {"Large", "Small"}


def test_kernels_differ_without_colour():
    """By an eighth of the way from black to white, and by the shape of points."""
    for colors in (KERNEL_COLORS.values(), [color for _, color in KERNEL_POINTS.values()]):
        luminance = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in map(mpl.colors.to_rgb, colors)]
        assert all(abs(one - other) > 0.125 for one, other in itertools.combinations(luminance, 2))
    assert len({shape for shape, _ in KERNEL_POINTS.values()}) == len(KERNEL_POINTS)
