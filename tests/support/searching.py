"""A small search on the synthetic machine, and readers of the folder that it leaves."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from nas.arch.loading import load_space
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec
from nas.console import Silent
from nas.latency.measuring import co_run_networks
from nas.search.request import Request
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


def request(**changes: Any) -> Request:
    plain: dict[str, Any] = {
        "budget_ms": BUDGET_MS,
        "large_space": "few.py",
        "small_space": "few.py",
        "small_budget_ms": 0.5,
        "runtime": "synthetic",
        "trials": 6,
        "strategy": "random",
    }
    return Request(**plain | changes)


def whole_ms(machine: Machine, spec: ArchSpec) -> float:
    return network_ms(spec) * machine.whole(spec)


def manifest(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return data


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def found(folder: Path) -> dict[str, ArchSpec]:
    return {role: ArchSpec.load(folder / f"{role}.json") for role in manifest(folder)["roles"]}


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
