"""The console that a pipeline reports to, and its one form of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Progress = Callable[[float, str], None]  # the share done, from 0 to 1, and a note such as "12 rows"


class Console(Protocol):
    """A place for messages and progress."""

    def say(self, text: str) -> None:
        """Print a line."""

    def progress(self, title: str) -> AbstractContextManager[Progress]:
        """Show progress while a `with` block runs."""


def said_once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return a `say` that leaves out lines that it was given before, such as those of several processes."""
    said = set[str]()

    def say_new(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    return say_new


class Silent:
    """A console that prints nothing."""

    def say(self, text: str) -> None:
        """Print nothing."""

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show nothing."""
        yield lambda share, note: None
