"""The networks of two published benchmarks as specs, against their published sizes."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from nas.arch.cost import count_cost
from nas.errors import NasError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "macro_specs.py"
MACRO_SPECS = runpy.run_path(str(SCRIPT))
# Digits, parameters and FLOPs of rows of the published tables: repositories xiusu/NAS-Bench-Macro (arXiv 2103.11922,
# data/nas-bench-macro_cifar10.json) and xiusu/Channel-Bench-Macro (Results_MobileNet.json).
NAS_BENCH_MACRO = """arch,params,flops
10100100,547146,20683264
10202202,1808010,57885184
11111111,1588874,53246464
12120220,1822922,67703296
20100212,1960618,50979328
22222222,2932586,105660928
"""
CHANNEL_BENCH_MACRO = """arch,params,flops
1111111,125418,14285312
1234123,325610,37928448
1444141,439338,53324288
2141312,446794,55682048
4321432,1081738,122364928
4444444,1804170,211281920
"""


def sizes(table: str) -> list[tuple[str, int, int]]:
    return [(digits, int(params), int(macs)) for digits, params, macs in (row.split(",") for row in table.split()[1:])]


def test_specs_have_the_published_parameters_and_macs() -> None:
    for table, name in ((NAS_BENCH_MACRO, "nas_bench_macro_spec"), (CHANNEL_BENCH_MACRO, "channel_bench_macro_spec")):
        for digits, params, macs in sizes(table):
            cost = count_cost(MACRO_SPECS[name](digits), num_classes=10)
            assert (cost.params, cost.macs) == (params, macs), digits


def test_maps_end_at_4_pixels_and_at_8() -> None:
    assert MACRO_SPECS["nas_bench_macro_spec"]("22222222").head_input == (256, 4)
    assert MACRO_SPECS["channel_bench_macro_spec"]("4444444").head_input == (256, 8)


def test_an_identity_is_nothing_unless_a_stage_begins_with_it() -> None:
    spec_of = MACRO_SPECS["nas_bench_macro_spec"]
    assert len(spec_of("10100200").blocks) == 3
    assert spec_of("10100200").head_input == (256, 4)
    assert spec_of("12102202").id == spec_of("12120220").id != spec_of("12122220").id
    assert [spec_of(digits) for digits in ("01111111", "11011111", "11111011")] == [None] * 3


@pytest.mark.parametrize(
    ("name", "digits", "message"),
    [
        ("nas_bench_macro_spec", "1111111", "arch is '1111111'; it must be 8 digits 0 to 2"),
        ("nas_bench_macro_spec", "11111113", "it must be 8 digits 0 to 2"),
        ("channel_bench_macro_spec", "1111110", "it must be 7 digits 1 to 4"),
    ],
)
def test_other_digits_are_refused(name: str, digits: str, message: str) -> None:
    with pytest.raises(NasError, match=message):
        MACRO_SPECS[name](digits)


def test_the_command_counts_the_rows_that_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    macro, channel = tmp_path / "macro.csv", tmp_path / "channel.csv"
    macro.write_text(NAS_BENCH_MACRO + "00000000,387882,7713280\n")
    channel.write_text(CHANNEL_BENCH_MACRO.replace("125418,14285312", "125420,14285312"))
    MACRO_SPECS["main"](["--nas-bench-macro", str(macro), "--channel-bench-macro", str(channel)])
    assert capsys.readouterr().out.splitlines() == [
        "nas-bench-macro: 6 of 6 networks agree in parameters and MACs; 1 more rows are no spec",
        "channel-bench-macro: 5 of 6 networks agree in parameters and MACs",
        "  1111111: the spec has -2 parameters and +0 MACs",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"x\.csv: no such file"),
        ("arch,flops\n", r"x\.csv: there is no column 'params'; there must be arch, params and flops"),
        ("", r"x\.csv: there is no column 'arch'"),
        ("arch,params,flops\n11111111,1,two\n", r"x\.csv: line 2: params and flops must be whole numbers"),
        ("arch,params,flops\n11111111,1\n", r"x\.csv: line 2: params and flops must be whole numbers"),
        ("arch,params,flops\n1111,1,2\n", r"x\.csv: arch is '1111'"),
    ],
)
def test_what_is_no_such_table_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NasError, match=message):
        MACRO_SPECS["main"](["--nas-bench-macro", str(path)])


def test_an_error_is_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--nas-bench-macro", "nonesuch.csv"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "macro_specs.py: error: nonesuch.csv: no such file\n"
