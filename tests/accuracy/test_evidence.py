"""What the prior is fitted to: rows, kin and pairs."""

import math

import pytest

from nas.accuracy import evidence as module
from nas.accuracy.evidence import evidence, further_evidence, pairs, related_evidence, skeleton_key
from nas.accuracy.imagenet_prior import RECIPE_LEVELS, judged_results
from nas.arch.cost import count_cost
from nas.arch.published import published_spec
from nas.errors import NasError


def test_every_published_result_is_evidence_once():
    rows = evidence()
    assert [one.result for one in rows[: len(judged_results())]] == list(judged_results())
    # 84 networks, of which four are checkpoints of timm's file.
    assert len(further_evidence()) == 80
    assert len(rows) == len(judged_results()) + len(related_evidence()) + 80
    known = {(one.result.spec.id, one.level, one.result.source) for one in further_evidence()}
    assert len(known) == 80


def test_specs_have_the_published_parameters():
    """But for FBNetV2, whose skips of 1x1 convolutions are left out, and batch norm behind pooled heads."""
    by_name = {(row["name"].partition(".")[0], row["recipe"]): row for row in module._rows("more_networks.jsonl")}
    for (name, recipe), row in by_name.items():
        if recipe == "fbnetv2" or "same_checkpoint_as" in row:
            continue
        spec = module._evidence(row, "moga", "x").result.spec
        assert count_cost(spec).params / 1e6 == pytest.approx(row["params_m"], abs=0.011), name


def test_levels_of_the_evidence_are_those_of_the_prior_but_one_of_differences():
    assert {one.level for one in evidence()} - set(RECIPE_LEVELS) == {"mnasnet-uniform"}


def test_kin_have_addends():
    kin = {one.result.spec.name for one in evidence() if one.kin}
    assert {"efficientnet_b0", "tinynet_a", "dna_a", "fairnas_a_se050"} <= kin
    assert not {"moga_a", "scarlet_a", "hardcorenas_a", "mobilenetv3_large_150d"} & kin


def test_a_pooled_head_is_a_hidden_layer():
    specs = {one.result.spec.name: one.result.spec for one in further_evidence()}
    assert (specs["pplcnet_050"].head.conv, specs["pplcnet_050"].head.hidden) == (0, 1280)
    assert (specs["pplcnet_050_nohidden"].head.conv, specs["pplcnet_050_nohidden"].head.hidden) == (0, 0)
    assert (specs["moga_a"].head.conv, specs["moga_a"].head.hidden) == (960, 1280)
    assert (specs["fairnas_a"].head.conv, specs["fairnas_a"].head.hidden) == (1280, 0)


def test_ablations_share_the_key_of_their_network():
    spec = published_spec("mobilenet_v3_large")
    ablated = spec.replace(
        resolution=160, blocks=tuple(block.replace(kernel=3, se=0, activation="relu") for block in spec.blocks)
    )
    assert skeleton_key(ablated) == skeleton_key(spec)
    assert skeleton_key(spec.with_block(3, expanded=80)) != skeleton_key(spec)


def test_pairs_differ_as_published():
    points = {(pair.change, pair.without.level): pair.points for pair in pairs()}
    assert len(points) == len(pairs()) == 23
    for (change, level), wanted in {
        ("SE in all blocks but the first", "coordatt"): 1.2,
        ("SE in the first two blocks", "pplcnet"): -0.78,
        ("SE in the last two blocks", "pplcnet"): 0.63,
        ("kernel 5 in all blocks, expansion 6", "mnasnet-uniform"): 0.7,
        ("h-swish from 16 channels, with stem and head", "mobilenet-v3"): 0.9,
    }.items():
        assert math.isclose(points[change, level], wanted, abs_tol=1e-9)
    assert all(pair.without.level == pair.with_it.level for pair in pairs())


def test_a_pair_of_an_unknown_network_is_an_error():
    with pytest.raises(NasError, match="no published network is named 'x' at recipe level 'moga'"):
        module._named({}, "x", "moga")
