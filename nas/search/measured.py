"""List the networks that the table knows as measured whole, each beside what all others predict for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nas.arch.cost import count_cost
from nas.arch.parts import NetworkPart
from nas.arch.published import published_results
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.fidelity import FINALIST, RANDOM, population_of
from nas.latency.landmarks import landmarks
from nas.latency.measuring import co_run_networks
from nas.runs.record import MEASURED_COLUMNS, NetworkResult
from nas.search.context import SearchContext
from nas.search.variants import anchor_networks, anchor_variants


def measured_rows(context: SearchContext, networks: Sequence[NetworkResult]) -> Iterator[dict[str, Any]]:
    """Yield the networks whose rows are known by `MEASURED_COLUMNS`; `networks` are those of the run's comparison."""
    table = context.table
    results = context.folder.record.targets
    populations = _populations([context.request.space(skeleton) for skeleton in context.request.skeletons])
    populations |= {spec_id: FINALIST for result in results for spec_id in result.measured}
    populations |= {network.spec.id: network.kind for network in networks}
    names = {network.spec.id: network.name for network in networks}
    for spec in _measured_specs(context):
        part = NetworkPart(spec, table.num_classes)
        if table.missing(context.predictor.parts([spec])):
            continue
        cost, predicted = count_cost(spec, table.num_classes), table.predict_held_out(spec)
        times = (table.part_ms(part), table.measurement(part).error, predicted.time, predicted.std)
        population = populations.get(spec.id) or population_of(spec.name) or "other"
        name = names.get(spec.id, spec.name.removeprefix(f"{population} "))
        network = (spec.id, name, population, spec.resolution, cost.macs, cost.params)
        yield dict(zip(MEASURED_COLUMNS, (*network, *(round(value, 5) for value in times)), strict=True))


def _measured_specs(context: SearchContext) -> Iterator[ArchSpec]:
    table = context.table
    if table.knows(context.predictor.network(table.reference.spec)):
        yield table.reference.spec
    for known in table.networks.values():
        yield ArchSpec.from_dict(known.spec)


def _populations(spaces: Sequence[SearchSpace]) -> dict[str, str]:
    """Return why networks were measured, by the ids of their specs, as far as that follows from the spaces."""
    populations: dict[str, str] = {}
    for space in spaces:
        for spec in anchor_networks(space, anchor_variants(space)):
            populations[spec.id] = "anchor"
        for variant in space.variants:
            for spec in co_run_networks(space.at([variant])):
                populations.setdefault(spec.id, RANDOM)
    published = [*(result.spec for result in published_results()), *landmarks()]
    return populations | {spec.id: "published" for spec in published}
