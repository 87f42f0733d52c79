"""The page of a run in a headless Chromium: what it shows, answers and marks, at every width and in both colours."""

import dataclasses

import msgspec
import numpy as np
import pandas as pd
import pytest
from support.browser import WIDTHS, OpenPage, open_page
from support.made_up_run import changed, write_run

from nas.report.page import render_page
from nas.report.page.front import front_lines
from nas.runs.reading import Run, load_run
from nas.runs.target import Target

NAME = "<b>名前</b> & \"quotes' <script>alert(1)</script>"
CONTROLS = "main a[href], main input, main select, main button, main summary, main [tabindex]"


def point_of(opened: OpenPage, ms: float, top1: float) -> tuple[float, float]:
    """Return where a network stands in the front, in pixels of the window."""
    opened.page.locator("#front-chart").scroll_into_view_if_needed()
    x, y = opened.page.evaluate(
        """([ms, top1]) => {
            const chart = document.getElementById("front-chart");
            const { xaxis, yaxis } = chart._fullLayout;
            const box = chart.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.d2p(ms), box.top + yaxis._offset + yaxis.d2p(top1)];
        }""",
        [ms, top1],
    )
    return float(x), float(y)


def hover(opened: OpenPage, ms: float, top1: float) -> str:
    """Return the label that appears where the mouse points at a network of the front."""
    x, y = point_of(opened, ms, top1)
    opened.page.mouse.move(x - 40, y - 40)
    opened.page.mouse.move(x, y)
    lines = opened.page.locator("#front-chart .hoverlayer .hovertext tspan.line")
    lines.first.wait_for(state="attached")
    return " ".join(text.replace("\xa0", " ") for text in lines.all_text_contents())


def traces(opened: OpenPage) -> list[str]:
    """Return the names of the traces of the front."""
    names = opened.page.evaluate("document.getElementById('front-chart').data.map((trace) => trace.name)")
    return [name for name in names if name]


