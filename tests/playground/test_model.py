"""The numbers of the page are Python's: latency, costs, estimates, for members and for any other network."""

import dataclasses
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import OpenPage
from support.made_up_table import trimmed_network

from nas.accuracy.features import network_features
from nas.accuracy.imagenet_prior import ImageNetPrior, is_judged, load_fit
from nas.arch.cost import count_cost
from nas.arch.loading import load_space, load_spec
from nas.arch.published import published_results
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.table import LatencyTable
from nas.playground.data import prior_data, spec_text

EVALUATE = """([texts, prior]) => {
  const data = pageData();
  if (prior) data.prior = prior;
  return texts.map((text) => {
    const { time, cost, estimate, place } = evaluateNetwork(data, parseSpecText(text, "a network"));
    const { top1, std, outside } = estimate;
    return { ...time, ...cost, top1, std, outside, space: place && place.space, depths: place && place.depths,
      member: Boolean(place && place.member), again: specText(parseSpecText(text, "a network")) };
  });
}"""


def evaluated(page: OpenPage, specs: Sequence[ArchSpec], prior: ImageNetPrior | None = None) -> list[dict[str, Any]]:
    data = json.loads(json.dumps(prior_data(prior)).replace("Infinity", "1e99")) if prior else None
    return page.page.evaluate(EVALUATE, [[spec_text(spec) for spec in specs], data])


def published() -> list[ArchSpec]:
    return list({result.spec.id: result.spec for result in published_results()}.values())


def check_estimates(found: Sequence[dict[str, Any]], specs: Sequence[ArchSpec], prior: ImageNetPrior) -> None:
    """Compare with Python's estimates; both say of the same networks that there is none."""
    judged = [is_judged(spec) for spec in specs]
    assert [one["top1"] is not None for one in found] == [one["std"] is not None for one in found] == judged
    found = list(itertools.compress(found, judged))
    estimates = prior.estimate(list(itertools.compress(specs, judged)))
    np.testing.assert_allclose([one["top1"] for one in found], estimates.top1, atol=1e-6, rtol=0)
    np.testing.assert_allclose([one["std"] for one in found], estimates.std, atol=1e-6, rtol=0)
    assert [one["outside"] for one in found] == estimates.extrapolated.tolist()


def check_costs(found: Sequence[dict[str, Any]], specs: Sequence[ArchSpec]) -> None:
    for one, cost in zip(found, map(count_cost, specs), strict=True):
        assert (one["macs"], one["params"], one["memory"]) == (cost.macs, cost.params, cost.memory_bytes)


def test_the_numbers_of_200_random_networks_are_pythons(
    functions: OpenPage, table: LatencyTable, spaces: list[SearchSpace]
) -> None:
    rng = random.Random(0)
    specs = [spaces[index % 2].sample(rng) for index in range(200)]
    found = evaluated(functions, specs)
    assert all(one["member"] and one["near"] == one["missing"] == 0 for one in found)
    assert [one["space"] for one in found] == [0, 1] * 100
    np.testing.assert_allclose([one["ms"] for one in found], table.predict_ms(specs), atol=1e-6, rtol=0)
    check_costs(found, specs)
    check_estimates(found, specs, ImageNetPrior())


def test_every_published_network_has_pythons_costs_and_estimate(functions: OpenPage) -> None:
    odd = load_spec("mobilenet_v3_large").with_block(7, kernel=9)  # which the prior does not know
    small_images = load_space("mobilenet_v3_small_images").sample(random.Random(0))
    specs = [*published(), odd, small_images]
    found = evaluated(functions, specs)
    check_costs(found, specs)
    check_estimates(found, specs, ImageNetPrior())


@pytest.mark.parametrize("level", ["once-for-all-25", "mobilenet-v1"])
def test_estimates_of_another_recipe_level_are_pythons(functions: OpenPage, level: str) -> None:
    prior, specs = ImageNetPrior(level), published()
    check_estimates(evaluated(functions, specs, prior), specs, prior)


def test_a_member_of_a_space_is_known_as_one(functions: OpenPage, spaces: list[SearchSpace]) -> None:
    large, small = (load_space(space.name) for space in spaces)
    rng = random.Random(1)
    specs = [*published(), *(space.sample(rng) for space in (large, small) for _ in range(40))]
    for spec, found in zip(specs, evaluated(functions, specs), strict=True):
        members = [index for index, space in enumerate((large, small)) if space.contains(spec)]
        assert found["member"] == bool(members), spec.name
        if members:
            space = (large, small)[members[0]]
            columns = [space.depth_column(stage) for stage in range(len(space.stages))]
            encoding = space.encode([spec])[0]
            depths = [space.decisions[column].choices[encoding[column]] for column in columns]
            assert (found["space"], found["depths"]) == (members[0], depths)


