"""Where a pipeline tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Progress = Callable[[float, str], None]


class Console(Protocol):
    """What is told, line by line, and shares of what is under way."""

    def say(self, text: str) -> None: ...

    def progress(self, title: str) -> AbstractContextManager[Progress]: ...


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        yield lambda share, text: None
