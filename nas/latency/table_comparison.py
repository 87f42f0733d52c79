"""Compare two latency tables: the same networks and the same blocks on two devices, runtimes or precisions.

All times are divided by that of the reference network on their own device. A *relative time* is the quotient of two
such times: 0.8 says that the second device takes 20 % less for a network than one would expect of it, knowing the first
device and how both run the reference network.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nas.arch.loading import load_space, space_names
from nas.arch.parts import BlockPart, NetworkPart, parts_of
from nas.arch.published import published_results
from nas.arch.spec import ArchSpec, BlockSpec
from nas.errors import NasError
from nas.latency.block_kinds import CHOICES, kind_order, kinds_of
from nas.latency.fidelity import covered_variants
from nas.latency.table import LatencyTable

MEMBERS = 120  # random networks of the spaces, of variants that both tables cover
LEAST_FOR_RANKS = 3  # networks

Times = tuple[float, float]  # by the first and by the second table, in normalised milliseconds


class ComparedNetwork(NamedTuple):
    """A network that both tables know."""

    spec: ArchSpec
    source: str  # "published", "member" of a search space, or "measured" as nothing but that
    measured: bool  # whole on both devices; False: predicted by both tables
    ms: Times


class ComparedBlock(NamedTuple):
    """A block that has a row in both tables."""

    part: BlockPart
    ms: Times


class Kind(NamedTuple):
    """Blocks that share a property, with the quartiles of their relative times."""

    decision: str  # one of `DECISIONS`
    name: str
    blocks: int
    quartiles: tuple[float, float, float]


class Price(NamedTuple):
    """A choice in place of another: the median of the time that it adds to a block, as a share, on both devices."""

    name: str
    pairs: int  # blocks that differ by nothing else
    added: tuple[float, float]


@dataclass(frozen=True)
class TableComparison:
    """Two tables, and what both know."""

    tables: tuple[LatencyTable, LatencyTable]
    networks: tuple[ComparedNetwork, ...]
    blocks: tuple[ComparedBlock, ...]
    left_out: int  # common rows that are no longer than their context on one of both, which says nothing of a block

    @property
    def references_ms(self) -> Times:
        """Return the times of the reference network."""
        first, second = self.tables
        return first.reference_ms, second.reference_ms

    def relative(self, ms: Times) -> float:
        """Return the relative time of something: above 1 where the second device is slower than expected."""
        first, second = self.references_ms
        return (ms[1] / second) / (ms[0] / first)

    @cached_property
    def ranks(self) -> np.ndarray:
        """Return the ranks of the networks on both, shape (n, 2); 1 is the fastest."""
        times = np.array([network.ms for network in self.networks]).reshape(-1, 2)
        return 1 + times.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")

    @cached_property
    def spearman(self) -> float | None:
        """Return Spearman's rank correlation of the networks' times; None for too few networks."""
        return self._correlation(lambda one, other: spearmanr(one, other).statistic)

    @cached_property
    def kendall(self) -> float | None:
        """Return Kendall's rank correlation of the networks' times; None for too few networks."""
        return self._correlation(lambda one, other: kendalltau(one, other).statistic)

    def _correlation(self, measure: Callable[[np.ndarray, np.ndarray], float]) -> float | None:
        if len(self.networks) < LEAST_FOR_RANKS:
            return None
        return float(measure(*np.array([network.ms for network in self.networks]).T))

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """Return the kinds of the common blocks. They overlap: a block is of one kind of each decision."""
        found: dict[tuple[str, str], list[float]] = {}
        for block in self.blocks:
            for kind in kinds_of(block.part):
                found.setdefault(kind, []).append(self.relative(block.ms))
        kinds = []
        for (decision, name), times in sorted(found.items(), key=lambda item: kind_order(*item[0])):
            low, median, high = map(float, np.quantile(times, (0.25, 0.5, 0.75)))
            kinds.append(Kind(decision, name, len(times), (low, median, high)))
        return tuple(kinds)

    @cached_property
    def prices(self) -> tuple[Price, ...]:
        """Return the prices of choices for which the common blocks have pairs that differ by nothing else."""
        times = {block.part: block.ms for block in self.blocks}
        prices = []
        for name, choose in CHOICES.items():
            added = list(_added(times, choose))
            if added:
                first, second = np.median(added, axis=0)
                prices.append(Price(name, len(added), (float(first), float(second))))
        return tuple(prices)


def compare_tables(first: LatencyTable, second: LatencyTable) -> TableComparison:
    """Compare two tables by all that both know.

    Raises NasError for the same table twice, for tables of different numbers of classes, and for tables without a
    common block.
    """
    if first.path.resolve() == second.path.resolve() or _is_copy(first, second):
        raise NasError(f"{first.path} and {second.path} are the same table; name those of two devices or runtimes")
    if first.num_classes != second.num_classes:
        raise NasError(
            f"{first.path} is of networks with {first.num_classes} classes, {second.path} of {second.num_classes}; "
            "compare tables of one number of classes"
        )
    common = [part for key in sorted(first.rows.keys() & second.rows.keys()) if (part := BlockPart.of_key(key))]
    common = [part for part in common if not first.missing([part]) and not second.missing([part])]
    if not common:
        raise NasError(
            f"{first.path} and {second.path} have no row of a block in common; measure the same space and variant for "
            "both with `python -m nas.measure`"
        )
    blocks = [ComparedBlock(part, (first.part_ms(part), second.part_ms(part))) for part in common]
    kept = tuple(block for block in blocks if min(block.ms) > 0)
    return TableComparison((first, second), tuple(_networks(first, second)), kept, len(blocks) - len(kept))


def _is_copy(first: LatencyTable, second: LatencyTable) -> bool:
    return (
        first.device == second.device
        and first.runtime == second.runtime
        and first.rows == second.rows
        and first.networks == second.networks
    )


# Networks ---------------------------------------------------------------------------------------------


def _networks(first: LatencyTable, second: LatencyTable) -> Iterator[ComparedNetwork]:
    """Yield every network that both tables measured, or of which both have all rows."""
    seen = set()
    for source, spec in _candidates(first, second):
        if spec.id in seen:
            continue
        seen.add(spec.id)
        whole = NetworkPart(spec, first.num_classes)
        if first.knows(whole) and second.knows(whole):
            yield ComparedNetwork(spec, source, True, (first.part_ms(whole), second.part_ms(whole)))
            continue
        parts = list(parts_of(spec, first.num_classes))
        if not first.missing(parts) and not second.missing(parts):
            times = (float(table.predict_ms([spec])[0]) for table in (first, second))
            yield ComparedNetwork(spec, source, False, (next(times), next(times)))


def _candidates(first: LatencyTable, second: LatencyTable) -> Iterator[tuple[str, ArchSpec]]:
    yield from (("published", result.spec) for result in published_results())
    yield from (("member", spec) for spec in _members(first, second))
    for key, network in sorted(first.networks.items()):
        if key in second.networks:
            yield "measured", ArchSpec.from_dict(network.spec)


def _members(first: LatencyTable, second: LatencyTable) -> Iterator[ArchSpec]:
    """Yield random networks of the spaces, the same every time, spread over the variants that both tables cover."""
    covered = []
    for name in space_names():
        space = load_space(name)
        others = covered_variants(second, space)
        covered += [space.at([variant]) for variant in covered_variants(first, space) if variant in others]
    rng = random.Random(0)
    for number in range(MEMBERS if covered else 0):
        space = covered[number % len(covered)]
        spec = space.sample(rng)
        yield spec.replace(name=f"{space.name} {space.variants[0]} {spec.id}")


# Blocks -----------------------------------------------------------------------------------------------


def _added(times: Mapping[BlockPart, Times], choose: Callable[[BlockSpec], BlockSpec | None]) -> Iterator[Times]:
    """Yield by how much longer a choice takes than another, as a share, for each block that has both."""
    for part, ms in times.items():
        block = choose(part.block)
        chosen = block and times.get(BlockPart(block, part.in_channels, part.in_size))
        if chosen:
            yield chosen[0] / ms[0] - 1, chosen[1] / ms[1] - 1
