"""Say what was asked and what was found."""

from __future__ import annotations

from dataclasses import dataclass

from nas.report.texts import display_name
from nas.runs.optima import WORTH_SAYING, Better, better_skeleton
from nas.runs.reading import Run
from nas.runs.record import NetworkResult, TargetResult
from nas.runs.target import Target


@dataclass(frozen=True, slots=True)
class Result:
    """The network that was found for a target, and the published one of its size."""

    search: TargetResult
    network: NetworkResult
    looked_at: int  # networks
    published: NetworkResult | None
    published_name: str
    better: Better | None  # what another skeleton reaches within the same budget
    rival: NetworkResult | None  # the best published one within the budget, where it is estimated better
    rival_name: str

    @property
    def slack_ms(self) -> float:
        """Return the unused part of the budget; negative for a network that is over it."""
        return self.search.target.budget_ms - self.network.latency_ms

    @property
    def slack_percent(self) -> float:
        """Return the unused part of the budget in percent of it."""
        return 100 * self.slack_ms / self.search.target.budget_ms


def results(run: Run) -> list[Result]:
    """Return the results of a run, one a target."""
    return [_result(run, result) for result in run.record.targets]


def published_like(run: Run, skeleton: str) -> NetworkResult | None:
    """Return the published network whose skeleton it is, None where the run compared with none."""
    like = f"mobilenet_v3_{skeleton}"
    return next((n for n in run.record.networks if not n.found and n.name == like), None)


def _result(run: Run, search: TargetResult) -> Result:
    target, network = search.target, run.found(search.target.name)
    published, rival = published_like(run, target.skeleton), better_published(run, target, network)
    return Result(
        search=search,
        network=network,
        looked_at=int((run.trials.target == target.name).sum()),
        published=published,
        published_name=display_name(run, published) if published else "",
        better=better_skeleton(run.optima, target, network.own_estimate[0], run.record.command),
        rival=rival,
        rival_name=display_name(run, rival) if rival else "",
    )


def better_published(run: Run, target: Target, found: NetworkResult) -> NetworkResult | None:
    """Return the best published network within a budget, by the estimate; None if the found one is as good."""
    others = [n for n in run.record.networks if not n.found and n.latency_ms <= target.budget_ms and n.estimate]
    best = max(others, key=lambda n: n.own_estimate, default=None)
    return best if best and best.own_estimate[0] >= found.own_estimate[0] + WORTH_SAYING else None
