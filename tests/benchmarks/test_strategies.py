"""The comparison of samplers, on a made-up table in place of NAS-Bench-Macro."""

import itertools
import math
import runpy
from pathlib import Path
from typing import Any

import pytest

import nas

STRATEGIES = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "strategies.py"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table in which block 1 adds 1 and block 2 adds 3 FLOPs, and accuracy grows with their root."""
    file = tmp_path_factory.mktemp("table") / "table.csv"
    rows = ["arch,acc1,acc2,acc3,params,flops"]
    for digits in itertools.product("012", repeat=8):
        flops = sum((0, 1, 3)[int(digit)] for digit in digits)
        top1 = 80 + math.sqrt(flops)
        rows.append(f"{''.join(digits)},{top1 - 0.3},{top1},{top1 + 0.6},1,{10 + flops}")
    file.write_text("\n".join(rows))
    return file


@pytest.fixture(scope="module")
def table(path: Path) -> Any:
    return STRATEGIES["load_table"](str(path), 20.0)


def test_flops_are_a_sum_over_layers(table: Any) -> None:
    assert table.layer_flops() == {f"layer{i}": {0: 0, 1: 1, 2: 3} for i in range(8)}
    assert table.violation((2, 2, 2, 1, 0, 0, 0, 0)) == 0
    assert table.violation((2,) * 8) == pytest.approx(0.7)


def test_the_pick_is_the_best_seen_within_the_limit(table: Any) -> None:
    run = STRATEGIES["Run"](table, 0, 4)
    low, high, over = (0,) * 8, (2, 2, 2, 1, 0, 0, 0, 0), (2,) * 8
    run.seen = [(over, 99.0), (low, 80.0), (high, 79.0), (high, 81.0), (low, 90.0)]
    assert list(run.picks()) == [-math.inf, table.mean(low), table.mean(low), table.mean(high)]


def test_a_network_over_the_limit_costs_more_than_any_within(table: Any) -> None:
    run = STRATEGIES["Run"](table, 0, 4)
    assert run.penalised((0,) * 8) in [pytest.approx(100 - top1) for top1 in table.accuracies[(0,) * 8]]
    assert 100 < run.penalised((2,) * 6 + (0, 0)) < run.penalised((2,) * 8)


@pytest.mark.parametrize("name", ["ours", "random", "tpe"])
def test_methods_evaluate_as_many_networks_as_asked_for(table: Any, name: str) -> None:
    runs = [STRATEGIES["Run"](table, seed, 12) for seed in (0, 0, 1)]
    for run in runs:
        STRATEGIES["METHODS"][name](run)
    assert [len(run.seen) for run in runs] == [12] * 3
    assert runs[0].seen == runs[1].seen != runs[2].seen
    if name != "tpe":
        assert all(table.violation(digits) <= 0 for digits, _ in runs[0].seen)


def test_files_that_are_no_table_are_refused(path: Path, tmp_path: Path) -> None:
    part, wrong = tmp_path / "part.csv", tmp_path / "wrong.csv"
    lines = path.read_text().splitlines()
    part.write_text("\n".join(lines[:9]))
    wrong.write_text(lines[0] + "\n00000000,1,2,,1,5\n")
    with pytest.raises(nas.NasError, match="has 8 networks; there must be 6,561"):
        STRATEGIES["load_table"](str(part), 20.0)
    with pytest.raises(nas.NasError, match="line 2: there must be arch, acc1"):
        STRATEGIES["load_table"](str(wrong), 20.0)
    with pytest.raises(nas.NasError, match="unknown method 'best'"):
        STRATEGIES["main"](["--nas-bench-macro", str(path), "--only", "best"])
