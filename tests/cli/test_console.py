"""The console of the commands, on a terminal and into a file."""

import io
import sys

import pytest
from rich.console import Console
from rich.table import Table

from nas.cli.console import RichConsole


class Stream(io.StringIO):
    """A stream that is a terminal, or is not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def streams(monkeypatch: pytest.MonkeyPatch, out: bool, err: bool) -> tuple[Stream, Stream]:
    """Replace stdout and stderr, each by a terminal or by a file."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    for name, terminal in (("stdout", out), ("stderr", err)):
        monkeypatch.setattr(sys, name, Stream(terminal))
    return sys.stdout, sys.stderr  # type: ignore[return-value]


def report(console: RichConsole) -> None:
    console.say("before")
    with console.progress("training small") as progress:
        progress(0.4, "epoch 3/60, 1,800 images/s")
        console.say("meanwhile")
        print("[left out]")
        progress(0.5, "epoch 4/60, 1,800 images/s")
    console.say("after")


def test_a_terminal_shows_the_bar_with_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = streams(monkeypatch, out=True, err=True)
    report(RichConsole())
    shown = err.getvalue()
    for text in ("training small", "epoch 4/60, 1,800 images/s", "meanwhile", "[left out]"):
        assert text in shown
    assert out.getvalue() == "before\nafter\n"  # lines meanwhile go above the bar


def test_a_file_gets_every_line_also_while_a_bar_is_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = streams(monkeypatch, out=False, err=True)
    report(RichConsole())
    assert out.getvalue() == "before\nmeanwhile\n[left out]\nafter\n"
    assert "training small" in err.getvalue()
    assert "meanwhile" not in err.getvalue()


def test_without_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = streams(monkeypatch, out=False, err=False)
    report(RichConsole())
    assert out.getvalue() == "before\nmeanwhile\n[left out]\nafter\n"
    assert err.getvalue() == ""


def test_a_file_gets_long_lines_and_wide_tables_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = streams(monkeypatch, out=False, err=False)
    monkeypatch.setenv("COLUMNS", "30")
    console = RichConsole(file_width=120)
    console.say("word " * 50)
    table = Table("a column", box=None)
    table.add_row("x" * 110)
    console.print(table)
    assert "word " * 50 + "\n" in out.getvalue()
    assert "x" * 110 in out.getvalue()
    assert Console(file=io.StringIO()).width == 30
