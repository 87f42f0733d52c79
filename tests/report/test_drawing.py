"""What can be said of a drawing without eyes: texts lie inside it and apart from each other, files repeat."""

import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nas.arch.space import SearchSpace
from nas.report import drawing
from nas.report.figures import (
    BreakdownFigure,
    Budget,
    FrontFigure,
    Point,
    TableFigure,
    breakdown_figure,
    diagram_figure,
    front_figure,
    table_figure,
)
from nas.report.labels import Label, place_labels
from nas.runs.reading import load_run


@pytest.fixture(scope="module")
def run(finished_run):
    return load_run(finished_run)


def boxes_of_texts(figure: Figure):
    """Text and pixel box of everything written in a figure."""
    figure.draw_without_rendering()
    ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    hidden = {id(text) for axis in ticks for text in axis.findobj(Text)} - {
        id(text) for axis in ticks for text in shown_on_axis(axis)
    }
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            # An annotation's own box would hold its line to the point too.
            yield text.get_text(), Text.get_window_extent(text)


def shown_on_axis(axis):
    low, high = sorted(axis.get_view_interval())
    yield axis.label
    for tick in axis.get_major_ticks():
        if axis.axes.axison and low <= tick.get_loc() <= high:
            yield tick.label1


def check_texts(figure: Figure) -> None:
    texts = list(boxes_of_texts(figure))
    assert texts
    page = figure.bbox
    for text, box in texts:
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, f"{text!r} leaves the page: {box} is not in {page}"
    for (text, box), (other, other_box) in itertools.combinations(texts, 2):
        assert not box.padded(-1).overlaps(other_box.padded(-1)), f"{text!r} covers {other!r}"


@pytest.fixture(autouse=True)
def _drawn_in_our_style():
    with drawing._style():
        yield


def test_texts_of_a_whole_report_are_apart(run):
    check_texts(drawing.draw_front(front_figure(run)))
    check_texts(drawing.draw_table(table_figure(run)))
    check_texts(drawing.draw_breakdown(breakdown_figure(run)))
    check_texts(drawing.draw_diagram(diagram_figure(run, "large")))
    check_texts(drawing.draw_diagram(diagram_figure(run, "small")))


def test_the_deepest_and_widest_network_still_fits(run):
    space: SearchSpace = __import__("search_spaces.mobilenet_v3_large", fromlist=["SPACE"]).SPACE.at([(1.4, 288)])
    spec = space.decode([space.draw(lambda decision: len(decision.choices) - 1)])[0]
    roles = {"large": dataclasses.replace(run.roles["large"], spec=spec)}
    found = dataclasses.replace(
        run.networks[0], breakdown=(("stem", 1.0), *((f"block {n + 1}", 2.5) for n in range(len(spec.blocks))))
    )
    figure = diagram_figure(dataclasses.replace(run, roles=roles, networks=(found,)), "large")
    assert len(figure.boxes) == 25
    check_texts(drawing.draw_diagram(figure))


@pytest.mark.parametrize(
    "budgets_ms",
    [(20.0, 20.0), (3.0, 3.1), (1e6, 1e6), (0.5, 4.0), (4.0, 1000.0)],
    ids=["equal", "close", "beyond", "apart", "one beyond"],
)
def test_budgets_are_named_wherever_they_stand(run, budgets_ms):
    budgets = tuple(Budget(role, ms) for role, ms in zip(("large", "small"), budgets_ms, strict=True))
    check_texts(drawing.draw_front(dataclasses.replace(front_figure(run), budgets=budgets, trials=())))


def test_a_front_of_one_point_and_no_trials(run):
    point = Point("found Small", 1.0, 60.0, 0.7, None, "small")
    check_texts(drawing.draw_front(FrontFigure("title", "device", (), (point,), (Budget("small", 1.0),))))


def test_the_found_are_named_in_full_above_all_else(run):
    figure = drawing.draw_front(front_figure(run))
    (axes,) = figure.axes
    names = [text for text in axes.texts if text.get_text().startswith("found")]
    assert [text.get_text() for text in names] == ["found Large", "found Small"]
    check_texts(figure)  # nothing written touches them
    others = [artist for artist in axes.get_children() if artist not in axes.texts]
    assert min(text.get_zorder() for text in names) > max(artist.get_zorder() for artist in others)


