"""The one exception that commands turn into a line on stderr and exit status 2."""

import re


class NasError(ValueError):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Every other exception that reaches a user is a bug.
    """


def hide_passwords(text: str) -> str:
    """`text` without the passwords of URLs in it, such as a data base's."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)


def unknown_name(kind: str, name: str, known: "list[str] | tuple[str, ...]") -> NasError:
    """The error for a name that is in no registry; it lists the known ones."""
    return NasError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
