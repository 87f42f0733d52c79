r"""Show and write names that are not UTF-8, such as a folder's from a disk with names in Latin-1.

Python holds a byte of such a name that is no UTF-8 as a lone surrogate, with which files are opened. On a console and
in files it stands as Python's escape: the byte E9 as `\udce9`. The names of classes are so from the beginning.
"""

from __future__ import annotations

import io
import sys
from typing import TypeVar

ESCAPING = "backslashreplace"  # for all that is printed or written
Value = TypeVar("Value")


def as_utf8(value: Value) -> Value:
    """Return a text that UTF-8 can hold, or a value of JSON in which all texts are so."""
    new: object = value
    if isinstance(value, str):
        new = value.encode("utf-8", ESCAPING).decode()
    elif isinstance(value, dict):
        new = {as_utf8(key): as_utf8(item) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        new = [as_utf8(item) for item in value]
    return new  # type: ignore[return-value]


def escape_on_console() -> None:
    """Make stdout and stderr print escapes for what their encoding lacks, where Python would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPING)
