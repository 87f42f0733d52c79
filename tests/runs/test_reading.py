import re

import pytest

from nas.errors import NasError
from nas.runs.reading import load_run

HEADER = "role,stage,latency_ms,top1"


def test_a_run_is_read_whole(finished_run):
    run = load_run(finished_run)
    assert list(run.roles) == ["large", "small"]
    assert run.roles["large"].budget_ms == 4
    assert run.found("small").spec == run.roles["small"].spec
    assert run.found("large").measured_ms < 4
    assert run.roles["large"].variants == ((1.0, 192.0), (1.0, 224.0), (1.25, 224.0))
    assert run.found("large").published_top1 is None
    assert run.networks[2].published_top1 == 75.2
    assert run.fidelity is not None
    assert (run.fidelity.mape, run.fidelity.networks) == (0.0187, 100)
    assert [network.name for network in run.networks[:4]] == [
        "found large",
        "found small",
        "mobilenet_v3_large",
        "mobilenet_v3_small",
    ]
    assert len(run.trials) == 60
    assert set(run.front) < set(run.trials)
    assert [row.op for row in run.table_rows[:3]] == ["stem", "head", "sepconv"]
    assert {row.kernel for row in run.table_rows} == {0, 3, 5, 7}


def test_a_run_without_rows_is_read(edit_run, run_dir):
    for name in ("trials", "front", "table_rows"):
        file = run_dir / f"{name}.csv"
        file.write_text(file.read_text().splitlines()[0] + "\n")
    run = load_run(edit_run(lambda data: data["networks"][0].update(breakdown=None, predicted_ms=None)))
    assert run.trials == run.front == run.table_rows == ()
    assert run.found("large").breakdown == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("networks"), "run.json: 'networks' is missing"),
        (lambda data: data.update(version=2), "version is 2; this program reads version 1: a newer program wrote it"),
        (lambda data: data.update(version="1"), "run.json: version is '1'; it must be a whole number"),
        (
            lambda data: data.update(finished=None, networks=[]),
            "not finished; the same nas.search command with --resume",
        ),
        (lambda data: data.update(roles={}), "roles is empty"),
        (lambda data: data["table"].pop("device"), "run.json: table: 'device' is missing"),
        (lambda data: data["table"].update(threads=True), "table: threads is True; it must be a whole number"),
        (lambda data: data["roles"]["large"].update(feasible_ms=[1]), "roles: large: feasible_ms is [1]"),
        (
            lambda data: data["roles"]["small"].update(budget_ms="1 ms"),
            "small: budget_ms is '1 ms'; it must be a number",
        ),
        (lambda data: data["networks"][2].update(top1=float("nan")), "networks, number 3: top1 is nan"),
        (lambda data: data["networks"][1].pop("estimated_top1"), "number 2: 'estimated_top1' is missing"),
        (lambda data: data["networks"][1].update(estimated_std=None), "estimated_std is None; it must be a number"),
        (lambda data: data["networks"][1].update(extrapolated=0), "extrapolated is 0; it must be true or false"),
        (
            lambda data: data["roles"]["large"].update(variants=["1@224"]),
            "large: variants, number 1 is '1@224'; it must",
        ),
        (lambda data: data["table"]["fidelity"].pop("mape"), "run.json: table: fidelity: 'mape' is missing"),
        (lambda data: data["networks"][0].update(kind="lost"), "number 1: kind is 'lost'; it must be one of found"),
        (lambda data: data["networks"][0]["spec"].update(resolution=8), "number 1: spec: resolution is 8"),
        (lambda data: data["networks"][2].update(breakdown=[["stem"]]), "number 3: breakdown has ['stem']"),
        (lambda data: data["networks"].pop(0), "networks has none with kind 'found' and role 'large'"),
        (lambda data: data.update(networks=[1]), "networks, number 1: must be a JSON object"),
    ],
)
def test_what_is_wrong_in_run_json_is_named(edit_run, change, message):
    with pytest.raises(NasError, match=re.escape(message)):
        load_run(edit_run(change))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("run.json", None, "not a run folder, for it has no run.json"),
        ("run.json", "{", "run.json: not JSON"),
        ("run.json", "[]", "run.json: must be a JSON object"),
        ("small.json", None, "small.json: no such file"),
        ("small.json", '{"version": 1}', "small.json: spec: 'name' is missing"),
        ("trials.csv", None, "trials.csv: no such file"),
        ("trials.csv", "", "trials.csv: the column 'role' is missing"),
        ("trials.csv", "role,stage\n", "trials.csv: the column 'latency_ms' is missing"),
        ("front.csv", f"{HEADER}\nlarge,tpe,1,2\nlarge,tpe,x,2\n", "line 3: latency_ms is 'x'; it must be"),
        ("front.csv", f"{HEADER}\nlarge,tpe,1,nan\n", "line 2: top1 is 'nan'; it must be"),
        ("front.csv", f"{HEADER}\nlarge,tpe,1\n", "front.csv: line 2: the row ends before its top1"),
        ("trials.csv", f"{HEADER}\nlarge,\"tpe,1,2", "trials.csv: not a CSV file"),

        ("table_rows.csv", 'op,kernel,se,macs,ms\n"', "table_rows.csv: not a CSV file"),
    ],
)  # fmt: skip
def test_broken_files_are_named(run_dir, file, text, message):
    if text is None:
        (run_dir / file).unlink()
    else:
        (run_dir / file).write_text(text)
    with pytest.raises(NasError, match=re.escape(message)):
        load_run(run_dir)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NasError, match="no such folder"):
        load_run(tmp_path / "nothing")