def test_a_network_that_was_trimmed_stands_in_its_skeleton(functions: OpenPage, table: LatencyTable) -> None:
    (found,) = evaluated(functions, [trimmed_network()])
    assert (found["space"], found["depths"], found["member"]) == (0, [2, 3, 4, 2, 3], False)
    assert found["near"] == found["missing"] == 0
    assert found["ms"] == pytest.approx(table.predict_ms([trimmed_network()])[0], abs=1e-6)


def test_a_network_of_another_build_stands_in_none(functions: OpenPage) -> None:
    found = evaluated(functions, [load_spec("mobilenet_v2"), load_spec("mobilenet_v1"), load_spec("mnasnet_a1")])
    assert [one["space"] for one in found] == [None, None, None]
    assert all(one["ms"] is None and one["missing"] for one in found)


def test_mobilenet_v4_is_priced_by_its_rows_and_has_no_estimate(functions: OpenPage, table: LatencyTable) -> None:
    spec = load_spec("mobilenetv4_conv_medium")
    (found,) = evaluated(functions, [spec])
    assert (found["space"], found["near"], found["missing"], found["top1"], found["std"]) == (None, 0, 0, None, None)
    assert found["ms"] == pytest.approx(table.predict_ms([spec])[0], abs=1e-6)
    texts = functions.page.evaluate("(text) => walk(parseSpecText(text, 'n')).map(blockText)", spec_text(spec))
    assert texts[:2] == ["full 3×3, 4× (128), ReLU", "3×3 before 5×5, 4× (192), ReLU"]
    assert [texts[8], texts[9]] == ["3×3 before, 4× (640), ReLU", "1×1, 2× (320), ReLU"]


def test_a_network_with_a_norm_behind_its_hidden_layer_is_no_member_of_a_space(functions: OpenPage) -> None:
    spec = load_spec("mobilenet_v3_large")
    normed = spec.replace(head=dataclasses.replace(spec.head, hidden_norm=True))
    found = evaluated(functions, [spec, normed])
    assert [one["member"] for one in found] == [
        load_space("mobilenet_v3_large").contains(one) for one in (spec, normed)
    ]
    assert found[1]["again"] == spec_text(normed)


def test_a_block_between_rows_takes_a_time_between_them(functions: OpenPage, table: LatencyTable) -> None:
    spec = load_space("mobilenet_v3_large").smallest((1.0, 224))
    widths = [spec.with_block(2, expanded=expanded) for expanded in (72, 80, 96)]  # 80 has no row
    found = evaluated(functions, widths)
    assert [one["near"] for one in found] == [0, 1, 0]
    below, above = table.predict_ms([widths[0], widths[2]])
    assert min(below, above) < found[1]["ms"] < max(below, above)
    assert found[1]["ms"] == pytest.approx(
        below + (above - below) / 3, rel=0.01
    )  # MACs and time are lines here, nearly


def test_what_has_no_row_is_scaled_to_the_measured_network(functions: OpenPage) -> None:
    """A block that a person changes differs from the network that was measured by what rows like it differ by."""
    spec = load_spec("mobilenet_v3_large").with_block(8, expanded=208)
    found = functions.page.evaluate(
        """([text]) => {
        const data = pageData();
        const spec = parseSpecText(text, "n");
        const alone = evaluateNetwork(data, spec);
        const measured = alone.time.ms + 0.3 * alone.parts[9].ms;
        const anchor = evaluateNetwork(data, spec, 0, null, measured);
        const absurd = evaluateNetwork(data, spec, 0, null, 9);
        const changed = withChoice(spec, 8, { se: true });
        return { measured, near: alone.time.near, total: anchor.time.ms, absurd: absurd.time.ms, before: alone.time.ms,
          anchored: evaluateNetwork(data, changed, 0, anchor).time.ms, plain: evaluateNetwork(data, changed).time.ms };
    }""",
        [spec_text(spec)],
    )
    assert found["near"] == 1
    assert found["total"] == pytest.approx(found["measured"], abs=1e-9)
    assert found["anchored"] - found["total"] == pytest.approx(found["plain"] - found["before"], abs=1e-9)
    assert found["plain"] > found["before"]
    assert found["absurd"] == found["before"], "a factor that cannot be is not taken"


