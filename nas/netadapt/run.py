"""A run of NetAdapt: `python -m nas.netadapt` prints what happens in it."""

from __future__ import annotations

from pathlib import Path

from nas.console import Console, Silent
from nas.errors import NasError
from nas.netadapt.clock import Clock, open_table_of
from nas.netadapt.evaluators import make_judge
from nas.netadapt.long_training import recipe_of, train_what_is_left
from nas.netadapt.request import Request
from nas.netadapt.seed import Seed
from nas.netadapt.trimming import Trimming
from nas.runs.folder import RunFolder


def trim(request: Request, seed: Seed, out: Path, *, resume: bool = False, console: Console | None = None) -> Path:
    """Trims the network until its latency keeps the budget, and leaves a run's folder; the path of the last spec.

    Raises NasError for what the user can mend, and for a budget that cannot be reached; what was finished by then is
    kept, and `resume` goes on from it.
    """
    console, rules = console or Silent(), request.rules
    if request.data:
        recipe_of(request)  # what is wrong with it is said before there is a folder
    table, file = open_table_of(request, seed.num_classes, console)
    folder = RunFolder(out, request.lasting(), "python -m nas.netadapt", resume=resume)
    clock = Clock(table, file, console, request.seed)
    judge = make_judge(request, seed, out, console)
    try:
        trimming = Trimming(request.budget_ms, request.measure_every, rules, clock, judge, folder, console)
        reached = trimming.go(seed.spec)
    finally:
        judge.close()
    final = trimming.write()
    console.say(f"network: {final}, and every one on the way in {out}/trajectory.json, as a table in {out}/steps.csv")
    if not reached:
        raise NasError(
            f"trimming ends at {trimming.entries[-1]['now_ms']:.4g} ms, above the budget of {request.budget_ms:g} "
            f"ms: nothing that is left to cut saves time; its networks are kept in {out}. Allow more with --allow, "
            "start from a smaller network or resolution, or raise the budget"
        )
    if request.finish != "none":
        train_what_is_left(request, final, out, console)
    return final
