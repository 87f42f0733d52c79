"""The data behind the page: packed trials, blocks with their worth, trajectories, measured networks."""

import dataclasses

import msgspec
import pandas as pd
import pytest
from support.made_up_run import changed

from nas.arch.cost import count_cost
from nas.arch.loading import load_spec
from nas.report.page.blocks import compare_blocks
from nas.report.page.fidelity import fidelity_data
from nas.report.page.front import front_data, front_lines
from nas.report.page.networks import all_rows, main_rows
from nas.report.page.summary import results
from nas.report.page.trainings import nearest_networks, training_rows
from nas.report.page.trajectory import trajectories
from nas.report.page.trials import FIRST_CODE, packed, trials_data
from nas.report.page.worth import Worth, signed
from nas.runs.blocks import blocks_text
from nas.runs.changes import changed_choices
from nas.runs.target import Target


def unpacked(column):
    """Return the values of a packed column, as the page's script reads them."""
    if isinstance(column, list):
        return column
    return [column["values"][ord(code) - FIRST_CODE] for code in column["codes"]]


def with_trials(run, *rows):
    """Return a run with these trials of Large alone: fields that replace those of its first."""
    first = run.trials.iloc[0].to_dict()
    return dataclasses.replace(run, trials=pd.DataFrame([first | row for row in rows]))


# Trials -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[], ["a"], [3, 3, 5, None, 3], [0.1 * n for n in range(200)], list('<\\"&') * 9])
def test_columns_are_packed_without_loss(values):
    assert unpacked(packed(values)) == values


def test_a_column_of_few_values_takes_a_character_a_row():
    assert packed([192, 224, 192])["codes"] == "()("


def test_trials_are_rounded_columns(run):
    large, small = trials_data(run)
    assert (large["skeleton"], small["skeleton"]) == ("large", "small")
    own = run.trials[run.trials.target == "large"]
    assert large["count"] == len(own) == len(large["ms"])
    assert large["ms"] == [round(1000 * ms) for ms in own.latency_ms]
    assert large["top1"] == [round(100 * top1) for top1 in own.top1]
    assert unpacked(large["px"]) == own.resolution.tolist()
    assert unpacked(large["stage"]) == own.stage.tolist()
    (target,) = large["targets"]
    optimum = run.result("large").optimum
    assert target == {"title": "Large", "count": 30, "limit": optimum.limit_ms, "optimum": optimum.best.top1}


def test_stages_are_those_of_the_space(run):
    spec = load_spec("mobilenet_v3_large")
    (large, _) = trials_data(with_trials(run, {"blocks": blocks_text(spec)}))
    stages = {name: [unpacked(column)[0] for column in columns] for name, columns in large["properties"].items()}
    # arXiv 1905.02244, table 1: 24, 40, 80, 112 and 160 channels.
    assert stages["depth"] == [2, 3, 4, 2, 3]
    assert stages["kernel"] == [3, 5, 3, 3, 5]
    assert stages["SE"] == [0, 3, 0, 2, 3]
    assert stages["h-swish"] == [0, 0, 4, 2, 3]
    assert stages["expansion"] == [3.5, 3.0, 3.3, 6.0, 6.0]
    assert unpacked(large["out"]) == [160]


def test_a_network_whose_stages_merged_is_left_out_of_their_axes(run):
    usual = run.trials.blocks[0]
    merged = ";".join(usual.split(";")[:3])
    (large, _) = trials_data(with_trials(run, {}, {}, {"blocks": merged}, {"blocks": "no network"}, {"blocks": "1,2"}))
    for columns in large["properties"].values():
        for column in columns:
            assert [value is None for value in unpacked(column)] == [False, False, True, True, True]
    assert unpacked(large["out"])[3:] == [None, None]


def test_a_run_without_trials_has_empty_columns(run):
    large, _ = trials_data(dataclasses.replace(run, trials=run.trials[:0]))
    assert large["count"] == 0
    assert large["ms"] == []
    assert large["properties"]["kernel"] == []


