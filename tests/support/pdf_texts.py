"""Read the texts of a PDF that matplotlib wrote with TrueType fonts."""

import re
import zlib
from collections.abc import Iterator

_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
_SHOWN = re.compile(rb"\[((?:[^\]\\]|\\.)*?)\]\s*TJ", re.DOTALL)  # strings with the shifts between them
_STRING = re.compile(rb"\(((?:[^()\\]|\\.)*)\)", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def texts_of_pdf(content: bytes) -> set[str]:
    """Return every line of text of a PDF, as a search in it finds it."""
    return {text for stream in _streams(content) for text in _texts(stream)}


def _streams(content: bytes) -> Iterator[bytes]:
    for found in _STREAM.finditer(content):
        try:
            yield zlib.decompress(found[1])
        except zlib.error:
            continue  # an image


def _texts(stream: bytes) -> Iterator[str]:
    for shown in _SHOWN.finditer(stream):
        codes = b"".join(_ESCAPED.sub(rb"\1", string) for string in _STRING.findall(shown[1]))
        yield codes.decode("utf-16-be", "replace")
