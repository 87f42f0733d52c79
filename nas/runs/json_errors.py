"""Describe what is wrong with a JSON text, and where, in words for people."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

_TYPES = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
}


def describe(error: Exception, text: str, choices: Mapping[str, Sequence[str]]) -> str:
    """Return the error that msgspec raised for a text as a sentence about a place, such as `networks[2].macs`.

    `choices` holds the values of each field that has only a few.
    """
    if not isinstance(error, msgspec.ValidationError):
        return _number_that_is_not_finite(text) or f"not JSON ({error})"
    parts = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*)`)?", str(error), re.DOTALL)
    assert parts is not None  # the pattern matches any text
    problem, place = parts[1], parts[2] or ""
    if field := re.fullmatch(r"Object (missing required|contains unknown) field `(.*)`", problem):
        name = f"{place}.{field[2]}" if place else field[2]
        return f"{name} is {'missing' if field[1].startswith('missing') else 'unknown'}"
    place = place or "the record"
    if types := re.fullmatch(r"Expected `(.*)`, got `(.*)`", problem):
        expected, got = (" or ".join(_TYPES.get(name, name) for name in types[i].split(" | ")) for i in (1, 2))
        return f"{place} is {got}; it must be {expected}"
    if length := re.fullmatch(r"Expected `array` of length (\d+).*", problem):
        return f"{place} must be a list of {length[1]} values"
    if value := re.fullmatch(r"Invalid enum value (.*)", problem):
        return f"{place} is {value[1]}; it must be one of {', '.join(choices[place.rpartition('.')[2]])}"
    if problem == "Number out of range":
        return f"{place} is too large or too small; it must be a finite number"
    return f"{place}: {problem}"


def _number_that_is_not_finite(text: str) -> str | None:
    """Return a sentence about the first NaN or infinite number of a text that is JSON but for these."""
    try:
        found = next(_not_finite(json.loads(text), ""), None)
    except (ValueError, RecursionError):
        return None
    return found and f"{found}; it must be a finite number"


def _not_finite(value: Any, place: str) -> Iterator[str]:
    """Yield the places of numbers that are not finite, with the numbers."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _not_finite(item, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}"
