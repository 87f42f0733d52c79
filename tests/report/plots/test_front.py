import dataclasses

import msgspec
import numpy as np
import pytest
from support.drawn_texts import check_texts
from support.made_up_run import changed, write_run

from nas.arch.loading import load_spec
from nas.report.page.front import front_data as page_front
from nas.report.page.front import front_lines
from nas.report.plots.figure import ReportFigure
from nas.report.plots.front import STYLES, BudgetLine, FrontData, NetworkPoint, as_table, draw, front_data
from nas.runs.reading import load_run
from nas.runs.target import Target

# Data -------------------------------------------------------------------------------------------------


def test_front_shows_trials_points_and_budgets(run):
    data = front_data(run)
    large = data.trials[0]
    assert [trials.skeleton for trials in data.trials] == ["large", "small"]
    assert len(large.latency_ms) == 30
    assert list(large.front_latency_ms) == sorted(large.front_latency_ms)
    assert max(large.front_top1) == max(large.top1)
    assert [(budget.skeleton, budget.latency_ms) for budget in data.budgets] == [("large", 4.0), ("small", 1.2)]
    found, published = data.points[0], data.points[2]
    assert (found.skeleton, found.published_top1, found.estimated_std) == ("large", None, 0.7)
    assert found.estimated_top1 == run.found("large").estimated_top1
    assert (published.skeleton, published.published_top1) == (None, 75.2)
    assert published.estimated_top1 == run.record.networks[2].estimated_top1 != 75.2
    assert found.latency_ms == run.found("large").measured_ms
    assert data.subtitle == "Example CPU 3.0, onnxruntime 1.31.1, 1 thread"


def test_a_published_network_without_an_estimate_is_drawn_as_published(run):
    large, *_ = run.record.networks
    v4 = msgspec.structs.replace(
        run.record.networks[2],
        name="mobilenetv4_conv_small",
        spec=load_spec("mobilenetv4_conv_small"),
        estimated_top1=None,
        estimated_std=None,
        published_top1=73.756,
    )
    unknown = msgspec.structs.replace(v4, name="neither", published_top1=None)
    with_v4 = changed(run, networks=(*run.record.networks, v4, unknown))
    data = front_data(with_v4)
    point = data.points[-1]
    assert (point.label, point.estimated_top1, point.published_top1) == ("MobileNetV4-Conv-S", None, 73.756)
    table = as_table(data)
    row = table[table.name == "MobileNetV4-Conv-S"].iloc[0]
    assert np.isnan(row.estimated_top1_percent)
    assert row.published_top1_percent == 73.756
    figure = draw(data)
    check_texts(figure)
    (axes,) = figure.axes
    assert sum(line.get_marker() == "D" and line.get_ydata()[0] == 73.756 for line in axes.lines) == 1
    points = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert len(points) == len([p for p in front_data(run).points if not p.skeleton])
    page = page_front(with_v4, front_lines(with_v4))["networks"]
    assert {one["name"]: (one["top1"], one["published"]) for one in page}["MobileNetV4-Conv-S"] == (None, 73.756)
    assert large.found


def test_the_targets_of_a_skeleton_share_a_cloud(tmp_path):
    targets = [Target("large", budget_ms, one_of_several=True) for budget_ms in (3, 4)]
    data = front_data(load_run(write_run(tmp_path / "run", targets)))
    (trials,) = data.trials
    assert trials.skeleton == "large"
    assert len(trials.latency_ms) == 60
    assert [(budget.skeleton, budget.latency_ms) for budget in data.budgets] == [("large", 3.0), ("large", 4.0)]
    assert [point.label for point in data.points[:3]] == [
        "found Large at 3 ms",
        "found Large at 4 ms",
        "MobileNetV3-Large",
    ]
    check_texts(draw(data))


def test_a_few_of_the_once_for_all_networks_have_names(run):
    points = front_data(run).points
    family = [point for point in points if point.of_family]
    assert len(family) == 38
    assert all(point.label for point in points if not point.of_family)
    named = [point for point in family if point.label]
    assert len(named) == 5
    assert min(family, key=lambda point: point.latency_ms) in named
    assert max(family, key=lambda point: point.published_top1) in named
    for point in named:  # none of the family is faster and better
        assert not any(o.latency_ms < point.latency_ms and o.published_top1 > point.published_top1 for o in family)
    assert not any(p.of_family for p in front_data(changed(run, networks=run.record.networks[:4])).points)


def test_the_front_is_one_of_proven_optima_where_the_run_has_them(run):
    data = front_data(run)
    large = data.front_of("large")
    optima = [one for one in run.optima if one.skeleton == "large"]
    assert large.latency_ms == tuple(one.latency_ms for one in optima)
    assert large.std == (0.7,) * len(optima)
    trials = data.trials[0]
    without = dataclasses.replace(data, optima=())
    assert without.front_of("large") == (trials.front_latency_ms, trials.front_top1, ())


