import itertools
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from support.made_up_run import write_record, write_run

import nas
from nas.arch.loading import load_spec
from nas.arch.skeleton import Variant
from nas.errors import NasError
from nas.runs.optima import load_optima, write_optima
from nas.runs.reading import load_run
from nas.runs.record import (
    MEASURED_COLUMNS,
    OPTIMA,
    POPULATIONS,
    TABLE_COLUMNS,
    TRIAL_COLUMNS,
    RunRecord,
    load_record,
)
from nas.runs.target import Target

HEADER = ",".join(TRIAL_COLUMNS)
ROW = "large,tpe,0,abc,1.5,70,0.7,1,2,3,224,blocks"


def test_a_run_is_read_whole(finished_run):
    run = load_run(finished_run)
    record = run.record
    assert [result.target for result in record.targets] == [Target("large", 4.0), Target("small", 1.2)]
    assert run.found("large").measured_ms < 4
    assert run.found("small").spec == load_spec(str(finished_run / "small.json"))
    assert run.result("large").variants == (Variant(1.0, 192), Variant(1.0, 224), Variant(1.25, 224))
    assert run.found("large").published_top1 is None
    assert record.networks[2].published_top1 == 75.2
    (fidelity,) = run.table.fidelity
    assert (fidelity.population, fidelity.mape, fidelity.networks) == ("random", 0.0187, 100)
    (attempt,) = run.result("large").attempts
    assert (attempt.spec_id, attempt.measured_error) == (run.found("large").spec.id, 0.003)
    assert attempt.measured_ms < attempt.predicted_ms
    assert run.found("large").measured_error == 0.004
    assert [network.name for network in record.networks[:4]] == [
        "found large",
        "found small",
        "mobilenet_v3_large",
        "mobilenet_v3_small",
    ]
    assert run.estimator.training_recipe == "as Once-for-All trains, 25 epochs of fine-tuning"


def test_the_frames_of_a_run(finished_run):
    run = nas.load_run(str(finished_run))
    assert list(run.trials) == list(run.front) == list(TRIAL_COLUMNS)
    assert len(run.trials) == 60
    assert run.trials.groupby("target").size().to_dict() == {"large": 30, "small": 30}
    assert set(map(tuple, run.front.to_numpy())) < set(map(tuple, run.trials.to_numpy()))
    assert run.trials.dtypes[["number", "macs", "latency_ms", "top1"]].tolist() == [
        "int64",
        "int64",
        "float64",
        "float64",
    ]
    assert list(run.table_rows) == list(TABLE_COLUMNS)
    assert run.table_rows.op.tolist()[:3] == ["stem", "head", "sepconv"]
    assert set(run.table_rows.kernel.dropna()) == {3, 5, 7}
    assert (run.table_rows.timed_ms < run.table_rows.ms).all()
    assert pd.isna(run.table_rows.kernel[1])
    assert set(run.table_rows.op[run.table_rows.kernel.isna()]) == {"head"}
    networks = run.networks
    assert len(networks) == len(run.record.networks)
    found = networks[networks.kind == "found"].set_index("target")
    assert found.latency_ms["small"] == found.measured_ms["small"] == run.found("small").measured_ms
    assert found.spec_id["large"] == run.found("large").spec.id
    assert networks.published_top1.isna().tolist()[:3] == [True, True, False]
    assert networks[["raw_ms", "predicted_ms", "published_top1"]].dtypes.tolist() == ["float64"] * 3
    fastest = networks.sort_values("latency_ms")[["name", "latency_ms", "estimated_top1", "published_top1"]]
    assert fastest.latency_ms.is_monotonic_increasing


def test_frames_of_other_trainings_and_of_near_networks(finished_run, edit_run):
    run = load_run(finished_run)
    assert run.recipe_levels.groupby("target").size().to_dict() == {"large": 4, "small": 4}
    assert run.recipe_levels[run.recipe_levels.of_run].recipe_level.tolist() == ["plain", "plain"]
    assert run.nearest[["residual", "left_out_residual"]].round(9).drop_duplicates().to_numpy().tolist() == [
        [-0.25, -0.5]
    ]
    assert run.nearest.name[:2].tolist() == ["mobilenet_v3_large@0.75", "ofa_cpu_lat-15ms"]

    def of_another_estimator(data):
        for network in data["networks"]:
            del network["recipe_levels"], network["nearest"]  # as older runs have none

    other = load_run(edit_run(of_another_estimator))
    assert other.recipe_levels.empty
    assert other.nearest.empty


