"""Put the fronts and the found networks of several runs together.

Accuracies of two runs compare only where they speak for the same images, come from the same estimator and stand for the
same training recipe. Such runs are a group; each group has its own front.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.errors import NasError
from nas.report.comparison.names import DeviceParts, short_names
from nas.report.texts import budget_text, device_text, display_name, images_text
from nas.runs.folder import CONTENT
from nas.runs.pareto import front_indices
from nas.runs.reading import Run, load_run
from nas.runs.record import NetworkResult
from nas.utf8 import as_utf8

# The budgets of a table, times a power of ten: the second ones where the first ones are fewer than the least number.
_ROUND = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
_LEAST_BUDGETS = 5
EQUAL = 0.05  # points of top-1: less is not shown


class FrontPoint(NamedTuple):
    """A network of a run's front; times are predicted normalised milliseconds, accuracies estimated percent."""

    latency_ms: float
    top1: float
    std: float
    skeleton: str
    spec_id: str
    variant: str  # "" where the run does not say
    macs: int
    params: int


@dataclass(frozen=True)
class ComparedRun:
    """A run with its front over all skeletons, fastest first.

    The front is one of proven optima, or of trials where the run has none.
    """

    name: str
    run: Run
    front: tuple[FrontPoint, ...]

    @property
    def proven(self) -> bool:
        """Return whether the front is one of proven optima."""
        return bool(self.run.optima)

    @cached_property
    def device(self) -> str:
        """Return the device, runtime, threads and precision of the run's latencies."""
        return as_utf8(device_text(self.run))

    @cached_property
    def parts(self) -> DeviceParts:
        """Return the same in parts, whoever measured or predicted."""
        table = self.run.table
        return DeviceParts(table.device, table.runtime, table.threads, table.precision)

    @cached_property
    def budgets(self) -> str:
        """Return the targets of the run: "Large 4 ms, Small 1.2 ms"."""
        targets = [result.target for result in self.run.record.targets]
        return ", ".join(f"{one.skeleton.capitalize()} {budget_text(one.budget_ms)} ms" for one in targets)

    @property
    def accuracy_of(self) -> tuple[str, str, str]:
        """Return what accuracies depend on beside the network: images, estimator, training recipe.

        Images of a folder are named by their content, for two folders can have one name.
        """
        one, source = self.run.estimator, self.run.record.arguments.get("data")
        content = source and CONTENT.search(source)
        images = " ".join([images_text(self.run), *([content[0].strip()] if content else [])])
        return as_utf8(images), as_utf8(one.name), as_utf8(one.training_recipe)

    @property
    def found(self) -> list[NetworkResult]:
        """Return the networks that the run found, fastest first."""
        return sorted((one for one in self.run.record.networks if one.found), key=lambda one: one.latency_ms)

    def display_name(self, network: NetworkResult) -> str:
        """Return the name of a network of the run for readers."""
        return as_utf8(display_name(self.run, network))

    def best_within(self, latency_ms: float) -> FrontPoint | None:
        """Return the best network of the front within a latency; None if there is none."""
        return max((one for one in self.front if one.latency_ms <= latency_ms), key=lambda one: one.top1, default=None)


class BudgetRow(NamedTuple):
    """The best networks within a latency, one a run, and which of them are the best of all."""

    latency_ms: float
    networks: list[FrontPoint | None]
    best: list[bool]


@dataclass(frozen=True, slots=True)
class Group:
    """Runs whose accuracies can be compared."""

    images: str  # with their content, where they are of a folder
    estimator: str
    recipe: str
    runs: tuple[ComparedRun, ...]

    @property
    def title(self) -> str:
        """Return the name of the images."""
        return as_utf8(images_text(self.runs[0].run))

    def budgets_ms(self) -> list[float]:
        """Return round latencies over the range of the fronts."""
        times = [one.latency_ms for run in self.runs for one in run.front]
        if not times:
            return []
        low, high = min(times), max(times)
        exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        inside: list[float] = []
        for steps in _ROUND:
            inside = [step * 10.0**exponent for exponent in exponents for step in steps]
            inside = [ms for ms in inside if low <= ms <= high]
            if len(inside) >= _LEAST_BUDGETS:
                break
        return inside or [high]

    def best_within_budgets(self) -> list[BudgetRow]:
        """Return the best network of each run within each of `budgets_ms`."""
        rows = []
        for ms in self.budgets_ms():
            best = [run.best_within(ms) for run in self.runs]
            top1 = max((one.top1 for one in best if one), default=0.0)
            rows.append(BudgetRow(ms, best, [one is not None and one.top1 >= top1 - EQUAL for one in best]))
        return rows