def test_the_table_holds_all_that_is_drawn(run):
    table = as_table(front_data(run))
    counts = table.kind.value_counts()
    assert counts["optimum"] == len(run.optima)
    assert counts["trial"] == 60
    assert counts["found"] == counts["budget"] == 2
    assert counts["published"] == len(run.record.networks) - 2
    best = table[(table.kind == "optimum") & (table.skeleton == "small")].iloc[0]
    assert best.latency_ms == next(one.latency_ms for one in run.optima if one.skeleton == "small")
    assert list(table[table.kind == "budget"].latency_ms) == [4.0, 1.2]


# Drawing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "budgets_ms",
    [(20.0, 20.0), (3.0, 3.1), (1e6, 1e6), (0.5, 4.0), (4.0, 1000.0)],
    ids=["equal", "close", "beyond", "apart", "one beyond"],
)
def test_budgets_are_named_wherever_they_stand(run, budgets_ms):
    budgets = tuple(BudgetLine(*line) for line in zip(("large", "small"), budgets_ms, strict=True))
    check_texts(draw(dataclasses.replace(front_data(run), budgets=budgets, trials=())))


def test_a_front_of_one_point_and_no_trials():
    point = NetworkPoint("found Small", 1.0, 60.0, 0.7, None, "small")
    check_texts(draw(FrontData("title", "device", "ImageNet", (), (point,), (BudgetLine("small", 1.0),))))


def test_the_found_are_named_in_full_above_all_else(run):
    figure = draw(front_data(run))
    (axes,) = figure.axes
    names = [text for text in axes.texts if text.get_text().startswith("found")]
    assert [text.get_text() for text in names] == ["found Large", "found Small"]
    check_texts(figure)  # nothing written touches them
    others = [artist for artist in axes.get_children() if artist not in axes.texts]
    assert min(text.get_zorder() for text in names) > max(artist.get_zorder() for artist in others)


def test_a_family_is_drawn_lightly_and_never_at_the_cost_of_others(run):
    data = front_data(run)
    labels = {text.get_text() for text in draw(data).axes[0].texts}
    needed = {point.label for point in data.points if not point.of_family}
    assert needed <= labels
    # Thirty at one place: the first finds room, the rest stay without a name.
    crowd = tuple(NetworkPoint(f"OFA {n}", 5.0, 75.0, 0.5, 76.0, None, True) for n in range(30))
    figure = draw(dataclasses.replace(data, points=data.points[:2] + crowd))
    check_texts(figure)
    written = [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("OFA")]
    assert 1 <= len(written) < 30
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.texts]
    assert "Once-for-All, 30 networks" in texts
    assert not any(text.startswith("published") for text in texts)


def test_estimates_hang_at_the_published_points_that_have_names():
    points = (
        NetworkPoint("MobileNetV3-Large", 5.0, 74.0, 0.4, 75.2),
        NetworkPoint(None, 6.0, 73.5, 0.4, 75.0, None, True),
        NetworkPoint("found Large", 4.0, 74.5, 0.5, None, "large"),
    )
    (axes,) = draw(FrontData("title", "device", "ImageNet", (), points, ())).axes
    drawn = [(line.get_marker(), *line.get_xydata().tolist()) for line in axes.lines]
    assert ("o", [5.0, 74.0]) in drawn
    assert ("D", [5.0, 75.2]) in drawn
    assert ("None", [5.0, 74.0], [5.0, 75.2]) in drawn
    assert ("o", [6.0, 73.5]) in drawn
    assert not any(marker == "None" and start[0] == 6 for marker, start, *_ in drawn)
    low, high = axes.get_ylim()
    assert low < 73.5 < 75.2 < high


def grey_axes(data: FrontData) -> np.ndarray:
    """Return the luminance of what is drawn between the axes, from 0 to 255."""
    figure = draw(data)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba(), float) @ [0.2126, 0.7152, 0.0722, 0]
    box = figure.axes[0].get_window_extent()
    height = len(pixels)
    return pixels[height - int(box.y1) : height - int(box.y0), int(box.x0) : int(box.x1)]


def swapped(data: FrontData) -> FrontData:
    """Return the same with Large and Small in each other's place."""
    other = {"large": "small", "small": "large"}
    optima = tuple(msgspec.structs.replace(one, skeleton=other[one.skeleton]) for one in data.optima)
    return dataclasses.replace(data, optima=optima)


def test_skeletons_differ_without_colour(run, monkeypatch):
    published = front_data(run).points[2:3]
    data = dataclasses.replace(front_data(run), trials=(), budgets=(), points=published)

    def changed_pixels() -> int:
        return int((np.abs(grey_axes(data) - grey_axes(swapped(data))) > 50).sum())

    assert changed_pixels() > 1500
    alike = {name: STYLES["large"]._replace(color=style.color) for name, style in STYLES.items()}
    monkeypatch.setattr("nas.report.plots.front.STYLES", alike)
    assert changed_pixels() < 150, "colour alone tells them apart"


def test_thousands_of_trials_are_an_image(run, tmp_path):
    few = front_data(run)
    trials = dataclasses.replace(few.trials[0], latency_ms=tuple(np.geomspace(1, 9, 5000)), top1=(74.0,) * 5000)
    data = dataclasses.replace(few, points=few.points[:2], trials=(trials,))
    svg, _ = ReportFigure("front", "", "", lambda: draw(data), lambda: as_table(data)).save(tmp_path, ["svg"])
    assert svg.stat().st_size < 250_000
