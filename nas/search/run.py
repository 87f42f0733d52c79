"""A whole search: `python -m nas.search` prints what happens in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.console import Console, Silent
from nas.errors import NasError
from nas.latency.fidelity import covered_variants, fidelity_text
from nas.latency.predictor import NOISE, LatencyPredictor, open_table
from nas.latency.table import LatencyTable, space_parts
from nas.runs.folder import RunFolder
from nas.search.request import Request, kind_of, role_name, rounded_up
from nas.search.results import COMPARED, finish, published_networks
from nas.search.stages import Search
from nas.search.variants import feasible_ms, measure_anchors
from nas.search.workers import open_storage

LEAST_OF_FRONT = 1.05  # times the fastest network: the smallest budget of a front


def search(request: Request, out: Path, *, resume: bool = False, console: Console | None = None) -> RunFolder:
    """Finds the most accurate networks within the budget and leaves a run's folder behind.

    Raises NasError for what the user can mend; what was finished by then is kept, and `resume` goes on from it.
    """
    console = console or Silent()
    request.check()
    data_base = open_storage(request.storage) if request.storage else None
    estimator = request.load_estimator(out, say=console.say)
    table = open_table(
        request.table,
        request.runtime,
        request.threads,
        console,
        precision=request.precision,
        allow_other_device=request.allow_other_device,
    )
    request.check_limits(table.num_classes)
    by_kind = {kind: _searchable(table, request.space(kind), console) for kind in request.kinds}
    # Who works on it, and where they meet, can change when a run is resumed; a URL can hold a password.
    arguments = {key: value for key, value in asdict(request).items() if key not in ("workers", "storage", "study")}
    run = RunFolder(out, arguments, "python -m nas.search", resume=resume)
    prices = LatencyPredictor(table, console, request.seed)
    state = Search(request, prices, estimator, run, console, data_base)
    for note in state.notes:
        console.say(f"note: {note}")
    begun = time.monotonic()
    published = [result for result in published_networks() if prices.knows(result.spec)]
    prices.whole_ms([result.spec for result in published], "published networks")
    if request.front:
        state.budgets = _over_the_range(state, by_kind)
    spaces = {role: by_kind[kind_of(role)] for role in state.budgets}
    try:
        _say_where_things_stand(state, spaces)
    except NasError:
        if not resume:
            run.discard()  # the same command with a budget that can be kept finds its folder free
        raise
    for role, space in spaces.items():
        spaces[role] = at = space.at(state.variants(role, space))
        prices.measure_space(at, f"latency table of {role}")
    run.add_seconds("table", begun)
    begun = time.monotonic()
    found = {}
    for role, space in spaces.items():
        if request.objective == "mnasnet":
            found[role] = state.find_rewarded(role, space)
        else:
            found[role] = state.find_predicted(role, space) if table.other_device else state.find(role, space)[0]
    run.add_seconds("search", begun)
    finish(state, found, published)
    return run


def _over_the_range(state: Search, spaces: Mapping[str, SearchSpace]) -> dict[str, float]:
    """The budgets of a front: evenly spaced in their logarithms, over the feasible range of each kind."""
    kept: dict[str, float] = state.run.manifest.setdefault("front_ms", {})
    if not kept:
        for kind, space in spaces.items():
            low, high = feasible_ms(measure_anchors(state.prices, space))
            low *= LEAST_OF_FRONT / (1 - NOISE)
            for budget_ms in np.geomspace(low, max(low, high), state.request.front):
                kept.setdefault(role_name(kind, float(budget_ms)), round(float(budget_ms), 4))
        state.run.save()
    return kept


def _searchable(table: LatencyTable, space: SearchSpace, console: Console) -> SearchSpace:
    """The space at the variants whose rows there are, or can be measured. Raises NasError naming a row if at none."""
    if not table.other_device:
        return space
    variants = covered_variants(table, space)
    if not variants:
        raise table.lacks(table.missing(space_parts(space, table.num_classes))[0])
    if len(variants) < len(space.variants):
        console.say(
            f"{table.path} has all rows of {len(variants)} of the {len(space.variants)} variants of {space.name}"
        )
    return space.at(variants)


def _say_where_things_stand(state: Search, spaces: Mapping[str, SearchSpace]) -> None:
    """The feasible range, before anything is searched. Raises NasError for a budget below it."""
    table, request, say = state.table, state.request, state.console.say
    say(f"device: {table.device.cpu}, {table.runtime}")
    if table.fidelity:
        say(f"table: checked {table.fidelity['date']} against {fidelity_text(table.fidelity)}")
    device = "that device" if table.other_device else "this device"
    for role, space in spaces.items():
        budget = state.budgets[role]
        low, high = feasible_ms(measure_anchors(state.prices, space))
        say(f"{role}: {space.name} spans {low:.2f} to {high:.2f} ms on {device}; budget {budget:.3g} ms")
        if (1 - NOISE) * budget < low:
            own = kind_of(role) == "small" and (request.only is None or request.small_budget_ms is not None)
            flag = "--small-budget-ms" if own else "--budget-ms"
            hint = " (or search Large alone with --only large)" if own and request.only is None else ""
            raise NasError(
                f"no network of {space.name} is as fast as {budget:.3g} ms on {device}; the smallest feasible "
                f"budget is {flag} {rounded_up(low / (1 - NOISE))}{hint}"
            )
        if budget >= high:
            say(f"{role}: the budget does not bind; the most accurate network of the space is looked for")
        entry = state.run.manifest["roles"].setdefault(role, {})
        entry |= {"space": space.name, "budget_ms": budget, "feasible_ms": [low, high], "binds": budget < high}
    for spec in map(published_spec, COMPARED):
        if state.prices.knows(spec):
            say(f"published {spec.name}: {float(state.prices.whole_ms([spec], spec.name)[0]):.2f} ms")
