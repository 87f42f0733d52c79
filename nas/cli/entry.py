"""Run a command for its user, with errors on one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

from nas.cli.arguments import program
from nas.errors import NasError
from nas.utf8 import escape_on_console


def run(name: str, command: Callable[[list[str] | None], None]) -> None:
    """Run the `main` of the command `name` on the process's arguments.

    A NasError becomes one line on stderr and exit status 2, Ctrl-C exit status 130.
    """
    called = program(name).removeprefix("python -m ")
    escape_on_console()
    try:
        command(None)
    except NasError as error:
        print(f"{called}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{called}: interrupted; everything that was finished is kept", file=sys.stderr)
        sys.exit(130)