def test_a_family_is_drawn_lightly_and_never_at_the_cost_of_others(run):
    data = front_figure(run)
    labels = {text.get_text() for text in drawing.draw_front(data).axes[0].texts}
    needed = {point.label for point in data.points if not point.of_family}
    assert needed <= labels
    # Thirty at one place: the first finds room, the rest stay without a name.
    crowd = tuple(Point(f"OFA {n}", 5.0, 75.0, 0.5, 76.0, None, True) for n in range(30))
    figure = drawing.draw_front(dataclasses.replace(data, points=data.points[:2] + crowd))
    check_texts(figure)
    written = [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("OFA")]
    assert 1 <= len(written) < 30
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.texts]
    assert "Once-for-All, 30 networks" in texts
    assert not any(text.startswith("published") for text in texts)


def test_estimates_hang_at_the_published_points_that_have_names(run):
    points = (
        Point("MobileNetV3-Large", 5.0, 74.0, 0.4, 75.2),
        Point(None, 6.0, 73.5, 0.4, 75.0, None, True),
        Point("found Large", 4.0, 74.5, 0.5, None, "large"),
    )
    (axes,) = drawing.draw_front(FrontFigure("title", "device", (), points, ())).axes
    drawn = [(line.get_marker(), *line.get_xydata().tolist()) for line in axes.lines]
    assert ("o", [5.0, 74.0]) in drawn
    assert ("D", [5.0, 75.2]) in drawn
    assert ("None", [5.0, 74.0], [5.0, 75.2]) in drawn
    assert ("o", [6.0, 73.5]) in drawn
    assert not any(marker == "None" and start[0] == 6 for marker, start, *_ in drawn)
    low, high = axes.get_ylim()
    assert low < 73.5 < 75.2 < high


def test_thousands_of_points_are_an_image(run, tmp_path):
    few = front_figure(run)
    trials = dataclasses.replace(few.trials[0], latency_ms=tuple(np.geomspace(1, 9, 5000)), top1=(74.0,) * 5000)
    drawing.draw(dataclasses.replace(few, points=few.points[:2], trials=(trials,)), tmp_path / "front")
    assert (tmp_path / "front.svg").stat().st_size < 250_000
    rows = table_figure(run).rows
    assert len(rows) > 500
    drawing.draw(table_figure(run), tmp_path / "table")
    assert (tmp_path / "table.svg").read_text().count("<use") < len(rows)


def test_empty_table_and_breakdown_are_drawn():
    assert "this run used no rows of the table" in dict(boxes_of_texts(drawing.draw_table(TableFigure("t", "s", ()))))
    figure = drawing.draw_breakdown(BreakdownFigure("t", (("Large", ()),)))
    assert "the table has no rows for these networks" in dict(boxes_of_texts(figure))


def test_crowded_labels_are_placed_apart(run):
    rng = np.random.default_rng(0)
    figure = Figure(figsize=(12, 7))
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    labels = [Label(x, y, f"network number {n}") for n, (x, y) in enumerate(rng.uniform(0.2, 0.8, (25, 2)))]
    place_labels(axes, labels, taken=[], lines=np.empty((0, 2)), size=9)
    assert len(axes.texts) == 25
    check_texts(figure)


def test_files_repeat_to_the_byte_and_tell_no_date(run, tmp_path):
    for folder in ("a", "b"):
        drawing.draw(front_figure(run), tmp_path / folder / "front")
    for suffix in (".png", ".svg"):
        first, second = ((tmp_path / folder / f"front{suffix}").read_bytes() for folder in ("a", "b"))
        assert first == second
    svg = first.decode()
    assert "matplotlib.org" not in svg
    assert "<dc:date>" not in svg
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["front.png", "front.svg"]


def test_names_are_never_formulas(run, tmp_path):
    drawing.draw(dataclasses.replace(table_figure(run), subtitle=r"$\broken{ & <b>"), tmp_path / "table")
    assert (tmp_path / "table.png").stat().st_size > 1000
