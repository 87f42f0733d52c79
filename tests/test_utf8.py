"""Names that are not UTF-8 have one escaped form, on consoles and in files."""

import io
import os
import sys
from pathlib import Path

import pytest

from nas.files import read_text, write_text
from nas.utf8 import as_utf8, escape_on_console

NAME = os.fsdecode(b"caf\xe9")


def test_all_texts_of_a_value_are_escaped() -> None:
    value = {NAME: [NAME, ("café", 1, None)], "n": 0.5}
    assert as_utf8(value) == {r"caf\udce9": [r"caf\udce9", ["café", 1, None]], "n": 0.5}
    assert as_utf8(as_utf8(NAME)) == as_utf8(NAME)


def test_files_and_consoles_show_a_name_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "file", NAME)
    assert read_text(tmp_path / "file") == as_utf8(NAME)
    console = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", console)
    escape_on_console()
    print(NAME, end="", flush=True)
    assert console.buffer.getvalue().decode() == as_utf8(NAME)  # type: ignore[attr-defined]