# The front --------------------------------------------------------------------------------------------


def test_the_best_within_a_budget_keeps_the_margin_of_measurements(run):
    large = next(line for line in front_lines(run) if line.skeleton == "large")
    assert large.proven
    assert large.best_within(0.1) is None
    for budget_ms in (2.0, 4.0, 8.0):
        best = large.best_within(budget_ms)
        limit_ms = Target("large", budget_ms).limit_ms
        assert best.latency_ms <= limit_ms
        assert best.top1 == max(point.top1 for point in large.points if point.latency_ms <= limit_ms)
    assert large.best_within(1e6) == large.points[-1]


def test_a_run_without_optima_answers_from_its_trials(run):
    large, _ = front_lines(dataclasses.replace(run, optima=()))
    assert not large.proven
    front = run.front[run.front.target == "large"]
    assert [point.latency_ms for point in large.points] == sorted(front.latency_ms)
    assert all(point.latency_std is None for point in large.points)


def test_a_skeleton_of_which_only_optima_are_known_has_a_line(run):
    record = changed(run, targets=run.record.targets[:1]).record
    alone = dataclasses.replace(run, record=record)
    assert [line.skeleton for line in front_lines(alone)] == ["large", "small"]


def test_the_command_of_an_answer_keeps_the_other_flags(run):
    other = changed(run, command="python -m nas.search --budget-ms 4,8 --runtime openvino --front 3")
    line = front_data(other, front_lines(other))["lines"][0]
    assert line["command"] == ["uv run python -m nas.search --runtime openvino --budget-ms ", " --only large"]


def test_networks_of_the_front_are_those_of_the_table(run):
    networks = front_data(run, front_lines(run))["networks"]
    assert [network["name"] for network in networks] == [row.name for row in all_rows(run)]
    kinds = {network["name"]: network["kind"] for network in networks}
    assert kinds["found Large"] == "found"
    assert kinds["MobileNetV3-Large"] == "published"
    assert kinds["OFA cpu 15ms"] == "family"
    assert {network["name"] for network in networks if network["named"]} == {"MobileNetV3-Large", "MobileNetV3-Small"}


def test_the_published_twin_of_a_found_network_is_another_name_of_it(run):
    found, *others = run.record.networks
    twin = msgspec.structs.replace(found, name="twin", kind="published", target=None, published_top1=75.0)
    twins = changed(run, networks=(found, *others, twin))
    first, *_ = main_rows(twins, results(twins))
    assert first.network == found
    assert first.also == ("twin (75.0 % published)",)


# Blocks -----------------------------------------------------------------------------------------------


def test_blocks_add_up_to_the_network(run):
    for comparison in compare_blocks(run):
        assert [network.network.name for network in comparison.networks] == [
            f"found {comparison.target}",
            f"mobilenet_v3_{comparison.target}",
        ]
        for blocks in comparison.networks:
            spec, cost = blocks.network.spec, count_cost(blocks.network.spec)
            assert len(blocks.parts) == len(spec.blocks) + 2
            assert sum(part.macs for part in blocks.parts) == cost.macs
            assert sum(part.params for part in blocks.parts) == cost.params
            assert sum(part.ms for part in blocks.parts) == pytest.approx(blocks.network.predicted_ms)
            assert sum(part.share for part in blocks.parts) == pytest.approx(1)
        for name, times in comparison.stages:
            assert name in ("stem", "head") or name.startswith("1/")
            assert len(times) == 2
        assert sum(times[0] for _, times in comparison.stages) == pytest.approx(comparison.found.network.predicted_ms)