def test_a_run_without_rows_is_read(edit_run, run_dir):
    for name in ("trials", "front", "table_rows", "measured"):
        file = run_dir / f"{name}.csv"
        file.write_text(file.read_text().splitlines()[0] + "\n")
    run = load_run(edit_run(lambda data: data["networks"][0].update(breakdown=[], predicted_ms=None)))
    assert len(run.trials) == len(run.front) == len(run.table_rows) == len(run.measured) == 0
    assert run.trials.dtypes["latency_ms"] == "float64"
    assert run.found("large").breakdown == ()
    assert pd.isna(run.networks.predicted_ms[0])


def test_empty_lines_are_no_rows(run_dir):
    (run_dir / "trials.csv").write_text(f"{HEADER}\n\n{ROW}\n\n")
    assert load_run(run_dir).trials.spec_id.tolist() == ["abc"]


def test_ids_stay_texts(run_dir):
    """An id of twelve decimal digits is not read as a number."""
    (run_dir / "trials.csv").write_text(f"{HEADER}\n{ROW.replace('abc', '000000000012')}\n")
    assert load_run(run_dir).trials.spec_id.tolist() == ["000000000012"]


def test_a_record_is_read_as_it_was_written(finished_run, tmp_path):
    record = load_record(finished_run)
    write_record(tmp_path, record)
    assert load_record(tmp_path) == record
    begun = RunRecord(command="c", arguments={"seed": 0}, versions={}, created="now")
    write_record(tmp_path, begun)
    assert load_record(tmp_path) == begun
    with pytest.raises(NasError, match=r"this run is not finished; the same command with --resume continues it$"):
        load_run(tmp_path)


Change = Callable[[dict], object]


def network(number: int, **fields: object) -> Change:
    return lambda data: data["networks"][number].update(fields)


CHANGES: list[tuple[Change, str]] = [
    (lambda data: data.pop("networks"), "run.json: networks holds none of kind 'found' for"),
    (lambda data: data.pop("command"), "run.json: command is missing"),
    (lambda data: data.update(networks=None), "run.json: networks is null; it must be a list"),
    (lambda data: data.update(version=5), "run.json: its version is 5; a newer program wrote it, so upgrade this one"),
    (lambda data: data.update(version=3), "run.json: its version is 3; an older program wrote it, so start a new run"),
    (lambda data: data.update(version="1"), "run.json: version is a text; it must be a whole number"),
    (lambda data: data.pop("version"), "run.json: version is missing"),
    (lambda data: data.update(finished=None, networks=[]), "not finished; the same command with --resume"),
    (lambda data: data.update(targets=[], networks=data["networks"][2:]), "run.json: targets is empty"),
    (lambda data: data.update(table=None), "run.json: table is null"),
    (lambda data: data.update(estimator=None), "run.json: estimator is null"),
    (lambda data: data.update(machine=None), "run.json: machine is null"),
    (lambda data: data["table"].pop("device"), "run.json: table.device is missing"),
    (lambda data: data["table"].update(colour="red"), "run.json: table.colour is unknown"),
    (lambda data: data["table"].update(threads=True), "table.threads is true or false; it must be a whole number"),
    (lambda data: data["seconds"].update(search="x"), "run.json: seconds[...] is a text; it must be a number"),
    (
        lambda data: data["targets"][0].update(feasible_ms=[1]),
        "run.json: targets[0].feasible_ms must be a list of 2 values",
    ),
    (
        lambda data: data["targets"][1]["target"].update(budget_ms="1 ms"),
        "run.json: targets[1].target.budget_ms is a text; it must be a number",
    ),
    (
        lambda data: data["targets"][1]["target"].update(skeleton="../medium"),
        "run.json: targets[1].target.skeleton is '../medium'; it must be one of large, small",
    ),
    (network(2, published_top1=float("nan")), "networks[2].published_top1 is nan; it must be a finite number"),
    (network(2, estimated_top1=float("inf")), "networks[2].estimated_top1 is inf; it must be a finite number"),
    (
        lambda data: data["arguments"].update(budget_ms=[1, -float("inf")]),
        "arguments.budget_ms[1] is -inf; it must be a finite number",
    ),
    (lambda data: data["networks"][1].pop("estimated_top1"), "run.json: networks[1].estimated_top1 is missing"),
    (network(1, estimated_std=None), "run.json: networks[1].estimated_std is null; it must be a number"),
    (network(1, estimated_top1=None), "run.json: networks[1].estimated_top1 is null; it must be a number"),
    (network(2, estimated_top1=None), "run.json: networks[2].estimated_top1 is null; it must be a number"),
    (network(1, measured_ms="1"), "run.json: networks[1].measured_ms is a text; it must be a number or null"),
    (network(1, extrapolated=0), "networks[1].extrapolated is a whole number; it must be true or false"),
    (network(1, macs=1e9), "run.json: networks[1].macs is a number; it must be a whole number"),
    (
        lambda data: data["targets"][0].update(variants=["1@224"]),
        "run.json: targets[0].variants[0] is a text; it must be a list",
    ),
    (lambda data: data["table"]["fidelity"][0].pop("mape"), "run.json: table.fidelity[0].mape is missing"),
    (lambda data: data["table"].update(fidelity=None), "run.json: table.fidelity is null; it must be a list"),
    (
        lambda data: data["targets"][0]["attempts"][0].pop("predicted_std"),
        "run.json: targets[0].attempts[0].predicted_std is missing",
    ),
    (lambda data: data["targets"][0].update(corrections=[0.99]), "run.json: targets[0].corrections is unknown"),
    (network(0, measured_error="1"), "networks[0].measured_error is a text; it must be a number or null"),
    (network(0, kind="lost"), "run.json: networks[0].kind is 'lost'; it must be one of found, published"),
    (
        lambda data: data["networks"][0]["spec"].update(resolution=8),
        "run.json: networks[0].spec: resolution is 8; it must be a whole number from 32",
    ),
    (
        lambda data: data["networks"][0]["spec"]["blocks"][1].pop("out"),
        "run.json: networks[0].spec.blocks[1].out is missing",
    ),
    (network(2, breakdown=[["stem"]]), "run.json: networks[2].breakdown[0] must be a list of 2 values"),
    (network(2, breakdown=None), "run.json: networks[2].breakdown is null; it must be a list"),
    (lambda data: data["networks"].pop(0), "networks holds none of kind 'found' for the target 'large'"),
    (lambda data: data.update(networks=[1]), "run.json: networks[0] is a whole number; it must be an object"),
    (
        network(0, measured_ms=None, predicted_ms=None),
        "run.json: networks[0].predicted_ms is null; it must be a number where measured_ms is null",
    ),
    (
        network(0, target=None),
        "run.json: networks[0].target is null; it must be the name of a target (large, small)",
    ),
    (
        network(1, target="medium"),
        "run.json: networks[1].target is 'medium'; it must be the name of a target (large, small)",
    ),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[message for _, message in CHANGES])
