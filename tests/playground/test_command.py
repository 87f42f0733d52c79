"""The command: what it writes, and what it says where it cannot."""

import dataclasses
import re
from pathlib import Path

import pytest
from support import synthetic
from support.made_up_table import NOISE, made_up_table

from nas.arch.loading import load_space, load_spec
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.device import Device
from nas.latency.table import LatencyTable
from nas.playground.__main__ import main
from nas.playground.data import own_starts


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_table(path: Path, device: Device | None = None) -> LatencyTable:
    space = load_space("mobilenet_v3_small").at([(0.35, 96)])
    return made_up_table(path, [space], device=device, noise=NOISE)


def test_the_page_is_written_and_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small_table(tmp_path / "table.json")
    main(["--table", "table.json", "--space", "mobilenet_v3_small"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mobilenet_v3_small: 0.35@96"
    assert lines[1].startswith("reports/playground.html: networks on ")
    text = Path("reports/playground.html").read_text(encoding="utf-8")
    assert "of another device" not in text
    assert "http://" not in text.partition("<body>")[0]


def test_a_skeleton_without_a_complete_variant_is_told_beside_the_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small_table(tmp_path / "table.json")
    main(["--table", "table.json", "--out", "page.html"])
    assert "mobilenet_v3_large: no width and resolution has all rows in the table" in capsys.readouterr().out
    assert "python -m nas.measure --space mobilenet_v3_large --widths" in Path("page.html").read_text(encoding="utf-8")


def test_a_table_of_another_device_is_said_on_the_page(tmp_path: Path) -> None:
    small_table(tmp_path / "table.json", dataclasses.replace(Device.this(), cpu="Other <CPU> 9"))
    main(["--table", "table.json", "--out", "page.html"])
    text = Path("page.html").read_text(encoding="utf-8").partition("<script")[0]
    assert "The latency table is of another device" in text
    assert "Build a network for Other &lt;CPU&gt; 9" in text


def test_without_a_table_the_command_that_measures_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.install(monkeypatch)
    with pytest.raises(NasError, match=r"no latency table of this device.*`python -m nas\.measure` measures one"):
        main(["--runtime", "synthetic"])
    assert not Path("reports").exists()


def test_a_table_without_a_complete_variant_names_the_fullest_and_what_measures_the_rest(tmp_path: Path) -> None:
    large = load_spec("mobilenet_v3_large")
    table = made_up_table(tmp_path / "table.json", [], specs=[large], measured=[(large, 1.01)], noise=NOISE)
    with pytest.raises(NasError) as error:
        main(["--table", "table.json"])
    assert re.fullmatch(
        r"table\.json has all rows of no width and resolution of mobilenet_v3_large, mobilenet_v3_small; "
        r"it has the most of mobilenet_v3_large at 1@224: \d+ of \d+; `python -m nas\.measure "
        r"--space mobilenet_v3_large --widths 1 --resolutions 224 --table table\.json` measures the rest",
        str(error.value),
    )
    assert table.rows


def test_another_runtime_than_the_tables_is_refused(tmp_path: Path) -> None:
    small_table(tmp_path / "table.json")
    with pytest.raises(NasError, match="--threads 1"):
        main(["--table", "table.json", "--threads", "4"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "none.json"], "none.json: no such file"),
        (["--recipe-level", "best"], "unknown recipe level 'best'"),
        (["--space", "huge"], "unknown search space 'huge'"),
        (["--spec", "."], r"\.: this folder has no spec"),
        (["--spec", "none.json"], "none.json: no such file"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(NasError, match=message) as error:
        main(arguments)
    assert "\n" not in str(error.value)


def test_networks_of_a_runs_folder_are_begun_from(tmp_path: Path) -> None:
    run = tmp_path / "reports" / "20ms"
    run.mkdir(parents=True)
    for name in ("large", "small"):
        load_spec(f"mobilenet_v3_{name}").save(run / f"{name}.json")
    (run / "run.json").write_text('{"trials": []}', encoding="utf-8")
    starts = own_starts(["reports/20ms", "mobilenet_v3_large@0.75", "reports/20ms/large.json"])
    assert [start.name for start in starts] == [
        "20ms/large",
        "20ms/small",
        "mobilenet_v3_large@0.75",
        "20ms/large",
    ]
    assert starts[0].spec == ArchSpec.load(run / "large.json")
    assert all(start.yours for start in starts)