def test_a_block_says_what_it_is(run):
    published = compare_blocks(run)[0].networks[1]
    fourth = next(part for part in published.parts if part.name == "4")
    assert (fourth.title, fourth.shape, fourth.size) == ("block 4", "5×5, 24 → 72 → 40", 28)
    assert fourth.traits == "×3 · SE · ReLU · stride 2"
    assert fourth.label == "5×5 24→72→40 SE ReLU s2"
    stem, head = published.parts[0], published.parts[-1]
    assert (stem.title, stem.shape, stem.size) == ("stem", "3×3, 3 → 16", 112)
    assert (head.title, head.shape, head.traits) == ("head", "160 → 960 → 1280 → 1000", "h-swish")
    assert [size for size, _ in published.groups] == [112, 56, 28, 14, 7, 1]


def test_sizes_that_are_no_powers_of_two_have_the_reduction_of_their_strides(run):
    odd = [
        msgspec.structs.replace(network, spec=network.spec.replace(resolution=188)) for network in run.record.networks
    ]
    names = [name for name, _ in compare_blocks(changed(run, networks=tuple(odd)))[0].stages]
    assert names == ["stem", *(f"1/{2**n} of the image" for n in range(1, 6)), "head"]


def test_without_rows_shares_are_of_multiply_accumulates(run):
    bare = [msgspec.structs.replace(network, breakdown=()) for network in run.record.networks]
    comparison = compare_blocks(changed(run, networks=tuple(bare)))[0]
    assert not comparison.timed
    part = comparison.found.parts[3]
    assert part.ms is None
    assert part.share == pytest.approx(part.macs / comparison.found.network.macs)
    assert "time unknown" in part.details


# The worth of choices ---------------------------------------------------------------------------------


def rows_around(run, changes):
    """Return the run with table rows for the first block of found Large after the fixed one, and for it with changes.

    `changes` are the fields that differ from it, with the ms.
    """
    placed = list(run.found("large").spec.walk())[2]
    block = placed.block
    own = {name: getattr(block, name) for name in ("op", "kernel", "expanded", "out", "stride", "se", "activation")}
    own |= {"in_channels": placed.in_channels, "in_size": placed.in_size, "ms": 1.0}
    return dataclasses.replace(run, table_rows=pd.DataFrame([own, *(own | change for change in changes)]))


def test_a_choice_is_worth_the_difference_of_its_rows(run):
    network = run.found("large")
    block = network.spec.blocks[2]
    other_se, words = (0, "without SE") if block.se else (8, "with SE")
    kernel = 7 if block.kernel != 7 else 5
    known = Worth.of(rows_around(run, [{"se": other_se, "ms": 0.9}, {"kernel": kernel, "ms": 1.25}]))
    changes = {change.to: change for change in known.changes(network, 2)}
    assert set(changes) == {words, f"{kernel}×{kernel}"}
    assert changes[words].ms == pytest.approx(-0.1)
    assert changes[words].text == f"{words}: −0.100 ms"
    assert changes[f"{kernel}×{kernel}"].ms_text == "+0.250 ms"


def test_rows_of_nearly_the_same_channels_stand_in(run):
    network = run.found("large")
    block = network.spec.blocks[2]
    other_se = 0 if block.se else 8

    def change_of(factor):
        near = {"expanded": round(factor * block.expanded)}
        known = Worth.of(rows_around(run, [near, near | {"se": other_se, "ms": 0.9}]))
        return known.changes(network, 2)

    (change,) = change_of(1.2)
    assert not change.exact
    assert change.ms_text == "about −0.100 ms"
    assert change_of(1.5) == ()


def test_a_trial_with_one_choice_changed_tells_its_accuracy(run):
    network = run.found("large")
    block = network.spec.blocks[2]
    activation, words = ("relu", "ReLU") if block.activation == "hswish" else ("hswish", "h-swish")
    other = network.spec.with_block(2, activation=activation)
    trial = {"resolution": other.resolution, "blocks": blocks_text(other), "top1": network.estimated_top1 - 0.3}
    known = Worth.of(dataclasses.replace(with_trials(run, trial), table_rows=run.table_rows[:0]))
    (change,) = known.changes(network, 2)
    assert (change.to, change.ms, change.ms_text) == (words, None, "–")
    assert change.text == f"{words}: time unknown, −0.30 points"


