"""Define the one exception that commands turn into a line on stderr and exit status 2."""

import re
from collections.abc import Iterable
from urllib.parse import unquote_plus


class NasError(ValueError):
    """An error that the user can correct. The message says what is wrong, where, and what to do.

    Every other exception that reaches a user is a bug.
    """


# Where a URL holds what must not be seen. A password that is not percent-encoded can hold every sign, so the first two
# go as far as they can: to the last @, and to the end.
_PASSWORDS = tuple(
    re.compile(pattern, re.DOTALL | re.IGNORECASE)
    for pattern in (
        r"://[^:]*:(?P<secret>.*)@",  # scheme://user:PASSWORD@host
        r"(?:^|[?&\s])[^?&=\s]*(?:pass|pwd|secret|token)[^?&=\s]*=(?P<secret>.*)",  # ?password=PASSWORD
        r"://[^:/?@\[\]]*:(?P<secret>(?!\d*(?:[/?,]|\Z))[^@]+)",  # scheme://user:PASSWORD, where the host was forgotten
    )
)


def hide_passwords(text: str) -> str:
    """Return `text` without the passwords of the URLs in it, such as a database's. It may hide more than these."""
    shown, end = "", 0
    for start, stop in _secret_spans(text):
        shown, end = f"{shown}{text[end:start]}***", stop
    return shown + text[end:]


def holds_password_of(text: str, url: str) -> bool:
    """Return whether `text` has a part of what `hide_passwords` hides in `url`, as it stands there or decoded."""
    hidden = [url[start:stop] for start, stop in _secret_spans(url)]
    parts = {part for secret in hidden for form in (secret, unquote_plus(secret)) for part in re.split(r"\W", form)}
    return any(part in text for part in parts if part)


def _secret_spans(text: str) -> list[tuple[int, int]]:
    """Return where secrets start and stop, in order and without overlaps."""
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(found.span("secret") for pattern in _PASSWORDS for found in pattern.finditer(text)):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(stop, spans[-1][1])
        else:
            spans.append((start, stop))
    return spans


def unknown_name(category: str, name: str, known: Iterable[str]) -> NasError:
    """Return the error for a name that is not registered. It lists the known names."""
    return NasError(f"unknown {category} {name!r}; known: {', '.join(known)}")
