"""Where another skeleton is better than what a target found, the command that searches it is given."""

import msgspec
import pytest

from nas.arch.loading import load_spec
from nas.arch.skeleton import Variant
from nas.runs.blocks import blocks_text
from nas.runs.optima import better_skeleton, command_for
from nas.runs.record import OptimalNetwork
from nas.runs.target import Target

SMALL = Target("small", 6.2)
LARGE = OptimalNetwork(
    skeleton="large",
    variant=Variant(1.0, 192),
    limit_ms=5.9,
    latency_ms=5.8,
    latency_std=0.1,
    top1=76.3,
    top1_std=0.7,
    extrapolated=False,
    macs=180_000_000,
    params=5_000_000,
    spec=load_spec("mobilenet_v3_large"),
)


def replaced(**changes: object) -> OptimalNetwork:
    return msgspec.structs.replace(LARGE, **changes)


def test_another_skeleton_is_better() -> None:
    slower = replaced(latency_ms=6.3, top1=77.0)
    better = better_skeleton([replaced(latency_ms=5.0, top1=75.5), LARGE, slower], SMALL, 75.0)
    assert better is not None
    assert better.optimum == LARGE
    assert better.command == "python -m nas.search --budget-ms 6.2 --only large"
    assert better.text == "within 6.2 ms Large reaches 76.3 % estimated at 5.80 ms predicted, Small found 75.0 %"


@pytest.mark.parametrize(
    "optima",
    [
        [],
        [replaced(skeleton="small")],
        [replaced(top1=75.05)],  # no better than is shown
        [replaced(top1=74.0)],
        [replaced(latency_ms=6.19)],  # above the limit, which is the budget less the noise of measurements
    ],
)
def test_no_other_skeleton_is_better(optima: list[OptimalNetwork]) -> None:
    assert better_skeleton(optima, SMALL, 75.0) is None


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("python -m nas.search --budget-ms 20", ""),
        ("python -m nas.search --budget-ms=20 --out reports/x --resume --threads 4", " --threads 4"),
        ("python -m nas.search --front --only small --seed 1", " --seed 1"),
        ("python -m nas.search --front 9 --max-params 3M", " --max-params 3M"),
        ("python -m nas.search --bud 20 --table 'my table.json'", " --table 'my table.json'"),
    ],
)
def test_the_command_keeps_the_other_flags(command: str, kept: str) -> None:
    assert command_for(command, "large", 6.19608) == f"python -m nas.search{kept} --budget-ms 6.196 --only large"


def test_blocks_stand_in_one_cell() -> None:
    blocks = blocks_text(load_spec("mobilenet_v3_small")).split(";")
    assert blocks[:3] == ["3,16,16,2,8,r", "3,72,24,2,0,r", "3,88,24,1,0,r"]
    assert blocks[-1] == "5,576,96,1,144,h"
