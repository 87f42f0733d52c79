import msgspec
import pytest
from support.made_up_run import changed

from nas.report.plots.front import draw, front_data
from nas.report.texts import budget_text, display_name, images_text, title_of, variant_text, with_uv


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


def test_commands_and_variants_are_written_as_readers_type_and_read_them():
    assert with_uv("python -m nas.train large.json") == "uv run python -m nas.train large.json"
    assert with_uv(with_uv("nas train")) == "uv run nas train"
    assert title_of("large") == "Large"
    assert variant_text(1.25, 224) == "width 1.25 at 224 px"
