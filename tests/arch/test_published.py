"""Published networks: their names, widths, data files and figures."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.arch.cost import count_cost
from nas.arch.families import FAMILIES
from nas.arch.published import DATA, published_names, published_results, published_spec
from nas.arch.spec import ArchSpec
from nas.errors import NasError

TIMM = [json.loads(line) for line in (DATA / "timm_networks.jsonl").read_text(encoding="utf-8").splitlines()]
V4 = [json.loads(line) for line in (DATA / "mobilenet_v4.jsonl").read_text(encoding="utf-8").splitlines()]
RESULTS = published_results()


@pytest.mark.parametrize("name", published_names())
def test_every_name_gives_a_network_that_says_its_name(name: str) -> None:
    spec = published_spec(name)
    assert spec.name == name
    assert ArchSpec.from_json(spec.to_json()) == spec


def test_a_network_published_at_several_resolutions_is_given_at_the_smallest() -> None:
    assert {r.spec.resolution for r in RESULTS if r.spec.name == "mobilenetv3_large_100"} == {224, 256}
    assert published_spec("mobilenetv3_large_100").resolution == 224


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_width_in_the_name_or_beside_it(family: str) -> None:
    assert published_spec(f"{family}@0.75") == published_spec(family, width=0.75)
    assert published_spec(f"{family}@0.75").name == f"{family}@0.75"
    assert published_spec(f"{family}@1.0") == published_spec(family, width=1.0) == published_spec(family)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("scale_head", [False, True])
def test_costs_grow_with_the_width(family: str, scale_head: bool) -> None:
    costs = [count_cost(published_spec(family, width, scale_head)) for width in (0.35, 0.5, 0.75, 1.0, 1.25, 1.4, 2.0)]
    for measure in ("params", "macs", "peak_activation_bytes"):
        values = [getattr(cost, measure) for cost in costs]
        assert values == sorted(values)
        assert values[0] < values[-1]


@pytest.mark.parametrize(
    ("name", "conv", "hidden"),
    [
        ("mobilenet_v3_large@0.5", 480, 1_280),  # the hidden layer keeps its size, the convolution does not
        ("mobilenet_v3_large@1.25", 1_200, 1_280),
        ("mobilenet_v3_small@0.75", 432, 1_024),
        ("mobilenet_v2@0.5", 1_280, 0),
        ("mobilenet_v2@1.4", 1_792, 0),
        ("mobilenet_v1@0.5", 0, 0),
        ("mnasnet_a1@0.5", 1_280, 0),
    ],
)
def test_heads_are_scaled_as_published(name: str, conv: int, hidden: int) -> None:
    head = published_spec(name).head
    assert (head.conv, head.hidden) == (conv, hidden)


def test_heads_are_scaled_as_torchvision_does_when_asked() -> None:
    assert published_spec("mobilenet_v3_large", 0.5, scale_head=True).head.hidden == 640
    assert published_spec("mobilenet_v3_small", 0.75, scale_head=True).head.hidden == 768
    assert published_spec("mobilenet_v2", 0.5, scale_head=True).head.conv == 640


def test_v3_rows_are_those_of_the_paper() -> None:
    large, small = published_spec("mobilenet_v3_large"), published_spec("mobilenet_v3_small")
    assert [block.out for block in large.blocks] == [16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160]
    assert [block.se for block in large.blocks] == [0, 0, 0, 24, 32, 32, 0, 0, 0, 0, 120, 168, 168, 240, 240]
    assert [placed.in_size for placed in large.walk()] == [112, 112, 56, 56, 28, 28, 28, *[14] * 6, 7, 7]
    assert [block.se for block in small.blocks] == [8, 0, 0, 24, 64, 64, 32, 40, 72, 144, 144]
    assert [placed.in_size for placed in small.walk()] == [112, 56, 28, 28, 14, 14, 14, 14, 14, 7, 7]
    assert (large.blocks[0].op, large.blocks[1].op) == ("sepconv", "mbconv")
    assert large.head_input == (160, 7)


def test_a1_rows_are_those_of_the_paper() -> None:
    blocks = published_spec("mnasnet_a1").blocks
    assert [block.out for block in blocks] == [16, 24, 24, *[40] * 3, *[80] * 4, 112, 112, *[160] * 3, 320]
    assert {block.gate for block in blocks if block.se} == {"sigmoid"}
    assert [block.se for block in blocks if block.se] == [6, 10, 10, 20, 28, 28, 40, 40]  # a quarter of the input
    assert [index for index, placed in enumerate(published_spec("mnasnet_a1").walk()) if placed.has_residual] == [
        2, 4, 5, 7, 8, 9, 11, 13, 14,
    ]  # fmt: skip


# Published figures ------------------------------------------------------------------------------------

PARAMS_M = {(row["name"], row["resolution"]): row["params_m"] for row in TIMM}
PARAMS_M |= {
    (f"{row['name']}.{one['recipe']}", one["resolution"]): row["params_m"] for row in V4 for one in row["results"]
}


@pytest.mark.parametrize("result", [r for r in RESULTS if r.recipe.startswith("timm-")], ids=lambda r: r.source)
def test_timm_networks_have_timms_number_of_parameters(result) -> None:  # type: ignore[no-untyped-def]
    checkpoint = result.source.split()[2]
    assert round(count_cost(result.spec).params / 1e6, 2) == PARAMS_M[checkpoint, result.spec.resolution]


@pytest.mark.parametrize("row", V4, ids=lambda row: row["name"])
def test_mobilenet_v4_has_timms_number_of_macs_at_every_resolution(row: dict[str, Any]) -> None:
    spec = published_spec(row["name"])
    for result in row["results"]:
        macs = count_cost(spec.replace(resolution=result["resolution"])).macs
        assert round(macs / 1e6, 1) == result["macs_m"]


def test_mobilenet_v4_is_built_of_universal_and_fused_blocks() -> None:
    small, medium = published_spec("mobilenetv4_conv_small"), published_spec("mobilenetv4_conv_medium")
    assert [(b.kernel, b.expanded, b.out, b.stride, b.activate_output) for b in small.blocks[:2]] == [
        (3, 32, 32, 2, True),
        (3, 96, 64, 2, True),
    ]
    assert [block.op for block in small.blocks] == [
        *2 * ["fused"],
        "uib",
        *4 * ["mbconv"],
        *3 * ["uib"],
        *4 * ["mbconv"],
    ]
    assert Counter(block.op for block in medium.blocks) == {"fused": 1, "uib": 21}
    assert Counter((block.start_kernel, block.kernel) for block in medium.blocks if block.op == "uib") == {
        (3, 5): 6, (3, 3): 4, (5, 5): 3, (3, 0): 3, (5, 0): 1, (0, 0): 4,
    }  # fmt: skip
    assert [placed.out_size for placed in medium.walk()] == [56, 28, 28, *8 * [14], *11 * [7]]
    for name in ("mobilenetv4_conv_small", "mobilenetv4_conv_small_050", "mobilenetv4_conv_medium"):
        spec = published_spec(name)
        assert {spec.stem.activation, spec.head.activation, *(block.activation for block in spec.blocks)} == {"relu"}
        assert not any(block.se for block in spec.blocks)
        assert (spec.stem.out, spec.head.hidden, spec.head.hidden_norm) == (32, 1_280, True)
        assert spec.head.conv == (480 if name.endswith("050") else 960)


def test_only_timm_networks_that_a_spec_cannot_express_are_left_out() -> None:
    used = {result.source.split()[2] for result in RESULTS if result.recipe.startswith("timm-")}
    left_out = {row["name"] for row in TIMM} - used
    assert {name.split("_")[0] for name in left_out if "efficientnet" not in name} <= {
        "mobilenetv3", "tinynet", "fbnetv3",
    }  # fmt: skip
    assert {name for name in left_out if name.startswith("mobilenetv3")} == {
        "mobilenetv3_large_100.miil_in21k_ft_in1k",  # trained on more than ImageNet-1k
        "mobilenetv3_large_150d.ra4_e3600_r256_in1k",  # two last convolutions
    }
    assert not any("lite" in name for name in left_out)


def test_the_same_network_is_the_same_from_every_source() -> None:
    """timm's MobileNetV2 is the family's, but for the name; its V3 has another epsilon of batch norm."""
    assert published_spec("mobilenetv2_100").id == published_spec("mobilenet_v2").id
    assert published_spec("mobilenetv3_large_100").replace(norm_eps=1e-3).id == published_spec("mobilenet_v3_large").id
    assert (
        published_spec("tf_mobilenetv3_small_100").replace(norm_eps=1e-3).id == published_spec("mobilenet_v3_small").id
    )
    assert (
        published_spec("mobilenetv3_small_075").replace(norm_eps=1e-3).id
        == published_spec("mobilenet_v3_small@0.75").id
    )
    assert published_spec("semnasnet_100").replace(norm_eps=1e-3).id == published_spec("mnasnet_a1").id
    by_name = {result.spec.name: result.spec.id for result in RESULTS}
    published = [r for r in RESULTS if r.spec.id == by_name["mobilenet_v3_large"] and r.recipe == "slim"]
    assert [result.top1 for result in published] == [75.2], "the row of the h-swish ablation repeats it"


def test_results_are_plausible_and_name_their_source() -> None:
    assert len(RESULTS) > 100
    assert Counter(result.recipe.split("-")[0] for result in RESULTS).keys() == {"slim", "torchvision", "ofa", "timm"}
    for result in RESULTS:
        assert 40 < result.top1 < 82
        assert result.source
        assert " " not in result.recipe


@pytest.mark.parametrize(
    ("name", "resolution", "top1", "recipe"),
    [
        ("mobilenet_v3_large", 224, 75.2, "slim"),
        ("mobilenet_v3_large@0.75", 224, 73.3, "slim"),
        ("mobilenet_v3_small", 224, 67.4, "slim"),
        ("mobilenet_v3_small@0.35", 224, 49.8, "slim"),
        ("mobilenet_v3_large", 224, 75.274, "torchvision-2"),
        ("mnasnet_a1", 224, 75.2, "slim"),
        ("mobilenet_v2@0.5", 96, 51.2, "slim"),
        ("mobilenetv3_large_100", 256, 77.182, "timm-ra4_e3600_r224_in1k"),
        ("ofa_pixel1_lat-143ms", 240, 80.1, "ofa-75"),
        ("hardcorenas_a", 224, 75.926, "timm-miil_green_in1k"),
        ("mobilenetv4_conv_small", 224, 73.756, "timm-e2400_r224_in1k"),
        ("mobilenetv4_conv_small_050", 256, 65.826, "timm-e3000_r224_in1k"),
        ("mobilenetv4_conv_medium", 320, 80.89, "timm-e500_r256_in1k"),
    ],
)
def test_published_figures(name: str, resolution: int, top1: float, recipe: str) -> None:
    found = [(r.top1, r.recipe) for r in RESULTS if r.spec.name == name and r.spec.resolution == resolution]
    assert (top1, recipe) in found


def test_minimalistic_networks_have_neither_se_nor_h_swish_nor_large_kernels() -> None:
    specs = [result.spec for result in RESULTS if "minimalistic" in result.spec.name]
    assert len(specs) == 2
    for spec in specs:
        assert {(block.kernel, block.se, block.activation) for block in spec.blocks} == {(3, 0, "relu")}
        assert (spec.stem.activation, spec.head.activation) == ("relu", "relu")


# Unknown names ----------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NasError, match="unknown network 'mobilenet_v9'; known: mobilenet_v1, mobilenet_v2,"):
        published_spec("mobilenet_v9")
    with pytest.raises(NasError, match="unknown network ''"):
        published_spec("")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilenet_v3_large@", "'' is not a width multiplier"),
        ("mobilenet_v3_large@wide", "'wide' is not a width multiplier"),
        ("mobilenet_v3_large@0.75@2", "'0.75@2' is not a width multiplier"),
        ("mobilenet_v3_large@0", "must be from 0.05 to 10"),
        ("mobilenet_v3_large@-1", "must be from 0.05 to 10"),
        ("mobilenet_v3_large@nan", "must be from 0.05 to 10"),
        ("mobilenet_v3_large@inf", "must be from 0.05 to 10"),
        ("mobilenet_v3_large@1e9", "must be from 0.05 to 10"),
        ("hardcorenas_a@0.5", "unknown network"),
    ],
)
def test_a_wrong_width_is_one_clear_line(name: str, message: str) -> None:
    with pytest.raises(NasError, match=message):
        published_spec(name)


def test_a_width_where_there_is_none_or_one_already() -> None:
    with pytest.raises(NasError, match="published at one width only"):
        published_spec("hardcorenas_a", width=0.5)
    with pytest.raises(NasError, match="published at one width only"):
        published_spec("hardcorenas_a", scale_head=True)
    with pytest.raises(NasError, match="the name says the width already"):
        published_spec("mobilenet_v3_large@0.5", width=0.75)


@given(st.sampled_from(sorted(FAMILIES)), st.floats(0.05, 10), st.booleans())
def test_every_width_gives_a_network(family: str, width: float, scale_head: bool) -> None:
    spec = published_spec(family, width, scale_head)
    assert all(block.out % 8 == 0 and block.expanded % 8 == 0 for block in spec.blocks)
    assert ArchSpec.from_json(spec.to_json()) == spec