def test_the_deviation_of_a_difference_leaves_out_what_both_share(functions: OpenPage) -> None:
    one = load_space("mobilenet_v3_large").largest((1.0, 192))
    other = one.with_block(11, se=0)
    found = functions.page.evaluate(
        """(texts) => {
        const { prior } = pageData();
        const [one, other] = texts.map((text) => estimate(parseSpecText(text, "n"), prior));
        return difference(one, other, prior);
    }""",
        [spec_text(one), spec_text(other)],
    )
    estimates, fit, rows = ImageNetPrior().estimate([one, other]), load_fit(), np.zeros((2, len(load_fit().index)))
    for row, spec in zip(rows, (one, other), strict=True):
        for name, value in network_features(spec):
            row[fit.index[name]] += value
    slope = (fit.limit - estimates.top1) @ np.stack([rows[0], -rows[1]])
    factor = 2 if estimates.extrapolated.any() else 1
    assert found["points"] == pytest.approx(estimates.top1[0] - estimates.top1[1], abs=1e-9)
    assert found["std"] == pytest.approx(factor * np.sqrt(slope @ fit.covariance @ slope), abs=1e-9)
    assert found["std"] < 0.5 * estimates.std.min()


def test_a_saved_spec_is_the_same_network(functions: OpenPage, spaces: list[SearchSpace], tmp_path: Path) -> None:
    rng = random.Random(2)
    small_images = load_space("mobilenet_v3_small_images").sample(rng)
    specs = [*published(), *(space.sample(rng) for space in spaces for _ in range(10)), small_images]
    names = ["@", '"@"', "网络 <b>", *("n" for _ in specs[3:])]
    texts = functions.page.evaluate(
        """([texts, names]) => texts.map((text, index) =>
        specJson({ ...parseSpecText(text, "n"), name: names[index] }, { predicted_ms: 1 }))""",
        [[spec_text(spec) for spec in specs], names],
    )
    for spec, name, text in zip(specs, names, texts, strict=True):
        (tmp_path / "spec.json").write_text(text, encoding="utf-8")
        loaded = load_spec(tmp_path / "spec.json")
        assert (loaded.id, loaded.name) == (spec.id, name)
        assert loaded == spec.replace(name=name)


def test_a_spec_file_is_read_as_python_reads_it(functions: OpenPage) -> None:
    specs = [
        load_spec("mobilenet_v3_small"),
        load_spec("mobilenet_v1"),
        load_spec("mobilenetv4_conv_small").replace(norm_eps=1e-3),  # 1e-05 is 0.00001 in a browser's words
        load_space("once_for_all").sample(random.Random(0)),
    ]
    read = functions.page.evaluate(
        "(texts) => texts.map((text) => specText(parseSpecJson(text)))", [spec.to_json({"ms": 1}) for spec in specs]
    )
    assert read == [spec_text(spec) for spec in specs]
    again = [one["again"] for one in evaluated(functions, specs)]
    assert again == read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no spec"),
        ('{"version": 2, "blocks": []}', "version is 2"),
        (
            '{"version": 1, "blocks": [], "name": "n", "resolution": 224, "stem": {"out": 8}, "head": {"conv": 8}}',
            "blocks",
        ),
        (
            '{"version": 1, "blocks": [{"kernel": 4, "expanded": 8, "out": 8}], "name": "n", "resolution": 224, '
            '"stem": {"out": 8}, "head": {"conv": 8}}',
            "block 1: kernel is 4",
        ),
        *(
            (
                '{"version": 1, "blocks": [{"expanded": 8, "out": 8, ' + block + '}], "name": "n", "resolution": 224, '
                '"stem": {"out": 8}, "head": {"conv": 8}}',
                message,
            )
            for block, message in (
                ('"kernel": 0', "block 1: kernel is 0"),
                ('"kernel": 3, "start_kernel": 3', "block 1: only a uib has a start_kernel"),
                ('"op": "uib", "kernel": 3', "block 1: such a uib is an mbconv"),
                ('"op": "uib", "kernel": 0, "stride": 2', "block 1: nothing in it has a stride"),
            )
        ),
        (
            '{"version": 1, "blocks": [{"kernel": 3, "expanded": 8, "out": 8}], "name": "n", "resolution": 224, '
            '"stem": {"out": 8}, "head": {"conv": 8, "hidden_norm": true}}',
            "no hidden layer",
        ),
        ('{"version": 1, "blocks": [], "name": "n", "resolution": 1e9, "stem": {"out": 8}, "head": {}}', "resolution"),
    ],
)
def test_a_damaged_spec_is_refused_with_what_is_wrong(functions: OpenPage, text: str, message: str) -> None:
    told = functions.page.evaluate(
        "(text) => { try { parseSpecJson(text); return ''; } catch (error) { return error.message; } }", text
    )
    assert message in told
