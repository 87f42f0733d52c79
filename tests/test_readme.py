"""The commands that README and docs name exist, with the arguments they name, and so do the files they link to."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks/README.md",
]
COMMAND = re.compile(r"python -m nas\.(\w+)([^`#\n]*)")
TEXTS = [page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES]  # a command over several lines is one
COMMANDS = sorted({match.groups() for text in TEXTS for match in COMMAND.finditer(text)})
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)\)")
SCRIPT = re.compile(r"benchmarks/\w+\.py")


@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_commands_take_their_arguments(name: str, arguments: str) -> None:
    module = importlib.import_module(f"nas.{name}")
    words = shlex.split(arguments.strip())
    if words and hasattr(module, "_parser"):
        module._parser().parse_args(words)


def test_there_are_commands_to_look_at() -> None:
    assert {"search", "train", "measure"} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_scripts_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        assert (page.parent / link).exists(), link
    for script in SCRIPT.findall(text):
        assert (ROOT / script).is_file(), script
