import msgspec
import pytest
from support.drawn_texts import boxes_of_texts
from support.made_up_run import changed

from nas.errors import NasError
from nas.report.plots.breakdown import BreakdownData, breakdown_data, draw


def test_breakdown_adds_up_stage_by_stage(run):
    (_, large), (_, small) = breakdown_data(run).panels
    assert [bar.label for bar in large] == ["found Large", "MobileNetV3-Large"]
    assert [bar.label for bar in small] == ["found Small", "MobileNetV3-Small"]
    published = run.record.networks[2]
    assert [segment.part for segment in large[1].segments] == [
        "stem", "first", "stage 1", "stage 2", "stage 3", "stage 4", "stage 5", "head",
    ]  # fmt: skip
    assert large[1].total_ms == pytest.approx(published.predicted_ms)
    # MobileNetV3-Large's stage 3 is its four blocks of 80 channels, numbers 7 to 10.
    assert large[1].segments[4].ms == pytest.approx(sum(dict(published.breakdown)[f"block {n}"] for n in range(7, 11)))


def test_breakdown_of_another_network_is_refused(run):
    first, *others = run.record.networks
    first = msgspec.structs.replace(first, spec=first.spec.replace(blocks=first.spec.blocks[:3]))
    with pytest.raises(NasError, match="more blocks than its spec"):
        breakdown_data(changed(run, networks=(first, *others)))


def test_an_empty_breakdown_is_drawn():
    figure = draw(BreakdownData("t", (("Large", ()),)))
    assert "the table has no rows for these networks" in dict(boxes_of_texts(figure))