def test_what_is_wrong_in_run_json_is_named(edit_run, change, message):
    with pytest.raises(NasError, match=re.escape(message)) as caught:
        load_run(edit_run(change))
    text = str(caught.value)
    assert "\n" not in text
    assert "; " in text  # what is wrong; what to do


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("run.json", None, "not a run folder, for it has no run.json"),
        ("run.json", "{", "run.json: not JSON"),
        ("run.json", '{"version": 4, "command": "\\ud800"}', "run.json: not JSON"),
        ("run.json", '{"version": 4, "arguments": ' + 100_000 * "[" + 100_000 * "]" + "}", "run.json: not JSON"),
        ("run.json", '{"version": 4, "seconds": {"a": 1e999}}', "run.json: seconds[...] is too large or too small"),
        ("run.json", "[]", "run.json: the record is a list; it must be an object"),
        ("small.json", None, "small.json: no such file"),
        ("small.json", '{"version": 1}', "small.json: spec: 'name' is missing"),
        ("small.json", load_spec("mobilenet_v2").to_json(), "small.json: not the network that"),
        ("trials.csv", None, "trials.csv: no such file"),
        ("trials.csv", "", "trials.csv: the column 'target' is missing"),
        ("trials.csv", "target,stage\n", "trials.csv: the column 'number' is missing"),
        ("front.csv", f"{HEADER}\n{ROW}\n{ROW.replace('1.5', 'x')}\n", "line 3: latency_ms is 'x'; it must be"),
        ("front.csv", f"{HEADER}\n\n{ROW.replace('1.5', 'x')}\n", "line 3: latency_ms is 'x'; it must be"),
        ("front.csv", f"{HEADER}\n{ROW.replace('70', 'nan')}\n", "line 2: top1 is 'nan'; it must be a finite number"),
        ("front.csv", f"{HEADER}\n{ROW.replace('70', '1e999')}\n", "line 2: top1 is '1e999'; it must be a finite"),
        ("front.csv", f"{HEADER}\n{ROW.replace(',2,', ',2.5,')}\n", "params is '2.5'; it must be a whole number"),
        ("front.csv", f"{HEADER}\n{ROW.replace(',2,', ',1e300,')}\n", "params is '1e300'; it must be a whole number"),
        ("front.csv", f"{HEADER}\nlarge,tpe,0,abc,1\n", "front.csv: line 2: the row has no top1"),
        ("trials.csv", f"{HEADER}\n{ROW},4\n", "trials.csv: not a CSV file (Expected 12 fields in line 2, saw 13)"),
        ("trials.csv", f"{HEADER}\nlarge,\"tpe,1,2", "trials.csv: not a CSV file"),
        ("table_rows.csv", ",".join(TABLE_COLUMNS) + "\nk,mbconv,x,,,,,,,,1,1\n", "kernel is 'x'; it must be a whole"),
        ("table_rows.csv", ",".join(TABLE_COLUMNS) + "\nk,mbconv,3\n", "table_rows.csv: line 2: the row has no macs"),
        ("table_rows.csv", 'op,kernel,se,macs,ms\n"', "table_rows.csv: not a CSV file"),
    ],
)  # fmt: skip
def test_broken_files_are_named(run_dir, file, text, message):
    if text is None:
        (run_dir / file).unlink()
    else:
        (run_dir / file).write_text(text, encoding="utf-8")
    with pytest.raises(NasError, match=re.escape(message)) as caught:
        load_run(run_dir)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NasError, match="no such folder"):
        load_run(tmp_path / "nothing")


