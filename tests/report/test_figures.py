import dataclasses

import pytest

from nas.errors import NasError
from nas.report.figures import (
    breakdown_figure,
    budget_text,
    diagram_figure,
    display_name,
    front_figure,
    table_figure,
)
from nas.runs.reading import load_run


@pytest.fixture(scope="module")
def run(finished_run):
    return load_run(finished_run)


def named(network, name):
    return display_name(dataclasses.replace(network, name=name, found=False))


def test_names_are_those_that_readers_know(run):
    published = run.networks[2]
    assert display_name(run.found("large")) == "found Large"
    assert named(published, "mobilenet_v3_large") == "MobileNetV3-Large"
    assert named(published, "mobilenet_v2@0.75") == "MobileNetV2 ×0.75"
    assert named(published, "ofa_cpu_lat-10ms") == "OFA cpu 10ms"
    assert named(published, "hardcorenas_a") == "HardCoRe-NAS A"
    assert named(published, "my_net") == "my_net"


def test_budgets_are_rounded_for_people():
    budgets_ms = (1.8588235294, 6.0, 20, 0.5, 1e6, 0.001)
    assert [budget_text(ms) for ms in budgets_ms] == ["1.86", "6", "20", "0.5", "1,000,000", "0.001"]


def test_front_shows_trials_points_and_budgets(run):
    figure = front_figure(run)
    large = figure.trials[0]
    assert [trials.role for trials in figure.trials] == ["large", "small"]
    assert len(large.latency_ms) == 30
    assert list(large.front_latency_ms) == sorted(large.front_latency_ms)
    assert max(large.front_top1) == max(large.top1)
    assert [(budget.role, budget.latency_ms) for budget in figure.budgets] == [("large", 4.0), ("small", 1.2)]
    found, published = figure.points[0], figure.points[2]
    assert (found.role, found.published_top1, found.estimated_std) == ("large", None, 0.7)
    assert found.estimated_top1 == run.found("large").estimated_top1
    assert (published.role, published.published_top1) == (None, 75.2)
    assert published.estimated_top1 == run.networks[2].estimated_top1 != 75.2
    assert found.latency_ms == run.found("large").measured_ms
    assert figure.subtitle == "Example CPU 3.0, onnxruntime 1.31.1, 1 thread"


def test_a_few_of_the_once_for_all_networks_have_names(run):
    points = front_figure(run).points
    family = [point for point in points if point.of_family]
    assert len(family) == 38
    assert all(point.label for point in points if not point.of_family)
    named = [point for point in family if point.label]
    assert len(named) == 5
    assert min(family, key=lambda point: point.latency_ms) in named
    assert max(family, key=lambda point: point.published_top1) in named
    for point in named:  # none of the family is faster and better
        assert not any(o.latency_ms < point.latency_ms and o.published_top1 > point.published_top1 for o in family)
    assert not any(p.of_family for p in front_figure(dataclasses.replace(run, networks=run.networks[:4])).points)


def test_table_keeps_kinds_of_rows_and_drops_what_a_logarithm_cannot_show(run):
    rows = (*run.table_rows[:-1], dataclasses.replace(run.table_rows[-1], ms=-0.001))
    figure = table_figure(dataclasses.replace(run, table_rows=rows))
    assert len(figure.rows) == len(rows) - 1
    assert figure.rows == rows[:-1]
    assert figure.subtitle.endswith(f": {len(rows) - 1} of its 4,812 rows served this run")


def test_breakdown_adds_up_stage_by_stage(run):
    (_, large), (_, small) = breakdown_figure(run).panels
    assert [bar.label for bar in large] == ["found Large", "MobileNetV3-Large"]
    assert [bar.label for bar in small] == ["found Small", "MobileNetV3-Small"]
    published = run.networks[2]
    assert [segment.part for segment in large[1].segments] == [
        "stem", "first", "stage 1", "stage 2", "stage 3", "stage 4", "stage 5", "head",
    ]  # fmt: skip
    assert large[1].total_ms == pytest.approx(published.predicted_ms)
    # MobileNetV3-Large's stage 3 is its four blocks of 80 channels, numbers 7 to 10.
    assert large[1].segments[4].ms == pytest.approx(sum(dict(published.breakdown)[f"block {n}"] for n in range(7, 11)))


def test_breakdown_of_another_network_is_refused(run):
    networks = list(run.networks)
    networks[0] = dataclasses.replace(networks[0], spec=networks[0].spec.replace(blocks=networks[0].spec.blocks[:3]))
    with pytest.raises(NasError, match="more blocks than its spec"):
        breakdown_figure(dataclasses.replace(run, networks=tuple(networks)))


def test_diagram_has_a_box_for_every_layer_of_the_skeleton(run):
    figure = diagram_figure(run, "large")
    spec, network = run.roles["large"].spec, run.found("large")
    blocks = [box for box in figure.boxes if box.name.isdecimal()]
    assert [box.name for box in figure.boxes if not box.name.isdecimal()] == ["stem", "conv", "FC", "FC"]
    assert [(b.kernel, b.inner, b.out, b.stride, b.se, b.activation) for b in blocks] == [
        (b.kernel, b.expanded, b.out, b.stride, b.se, b.activation) for b in spec.blocks
    ]
    assert sum(box.stride == 2 for box in figure.boxes) == 5
    assert blocks[-1].size == spec.resolution // 32
    assert sum(box.ms for box in figure.boxes if box.ms is not None) == pytest.approx(network.predicted_ms)
    assert f"{network.estimated_top1:.1f} ± 0.7 % top-1 estimated" in figure.subtitle


def test_diagram_without_a_breakdown_has_no_times(run):
    networks = (dataclasses.replace(run.networks[0], breakdown=()), *run.networks[1:])
    figure = diagram_figure(dataclasses.replace(run, networks=networks), "large")
    assert all(box.ms is None for box in figure.boxes)
