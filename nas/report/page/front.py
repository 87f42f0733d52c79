"""Collect the front for the page: proven optima, networks, budgets, and the answer for any budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nas.report.page.made import train_command
from nas.report.page.networks import all_rows
from nas.report.page.summary import published_like
from nas.report.texts import budget_text, display_name, images_text, is_once_for_all, title_of, variant_text, with_uv
from nas.runs.optima import command_for
from nas.runs.reading import Run
from nas.runs.record import NetworkResult
from nas.runs.target import MARGIN, Target


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A network of the front of a skeleton."""

    latency_ms: float  # predicted
    latency_std: float | None
    top1: float  # estimated, percent
    top1_std: float
    variant: str
    resolution: int
    macs: int
    params: int
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class FrontLine:
    """The front of a skeleton, fastest first: proven optima, or the best trials of a run that holds no optima."""

    skeleton: str
    proven: bool
    points: tuple[FrontPoint, ...]

    def best_within(self, budget_ms: float) -> FrontPoint | None:
        """Return the most accurate point within a budget, whose limit is the margin of measurements below it."""
        limit_ms = Target(self.skeleton, budget_ms).limit_ms
        return max((p for p in self.points if p.latency_ms <= limit_ms), key=lambda p: p.top1, default=None)


def front_lines(run: Run) -> list[FrontLine]:
    """Return the front of every skeleton that the run searched or knows optima of."""
    searched = [result.target.skeleton for result in run.record.targets]
    skeletons = dict.fromkeys([*searched, *(one.skeleton for one in run.optima)])
    return [_line(run, skeleton) for skeleton in skeletons]


def _line(run: Run, skeleton: str) -> FrontLine:
    proven = tuple(
        FrontPoint(
            one.latency_ms,
            one.latency_std,
            one.top1,
            one.top1_std,
            variant_text(one.variant.width, one.variant.resolution),
            one.variant.resolution,
            one.macs,
            one.params,
            one.extrapolated,
        )
        for one in run.optima
        if one.skeleton == skeleton
    )
    return FrontLine(skeleton, True, proven) if proven else FrontLine(skeleton, False, tuple(_trials(run, skeleton)))


def _trials(run: Run, skeleton: str) -> Iterator[FrontPoint]:
    """Yield the best of the trials, fastest first."""
    names = [result.target.name for result in run.record.targets if result.target.skeleton == skeleton]
    front = run.front[run.front.target.isin(names)].sort_values("latency_ms", kind="stable")
    columns = ("latency_ms", "top1", "top1_std", "resolution", "macs", "params")
    for ms, top1, std, resolution, macs, params in zip(*(front[name].tolist() for name in columns), strict=True):
        yield FrontPoint(ms, None, top1, std, f"{resolution} px", resolution, macs, params, False)


def front_data(run: Run, lines: Sequence[FrontLine]) -> dict[str, Any]:
    """Return the data of the chart and of the question for a budget."""
    return {
        "images": images_text(run),
        "recipe": f"{run.estimator.name}: {run.estimator.training_recipe}",
        "limitShare": 1 - MARGIN,
        "lines": [_line_data(run, line) for line in lines],
        "networks": list(_networks(run)),
        "budgets": [_budget(run, result.target) for result in run.record.targets],
    }


def _budget(run: Run, target: Target) -> dict[str, Any]:
    """Return the budget of a target, and what was found within it."""
    network, title = run.found(target.name), title_of(target.skeleton)
    top1, std = network.own_estimate
    takes = f"{network.latency_ms:.2f} ms {'predicted' if network.measured_ms is None else 'measured'}"
    return {
        "title": f"budget of {title}: {budget_text(target.budget_ms)} ms",
        "skeleton": target.skeleton,
        "ms": target.budget_ms,
        "found": f"This run searched that budget: found {target.title} takes {takes} at an estimated "
        f"{top1:.1f} ± {std:.1f} %. Train it:",
        "train": train_command(run, target),
    }


def _line_data(run: Run, line: FrontLine) -> dict[str, Any]:
    return {
        "skeleton": line.skeleton,
        "title": title_of(line.skeleton),
        "proven": line.proven,
        "among": _known_variants(run, line.skeleton) if line.proven else "",
        "points": [
            {
                "ms": round(point.latency_ms, 4),
                "msStd": None if point.latency_std is None else round(point.latency_std, 4),
                "top1": round(point.top1, 3),
                "std": round(point.top1_std, 3),
                "variant": point.variant,
                "px": point.resolution,
                "macs": point.macs,
                "params": point.params,
                "extrapolated": point.extrapolated,
            }
            for point in line.points
        ],
        "command": _command_around_budget(run, line.skeleton),
    }


def _known_variants(run: Run, skeleton: str) -> str:
    """Return the variants that the proven optima were chosen among: those that were searched, and others with rows."""
    searched = [one for result in run.record.targets if result.target.skeleton == skeleton for one in result.variants]
    known = {*searched, *(one.variant for one in run.optima if one.skeleton == skeleton)}
    return ", ".join(map(str, sorted(known)))


def _command_around_budget(run: Run, skeleton: str) -> list[str]:
    """Return the two parts of the command that searches the skeleton, between which the page writes a budget."""
    before, flag, after = command_for(run.record.command, skeleton, 1).rpartition("--budget-ms 1")
    return [with_uv(before + flag.removesuffix("1")), after]


def _networks(run: Run) -> Iterator[dict[str, Any]]:
    """Yield what the chart shows of each network of the comparison, each once."""
    named = [published_like(run, result.target.skeleton) for result in run.record.targets]
    for row in all_rows(run):
        network = row.network
        kind = "found" if network.found else "family" if is_once_for_all(network) else "published"
        target = run.result(network.target).target if network.found and network.target else None
        yield {
            "name": display_name(run, network),
            "also": list(row.also),
            "id": network.spec.id,
            "kind": kind,
            "named": network in named,  # in the chart, not only on hover
            "skeleton": target.skeleton if target else None,
            "ms": network.latency_ms,
            "measured": network.measured_ms is not None,
            "msStd": _std_ms(network),
            "top1": network.estimated_top1,
            "std": network.estimated_std,
            "extrapolated": network.extrapolated,
            "published": network.published_top1,
            "px": network.spec.resolution,
            "macs": network.macs,
            "params": network.params,
            "source": network.source,
        }


def _std_ms(network: NetworkResult) -> float | None:
    """Return the standard deviation of a network's milliseconds, of the measured ones where it was measured."""
    if network.measured_ms is None:
        return network.predicted_std
    return None if network.measured_error is None else round(network.measured_ms * network.measured_error, 4)
