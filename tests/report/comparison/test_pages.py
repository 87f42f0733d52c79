"""The pages of comparisons in a browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from support.browser import WIDTHS, chromium, open_page

from nas.report.plots import FIGURES
from nas.report.writing import write_asked


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=["runs", "tables"])
def page(request, run_folders, table_files, tmp_path_factory) -> Path:
    """The page of both comparisons."""
    asked = {"runs": run_folders, "tables": table_files}[request.param]
    return write_asked(asked, tmp_path_factory.mktemp("pages") / request.param)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_is_quiet_and_fits(browser, page, width):
    opened = open_page(browser, page, width=width)
    opened.check_quiet()
    assert opened.sideways() == 0
    charts = opened.page.locator(".chart")
    for number in range(charts.count()):
        box = charts.nth(number).bounding_box()
        assert box is not None
        assert box["width"] <= width
        assert opened.page.locator(".chart").nth(number).locator("svg .trace").count() > 0


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_page_can_be_read_by_everybody(browser, page, color_scheme):
    open_page(browser, page, color_scheme=color_scheme).check_accessible()


def test_the_links_of_a_page_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r'href="([^"#]+)"', text) if link.startswith("figures/")]
    assert {Path(link).suffix for link in links} == {".png", ".svg", ".csv"}
    assert all((page.parent / link).is_file() for link in links)


def test_odd_names_are_text(browser, run_folders, tmp_path):
    page = write_asked(run_folders, tmp_path)
    opened = open_page(browser, page).page
    assert opened.locator("main i, main b").count() == 0
    assert opened.get_by_role("link", name=run_folders[1].name).count() == 1
    assert "Other <b>EPYC</b>" in opened.locator("main").inner_text()
    legend = opened.locator(".legendtext").all_inner_texts()
    assert any("Other <b>EPYC</b>" in name for name in legend)
    link = opened.get_by_role("link", name=run_folders[1].name).get_attribute("href")
    assert link is not None
    assert "%3Ci%3E%22" in link


def test_runs_that_do_not_compare_are_warned_of_first(browser, run_folders, tmp_path):
    opened = open_page(browser, write_asked(run_folders, tmp_path)).page
    text = opened.locator("main").inner_text()
    assert "Latencies are of different devices" in text
    assert text.index("Latencies are of different devices") < text.index("top-1 against latency")


def test_the_page_of_runs_shows_what_each_found(browser, run_folders, tmp_path):
    opened = open_page(browser, write_asked(run_folders, tmp_path)).page
    table = opened.get_by_role("region", name="The networks that were found")
    assert table.locator("tbody tr").count() == 4
    first = table.locator("tbody tr").first.inner_text()
    assert "found Small" in first
    assert "1.2" in first


def test_the_page_of_tables_answers_fast_here_slow_there(browser, table_files, view, tmp_path):
    opened = open_page(browser, write_asked(table_files, tmp_path)).page
    text = opened.locator("main").inner_text()
    assert view.ranks_text in text
    assert view.networks_text in text
    kinds = opened.get_by_role("region", name="Kinds of blocks").locator("tbody tr")
    slow = next(row for row in kinds.all_inner_texts() if "5×5" in row)
    assert "+100" in slow
    assert "Intel Xeon 6-167-1" in slow


def test_a_comparison_can_be_written_for_a_paper(run_folders, tmp_path):
    write_asked(run_folders, tmp_path, ["pdf"])
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["fronts.csv", "fronts.pdf"]
    assert "fronts" not in FIGURES