def many_trials(run: Run, count: int) -> Run:
    """Return a run with that many trials: its own again and again, a little moved."""
    rng = np.random.default_rng(0)
    trials = pd.concat([run.trials] * (1 + count // len(run.trials)))[:count].reset_index(drop=True)
    trials["latency_ms"] *= rng.uniform(0.8, 1.25, count)
    trials["top1"] += rng.normal(0, 0.5, count)
    trials["macs"] = (trials.macs * rng.uniform(0.8, 1.25, count)).astype("int64")
    trials["params"] = (trials.params * rng.uniform(0.8, 1.25, count)).astype("int64")
    return dataclasses.replace(run, trials=trials)


@pytest.fixture(scope="module")
def opened(run, browser, tmp_path_factory) -> OpenPage:
    """The page of the run. A test that chooses something lets go of it, for the next one."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render_page(run), encoding="utf-8")
    return open_page(browser, path)


@pytest.mark.parametrize(("width", "color_scheme"), [*zip(WIDTHS, ("light", "light", "dark"), strict=True)])
def test_page_is_quiet_fits_and_is_accessible(trimmed_run, show, width, color_scheme):
    opened = show(trimmed_run, width=width, color_scheme=color_scheme)
    assert opened.sideways() <= 0
    opened.page.locator("summary").first.click()  # the table of all networks scrolls inside itself
    assert opened.sideways() <= 0
    if (width, color_scheme) in ((360, "light"), (1280, "dark")):  # axe takes longer than all else
        opened.check_accessible()
    opened.check_quiet()


def test_trainings_and_near_networks_fit_a_phone(run, show):
    opened = show(run, width=360)
    for table in opened.page.locator("table.trainings").all():
        assert table.evaluate("table => table.parentElement.scrollWidth - table.parentElement.clientWidth") <= 0
        assert "epochs" not in table.locator("thead").inner_text()  # they stand under the names
    assert "epochs: 600; teacher: none" in opened.page.locator("table.trainings").first.inner_text()


def test_the_answer_for_a_budget_is_that_of_python(run, opened):
    for budget_ms in (0.01, 0.7, 1.2, 4, 8, 12.345, 1000):
        opened.page.fill("#budget", f"{budget_ms}")
        text = " ".join(opened.page.inner_text("#answer").split())
        for line in front_lines(run):
            best, title = line.best_within(budget_ms), line.skeleton.capitalize()
            if best is None:
                assert f"{title}: nothing of width@pixels" in text
                assert "is that fast; there the least budget is" in text
                continue
            star, std = "*" if best.extrapolated else "", best.latency_std
            assert (
                f"{title}: {best.top1:.1f} ± {best.top1_std:.1f}{star} % top-1 estimated, at {best.latency_ms:.2f} ± "
                f"{std:.{3 if std < 0.01 else 2}f} ms predicted: a proven optimum, the nearest of some forty, "
                f"{best.variant}, {best.macs / 1e6:.0f} M MACs, {best.params / 1e6:.2f} M parameters."
            ) in text
            command = f"uv run python -m nas.search --budget-ms {budget_ms:.4g} --only {line.skeleton}"
            assert command in text
        within = [n for n in run.record.networks if not n.found and n.latency_ms <= budget_ms]
        if within:
            top1 = max(network.estimated_top1 for network in within)
            assert f"{top1:.1f} ± 0.7 % by the same estimate, at" in text
        else:
            assert "Published:" not in text
    opened.check_quiet()


def test_the_answer_for_a_searched_budget_names_what_was_found(run, opened):
    found = run.found("large")
    sentence = (
        f"This run searched that budget: found Large takes {found.measured_ms:.2f} ms measured at an estimated "
        f"{found.estimated_top1:.1f} ± 0.7 %. Train it:"
    )
    opened.page.fill("#budget", "4")
    text = opened.page.inner_text("#answer")
    assert sentence in text
    assert f"uv run python -m nas.train {run.path / 'large.json'}" in text
    opened.page.fill("#budget", "4.1")
    assert "This run searched" not in opened.page.inner_text("#answer")


def test_the_least_budget_that_the_page_names_has_an_answer(run):
    for line in front_lines(run):
        fastest = min(point.latency_ms for point in line.points)
        budget_ms = fastest / (Target(line.skeleton, 1.0).limit_ms)
        assert line.best_within(1.0001 * budget_ms) is not None
        assert line.best_within(0.9999 * budget_ms) is None


def test_the_slider_answers_by_keyboard(run, opened):
    opened.page.fill("#budget", "4")
    opened.page.focus("#budget-slider")
    before = opened.page.inner_text("#answer")
    for _ in range(5):
        opened.page.keyboard.press("ArrowRight")
    value = float(opened.page.input_value("#budget"))
    assert value > 4
    assert opened.page.inner_text("#answer") != before
    assert f"--budget-ms {value:.4g} --only" in opened.page.inner_text("#answer")
    assert opened.page.get_attribute("#budget-slider", "aria-valuetext") == f"{value:g} milliseconds"
    opened.check_quiet()


def test_a_found_network_tells_its_facts_when_pointed_at(run, opened):
    found = run.found("small")
    text = hover(opened, found.measured_ms, found.estimated_top1)
    for fact in (
        "found Small",
        f"{found.measured_ms:.2f} ± {found.measured_ms * found.measured_error:.3f} ms measured",
        f"{found.estimated_top1:.1f} ± {found.estimated_std:.1f} % top-1 estimated",
        f"{found.spec.resolution} px · {found.macs / 1e6:.0f} M MACs · {found.params / 1e6:.2f} M parameters",
        "recipe level: imagenet-prior: as Once-for-All trains, 25 epochs of fine-tuning",
        "source: imagenet-prior",
    ):
        assert fact in text


def test_parts_of_the_front_and_its_scale_are_chosen_by_boxes(run, opened):
    assert "Large: proven optima" in traces(opened)
    assert "Large: trials" in traces(opened)
    for label in ("Large: proven optima", "Large: trials", "Once-for-All"):
        opened.page.get_by_label(label).uncheck()
    assert "Large: proven optima" not in traces(opened)
    assert "Large: trials" not in traces(opened)
    assert "Once-for-All, as published" not in traces(opened)
    assert "Small: proven optima" in traces(opened)
    scale = "document.getElementById('front-chart')._fullLayout.xaxis.type"
    assert opened.page.evaluate(scale) == "log"
    opened.page.get_by_label("logarithmic milliseconds").uncheck()
    assert opened.page.evaluate(scale) == "linear"
    for label in ("Large: proven optima", "Large: trials", "Once-for-All", "logarithmic milliseconds"):
        opened.page.get_by_label(label).check()
    assert "Large: trials" in traces(opened)
    assert opened.page.evaluate(scale) == "log"
    opened.check_quiet()


def test_budgets_are_lines_and_what_breaks_them_is_shaded(run, opened):
    shapes = opened.page.evaluate("document.getElementById('front-chart').layout.shapes")
    for result in run.record.targets:
        budget_ms = result.target.budget_ms
        assert any(one["type"] == "line" and one["x0"] == one["x1"] == budget_ms for one in shapes)
        assert any(one["type"] == "rect" and one["x0"] == budget_ms < one["x1"] for one in shapes)


def test_trials_are_chosen_by_keyboard_and_marked_in_the_front(run, opened):
    opened.page.select_option("#choices-axis", "px")
    opened.page.fill("#choices-from", "224")
    opened.page.press("#choices-from", "Tab")
    large = run.trials[run.trials.target == "large"]
    chosen = large[large.resolution == 224]
    text = opened.page.inner_text("#choices-text")
    assert text.startswith(f"{len(chosen)} of {len(large)} networks of Large have pixels from 224 to 224.")
    assert f"{chosen.top1.max():.1f} ± 0.7 % at {chosen.latency_ms[chosen.top1.idxmax()]:.2f} ms" in text
    assert "Large: chosen trials" in traces(opened)
    opened.page.click("#choices-clear")
    assert opened.page.inner_text("#choices-text").startswith(f"{len(large)} networks of Large; none is left out.")
    assert "Large: chosen trials" not in traces(opened)
    opened.check_quiet()


def test_trials_are_chosen_by_the_mouse(run, opened):
    canvas = opened.page.locator("#choices-chart")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    right = box["x"] + box["width"] - 44  # the axis of top-1
    opened.page.mouse.move(right, box["y"] + 41)
    opened.page.mouse.down()
    opened.page.mouse.move(right, box["y"] + box["height"] / 2, steps=3)
    opened.page.mouse.up()
    assert "networks of Large have top-1, % from" in opened.page.inner_text("#choices-text")
    opened.page.mouse.click(right, box["y"] + box["height"] / 2)
    assert "none is left out" in opened.page.inner_text("#choices-text")
    opened.check_quiet()


def test_other_trials_and_other_properties_have_axes_of_their_own(run, opened):
    opened.page.select_option("#choices-property", "depth")
    options = opened.page.locator("#choices-axis option").all_inner_texts()
    assert "stage 1: depth" in options
    opened.page.select_option("#choices-axis", "stage 1")
    opened.page.fill("#choices-from", "3")
    opened.page.press("#choices-from", "Tab")
    assert "have stage 1: depth from 3 to" in opened.page.inner_text("#choices-text")
    opened.page.select_option("#choices-skeleton", label="Small")
    assert "networks of Small; none is left out" in opened.page.inner_text("#choices-text")
    opened.page.select_option("#choices-skeleton", label="Large")
    opened.page.select_option("#choices-property", "kernel")
    opened.check_quiet()


def test_a_block_is_described_when_it_is_reached_by_keyboard(run, opened):
    boxes = opened.page.locator(".chain").first.locator(".box")
    boxes.first.focus()
    assert opened.page.inner_text("#about-block").startswith("stem: 3×3, 3 → ")
    opened.page.keyboard.press("ArrowRight")
    text = opened.page.inner_text("#about-block")
    assert text.startswith("block 1: ")
    assert text == boxes.nth(1).get_attribute("data-details")
    opened.check_quiet()


def test_a_block_is_as_wide_as_its_share_of_time(run, opened):
    network = run.found("large")
    widths = opened.page.evaluate(
        "[...document.querySelector('.chain').querySelectorAll('.box')].map((box) => box.getBoundingClientRect().width)"
    )
    wide = [(width, ms) for width, (_, ms) in zip(widths, network.breakdown, strict=True) if width > 40]
    ratios = [width / ms for width, ms in wide]
    assert len(wide) > 5
    assert max(ratios) < 1.15 * min(ratios)


def test_keyboard_reaches_every_control(trimmed_run, show):
    opened = show(trimmed_run)
    wanted = opened.page.evaluate(
        "(controls) => [...document.querySelectorAll(controls)]"
        ".filter((one) => one.tabIndex >= 0 && one.checkVisibility()).length",
        CONTROLS,
    )
    reached = 0
    for _ in range(wanted):
        opened.page.keyboard.press("Tab")
        reached += opened.page.evaluate("(controls) => document.activeElement.matches(controls)", CONTROLS)
    assert wanted > 30
    assert reached == wanted


def test_odd_names_are_text_everywhere(run, show):
    networks = [
        msgspec.structs.replace(network, name=NAME, source=NAME) if network.name == "mobilenet_v2" else network
        for network in run.record.networks
    ]
    measured = run.measured.copy()
    measured["name"] = NAME
    table = msgspec.structs.replace(run.table, device=NAME)
    odd = dataclasses.replace(
        changed(run, networks=tuple(networks), table=table, notes=(NAME,), arguments={"data": f"imagefolder:{NAME}"}),
        measured=measured,
    )
    opened = show(odd)
    assert NAME in opened.page.inner_text("h1")
    assert opened.page.evaluate("document.querySelectorAll('body b > script, h1 b').length") == 0
    (network,) = [network for network in networks if network.name == NAME]
    assert NAME in hover(opened, network.measured_ms, network.estimated_top1)
    opened.check_quiet()


def test_long_names_keep_to_a_narrow_screen(run, show):
    name = 60 * "long"
    networks = [msgspec.structs.replace(network, name=name, target=network.target) for network in run.record.networks]
    table = msgspec.structs.replace(run.table, device=name, file=f"{name}.json")
    targets = [msgspec.structs.replace(result, space=name) for result in run.record.targets]
    command = f"python -m nas.search --large-space {name}"
    opened = show(
        changed(run, networks=tuple(networks), table=table, targets=tuple(targets), command=command), width=360
    )
    assert opened.sideways() <= 0


def test_a_run_of_almost_nothing_is_shown(run, show):
    empty = dataclasses.replace(
        changed(run, table=msgspec.structs.replace(run.table, fidelity=())),
        trials=run.trials[:0],
        front=run.front[:0],
        table_rows=run.table_rows[:0],
        measured=run.measured[:0],
        optima=(),
    )
    opened = show(empty)
    text = opened.page.inner_text("main")
    for sentence in (
        "This run holds no trials.",
        "The latency table was not checked by random networks",
        "No network was trimmed in this run.",
        "Large: this run holds no networks to answer from.",
    ):
        assert sentence in text
    opened.check_quiet()
    opened.check_accessible()


def test_a_run_of_one_trial_is_shown(run, show):
    one = dataclasses.replace(run, trials=run.trials[:1], front=run.front[:1], optima=())
    opened = show(one)
    assert opened.page.inner_text("#choices-text").startswith("1 networks of Large; none is left out.")
    opened.page.fill("#budget", "1000")
    assert "the best trial" in opened.page.inner_text("#answer")
    opened.check_quiet()


def test_several_budgets_of_one_skeleton_are_shown(tmp_path, show):
    targets = [Target("large", budget_ms, one_of_several=True) for budget_ms in (3.0, 3.1, 4.0, 5.0, 6.0)]
    opened = show(load_run(write_run(tmp_path / "run", targets)))
    notes = opened.page.evaluate("document.getElementById('front-chart').layout.annotations.map((note) => note.text)")
    assert {"3 ms", "4 ms", "5 ms", "6 ms"} <= set(notes)
    assert "3.1 ms" not in notes  # there is no room for it
    assert opened.sideways() <= 0
    opened.check_quiet()


def test_ten_thousand_trials_are_small_and_drawn_at_once(run, show, record_property):
    many = many_trials(run, 10_000)
    assert len(render_page(many).encode()) < 6_000_000
    opened = show(many)
    drawn = opened.page.evaluate("document.querySelectorAll('#front-chart .point').length")
    assert 500 < drawn < 10_000
    milliseconds = opened.page.evaluate("document.body.dataset.frontDrawing")
    record_property("first drawing, ms", milliseconds)
    print(f"first drawing: {milliseconds} ms, {drawn} points")
    opened.check_quiet()
