"""Keep what is learned from a teacher in a folder: the plan of the work, and the trained blocks of each position."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nas.arch.skeleton import Slot
from nas.console import Console
from nas.errors import NasError
from nas.files import read_text, write_text
from nas.replacement.choices import Change
from nas.replacement.effects import Effect
from nas.training.checkpoint import load_checkpoint, save_checkpoint

# A change, the weights of its trained block (None where a block is left out), and its effect.
Judged = tuple[Change, Any, Effect]


class Plan(NamedTuple):
    """The amounts of work: decided once by timing, and then kept, so that a run repeats."""

    epochs: int = 0  # of the teacher
    epoch_steps: int = 0
    steps: int = 0  # of each replacement; 0: not decided yet
    finalist_epochs: int = 0  # of networks put together from blocks
    finalist_epoch_steps: int = 0


def load_plan(folder: Path, console: Console) -> Plan:
    """Return the plan of the folder, or an empty one: what was trained by a plan that is lost is removed."""
    file = folder / "plan.json"
    if file.exists():
        try:
            plan = Plan(**json.loads(read_text(file)))
            if all(type(value) is int and value >= 0 for value in plan):
                return plan
        except (NasError, TypeError, ValueError):
            pass
        console.say(f"note: {file} is not readable; the teacher and its replacement blocks are trained anew")
    for trained in ("teacher", "blocks"):
        shutil.rmtree(folder / trained, ignore_errors=True)
    return Plan()


def save_plan(folder: Path, plan: Plan) -> Plan:
    """Write a plan into the folder, and return it."""
    write_text(folder / "plan.json", json.dumps(plan._asdict()) + "\n")
    return plan


def _position_file(folder: Path, position: int) -> Path:
    return folder / "blocks" / f"{position:02}.pt"


def save_position(folder: Path, position: int, judged: Sequence[Judged]) -> None:
    """Write the trained replacements of a position into the folder."""
    rows = [
        {
            "slot": list(change.slot),
            "decision": change.decision,
            "value": change.value,
            "weights": weights,
            "effect": [effect.rise, effect.error, list(effect.halves)],
        }
        for change, weights, effect in judged
    ]
    save_checkpoint(_position_file(folder, position), {"replacements": rows})


def load_position(folder: Path, position: int, console: Console) -> list[Judged] | None:
    """Return the trained replacements of a position; None where there are none, or none that can be read."""
    file = _position_file(folder, position)
    if not file.exists():
        return None
    try:
        rows = load_checkpoint(file)["replacements"]
        return [
            (
                Change(Slot(*row["slot"]), row["decision"], row["value"]),
                row["weights"],
                Effect(row["effect"][0], row["effect"][1], tuple(row["effect"][2])),
            )
            for row in rows
        ]
    except (NasError, KeyError, TypeError, IndexError):
        console.say(f"note: {file} is not readable; its blocks are trained again")
        return None
