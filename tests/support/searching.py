"""A small search on the synthetic machine, and readers of the folder that it leaves."""

import csv
import random
from pathlib import Path
from typing import Any

import pytest

from nas.arch.loading import load_space
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec
from nas.console import Silent
from nas.latency.measuring import co_run_networks
from nas.runs.record import RunRecord, TargetResult, load_record
from nas.runs.target import SKELETONS, Target
from nas.search.request import FrontRequest, SearchRequest, targets_of
from support import synthetic
from support.synthetic import Machine, network_ms

BUDGET_MS = 0.7


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """In an empty folder with the space of few choices. Whole networks take a percent or two more or less than
    their parts, each its own; those that tables are put right by take what their parts do."""
    synthetic.empty_folder(monkeypatch, tmp_path)
    plain = {published_spec("mobilenet_v3_large").id, *co_runs()}

    def whole(spec: ArchSpec) -> float:
        return 1.0 if spec.id in plain else random.Random(spec.id).uniform(0.99, 1.03)

    return synthetic.install(monkeypatch, Machine(whole=whole))


def co_runs() -> set[str]:
    """Ids of the networks among which the rows of the space are timed."""
    space = load_space("few.py")
    return {spec.id for variant in space.variants for spec in co_run_networks(space.at([variant]))}


def request(
    budget_ms: float = BUDGET_MS,
    small_budget_ms: float | None = 0.5,
    only: str | None = None,
    budgets_ms: tuple[float, ...] = (),
    front: int = 0,
    **changes: Any,
) -> SearchRequest:
    """Return a request for a short random search of the space of few choices."""
    targets: tuple[Target, ...] | FrontRequest
    if front:
        targets = FrontRequest(front, (only,) if only else SKELETONS)
    else:
        small = None if budgets_ms and small_budget_ms == 0.5 else small_budget_ms
        targets = targets_of(budgets_ms or (budget_ms,), None if only == "large" else small, only)
    plain: dict[str, Any] = {
        "large_space": "few.py",
        "small_space": "few.py",
        "runtime": "synthetic",
        "trials": 6,
        "strategy": "random",
    }
    return SearchRequest(targets=targets, **plain | changes)


def whole_ms(machine: Machine, spec: ArchSpec) -> float:
    return network_ms(spec) * machine.whole(spec)


def record(folder: Path) -> RunRecord:
    return load_record(folder)


def result(folder: Path, target: str = "large") -> TargetResult:
    """Return what a run recorded of a target."""
    return next(result for result in load_record(folder).targets if result.target.name == target)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def found(folder: Path) -> dict[str, ArchSpec]:
    names = [result.target.name for result in load_record(folder).targets]
    return {name: ArchSpec.load(folder / f"{name}.json") for name in names}


class Recorder(Silent):
    """A console that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
