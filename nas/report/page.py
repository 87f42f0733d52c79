"""Write one HTML page of a run: no scripts, no addresses, its figures inside it, so that it can be sent as it is.

The text is in `page.html.j2`, the style sheet in `page.css`.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import msgspec

from nas.report.texts import budget_text, device_text, display_name, images_text
from nas.runs.reading import Run
from nas.runs.record import NetworkResult, ProvenOptimum, TargetResult

_FOLDER = Path(__file__).parent


class DrawnFigure(NamedTuple):
    """A figure as the page holds it."""

    name: str
    heading: str
    caption: str
    svg: str

    @property
    def address(self) -> str:
        """Return the figure as the address of an image."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"


class _Result(NamedTuple):
    """The network that was found for a target, and the published one of its size."""

    search: TargetResult
    network: NetworkResult
    published: NetworkResult | None

    @property
    def slack_ms(self) -> float:
        """Return the unused part of the budget; negative for a network that is over it."""
        return self.search.target.budget_ms - self.network.latency_ms

    @property
    def slack_percent(self) -> float:
        """Return the unused part of the budget in percent of it."""
        return 100 * self.slack_ms / self.search.target.budget_ms


def render_page(run: Run, figures: Sequence[DrawnFigure]) -> str:
    """Return the page, with the figures in their order."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    networks = run.record.networks
    # Found networks, and all that was measured in the same rounds, stand in the table; all others are folded.
    apart = [network for network in networks if network.raw_ms is None and not network.found]
    page = environment.get_template("page.html.j2").render(
        title=f"Networks for {device_text(run)}",
        css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        record=run.record,
        table=run.table,
        estimator=run.estimator,
        images=images_text(run),
        results=[_result(run, result) for result in run.record.targets],
        together=[network for network in networks if network.raw_ms is not None or network.found],
        apart=sorted(apart, key=lambda network: network.latency_ms),
        figures=figures,
        made=list(_made(run)),
        commands=_commands(run),
        name=partial(display_name, run),
        budget_text=budget_text,
    )
    return page.lstrip()  # of the lines between macros


def _result(run: Run, search: TargetResult) -> _Result:
    like = f"mobilenet_v3_{search.target.skeleton}"
    published = next((n for n in run.record.networks if not n.found and n.name == like), None)
    return _Result(search, run.found(search.target.name), published)


def _commands(run: Run) -> list[str]:
    """Return the commands that a reader may want next."""
    specs = [shlex.quote(str(run.path / f"{result.target.name}.json")) for result in run.record.targets]
    return [
        *(f"uv run python -m nas.train {spec}" for spec in specs),
        "uv run python -m nas.measure --check",
        f"uv run python -m nas.report {shlex.quote(str(run.path))}",
    ]


def _made(run: Run) -> Iterator[tuple[str, str]]:
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
