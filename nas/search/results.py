"""What a search leaves behind: the comparison with published networks, and the files of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nas.arch.cost import count_cost
from nas.arch.parts import BlockPart, HeadPart, StemPart, parts_of
from nas.arch.published import PublishedResult, published_results, published_spec
from nas.arch.space import Variant
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.latency.device import Device
from nas.latency.networks import Measured, measure_latency
from nas.latency.predictor import NOISE
from nas.latency.table import LatencyTable, space_parts
from nas.runs.folder import COLUMNS, now
from nas.runs.pareto import front_indices
from nas.search.request import kind_of, role_name
from nas.search.stages import TRIM_ROUNDS, Search

COMPARED = ("mobilenet_v3_large", "mobilenet_v3_small")


def published_networks() -> list[PublishedResult]:
    """The published networks that a run is compared with: each once, with its first published figure."""
    wanted = ("mobilenet_v3", "mobilenet_v2", "mnasnet_a1", "ofa_", "hardcorenas_")
    first: dict[str, PublishedResult] = {}
    for result in published_results():
        plain = "@" not in result.spec.name and "," not in result.spec.name and "minimal" not in result.spec.name
        if plain and result.spec.name.startswith(wanted):
            first.setdefault(result.spec.name, result)
    return list(first.values())


def finish(state: Search, found: dict[str, ArchSpec], published: Sequence[PublishedResult]) -> None:
    """Measures what is compared in one go, where that can be, and writes the files of the run."""
    run, table = state.run, state.table
    by_id: dict[str, Measured] = {}
    compared = [result for result in published if result.spec.name in COMPARED]
    if not table.other_device:
        state.prices.measure(state.prices.parts(list(map(published_spec, COMPARED))), "published networks")
        compared = _compared(state, found, published)
        by_id = _measured_together(state, found, compared)
    found = {r: spec.replace(name=role_name(kind_of(r), state.budgets[r])) for r, spec in found.items()}
    if state.trains:  # the others would each take a training
        published = compared
    networks = [_network(state, f"found {role}", spec, by_id.get(spec.id), role, None) for role, spec in found.items()]
    for result in published:
        measurement = by_id.get(result.spec.id)
        networks.append(_network(state, result.spec.name, result.spec, measurement, None, result))
    run.manifest["networks"] = networks
    run.manifest["table"] = _table_summary(table)
    here = Device.this()
    run.manifest["machine"] = {"cpu": here.cpu, "cores": here.cores, "os": here.os}
    run.manifest["notes"] = state.notes
    run.manifest["estimator"] = {"name": state.estimator.name, "effort": state.estimator.training_recipe}
    for network, (role, spec) in zip(networks, found.items(), strict=False):
        spec.save(run.path / f"{role}.json", _results(state, role, network))
    _write_tables(state)
    run.manifest["finished"] = now()
    run.save()


def _measured_together(
    state: Search, found: dict[str, ArchSpec], shown: Sequence[PublishedResult]
) -> dict[str, Measured]:
    """The comparison, measured in the same rounds; a found network that is over its budget in it is trimmed on."""
    for _ in range(TRIM_ROUNDS):
        specs = [*found.values(), *(result.spec for result in shown)]
        with state.console.progress("measuring the comparison") as progress:
            measured = measure_latency(specs, table=state.table, on_progress=lambda share: progress(share, ""))
        by_id = dict(zip([spec.id for spec in specs], measured, strict=True))
        budgets = state.budgets
        over = [role for role, spec in found.items() if by_id[spec.id].normalised_ms > (1 - NOISE / 2) * budgets[role]]
        if any(m.disturbed for m in measured):
            state.console.say(
                "warning: other work slowed this machine all the while; times can be a tenth off, and the networks "
                "smaller than need be. Search again when it is quiet"
            )
        if not over or state.request.objective == "mnasnet":
            return by_id
        for role in over:
            spec, budget = found[role], (1 - NOISE) * budgets[role]
            found[role] = state.trimmed_until_measured(role, spec, by_id[spec.id], budget)
    raise NasError("measurements on this machine do not repeat; close what else runs on it and --resume")


def _compared(state: Search, found: dict[str, ArchSpec], published: Sequence[PublishedResult]) -> list[PublishedResult]:
    """Published V3-Large and -Small, and for each found network the nearest Once-for-All network in latency."""
    shown = {result.spec.name: result for result in published if result.spec.name in COMPARED}
    rivals = [result for result in published if result.spec.name.startswith("ofa_")]
    for spec in found.values():
        latency = float(state.prices.predicted_ms([spec])[0])
        nearest = min(rivals, key=lambda r: abs(np.log(state.table.part_ms(state.prices.network(r.spec)) / latency)))
        shown[nearest.spec.name] = nearest
    return list(shown.values())


def _network(
    state: Search,
    name: str,
    spec: ArchSpec,
    measured: Measured | None,
    role: str | None,
    result: PublishedResult | None,
) -> dict[str, Any]:
    """A row of the comparison, as run.json has it."""
    table = state.table
    cost, estimate = count_cost(spec, table.num_classes), state.estimator.estimate([spec])
    whole = None
    if measured is not None:
        whole = round(measured.normalised_ms, 4)
    elif (network := state.prices.network(spec)).key in table.rows:
        whole = round(table.part_ms(network), 4)
    priced = not table.missing(state.prices.parts([spec]))
    figure = None if state.trains else result  # what was published is of other images
    estimated_top1, estimated_std = round(float(estimate.top1[0]), 3), round(float(estimate.std[0]), 3)
    return {
        "name": name,
        "kind": "published" if result else "found",
        "role": role,
        "spec": spec.to_dict(),
        "measured_ms": whole,
        "raw_ms": None if measured is None else round(measured.median_ms, 4),
        "quartiles_ms": None if measured is None else [round(q, 4) for q in measured.quartiles_ms],
        "predicted_ms": round(float(table.predict_ms([spec])[0]), 4) if priced else None,
        "macs": cost.macs,
        "params": cost.params,
        "top1": figure.top1 if figure else estimated_top1,
        "top1_std": None if figure else estimated_std,
        "top1_source": "published" if figure else "estimated",
        "estimated_top1": estimated_top1,
        "estimated_std": estimated_std,
        "extrapolated": bool(estimate.extrapolated[0]),
        "source": figure.source if figure else f"{state.estimator.name}: {state.estimator.training_recipe}",
        "breakdown": [[part, round(ms, 5)] for part, ms in table.breakdown(spec)] if priced else None,
    }


def _results(state: Search, role: str, network: dict[str, Any]) -> dict[str, Any]:
    """What is written beside a found architecture."""
    table = state.table
    cost = count_cost(ArchSpec.from_dict(network["spec"]), table.num_classes)
    return {
        "role": role,
        "budget_ms": state.budgets[role],
        "latency": {
            "measured_ms": network["measured_ms"],
            "predicted_ms": network["predicted_ms"],
            "raw_ms": network["raw_ms"],
            "unit": "normalised milliseconds: as fast as the device was when its table was made",
            "device": table.device.cpu,
            "runtime": str(table.runtime),
            "table": str(table.path),
            "other_device": table.other_device,
        },
        "accuracy": {
            "top1": network["top1"],
            "std": network["top1_std"],
            "source": "estimated",
            "estimator": state.estimator.name,
            "effort": state.estimator.training_recipe,
            "extrapolated": network["extrapolated"],
        },
        "notes": state.notes,
        "cost": cost._asdict() | {"param_bytes": cost.param_bytes, "memory_bytes": cost.memory_bytes},
    }


def _table_summary(table: LatencyTable) -> dict[str, Any]:
    return {
        "file": str(table.path),
        "device": table.device.cpu,
        "other_device": table.other_device,
        "runtime": f"{table.runtime.name} {table.runtime.version}",
        "threads": table.runtime.threads,
        "precision": table.runtime.precision,
        "classes": table.num_classes,
        "rows": len(table.rows),
        "reference": table.reference.spec.name,
        "reference_ms": round(table.reference_ms, 4),
        "fidelity": table.fidelity,
    }


def _write_tables(state: Search) -> None:
    """trials.csv, front.csv and table_rows.csv."""
    run, classes = state.run, state.table.num_classes
    trials = [trial for role in state.budgets for trial in run.trials(role)]
    run.write_csv("trials.csv", (trial.row(classes) for trial in trials), COLUMNS)
    front = []
    for kind in state.request.kinds:
        own = [trial for trial in trials if kind_of(trial.role) == kind]
        front += [own[i] for i in front_indices([t.latency_ms for t in own], [t.top1 for t in own])]
    run.write_csv("front.csv", (trial.row(classes) for trial in front), COLUMNS)
    columns = (
        "key",
        "op",
        "kernel",
        "expanded",
        "out",
        "stride",
        "se",
        "activation",
        "in_channels",
        "in_size",
        "macs",
        "ms",
    )
    parts = {part.key: part for trial in trials for part in parts_of(trial.spec, classes)}
    for role in state.budgets:
        variants = [Variant(*variant) for variant in run.manifest["roles"][role]["variants"]]
        parts |= {part.key: part for part in space_parts(state.request.space(role).at(variants), classes)}
    run.write_csv(
        "table_rows.csv", (_table_row(state.table, key, part) for key, part in sorted(parts.items())), columns
    )


def _table_row(table: LatencyTable, key: str, part: StemPart | BlockPart | HeadPart) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": key,
        "macs": sum(layer.macs for layer in part.layers()),
        "ms": round(table.part_ms(part), 6),
    }
    if isinstance(part, StemPart):
        return row | {"op": "stem", "kernel": 3, "out": part.stem.out, "stride": 2, "activation": part.stem.activation}
    row |= {"in_channels": part.in_channels, "in_size": part.in_size}
    if isinstance(part, HeadPart):
        return row | {"op": "head", "out": part.num_classes, "activation": part.head.activation}
    block = part.block
    fields = ("op", "kernel", "expanded", "out", "stride", "se", "activation")
    return row | {field: getattr(block, field) for field in fields}
