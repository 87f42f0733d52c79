"""The console of the commands: lines, tables and progress bars, drawn by rich."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nas.console import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType


class RichConsole:
    """Print lines and tables on stdout, and progress bars with the time left on stderr.

    Bars appear on a terminal only. A terminal is as wide as it is; a file or a pipe is `file_width` columns wide, so
    that tables keep all their columns there.
    """

    def __init__(self, file_width: int = 100) -> None:
        from rich.console import Console

        self._results = Console(highlight=False, width=None if sys.stdout.isatty() else file_width)
        self._bars = Console(highlight=False, stderr=True)  # so that stdout holds results only
        self._lines = self._results

    def say(self, text: str) -> None:
        """Print a line."""
        self._lines.print(text, markup=False, soft_wrap=True)

    def print(self, renderable: RenderableType) -> None:
        """Print a table, or anything else that rich can draw."""
        self._lines.print(renderable)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show a bar while the block runs, and yield the function that moves it to a share and sets its note.

        Lines that the block prints appear above the bar, or in the file that stdout is redirected to.
        """
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        shown = self._bars.is_terminal
        above = shown and sys.stdout.isatty()  # only the console with the bar can print above it
        with Bars(*columns, console=self._bars, transient=True, redirect_stdout=above, disable=not shown) as bars:
            task = bars.add_task(title, total=1.0, note="")
            self._lines = self._bars if above else self._results
            try:
                yield lambda share, note: bars.update(task, completed=share, note=note)
            finally:
                self._lines = self._results
