"""Write what a search leaves behind: the record of the run, the specs and the tables of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from nas.accuracy.estimator import Estimates, Estimator, NoEstimateError
from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.accuracy.nearest import nearest_published
from nas.accuracy.recipe_levels import estimates_by_level
from nas.arch.cost import count_cost
from nas.arch.parts import BlockPart, HeadPart, StemPart, parts_of
from nas.arch.published import PublishedResult
from nas.arch.spec import ArchSpec
from nas.latency.device import Device
from nas.latency.table import LatencyTable, space_parts
from nas.runs.blocks import blocks_text
from nas.runs.changes import changed_choices
from nas.runs.folder import now, trial_row
from nas.runs.optima import write_optima
from nas.runs.pareto import front_indices
from nas.runs.record import (
    CHANGE_COLUMNS,
    MEASURED_COLUMNS,
    OPTIMA,
    TABLE_COLUMNS,
    TRIAL_COLUMNS,
    EstimatorInfo,
    LevelEstimate,
    LoggedTrial,
    MachineInfo,
    NearNetwork,
    NetworkResult,
    TableInfo,
    TargetResult,
)
from nas.search.context import SearchContext
from nas.search.finalists import hand_over_weights
from nas.search.measured import measured_rows
from nas.search.proof import Proof
from nas.search.whole_front import whole_front


def write_results(context: SearchContext, proof: Proof, published: Sequence[PublishedResult]) -> None:
    """Write the files of a run whose networks are proven, and finish its record."""
    folder, table = context.folder, context.table
    here = Device.this()
    found = []
    for result in folder.record.targets:
        spec = proof.found[result.target.name].replace(name=result.target.network_name)
        found.append(_network(context, proof, f"found {result.target.name}", spec, result.target.name, None))
    others = published
    if context.trains:  # then only the networks that were measured beside the found ones are trained for an estimate
        others = proof.compared
        context.estimator.estimate([other.spec for other in others])  # side by side
    elif context.looks_at_images:  # a teacher on the user's images says little of networks outside its space
        others = ()
    networks = (*found, *(_network(context, proof, other.spec.name, other.spec, None, other) for other in others))
    for result, network in zip(folder.record.targets, found, strict=True):
        reached = hand_over_weights(context, result.target, network.spec)
        results = _results_of(context, result, network)
        if reached is not None:
            results["accuracy"]["validation_top1"] = round(reached.top1, 3)
            results["accuracy"]["validation_resolution"] = reached.resolution
        network.spec.save(folder.path / f"{result.target.name}.json", results)
    _write_tables(context)
    folder.write_csv("changes.csv", _changes(context, found), CHANGE_COLUMNS)
    folder.write_csv("measured.csv", measured_rows(context, networks), MEASURED_COLUMNS)
    write_optima(folder.path / OPTIMA, whole_front(context))
    folder.update(
        machine=MachineInfo(here.cpu, here.cores, here.os),
        table=_table_info(table),
        estimator=EstimatorInfo(context.estimator.name, context.estimator.training_recipe),
        notes=context.notes,
        networks=networks,
        finished=now(),
    )


def _network(
    context: SearchContext, proof: Proof, name: str, spec: ArchSpec, target: str | None, result: PublishedResult | None
) -> NetworkResult:
    """Return a network of the comparison."""
    table, predictor, estimator = context.table, context.predictor, context.estimator
    cost, estimates = count_cost(spec, table.num_classes), _estimates_of(estimator, spec, published=result is not None)
    measured = proof.measured.get(spec.id)
    part, measured_ms, error = predictor.network(spec), None, None
    if table.knows(part):
        measured_ms, error = table.part_ms(part), table.measurement(part).error
    has_rows = not table.missing(predictor.parts([spec]))
    predicted = table.predict_held_out(spec) if has_rows else None
    figure = None if context.looks_at_images else result  # what was published speaks for other images
    return NetworkResult(
        name=name,
        kind="published" if result else "found",
        target=target,
        spec=spec,
        measured_ms=None if measured_ms is None else round(measured_ms, 4),
        measured_error=None if error is None else round(error, 4),
        raw_ms=None if measured is None else round(measured.median_ms, 4),
        quartiles_ms=None if measured is None else _rounded_pair(measured.quartiles_ms),
        predicted_ms=None if predicted is None else round(predicted.time, 4),
        predicted_std=None if predicted is None else round(predicted.std, 4),
        macs=cost.macs,
        fvcore_macs=None if result else fvcore_macs_of(spec, table.num_classes),
        params=cost.params,
        estimated_top1=None if estimates is None else round(float(estimates.top1[0]), 3),
        estimated_std=None if estimates is None else round(float(estimates.std[0]), 3),
        extrapolated=estimates is not None and bool(estimates.extrapolated[0]),
        published_top1=figure.top1 if figure else None,
        source=figure.source if figure else f"{estimator.name}: {estimator.training_recipe}",
        breakdown=tuple((name, round(ms, 5)) for name, ms in table.breakdown(spec)) if has_rows else (),
        recipe_levels=() if result else levels_of(estimator, spec),
        nearest=() if result else nearest_of(estimator, spec),
    )


def levels_of(estimator: Estimator, spec: ArchSpec) -> tuple[LevelEstimate, ...]:
    """Return the estimates of a found network by recipe level; none for an estimator without levels."""
    if not isinstance(estimator, ImageNetPrior):
        return ()
    return tuple(
        LevelEstimate(
            recipe_level=one.recipe_level,
            description=one.description,
            title=one.training.title,
            epochs=one.training.epochs,
            teacher=one.training.teacher,
            training_source=one.training.source,
            networks=one.networks,
            of_run=one.recipe_level == estimator.recipe_level,
            top1=round(one.top1, 3),
            std=round(one.std, 3),
        )
        for one in estimates_by_level(spec)
    )


def nearest_of(estimator: Estimator, spec: ArchSpec) -> tuple[NearNetwork, ...]:
    """Return the published networks nearest to a found one; none for an estimator that is not fitted to them."""
    if not isinstance(estimator, ImageNetPrior):
        return ()
    return tuple(NearNetwork(**_rounded(near._asdict())) for near in nearest_published(spec, estimator.recipe_level))


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with three digits of each number that is not whole."""
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}