def test_names_may_be_in_any_script(tmp_path):
    path = write_run(tmp_path / "run", device="处理器 <3.0>")
    record = load_record(path)
    write_record(path, msgspec.structs.replace(record, notes=("naïve «ß»",)))
    run = load_run(Path(path))
    assert run.table.device == "处理器 <3.0>"
    assert run.record.notes == ("naïve «ß»",)


# Proven optima and measured networks ------------------------------------------------------------------


def test_proven_optima_are_a_front_of_each_skeleton(finished_run):
    run = load_run(finished_run)
    for skeleton in ("large", "small"):
        own = [one for one in run.optima if one.skeleton == skeleton]
        assert len(own) > 10
        for before, after in itertools.pairwise(own):
            assert before.latency_ms < after.latency_ms
            assert before.top1 < after.top1
        assert all(one.spec.resolution == one.variant.resolution for one in own)
    assert [one.skeleton for one in run.optima] == sorted(one.skeleton for one in run.optima)


def test_optima_are_read_as_they_were_written(finished_run, tmp_path):
    optima = load_run(finished_run).optima
    write_optima(tmp_path / OPTIMA, reversed(optima))
    assert load_optima(tmp_path / OPTIMA) == optima


def test_a_run_without_optima_has_none(run_dir):
    (run_dir / OPTIMA).unlink()
    assert load_run(run_dir).optima == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "optima.jsonl: line 3: not JSON"),
        ("[]", "optima.jsonl: line 3: the record is a list; it must be an object"),
        ('{"skeleton": "medium"}', "line 3: skeleton is 'medium'; it must be one of large, small"),
        ('{"latency_ms": NaN}', "line 3: latency_ms is nan; it must be a finite number"),
        ('{"skeleton": "large", "colour": 1}', "line 3: colour is unknown; restore the file, or remove it"),
        ('{"skeleton": "large"}', "line 3: variant is missing"),
        ("\x00", "line 3: not JSON"),
    ],
)
def test_a_damaged_optimum_is_named_with_its_line(run_dir, line, message):
    first = (run_dir / OPTIMA).read_text(encoding="utf-8").splitlines()[0]
    (run_dir / OPTIMA).write_text(f"{first}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(NasError, match=re.escape(message)) as caught:
        load_run(run_dir)
    assert "\n" not in str(caught.value)


def test_measured_networks_are_read_with_their_predictions(finished_run):
    measured = load_run(finished_run).measured
    assert list(measured) == list(MEASURED_COLUMNS)
    assert set(measured.population) <= set(POPULATIONS)
    assert {"found", "published", "random", "near-optimal"} <= set(measured.population)
    assert measured.spec_id.is_unique
    assert measured.dtypes[["measured_ms", "predicted_std", "macs"]].tolist() == ["float64", "float64", "int64"]