@dataclass(frozen=True, slots=True)
class RunsComparison:
    """Runs in the order in which they were named, and in groups whose accuracies can be compared."""

    runs: tuple[ComparedRun, ...]
    groups: tuple[Group, ...]

    @property
    def devices(self) -> list[DeviceParts]:
        """Return the devices and runtimes of the runs, each once."""
        return list(dict.fromkeys(run.parts for run in self.runs))

    @property
    def warnings(self) -> list[str]:
        """Return a sentence for each reason why figures of the runs do not compare."""
        return [*_accuracy_warnings(self.groups), *_latency_warnings(self.runs)]

    def short_device(self, run: ComparedRun) -> str:
        """Return a short name of a run's device, "" where all runs are of one."""
        if len(self.devices) == 1:
            return ""
        return short_names([one.parts for one in self.runs])[self.runs.index(run)]

    def label(self, run: ComparedRun) -> str:
        """Return the name of a run in a legend, with its device where there are several."""
        return " · ".join(filter(None, (run.name, self.short_device(run))))


def compare_runs(paths: Sequence[Path]) -> RunsComparison:
    """Read finished runs and put them together. Raises NasError for a folder named twice, and as `load_run` does."""
    seen: dict[Path, Path] = {}
    for path in paths:
        if first := seen.get(path.resolve()):
            raise NasError(f"{first} and {path} are the same run; name each once")
        seen[path.resolve()] = path
    runs = tuple(
        ComparedRun(name, run, tuple(_front(run)))
        for name, run in zip(_names(paths), map(load_run, paths), strict=True)
    )
    groups: dict[tuple[str, str, str], list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(run.accuracy_of, []).append(run)
    return RunsComparison(runs, tuple(Group(*of, tuple(members)) for of, members in groups.items()))


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the names of folders, each with as many of its parents as tell it from the others."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            break
    return as_utf8(names)


def _front(run: Run) -> Iterator[FrontPoint]:
    """Yield the front over all skeletons: of the proven optima, or else of the trials."""
    if run.optima:
        points = [
            FrontPoint(n.latency_ms, n.top1, n.top1_std, n.skeleton, n.spec.id, str(n.variant), n.macs, n.params)
            for n in run.optima
        ]
    else:
        skeletons = {result.target.name: result.target.skeleton for result in run.record.targets}
        trials = run.front[run.front.target.isin(list(skeletons))]
        names = ("latency_ms", "top1", "top1_std", "target", "spec_id", "macs", "params")
        rows = zip(*(trials[name].tolist() for name in names), strict=True)
        points = [
            FrontPoint(ms, top1, std, skeletons[target], spec_id, "", macs, params)
            for ms, top1, std, target, spec_id, macs, params in rows
        ]
    for index in front_indices([one.latency_ms for one in points], [one.top1 for one in points]):
        yield points[index]


def _accuracy_warnings(groups: Sequence[Group]) -> Iterator[str]:
    """Yield a sentence where the runs are of several groups: in what these differ, and what each is of."""
    what = ("images", "estimator", "training recipe")
    of = [(group.images, group.estimator, group.recipe) for group in groups]
    differ = [place for place in range(len(what)) if len({one[place] for one in of}) > 1]
    if differ:
        each = "; ".join(
            f"{', '.join(run.name for run in group.runs)}: {', '.join(one[place] for place in differ)}"
            for group, one in zip(groups, of, strict=True)
        )
        yield (
            f"Accuracies of these runs do not compare, for they differ in {' and '.join(what[one] for one in differ)} "
            f"({each}). Runs that compare share a chart."
        )


def _latency_warnings(runs: Sequence[ComparedRun]) -> Iterator[str]:
    if len({run.parts for run in runs}) > 1:
        each = "; ".join(f"{run.name}: {run.device}" for run in runs)
        yield f"Latencies are of different devices or runtimes ({each}): what is fast on one can be slow on another."
    for run in runs:
        if run.run.table.other_device:
            yield f"Latencies of {run.name} are predicted, not measured: its table is of another device."
        if not run.proven:
            yield f"The front of {run.name} is one of trials, not of proven optima: it may be lower than need be."
