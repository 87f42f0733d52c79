"""Say what the found networks would reach by other trainings, and which published networks their estimates rest on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nas.report.page.summary import Result
from nas.report.page.worth import signed
from nas.report.texts import found_name, published_name
from nas.runs.reading import Run
from nas.runs.record import LevelEstimate, NearNetwork


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A training, and the estimates of the found networks for it, in the order of the targets."""

    level: LevelEstimate
    estimates: tuple[str, ...]

    @property
    def told(self) -> bool:
        """Return whether readers are told more of the training than its name, or the run's estimates speak for it."""
        return bool(self.level.title) or self.level.of_run


def training_rows(results: Sequence[Result]) -> list[TrainingRow]:
    """Return the trainings that the estimator knows, the one that makes the first found network worst first.

    There are none for an estimator without recipe levels.
    """
    by_level = [{level.recipe_level: level for level in result.network.recipe_levels} for result in results]
    return [
        TrainingRow(level, tuple(_estimate(levels.get(level.recipe_level)) for levels in by_level))
        for level in results[0].network.recipe_levels
    ]


def _estimate(level: LevelEstimate | None) -> str:
    return "–" if level is None else f"{level.top1:.1f} ± {level.std:.1f}"


@dataclass(frozen=True, slots=True)
class NearRow:
    """A published network near a found one."""

    name: str
    near: NearNetwork
    training: str

    @property
    def residual(self) -> str:
        """Return by how many points the network was published better than it is estimated, with its sign."""
        return signed(self.near.residual, 2)

    @property
    def left_out_residual(self) -> str:
        """Return the same for the estimate of a fit without the network."""
        return signed(self.near.left_out_residual, 2)

    @property
    def difference(self) -> str:
        """Return the estimated points by which the found network is better."""
        return f"{signed(self.near.difference, 2)} ± {self.near.difference_std:.2f}"


@dataclass(frozen=True, slots=True)
class Nearest:
    """The published networks nearest to a found one."""

    found: str
    rows: tuple[NearRow, ...]


def nearest_networks(run: Run, results: Sequence[Result]) -> list[Nearest]:
    """Return the published networks nearest to each found one; none for an estimator not fitted to such."""
    return [
        Nearest(found_name(run, result.search.target.name), tuple(_near_rows(result)))
        for result in results
        if result.network.nearest
    ]


def _near_rows(result: Result) -> Iterator[NearRow]:
    levels = {level.recipe_level: level for level in result.network.recipe_levels}
    for near in result.network.nearest:
        level = levels.get(near.recipe_level)
        yield NearRow(published_name(near.name), near, level.description if level else near.recipe_level)
