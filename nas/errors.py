"""Define the one exception that commands turn into a line on stderr and exit status 2."""

import re
from collections.abc import Iterable


class NasError(ValueError):
    """An error that the user can correct. The message says what is wrong, where, and what to do.

    Every other exception that reaches a user is a bug.
    """


def hide_passwords(text: str) -> str:
    """Return `text` without the passwords of the URLs in it, such as a database's."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)


def unknown_name(category: str, name: str, known: Iterable[str]) -> NasError:
    """Return the error for a name that is not registered. It lists the known names."""
    return NasError(f"unknown {category} {name!r}; known: {', '.join(known)}")