def _estimates_of(estimator: Estimator, spec: ArchSpec, *, published: bool) -> Estimates | None:
    """Return the estimates of a network, or None for a published one that the estimator cannot judge."""
    try:
        return estimator.estimate([spec])
    except NoEstimateError:
        if published:
            return None
        raise


def _changes(context: SearchContext, found: Sequence[NetworkResult]) -> Iterator[dict[str, Any]]:
    """Yield the estimated top-1 of found networks with one choice of one block changed, by `CHANGE_COLUMNS`.

    There are none where an estimate takes a training.
    """
    if context.trains:
        return
    for network in found:
        for number in range(len(network.spec.blocks)):
            changed = list(changed_choices(network.spec, number))
            estimates = context.estimator.estimate([one.spec for one in changed]).top1 if changed else ()
            for one, top1 in zip(changed, estimates, strict=True):
                of = (network.target, number + 1, one.decision, one.to, one.spec.resolution, blocks_text(one.spec))
                yield dict(zip(CHANGE_COLUMNS, (*of, round(float(top1), 4)), strict=True))


def fvcore_macs_of(spec: ArchSpec, num_classes: int) -> int | None:
    """Return the MACs that fvcore counts on the built network; None without torch, which a search does not need."""
    try:
        from nas.models.macs import fvcore_macs
        from nas.models.mobilenet import build_model
    except ModuleNotFoundError:
        return None
    return fvcore_macs(build_model(spec, num_classes), spec.resolution)


