"""The program `nas`: `nas COMMAND`, `python -m nas COMMAND` and `python -m nas.COMMAND` are one command."""

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from nas.__main__ import COMMANDS, main

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "torchvision", "onnxruntime", "openvino", "pandas", "matplotlib")


def console_script() -> EntryPoint:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return EntryPoint("nas", scripts["nas"], "console_scripts")


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT
    )  # fmt: skip


def script(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the console script as an installer writes it, and name the heavy modules that it loaded."""
    entry = console_script()
    code = (
        "import sys\n"
        f"from {entry.module} import {entry.attr}\n"
        f"sys.argv = ['/usr/bin/nas', *{list(words)!r}]\n"
        "try:\n"
        f"    {entry.attr}()\n"
        "finally:\n"
        f"    print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    return python("-c", code)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_the_programs_name_and_loads_nothing_heavy(name: str) -> None:
    done = script(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: nas {name} [-h]")
    assert done.stdout.endswith("heavy: []\n")


def test_help_of_the_program_names_the_commands() -> None:
    done = script("--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: nas [-h]")
    assert all(name in done.stdout for name in COMMANDS)
    assert done.stdout.endswith("heavy: []\n")


def test_the_module_runs_commands_too() -> None:
    assert python("-m", "nas", "report", "--help").stdout.startswith("usage: python -m nas report [-h]")
    assert python("-m", "nas.report", "--help").stdout.startswith("usage: python -m nas.report [-h]")


def test_a_command_gets_the_arguments_behind_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(monkeypatch, capsys, "report", "nowhere").startswith("nas report: error: nowhere: no such folder")
    assert refused(monkeypatch, capsys, "report") == (
        "nas report: error: the following arguments are required: RUN\n"
    )  # fmt: skip


@pytest.mark.parametrize("words", [["measre"], ["measre", "--budget-ms", "3"], ["--published", "measre"]])
def test_an_unknown_command_lists_the_known_ones(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(monkeypatch, capsys, *words)
    assert line == f"nas: error: unknown command 'measre'; known: {', '.join(COMMANDS)}\n"


def test_flags_come_after_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(monkeypatch, capsys, "--published", "search")
    assert line == "nas: error: the command search must come before its flags\n"
    assert refused(monkeypatch, capsys, "--spaces") == "nas: error: unrecognized arguments: --spaces\n"


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/nas", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err