def test_an_estimate_of_a_changed_choice_tells_its_accuracy(run):
    network = run.found("large")
    changed = next(changed_choices(network.spec, 2))
    row = {
        "resolution": changed.spec.resolution,
        "blocks": blocks_text(changed.spec),
        "top1": network.estimated_top1 + 0.2,
    }
    known = Worth.of(dataclasses.replace(run, changes=pd.DataFrame([row]), table_rows=run.table_rows[:0]))
    (change,) = (change for change in known.changes(network, 2) if change.to == changed.to)
    assert change.top1_text == "+0.20"


def test_the_fixed_first_block_has_no_choices(run):
    assert Worth.of(run).changes(run.found("large"), 0) == ()


def test_signs_are_written_out():
    assert (signed(0.5, 1), signed(-0.125, 3)) == ("+0.5", "−0.125")


# Trainings and the nearest published networks ---------------------------------------------------------


def test_trainings_hold_the_estimates_of_every_found_network(run):
    rows = training_rows(results(run))
    assert [row.level.recipe_level for row in rows] == ["short", "plain", "long", "taught"]
    for row in rows:
        for text, name in zip(row.estimates, ("large", "small"), strict=True):
            of_network = {one.recipe_level: one for one in run.found(name).recipe_levels}[row.level.recipe_level]
            assert text == f"{of_network.top1:.1f} ± 0.7"
    assert [row.level.recipe_level for row in rows if row.told] == ["plain", "long", "taught"]  # plain: the run's own


def test_networks_may_order_trainings_differently(run):
    found, *others = run.record.networks
    turned = msgspec.structs.replace(found, recipe_levels=found.recipe_levels[::-1])
    rows = training_rows(results(changed(run, networks=(turned, *others))))
    assert [row.level.recipe_level for row in rows] == ["taught", "long", "plain", "short"]
    assert [row.estimates for row in rows] == [row.estimates for row in training_rows(results(run))][::-1]


def test_the_nearest_networks_say_how_far_they_are_off(run):
    large, small = nearest_networks(run, results(run))
    assert (large.found, small.found) == ("found Large", "found Small")
    first, second, _ = large.rows
    assert (first.name, second.name) == ("MobileNetV3-Large ×0.75", "OFA cpu 15ms")
    assert (first.training, second.training) == ("unheard of", "trained by the recipe taught")
    assert (first.residual, first.left_out_residual, first.difference) == ("−0.25", "−0.50", "−0.12 ± 0.25")


# Trajectories and measured networks -------------------------------------------------------------------


def test_trajectories_are_told_apart_by_their_seeds(trimmed_run):
    found = trajectories(trimmed_run)
    assert [(one["title"], one["ms"]) for one in found] == [
        ("Large, netadapt, network 1", [4.2, 4.1, 4.05, 3.96]),
        ("Large, netadapt, network 2", [4.19, 4.1, 4.0, 3.95]),
        ("Large, netadapt 2, network 1", [4.2, 4.1, 4.0, 3.9]),
    ]
    assert all(len(one["top1"]) == len(one["macs"]) == len(one["ms"]) for one in found)


def test_a_run_that_trimmed_nothing_has_no_trajectory(run):
    assert trajectories(run) == []


def test_measured_networks_are_grouped_by_population(run):
    groups = fidelity_data(run)
    assert [group["population"] for group in groups] == ["found", "published", "near-optimal", "random"]
    assert sum(len(group["name"]) for group in groups) == len(run.measured)
    assert [group["title"] for group in groups][2] == "near the optimum"
    assert fidelity_data(dataclasses.replace(run, measured=run.measured[:0])) == []
