"""Keep the proven optima of many budgets in a file, and tell where another skeleton is better."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from nas.errors import NasError
from nas.files import read_text, write_text
from nas.runs.json_errors import describe
from nas.runs.record import OptimalNetwork
from nas.runs.target import SKELETONS, Target
from nas.utf8 import as_utf8

SEARCH = "python -m nas.search"
WORTH_SAYING = 0.1  # points of top-1: as much as is shown
# Flags that say what was searched, or where it went; all others stay in the command that searches another skeleton.
_REPLACED = ("--budget-ms", "--small-budget-ms", "--front", "--only", "--out", "--storage", "--study")
_REPLACED_SWITCHES = ("--resume",)


class Better(NamedTuple):
    """A skeleton's proven optimum that is better than what a target found, and the command that searches there."""

    optimum: OptimalNetwork
    command: str
    text: str  # a sentence, without the command


def write_optima(file: Path, optima: Iterable[OptimalNetwork]) -> None:
    """Write proven optima, one a line, by skeleton and latency; no file where there are none."""
    ordered = sorted(optima, key=lambda one: (SKELETONS.index(one.skeleton), one.latency_ms))
    if not ordered:
        file.unlink(missing_ok=True)
        return
    lines = (msgspec.json.encode(as_utf8(msgspec.to_builtins(one))).decode() for one in ordered)
    write_text(file, "".join(f"{line}\n" for line in lines))


def load_optima(file: Path) -> tuple[OptimalNetwork, ...]:
    """Read proven optima; none where there is no file, as in a run whose estimates are no sums over blocks.

    Raises NasError, which names the line and the place in it, for a damaged file.
    """
    if not file.exists():
        return ()
    optima = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            optima.append(msgspec.json.decode(line, type=OptimalNetwork))
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
            problem = describe(error, line, choices={"skeleton": SKELETONS})
            raise NasError(f"{file}: line {number}: {problem}; restore the file, or remove it") from None
    return tuple(optima)


def better_skeleton(
    optima: Sequence[OptimalNetwork], target: Target, found_top1: float, command: str = SEARCH
) -> Better | None:
    """Return the best proven optimum of another skeleton within a target's limit; None if none is better.

    `found_top1` is the estimated top-1 (percent) of the network that was found. `command` is that of the run, whose
    other flags the new command keeps.
    """
    others = [one for one in optima if one.skeleton != target.skeleton and one.latency_ms <= target.limit_ms]
    best = max(others, key=lambda one: one.top1, default=None)
    if best is None or best.top1 < found_top1 + WORTH_SAYING:
        return None
    text = (
        f"within {target.budget_ms:.3g} ms {best.skeleton.capitalize()} reaches {best.top1:.1f} % estimated at "
        f"{best.latency_ms:.2f} ms predicted, {target.skeleton.capitalize()} found {found_top1:.1f} %"
    )
    return Better(best, command_for(command, best.skeleton, target.budget_ms), text)


def command_for(command: str, skeleton: str, budget_ms: float) -> str:
    """Return the command of a search for one budget of one skeleton alone, with all other flags of `command`."""
    kept: list[str] = []
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation without its end: somebody changed the record
        words = shlex.split(SEARCH)
    while words:
        word = words.pop(0)
        flag, equals, _ = word.partition("=")
        if _is_one_of(flag, _REPLACED):
            if not equals and words and not words[0].startswith("--"):
                words.pop(0)
        elif not _is_one_of(flag, _REPLACED_SWITCHES):
            kept.append(word)
    return shlex.join([*kept, "--budget-ms", f"{budget_ms:.4g}", "--only", skeleton])


def _is_one_of(word: str, flags: Sequence[str]) -> bool:
    """Return whether a word is a flag, or short for one, as commands take them."""
    return word.startswith("--") and any(flag.startswith(word) for flag in flags)
