"""Run a whole search, stage by stage.

The stages are: open the table, measure where things stand, choose variants and measure their rows, search each target,
prove what was found on the device, write the files of the run.
"""

from __future__ import annotations

import time
from pathlib import Path

from nas.accuracy.estimator import SharedEstimator
from nas.console import Console, Silent, said_once
from nas.errors import NasError
from nas.latency.predictor import LatencyPredictor, open_table
from nas.runs.folder import RunFolder, new_record, resumes
from nas.search.comparison import published_networks
from nas.search.context import SearchContext
from nas.search.proof import find, prove_together
from nas.search.request import SearchRequest
from nas.search.results import write_results
from nas.search.sharing import meeting_place
from nas.search.storage import open_storage
from nas.search.survey import choose_variants_of, searchable_space, survey


def search(request: SearchRequest, out: Path, *, resume: bool = False, console: Console | None = None) -> RunFolder:
    """Find the most accurate networks within their budgets, and leave the folder of a run behind.

    `resume` continues the run in the folder `out`, or begins one where there is none. Returns the folder, closed.
    Raises NasError for what the user can correct; what was finished by then is kept.
    """
    console = console or Silent()
    say_once = said_once(console.say)
    request.check()
    data_base = open_storage(request.storage, say=say_once) if request.storage else None
    table = open_table(
        request.table,
        request.runtime,
        request.threads,
        console,
        precision=request.precision,
        allow_other_device=request.allow_other_device,
    )
    request.check_limits(table.num_classes)
    resume = resumes(out, resume, console)
    arguments = request.arguments()
    folder = (
        RunFolder.resume(out, arguments, console)
        if resume
        else RunFolder.begin(out, new_record("python -m nas.search", arguments))
    )
    try:
        storage = data_base
        if request.shares_work and storage is None:
            storage = open_storage(meeting_place(request, folder.path), say=say_once)
        predictor = LatencyPredictor(
            table, console, request.seed, on_missing="infinite" if table.other_device else "fill"
        )
        estimator = request.load_estimator(folder.path, say_once, console)
        try:
            _search(SearchContext(request, predictor, estimator, folder, console, say_once, storage))
        finally:
            if isinstance(estimator, SharedEstimator):
                estimator.close()
    except NasError:
        if not resume and not folder.record.targets:
            folder.discard()  # nothing was decided: the same command with another budget finds its folder free
        raise
    finally:
        folder.close()
    return folder


def _search(context: SearchContext) -> None:
    """Go through the stages of a search whose folder is open."""
    folder, predictor, console = context.folder, context.predictor, context.console
    for note in context.notes:
        console.say(f"note: {note}")

    begun = time.monotonic()
    spaces = {skeleton: searchable_space(context, skeleton) for skeleton in context.request.skeletons}
    published = [result for result in published_networks() if predictor.knows(result.spec)]
    predictor.measured_ms([result.spec for result in published], "published networks")
    survey(context, spaces)
    chosen = {r.target.name: choose_variants_of(context, r, spaces[r.target.skeleton]) for r in folder.record.targets}
    folder.add_seconds("table", begun)

    begun = time.monotonic()
    found = {result.target.name: find(context, result, chosen[result.target.name]) for result in folder.record.targets}
    proof = prove_together(context, found, published)
    folder.add_seconds("search", begun)
    write_results(context, proof, published)
