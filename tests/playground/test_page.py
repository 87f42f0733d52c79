"""What a person does on the page: with a keyboard, on a phone, with names of any kind."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Download, Page
from support.browser import WIDTHS, OpenPage, new_window, open_page, wait_for_drawing
from support.made_up_table import ODD_NAME

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.cost import count_cost
from nas.arch.loading import load_space, load_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, squeezed_channels
from nas.latency.table import LatencyTable
from nas.playground.data import spec_text

LARGE = "mobilenet_v3_large"


def begin(page: Page, name: str) -> None:
    page.locator("#start").select_option(label=name)


def number(text: str | None) -> float:
    """Return the first number of a text, with its sign."""
    found = re.search(r"[-+−]?[\d.]+", text or "")
    assert found, text
    return float(found[0].replace("−", "-"))


def shown(page: Page, name: str) -> float:
    return number(page.locator(f"#{name}").text_content())


def downloaded(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(f"#{button}").click()
    download: Download = waiting.value
    path = folder / download.suggested_filename
    download.save_as(path)
    return path


def current(page: Page, folder: Path) -> ArchSpec:
    """Return the network of now, by saving it and loading it as `python -m nas.train` does."""
    return load_spec(downloaded(page, "save", folder))


# The page as it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "color_scheme"), [*zip(WIDTHS, ("light", "light", "dark"), strict=True)])
def test_the_page_fits_and_is_accessible(browser: Browser, page_path: Path, width: int, color_scheme: str) -> None:
    page = open_page(browser, page_path, width=width, color_scheme=color_scheme)  # type: ignore[arg-type]
    assert page.sideways() == 0
    begin(page.page, "trimmed")
    assert page.sideways() == 0
    page.page.locator("#ablation-kernel-7").click()
    assert page.sideways() == 0
    begin(page.page, "mobilenet_v2, 192 px")
    assert page.sideways() == 0
    if (width, color_scheme) in ((WIDTHS[0], "light"), (WIDTHS[-1], "dark")):  # axe-core takes seconds
        page.check_accessible()
        begin(page.page, LARGE)
        page.check_accessible()
    page.check_quiet()
    page.page.context.close()


def test_the_page_is_small_beside_plotly(page_path: Path) -> None:
    assert page_path.stat().st_size < 7e6


def test_the_keyboard_reaches_every_control(opened: OpenPage) -> None:
    page = opened.page
    page.set_viewport_size({"width": 500, "height": 900})  # where each block has a button of its own, too
    begin(page, LARGE)
    wanted = set(
        page.evaluate(
            """() => [...document.querySelectorAll("main button, main select, main input")]
            .filter((one) => !one.disabled && one.offsetParent !== null).map((one) => one.id)"""
        )
    )
    assert "" not in wanted
    assert {
        "slider",
        "budget",
        "start",
        "kernel-1",
        "se-11",
        "activation-14",
        "depth-4",
        "save",
        "ablation-se",
    } <= wanted
    page.locator("h1").click()
    reached = set()
    for _ in range(3 * len(wanted)):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
        if wanted <= reached:
            break
    assert wanted <= reached


def test_names_are_text(opened: OpenPage) -> None:
    page = opened.page
    assert page.locator("#summary-name").text_content() == ODD_NAME
    assert page.locator("main img").count() == 0
    page.locator("#kernel-3").select_option("7")
    assert page.locator("#summary-name").text_content() == f"This network against {ODD_NAME}"
    hover = page.evaluate("document.getElementById('front').data.flatMap((trace) => trace.text ?? [])")
    assert any("&lt;img" in text for text in hover)
    assert not any("<img" in text for text in hover)
    page.locator("#name").fill(ODD_NAME)
    assert page.locator("#command").text_content() == "uv run python -m nas.train img-src-x-onerror-alert-1-.json"


# Building by hand ------------------------------------------------------------------------------------


def test_differences_are_to_whatever_network_is_compared_with(opened: OpenPage) -> None:
    page = opened.page
    begin(page, LARGE)
    assert page.locator("#compare").is_disabled()
    page.locator("#ablation-kernel-7").click()
    name = page.locator("#name").input_value()
    assert name.startswith("large-")
    page.locator("#compare").click()
    assert page.locator("#summary-name").text_content() == name
    assert page.locator("#compare").is_disabled()
    assert page.locator("#reset").is_disabled()


def test_a_choice_changes_the_numbers_to_pythons(opened: OpenPage, table: LatencyTable, tmp_path: Path) -> None:
    page = opened.page
    begin(page, LARGE)
    before = load_spec(LARGE)
    page.locator("#kernel-12").focus()
    page.keyboard.press("ArrowDown")  # from 5 to 7
    page.locator("#expanded-11").select_option("448")
    page.locator("#se-11").uncheck()
    page.locator("#activation-1").select_option("hswish")
    spec = current(page, tmp_path)
    wanted = before.with_block(12, kernel=7).with_block(11, expanded=448, se=0).with_block(1, activation="hswish")
    assert spec.id == wanted.id
    estimates = ImageNetPrior().estimate([before, spec])
    assert shown(page, "now-top1") == pytest.approx(estimates.top1[1], abs=0.051)
    assert shown(page, "delta-top1") == pytest.approx(estimates.top1[1] - estimates.top1[0], abs=0.0051)
    cost, base = count_cost(spec), count_cost(before)
    assert shown(page, "now-macs") == pytest.approx(cost.macs / 1e6, abs=0.51)
    assert shown(page, "delta-params") == pytest.approx((cost.params - base.params) / 1e6, abs=0.0051)
    assert shown(page, "delta-memory") == pytest.approx((cost.memory_bytes - base.memory_bytes) / 1e6, abs=0.051)
    assert shown(page, "now-ms") == pytest.approx(table.predict_ms([spec])[0], abs=0.0051)
    page.locator("#reset").click()
    assert page.locator("#summary-name").text_content() == LARGE
    assert page.locator("#delta-ms").text_content() == ""


def test_depth_and_variant_change_the_network(opened: OpenPage, spaces: list[SearchSpace], tmp_path: Path) -> None:
    page = opened.page
    begin(page, LARGE)
    page.locator("#depth-2").select_option("3")
    page.locator("#depth-0").select_option("4")
    assert page.locator("#stages .part").count() == 18  # stem, 16 blocks, head
    page.locator("#variant").select_option(label="width 0.75, 192 px")
    page.locator("#snap").click()
    spec = current(page, tmp_path)
    assert spaces[0].contains(spec)
    assert (spec.resolution, spec.blocks[-1].out, len(spec.blocks)) == (192, 120, 16)


def test_what_a_block_is_worth_is_told(opened: OpenPage, table: LatencyTable) -> None:
    page = opened.page
    begin(page, LARGE)
    page.locator("#se-11").focus()
    page.wait_for_selector("#choices h3:has-text('Block 12')")
    row = page.locator("#choices tr", has_text="Without SE")
    ms, points = (number(cell) for cell in row.locator("td .delta").all_text_contents())
    with_se = load_spec(LARGE)
    without = with_se.with_block(11, se=0)
    estimates = ImageNetPrior().estimate([with_se, without])
    assert points == pytest.approx(estimates.top1[1] - estimates.top1[0], abs=0.0051)
    assert ms == pytest.approx(table.predict_ms([without])[0] - table.predict_ms([with_se])[0], abs=0.00051)
    row.get_by_role("button").click()
    assert not page.locator("#se-11").is_checked()


def test_on_a_phone_the_choices_open_below_their_block(browser: Browser, page_path: Path) -> None:
    opened = open_page(browser, page_path, width=360)
    page = opened.page
    page.locator("#compare-4").click()
    assert page.locator("#part-5 + #choices h3").text_content() == "Block 5: what each choice would change"
    assert page.locator("#compare-4").get_attribute("aria-expanded") == "true"
    page.locator("#compare-4").click()
    assert page.locator("#compare-4").get_attribute("aria-expanded") == "false"
    page.context.close()


HSWISH_FROM = 88  # channels of a stage of the network
ABLATIONS: dict[str, Callable[[ArchSpec], ArchSpec]] = {
    "hswish": lambda spec: every(spec, lambda b: b.replace(activation="hswish" if b.out >= HSWISH_FROM else "relu")),
    "relu": lambda spec: every(spec, lambda b: b.replace(activation="relu")),
    "hswish-all": lambda spec: every(spec, lambda b: b.replace(activation="hswish")),
    "se": lambda spec: every(spec, lambda b: b if b.se else b.replace(se=squeezed_channels(b.expanded))),
    "no-se": lambda spec: every(spec, lambda b: b.replace(se=0)),
    "kernel-3": lambda spec: every(spec, lambda b: b.replace(kernel=3)),
    "kernel-5": lambda spec: every(spec, lambda b: b.replace(kernel=5)),
    "kernel-7": lambda spec: every(spec, lambda b: b.replace(kernel=7)),
    "minimalistic": lambda spec: every(spec, lambda b: b.replace(kernel=3, se=0, activation="relu")),
}


def every(spec: ArchSpec, change: Callable[..., object]) -> ArchSpec:
    """Return a network with a change in all blocks but the first."""
    return spec.replace(blocks=(spec.blocks[0], *map(change, spec.blocks[1:])))


def test_ablations_are_pythons_differences(opened: OpenPage, table: LatencyTable, tmp_path: Path) -> None:
    page = opened.page
    page.locator("#skeleton").select_option(label=LARGE)
    page.locator("#variant").select_option(label="width 0.75, 192 px")
    page.locator("#hswish").select_option(str(HSWISH_FROM))
    spec = current(page, tmp_path)
    for name, change in ABLATIONS.items():
        row = page.locator("#ablation-rows tr", has=page.locator(f"#ablation-{name}"))
        changed = change(spec)
        if changed.id == spec.id:
            assert row.count() == 0
            continue
        ms, points = (number(cell.replace("±0", "0")) for cell in row.locator(".delta").all_text_contents())
        now, then = table.predict_ms([spec, changed])
        top1 = ImageNetPrior().estimate([spec, changed]).top1
        assert ms == pytest.approx(then - now, abs=0.00051), name
        assert points == pytest.approx(top1[1] - top1[0], abs=0.0051), name
    page.locator("#ablation-se").click()
    assert current(page, tmp_path).id == ABLATIONS["se"](spec).id


# The budget ------------------------------------------------------------------------------------------


def test_the_slider_solves(opened: OpenPage, table: LatencyTable, spaces: list[SearchSpace], tmp_path: Path) -> None:
    page = opened.page
    page.locator("#skeleton").select_option(label=LARGE)
    page.locator("#slider").focus()
    for key in ("Home", "PageUp", "PageUp", "ArrowRight", "PageUp"):
        page.keyboard.press(key)
        spec = current(page, tmp_path)
        budget = float(page.locator("#budget").input_value())
        assert spaces[0].contains(spec)
        assert table.predict_ms([spec])[0] <= budget * 1.0006  # the input shows four digits
        assert shown(page, "now-ms") == pytest.approx(table.predict_ms([spec])[0], abs=0.0051)
    assert "This is the best of mobilenet_v3_large within" in (page.locator("#solution").text_content() or "")


def test_a_budget_can_be_typed(opened: OpenPage, table: LatencyTable, tmp_path: Path) -> None:
    page = opened.page
    page.locator("#skeleton").select_option(label=LARGE)
    page.locator("#budget").fill("4.5")
    page.keyboard.press("Enter")
    assert 0.97 * 4.5 < table.predict_ms([current(page, tmp_path)])[0] <= 4.5
    page.locator("#budget").fill("0.01")
    page.keyboard.press("Enter")
    assert "No network of mobilenet_v3_large takes 0.01 ms or less" in (page.locator("#solution").text_content() or "")
    page.locator("#budget").fill("-3")
    page.keyboard.press("Enter")
    assert page.locator("#budget").input_value() == "0.01"


def test_the_best_network_can_be_taken_after_a_change(opened: OpenPage, tmp_path: Path) -> None:
    page = opened.page
    page.locator("#skeleton").select_option(label=LARGE)
    best = current(page, tmp_path).id
    assert page.locator("#take").is_hidden()
    page.locator("#se-1").click()
    assert current(page, tmp_path).id != best
    page.locator("#take").click()
    assert current(page, tmp_path).id == best


def test_a_dot_of_the_chart_is_begun_from(opened: OpenPage, tmp_path: Path) -> None:
    page = opened.page
    click = """(name) => {
        const front = document.getElementById("front");
        const trace = front.data.find((one) => (one.text ?? []).some((text) => text.startsWith(`<b>${name}</b>`)));
        const index = trace.text.findIndex((text) => text.startsWith(`<b>${name}</b>`));
        front.emit("plotly_click", { points: [{ customdata: trace.customdata[index] }] });
        return [trace.x[index], front.data.map((one) => one.name)];
    }"""
    ms, traces = page.evaluate(click, LARGE)
    assert {"published", "your networks", "this network", "begun from", "budget"} <= set(traces)
    assert page.locator("#summary-name").text_content() == LARGE
    assert shown(page, "now-ms") == pytest.approx(ms, abs=0.0051)
    assert current(page, tmp_path).id == load_spec(LARGE).id


def test_fronts_are_saved_as_csv_and_svg(opened: OpenPage, table: LatencyTable, tmp_path: Path) -> None:
    with downloaded(opened.page, "save-csv", tmp_path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["skeleton"] for row in rows} == {LARGE, "mobilenet_v3_small"}
    for name in (LARGE, "mobilenet_v3_small"):
        own = [row for row in rows if row["skeleton"] == name]
        assert len(own) > 30
        assert np.all(np.diff([float(row["top1_estimated"]) for row in own]) > 0)
        assert np.all(np.diff([float(row["predicted_ms"]) for row in own]) > 0)
    text = downloaded(opened.page, "save-svg", tmp_path).read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "best of mobilenet_v3_large" in text


# State -----------------------------------------------------------------------------------------------


def test_a_reload_and_a_link_bring_the_state_back(opened: OpenPage, browser: Browser, tmp_path: Path) -> None:
    page = opened.page
    page.locator("#skeleton").select_option(label=LARGE)
    page.locator("#kernel-3").select_option("7")
    spec = current(page, tmp_path)
    for again in ("reload", "link"):
        if again == "reload":
            page.reload(wait_until="load")
        else:
            address = page.url
            page = new_window(browser)
            page.goto(address, wait_until="load")
        wait_for_drawing(page)
        assert current(page, tmp_path).id == spec.id
        assert page.locator("#summary-name").text_content() == f"This network against {ODD_NAME}"
    page.context.close()


def test_back_undoes_a_change(opened: OpenPage, tmp_path: Path) -> None:
    page = opened.page
    begin(page, LARGE)
    first = current(page, tmp_path).id
    page.locator("#kernel-3").select_option("7")
    second = current(page, tmp_path).id
    page.locator("#se-1").click()
    page.go_back()
    assert current(page, tmp_path).id == second
    page.go_back()
    assert current(page, tmp_path).id == first
    page.go_forward()
    assert current(page, tmp_path).id == second


@pytest.mark.parametrize("fragment", ["#start=nonsense", "#start=224~0.001~16.2.h~m3.1.1~960.1280.h", "#x", "#start=%"])
def test_an_address_that_cannot_be_read_is_told(browser: Browser, page_path: Path, fragment: str) -> None:
    page = new_window(browser)
    page.goto(page_path.resolve().as_uri() + fragment, wait_until="load")
    wait_for_drawing(page)
    assert "address of this page cannot be read" in (page.locator("#message").text_content() or "")
    assert page.locator("#summary-name").text_content() == ODD_NAME
    page.context.close()


# Networks of other kinds ------------------------------------------------------------------------------


def test_a_spec_from_a_file_is_begun_from(opened: OpenPage, tmp_path: Path) -> None:
    page, name = opened.page, "文件 <i>"
    spec = load_spec("hardcorenas_a").replace(name=name)
    spec.save(tmp_path / "mine.json", {"measured_ms": 1.0})
    page.locator("#load").set_input_files(tmp_path / "mine.json")
    page.locator("#summary-name", has_text=name).wait_for()
    saved = current(page, tmp_path)
    assert (saved.id, saved.name) == (spec.id, name)
    (tmp_path / "broken.json").write_text('{"version": 1}', encoding="utf-8")
    page.locator("#load").set_input_files(tmp_path / "broken.json")
    page.locator("#message", has_text="broken.json: it holds no spec").wait_for()
    assert page.locator("#summary-name").text_content() == name


def test_a_network_of_another_build_is_shown_and_greyed(opened: OpenPage) -> None:
    page = opened.page
    begin(page, "mobilenet_v2, 192 px")
    assert page.locator("#stages .part.fixed").count() == 19
    assert page.locator("#stages select, #stages input").count() == 0
    assert page.locator("#now-ms").text_content() == "unknown"
    assert "the table has no row for" in (page.locator("#remarks").text_content() or "")
    assert page.locator("#fixed-note").is_visible()
    assert shown(page, "now-top1") == pytest.approx(
        ImageNetPrior().estimate([load_spec("mobilenet_v2", resolution=192)]).top1[0], abs=0.051
    )


def test_a_trimmed_network_is_changed_block_by_block(opened: OpenPage, table: LatencyTable, tmp_path: Path) -> None:
    page = opened.page
    begin(page, "trimmed")
    assert page.locator("#stage-1").text_content() == "32 channels (40 in the space at width 1)"
    assert page.locator("#expanded-11").input_value() == "600"
    before = shown(page, "now-ms")
    assert before == pytest.approx(table.predict_ms([current(page, tmp_path)])[0], abs=0.0051)
    page.locator("#se-11").uncheck()
    assert (page.locator("#now-ms").text_content() or "").startswith("≈")
    assert shown(page, "now-ms") < before
    assert "no row of their own" in (page.locator("#remarks").text_content() or "")
    page.locator("#snap").click()
    assert load_space(LARGE).contains(current(page, tmp_path))
    assert page.locator("#remarks").text_content() == "" or "≈" not in (page.locator("#remarks").text_content() or "")


def test_short_texts_of_networks_fit_an_address(spaces: list[SearchSpace]) -> None:
    assert all(len(spec_text(space.largest(space.variants[0]))) < 600 for space in spaces)
