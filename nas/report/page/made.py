"""Say how a run was made, and how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from nas.report.texts import budget_text, with_uv
from nas.runs.reading import Run
from nas.runs.record import ProvenOptimum, TargetResult
from nas.runs.target import Target


class NextCommand(NamedTuple):
    """A command that a reader may want next."""

    purpose: str
    command: str


def next_commands(run: Run) -> list[NextCommand]:
    """Return the commands that a reader may want next."""
    commands = []
    for target in (result.target for result in run.record.targets):
        export = with_uv(f"python -m nas.export {_spec_file(run, target)}")
        commands += [
            NextCommand(f"Train found {target.title}", train_command(run, target)),
            NextCommand(f"Export found {target.title} to ONNX once it is trained", export),
        ]
    check, draw = "python -m nas.measure --check", f"python -m nas.report {shlex.quote(str(run.path))}"
    return [
        *commands,
        NextCommand("Change blocks by hand and see what each is worth", playground_command(run)),
        NextCommand("Check the latency table against this device as it is now", with_uv(check)),
        NextCommand("Draw this page again", with_uv(draw)),
    ]


def train_command(run: Run, target: Target) -> str:
    """Return the command that trains the network that was found for a target."""
    return with_uv(f"python -m nas.train {_spec_file(run, target)}")


def playground_command(run: Run) -> str:
    """Return the command that opens the run's networks in the playground."""
    table, folder = shlex.quote(run.table.file), shlex.quote(str(run.path))
    return with_uv(f"python -m nas.playground --table {table} --spec {folder} --open")


def _spec_file(run: Run, target: Target) -> str:
    return shlex.quote(str(run.path / f"{target.name}.json"))


def made_rows(run: Run) -> Iterator[tuple[str, str]]:
    """Yield headings with texts: all that the record holds but the networks of the comparison."""
    record = run.record
    table = msgspec.to_builtins(run.table)
    fidelity = table.pop("fidelity")
    rows: dict[str, Any] = {"command": record.command, "begun": record.created, "ended": record.finished}
    rows["seconds"] = record.seconds
    for result in record.targets:
        rows |= _search_rows(run, result)
    if counts := [network for network in record.networks if network.fvcore_macs is not None]:
        rows["MACs"] = "; ".join(
            f"{network.name}: {network.macs:,}, fvcore counts "
            f"{'the same' if network.fvcore_macs == network.macs else f'{network.fvcore_macs:,}'} on the built network"
            for network in counts
        )
    rows |= {
        "estimator": run.estimator.name,
        "training recipe": run.estimator.training_recipe,
        "latency table": table,
        "fidelity of the table": fidelity,
        "machine": msgspec.to_builtins(record.machine),
        "versions": record.versions,
        "arguments": record.arguments,
        "version of the record": record.version,
    }
    yield from ((heading, _text(value)) for heading, value in rows.items() if value)


def _search_rows(run: Run, result: TargetResult) -> dict[str, str]:
    """Return headings with texts: the search for one target."""
    target, (low_ms, high_ms) = result.target, result.feasible_ms
    tried = int((run.trials.target == target.name).sum())
    rows = {
        f"search for {target.title}": (
            f"budget {budget_text(target.budget_ms)} ms, space {result.space}, "
            f"feasible from {low_ms:.2f} to {high_ms:.2f} ms, "
            f"width@pixels {', '.join(map(str, result.variants))}, {tried:,} networks looked at"
        )
    }
    if result.attempts:
        rows[f"attempts for {target.title}"] = "; ".join(
            f"{one.spec_id} predicted {one.predicted_ms:.3f} ± {one.predicted_std:.3f} ms, measured "
            f"{one.measured_ms:.3f} ± {one.measured_ms * one.measured_error:.3f} ms"
            for one in result.attempts
        )
    if result.measured:
        rows[f"finalists for {target.title}"] = "; ".join(
            f"{spec_id} {m.normalised_ms:.3f} ms ({m.quartiles_ms[0]:.3f}–{m.quartiles_ms[1]:.3f}, "
            f"raw {m.median_ms:.3f}, standard error {100 * m.error:.2g} %)"
            for spec_id, m in result.measured.items()
        )
    if result.optimum:
        rows[f"optimum for {target.title}"] = _optimum_text(result.optimum)
    return rows


def _optimum_text(optimum: ProvenOptimum) -> str:
    best, *others = (
        f"{network.spec_id} with {network.top1:.2f} % at {network.predicted_ms:.3f} ms predicted"
        for network in (optimum.best, *optimum.runners_up)
    )
    behind = f"; behind it {', '.join(others)}" if others else ""
    loop = optimum.loop
    return (
        f"the best of all networks within {optimum.limit_ms:.3f} ms predicted is {best}{behind}; the best of "
        f"{loop.trials:,} trials of {loop.strategy} has {loop.top1:.2f} %"
    )


def _text(value: Any) -> str:
    """Return a value of the record for people: objects and lists in a row, numbers at four digits, nothing empty."""
    match value:
        case Mapping():
            return ", ".join(
                f"{str(key).replace('_', ' ')} {_text(item)}" for key, item in value.items() if item not in (None, [])
            )
        case list() | tuple():
            return ", ".join(_text(item) for item in value)
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)