def _rounded_pair(values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    return round(low, 4), round(high, 4)


def _results_of(context: SearchContext, result: TargetResult, network: NetworkResult) -> dict[str, Any]:
    """Return what is written beside a found architecture in the file of its spec."""
    table, estimator = context.table, context.estimator
    cost = count_cost(network.spec, table.num_classes)
    return {
        "target": result.target.name,
        "budget_ms": result.target.budget_ms,
        "latency": {
            "measured_ms": network.measured_ms,
            "measured_error": network.measured_error,
            "predicted_ms": network.predicted_ms,
            "predicted_std": network.predicted_std,
            "raw_ms": network.raw_ms,
            "unit": "normalised milliseconds: as fast as the device was when its table was made",
            "device": table.device.cpu,
            "runtime": str(table.runtime),
            "table": str(table.path),
            "other_device": table.other_device,
        },
        "accuracy": {
            "top1": network.estimated_top1,
            "std": network.estimated_std,
            "source": "estimated",
            "estimator": estimator.name,
            "training_recipe": estimator.training_recipe,
            "extrapolated": network.extrapolated,
        }
        | {
            key: msgspec.to_builtins(told)
            for key, told in (("recipe_levels", network.recipe_levels), ("nearest_published", network.nearest))
            if told
        },
        "notes": list(context.notes),
        "cost": cost._asdict() | {"param_bytes": cost.param_bytes, "memory_bytes": cost.memory_bytes},
    }


def _table_info(table: LatencyTable) -> TableInfo:
    return TableInfo(
        file=str(table.path),
        device=table.device.cpu,
        other_device=table.other_device,
        runtime=f"{table.runtime.name} {table.runtime.version}",
        threads=table.runtime.threads,
        precision=table.runtime.precision,
        num_classes=table.num_classes,
        rows=len(table.rows),
        networks=len(table.correction.evidence),
        reference=table.reference.spec.name,
        reference_ms=round(table.reference_ms, 4),
        fidelity=table.fidelity,
    )


def _write_tables(context: SearchContext) -> None:
    """Write trials.csv, front.csv and table_rows.csv."""
    folder, request, classes = context.folder, context.request, context.table.num_classes
    results = folder.record.targets
    trials = _by_now(context, [logged for result in results for logged in folder.trials(result.target.name)])
    folder.write_csv("trials.csv", (trial_row(logged, classes) for logged in trials), TRIAL_COLUMNS)
    front: list[LoggedTrial] = []
    for skeleton in request.skeletons:
        names = {result.target.name for result in results if result.target.skeleton == skeleton}
        own = [logged for logged in trials if logged.target in names]
        indices = front_indices([one.trial.latency_ms for one in own], [one.trial.top1 for one in own])
        front += [own[index] for index in indices]
    folder.write_csv("front.csv", (trial_row(logged, classes) for logged in front), TRIAL_COLUMNS)
    parts = {part.key: part for logged in trials for part in parts_of(logged.trial.spec, classes)}
    for result in results:
        space = request.space(result.target.skeleton).at(result.variants)
        parts |= {part.key: part for part in space_parts(space, classes)}
    rows = (_table_row(context.table, key, part) for key, part in sorted(parts.items()))
    folder.write_csv("table_rows.csv", rows, TABLE_COLUMNS)


def _by_now(context: SearchContext, trials: Sequence[LoggedTrial]) -> list[LoggedTrial]:
    """Return trials with the latencies that the table predicts at the end, whatever their attempts knew.

    So trials of all attempts compare with each other. A trial whose rows are missing keeps its latency.
    """
    now_ms = context.predictor.predict_ms([logged.trial.spec for logged in trials])
    return [
        logged.with_latency(float(ms)) if np.isfinite(ms) else logged for logged, ms in zip(trials, now_ms, strict=True)
    ]


def _table_row(table: LatencyTable, key: str, part: StemPart | BlockPart | HeadPart) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": key,
        "macs": sum(layer.macs for layer in part.layers()),
        "ms": round(table.part_ms(part), 6),
        "timed_ms": round(table.timed_ms(part), 6),
    }
    if isinstance(part, StemPart):
        stem = part.stem
        return row | {"op": "stem", "kernel": 3} | {k: getattr(stem, k) for k in ("out", "stride", "activation")}
    row |= {"in_channels": part.in_channels, "in_size": part.in_size}
    if isinstance(part, HeadPart):
        return row | {"op": "head", "out": part.num_classes, "activation": part.head.activation}
    fields = ("op", "kernel", "expanded", "out", "stride", "se", "activation")
    return row | {field: getattr(part.block, field) for field in fields}
