"""The commands that README and docs show take the arguments they are shown with, and linked files exist."""

import argparse
import importlib.util
import re
import shlex
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
from support.made_up_run import write_run

import nas
from nas.__main__ import COMMANDS, overview
from nas.cli.arguments import Parser
from nas.errors import NasError
from nas.names import resolve

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "latency_tables", "reports")),
]
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)\)")
SCRIPT = re.compile(r"benchmarks/\w+\.py")
MODULE = re.compile(r"-m nas((?:\.\w+)*)(?![.\w])([^`#|;\n]*)")  # of python or torchrun
PROGRAM = re.compile(r"(?:^[ $]*|`)(?:uv run )?nas(?: +(\w+))?((?: [^`#|;\n]*)?)(?=`|#|$)", re.MULTILINE)
BLOCK = re.compile(r"(?:^ {4}[^\n]*\n)+|^```.*?^```", re.MULTILINE | re.DOTALL)  # indented or fenced
NEXT_LINE = re.compile(r"\s*\\\n\s*|\n\s+(?=--\w)")  # of one command


class Shown(NamedTuple):
    """A command as a page shows it."""

    name: str  # "" for `python -m nas` alone
    arguments: str
    in_block: bool  # and so complete; a sentence may name a command without its arguments


def shown_commands(text: str) -> list[Shown]:
    """Return the commands of a page, in blocks of code and in sentences."""
    text = NEXT_LINE.sub(" ", text)
    found = []
    for part, in_block in [*((block, True) for block in BLOCK.findall(text)), (BLOCK.sub("\n", text), False)]:
        for name, arguments in MODULE.findall(part):
            if name:
                found.append(Shown(name[1:], arguments.strip(), in_block))
            else:
                found.append(Shown(*_split(arguments), in_block))
        found += [Shown(name, arguments.strip(), in_block) for name, arguments in PROGRAM.findall(part)]
    return [shown for shown in found if shown.in_block or shown.name != "NAME"]  # a sentence about any command


def _split(words: str) -> tuple[str, str]:
    """Return the command behind `python -m nas` and its arguments."""
    name, _, arguments = words.strip().partition(" ")
    return ("", words.strip()) if name.startswith("-") else (name, arguments.strip())


class ParsedError(Exception):
    """End a command when its arguments are parsed."""


def parse(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command parse its arguments, and fail where it does not take them."""
    if "." in shown.name:  # a tool inside a package
        assert importlib.util.find_spec(f"nas.{shown.name}"), f"there is no nas.{shown.name}"
        return
    command = resolve("command", shown.name, COMMANDS) if shown.name else overview
    if shown.name and not shown.arguments and not shown.in_block:
        return

    def parse_args(parser: Parser, words: list[str]) -> NoReturn:
        argparse.ArgumentParser.parse_args(parser, words)
        raise ParsedError

    monkeypatch.setattr(Parser, "parse_args", parse_args)
    words = shlex.split(shown.arguments)
    if not shown.name:
        command(words)
        return
    with pytest.raises(ParsedError):
        command(words)


SHOWN = sorted({shown for page in PAGES for shown in shown_commands(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.name} {shown.arguments}")
def test_commands_take_their_arguments(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    parse(shown, monkeypatch)


def test_every_command_is_shown() -> None:
    assert COMMANDS.keys() <= {shown.name for shown in SHOWN if shown.arguments}


PAGE = """
Run `python -m nas.search`, `nas measure --check` or `python -m nas`; not nas itself, nor `nas.search`.
That is `python -m nas.NAME`.

    uv run python -m nas.search --budget-ms 8 \\
        --only large          # a comment
    torchrun --nproc-per-node 8 -m nas.train net.json
    nas report reports/20ms

    $ nas

- a list

      - uv run python -m nas.search --front
        --out "runs/$HOSTNAME"

The tool `python -m nas.accuracy.fit_imagenet_prior`.

```
python -m nas measure --all | tee log
nas predict model.onnx shoe.png
```
    spec = nas.load_spec("nas")
"""


def test_commands_are_found_on_a_page() -> None:
    assert sorted(shown_commands(PAGE)) == sorted(
        [
            Shown("search", "", False),
            Shown("measure", "--check", False),
            Shown("", "", False),
            Shown("search", "--budget-ms 8 --only large", True),
            Shown("train", "net.json", True),
            Shown("report", "reports/20ms", True),
            Shown("", "", True),
            Shown("search", '--front --out "runs/$HOSTNAME"', True),
            Shown("accuracy.fit_imagenet_prior", "", False),
            Shown("measure", "--all", True),
            Shown("predict", "model.onnx shoe.png", True),
        ]
    )


@pytest.mark.parametrize(
    "text",
    [
        "    python -m nas.serch --budget-ms 3",
        "Run `python -m nas.serch`.",
        "    nas serch",
        "    uv run nas search --bugdet-ms 3",
        "    python -m nas search --budget-ms soon",
        "    python -m nas.report",
        "    python -m nas.NAME",
        "    python -m nas --spaces",
        "    python -m nas.accuracy.fit_prior",
    ],
)
def test_wrong_commands_are_found(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = shown_commands(text + "\n")
    with pytest.raises((NasError, SystemExit, AssertionError)):
        parse(shown, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_and_scripts_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        assert (page.parent / link).exists(), link
    for script in SCRIPT.findall(text):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_python_names_are_there(page: Path) -> None:
    """Calls such as `nas.load_spec(…)` name the public face."""
    for name in re.findall(r"(?<![\w.])nas\.(\w+)\(", page.read_text(encoding="utf-8")):
        assert name in dir(nas), f"there is no nas.{name}"


def test_the_analysis_of_the_readme_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    lines = re.findall(r"^ {4}(nas\.load_run\(.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        frame = eval(line.replace('"reports/20ms"', repr(str(tmp_path / "run"))))
        assert len(frame) > 3
