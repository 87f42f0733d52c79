"""`python -m nas` lists commands, spaces, networks, tables, estimators, strategies and runtimes."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from nas.__main__ import COMMANDS, commands, networks, overview, tables
from nas.accuracy import ESTIMATORS
from nas.arch.loading import space_names
from nas.arch.published import published_names, published_results
from nas.latency.runtimes import RUNTIMES
from nas.latency.table_file import JSON_VERSION
from nas.search.strategies import STRATEGIES


def test_it_names_everything(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    overview([])
    text = capsys.readouterr().out
    for name in (*space_names(), *ESTIMATORS, *STRATEGIES, *RUNTIMES, *(name for name, _ in commands())):
        assert name in text
    assert "mobilenet_v3_large@0.75" in text
    assert max(len(line) for line in text.splitlines()) <= 160


def test_commands_are_the_modules_that_are_run() -> None:
    rows = dict(commands())
    assert rows.keys() == COMMANDS.keys()
    for name, line in rows.items():
        assert find_spec(f"nas.{name}"), f"python -m nas.{name} runs nothing"
        assert line, f"nas.{name} needs a line about itself"
        assert not line.endswith((":", "."))


def test_counts_of_networks_are_whole() -> None:
    rows = networks()
    families, *listed = rows
    assert len(families[1].split(";")[0].split(", ")) + sum(int(name.split()[0]) for name, _ in listed) == len(
        published_names()
    )


def test_all_networks_with_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    overview(["--published"])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["network", "px", "params", "(M)", "MACs", "(M)", "top-1", "(%)", "trained", "by"]
    assert len(lines) == len(published_results())
    rows = [line.split() for line in lines]
    assert ["mobilenet_v3_large", "224", "5.48", "216.6", "75.2", "slim"] in rows
    assert ["hardcorenas_a", "224", "5.26", "224.2", "75.9", "timm-miil_green_in1k"] in rows
    text = "\n".join(lines)
    for name in published_names():
        assert name in text


def test_tables_are_found_and_broken_ones_named(tmp_path: Path) -> None:
    assert [name for name, _ in tables(tmp_path)] == ["none yet"]
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "foreign.json").write_text(json.dumps({"version": JSON_VERSION}))
    (tmp_path / "notes.txt").write_text("no table")
    rows = dict(tables(tmp_path))
    assert rows.keys() == {"broken.json", "foreign.json"}
    assert "not JSON" in rows["broken.json"]
    assert "is missing" in rows["foreign.json"]


def test_an_unknown_flag_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        overview(["--spaces"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "nas: error: unrecognized arguments: --spaces\n"
