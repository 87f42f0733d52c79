"""The pages of comparisons in a browser."""

import re
from pathlib import Path

import pytest
from support.browser import WIDTHS, open_page

from nas.report.writing import write_asked

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # of the odd name, in figures


@pytest.fixture(scope="module")
def runs_page(run_folders, tmp_path_factory) -> Path:
    return write_asked(run_folders, tmp_path_factory.mktemp("pages") / "runs", ["png"])


@pytest.fixture(scope="module")
def tables_page(table_files, tmp_path_factory) -> Path:
    return write_asked(table_files, tmp_path_factory.mktemp("pages") / "tables", ["png"])


@pytest.fixture(params=["runs_page", "tables_page"])
def page(request) -> Path:
    """Each of the two pages."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_is_quiet_and_fits(browser, page, width):
    opened = open_page(browser, page, width=width)
    opened.check_quiet()
    assert opened.sideways() == 0
    for chart in opened.page.locator(".chart").all():
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] <= width
        assert chart.locator("svg .trace").count() > 0
    opened.page.context.close()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_page_can_be_read_by_everybody(browser, page, color_scheme):
    opened = open_page(browser, page, color_scheme=color_scheme)
    opened.check_accessible()
    opened.page.context.close()


def test_the_links_of_a_page_lead_to_files(page):
    links = re.findall(r'href="(figures/[^"#]+)"', page.read_text(encoding="utf-8"))
    assert {Path(link).suffix for link in links} == {".png", ".csv"}
    assert all((page.parent / link).is_file() for link in links)


def test_the_page_of_runs_names_them_and_what_each_found(browser, runs_page, run_folders):
    opened = open_page(browser, runs_page).page
    text = opened.locator("main").inner_text()
    assert "Latencies are of different devices" in text
    assert text.index("Latencies are of different devices") < text.index("top-1 against latency")

    odd = run_folders[1].name  # all of it is text
    assert opened.locator("main i, main b").count() == 0
    assert "Other <b>EPYC</b>" in text
    legend = opened.locator(".legendtext").all_text_contents()
    assert any(odd in name and "Other <b>EPYC</b>" in name for name in legend)
    link = opened.get_by_role("link", name=odd).get_attribute("href")
    assert link is not None
    assert "%3Ci%3E%22" in link

    found = opened.get_by_role("region", name="The networks that were found").locator("tbody tr")
    assert found.count() == 4
    assert "found Small" in found.first.inner_text()
    opened.context.close()


def test_the_page_of_tables_answers_fast_here_slow_there(browser, tables_page, view):
    opened = open_page(browser, tables_page).page
    text = opened.locator("main").inner_text()
    assert view.ranks_text in text
    assert view.networks_text in text
    kinds = opened.get_by_role("region", name="Kinds of blocks").locator("tbody tr")
    slow = next(row for row in kinds.all_inner_texts() if "5×5" in row)
    assert "+100" in slow or "+99.9" in slow
    assert "Intel Xeon 6-167-1" in slow
    opened.context.close()


def test_the_command_that_makes_a_page_again_stands_on_it(run_folders, tmp_path):
    page = write_asked(run_folders, tmp_path, ["pdf"])
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["fronts.csv", "fronts.pdf"]
    assert f"--out {tmp_path} --format pdf" in page.read_text(encoding="utf-8")
