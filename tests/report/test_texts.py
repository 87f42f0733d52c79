import msgspec
import pytest
from support.made_up_run import changed

from nas.report.plots.front import draw, front_data
from nas.report.texts import budget_text, display_name, images_text


def test_names_are_those_that_readers_know(run):
    def named(name):
        return display_name(run, msgspec.structs.replace(run.record.networks[2], name=name))

    assert display_name(run, run.found("large")) == "found Large"
    assert named("mobilenet_v3_large") == "MobileNetV3-Large"
    assert named("mobilenet_v2@0.75") == "MobileNetV2 ×0.75"
    assert named("ofa_cpu_lat-10ms") == "OFA cpu 10ms"
    assert named("hardcorenas_a") == "HardCoRe-NAS A"
    assert named("my_net") == "my_net"


def test_budgets_are_rounded_for_people():
    budgets_ms = (1.8588235294, 6.0, 20, 0.5, 1e6, 0.001)
    assert [budget_text(ms) for ms in budgets_ms] == ["1.86", "6", "20", "0.5", "1,000,000", "0.001"]


@pytest.mark.parametrize(
    ("source", "images"),
    [
        (None, "ImageNet"),
        ("cifar10", "cifar10"),
        ("imagefolder:/some/where/birds (0123456789abcdef)", "birds"),
        ("imagefolder:fish", "fish"),
    ],
)
def test_accuracies_name_the_images_that_they_speak_for(run, source, images):
    asked = changed(run, arguments=run.record.arguments | {"data": source})
    assert images_text(asked) == images
    data = front_data(asked)
    assert data.title.startswith(f"{images} accuracy against latency")
    assert draw(data).axes[0].get_ylabel() == f"{images} top-1, %"
