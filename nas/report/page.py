"""One HTML page of a run: no scripts, no addresses, the figures inside it, so that it can be sent as it is."""

from __future__ import annotations

import base64
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from nas.report.figures import budget_text, display_name, role_text, where
from nas.runs.reading import Fidelity, Network, Run, kind_of

_CAPTIONS = {
    "front": (
        "Accuracy against latency",
        "Up and to the left is better: each point is a network, each line the best of what a search tried; what lies "
        "far below the networks named here is cut off. Compare the stars with the grey dots, not with the diamonds: "
        "the diamonds' trainings differ, and many are longer than the one that the estimates are for.",
    ),
    "latency_table": (
        "The latency table",
        "Each point is one block as it stands in a network: between the dotted lines, equal arithmetic takes more or "
        "less time by its kernel and its squeeze-and-excitation (SE).",
    ),
    "breakdown": (
        "Where the milliseconds go",
        "The table's rows added up by stage, for the networks found and, where the table has all their rows, the "
        "published ones of the same size.",
    ),
}
_DIAGRAM_CAPTION = (
    "A box is a block, as high as it has channels inside (by the square root), coloured by its kernel; the bands "
    "between are the channels handed on, ÷2 is a stride of 2, and the last row is the table's time."
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #5c6570; --line: #d9dee4; --page: #fbfcfd; --card: #f1f4f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9aa5b1; --line: #39414a; --page: #14181c; --card: #1e242a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; }
p { max-width: 48rem; margin: .5rem 0; }
.soft, figcaption { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: .875rem; }
.number { text-align: right; white-space: nowrap; }
tr.found { background: var(--card); font-weight: 600; }
summary { cursor: pointer; }
small { font-weight: normal; color: var(--soft); }
figure { margin: .75rem 0 0; }
figure img { display: block; width: 100%; height: auto; background: white; padding: .75rem; border-radius: .5rem;
  border: 1px solid var(--line); }
figcaption { margin-top: .5rem; max-width: 48rem; }
pre, code { font-family: ui-monospace, monospace; font-size: .875rem; }
pre { background: var(--card); padding: .75rem 1rem; border-radius: .5rem; overflow-x: auto; }
""".strip()


def render_page(run: Run, figures: Mapping[str, str]) -> str:
    """The page, with `figures` (name to SVG) in their order."""
    found = [run.found(role) for role in run.roles]
    title = f"Networks for {where(run)}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_STYLE}\n</style>",
            "</head>",
            "<body>",
            f"<h1>{escape(title)}</h1>",
            *(f"<p><strong>Note:</strong> {escape(note)}.</p>" for note in run.notes),
            *(f"<p>{_result(run, network)}</p>" for network in found),
            _comparison(run.networks),
            f'<p class="soft">{_reading(run)}</p>',
            *([f'<p class="soft">{_fidelity(run.fidelity)}</p>'] if run.fidelity else []),
            *(_figure(name, svg) for name, svg in figures.items()),
            _making(run),
            _going_on(run),
            "</body>",
            "</html>",
            "",
        ]
    )


def _result(run: Run, network: Network) -> str:
    """What was found for a role, in a sentence or two."""
    role = run.roles[network.role or ""]
    takes = "is predicted to take" if network.measured_ms is None else "takes"
    text = (
        f"<strong>Found {role_text(network.role or '')}</strong> {takes} {network.latency_ms:.2f} ms at an estimated "
        f"<strong>{_estimate(network)} % top-1</strong> on ImageNet"
    )
    like = f"mobilenet_v3_{kind_of(network.role or '')}"
    published = next((n for n in run.networks if not n.found and n.name == like), None)
    if published:
        text += (
            f"; {escape(display_name(published))} takes {published.latency_ms:.2f} ms at {_estimate(published)} %, "
            f"estimated for the same training effort"
        )
        if published.published_top1 is not None:
            text += f" (published: {published.published_top1:.1f} %)"
    budget, slack_ms = budget_text(role.budget_ms), role.budget_ms - network.latency_ms
    if slack_ms >= 0:
        share = 100 * slack_ms / role.budget_ms
        text += f". The budget of {budget} ms is kept, with {slack_ms:.2f} ms ({share:.1f} %) unused."
    else:
        text += f". That is <strong>{-slack_ms:.2f} ms over the budget</strong> of {budget} ms."
    if not role.binds:
        text += (
            f" The budget does not bind: the slowest network of {escape(role.space)} takes {role.feasible_ms[1]:.2f} "
            "ms, so that this is the most accurate one of all."
        )
    return text


def _comparison(networks: Iterable[Network]) -> str:
    """What was measured together in one table, all else folded in a second one, fastest first."""
    networks = list(networks)
    others = [network for network in networks if network.raw_ms is None and not network.found]
    parts = [_table(network for network in networks if network.raw_ms is not None or network.found)]
    if others:
        plural = "s" if len(others) > 1 else ""
        measured = "" if any(network.measured_ms is None for network in others) else ", measured at another time"
        parts.append(
            f"<details><summary>{len(others)} more network{plural}{measured}</summary>\n"
            f"{_table(sorted(others, key=lambda network: network.latency_ms))}</details>"
        )
    if any(network.extrapolated for network in networks):
        parts.append(
            '<p class="soft">* Outside what the estimator was fitted to: its uncertainty is doubled there.</p>'
        )
    return "\n".join(parts)


def _table(networks: Iterable[Network]) -> str:
    rows = []
    for network in networks:
        quartiles = network.quartiles_ms
        spread = f" <small>{quartiles[0]:.2f}–{quartiles[1]:.2f}</small>" if quartiles else ""
        cells = [
            f"<td>{escape(display_name(network))} <br><small><code>{escape(network.spec.id)}</code></small></td>",
            _number(str(network.spec.resolution)),
            _number("–" if network.measured_ms is None else f"{network.measured_ms:.2f}{spread}"),
            _number("–" if network.predicted_ms is None else f"{network.predicted_ms:.2f}"),
            _number("–" if network.raw_ms is None else f"{network.raw_ms:.2f}"),
            _number(f"{network.macs / 1e6:,.0f}"),
            _number(f"{network.params / 1e6:.2f}"),
            _number(_estimate(network)),
            _number("–" if network.published_top1 is None else f"{network.published_top1:.1f}"),
            f"<td><small>{'–' if network.published_top1 is None else escape(network.source)}</small></td>",
        ]
        rows.append(('<tr class="found">' if network.found else "<tr>") + "".join(cells) + "</tr>")
    names = (
        "pixels", "measured, ms", "predicted, ms", "raw, ms", "M MACs", "M parameters", "top-1 estimated, %",
        "top-1 published, %",
    )  # fmt: skip
    heads = "".join(f'<th class="number">{name}</th>' for name in names)
    return (
        f'<div class="scroll"><table><thead><tr><th>network</th>{heads}<th>published in</th></tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _reading(run: Run) -> str:
    """What the comparison's numbers mean."""
    reference = escape(str(run.table.get("reference", "a reference network")))
    if run.other_device:
        measured = "Measured: the whole network on that device when its table was made, where it was."
    else:
        measured = (
            f"Measured: the whole network on this device, median and quartiles, in milliseconds as at the device's "
            f"undisturbed speed (normalised by {reference}, timed in the same rounds). Raw: as the clock showed."
        )
    return (
        f"{measured} Predicted: the latency table's sum. Estimated accuracies come from "
        f"{escape(run.estimator['name'])} and all speak for one training: {escape(run.estimator['effort'])}. "
        f"Compare what was found with the others' estimates, not with what they published, for the trainings behind "
        f"that differ and many are longer."
    )


def _fidelity(fidelity: Fidelity) -> str:
    """How far the latency table is to be trusted."""
    return (
        f"The latency table against {fidelity.networks} random networks, measured whole on {escape(fidelity.date)}: "
        f"mean error {100 * fidelity.mape:.1f} %, {100 * fidelity.within_5_percent:.0f} % of them within 5 % and "
        f"{100 * fidelity.within_10_percent:.0f} % within 10 %, Spearman's rank correlation {fidelity.spearman:.3f}."
    )


def _figure(name: str, svg: str) -> str:
    title, caption = _CAPTIONS.get(name) or (f"Found {role_text(name)}, block by block", "")
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<h2 id="{name}">{title}</h2>\n<figure><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">\n'
        f"<figcaption>{escape(caption or _DIAGRAM_CAPTION)}</figcaption></figure>"
    )


def _making(run: Run) -> str:
    tried = Counter(trial.role for trial in run.trials)
    roles = {
        f"search for {role_text(role)}": (
            f"space {limits.space}, feasible from {limits.feasible_ms[0]:.2f} to {limits.feasible_ms[1]:.2f} ms, "
            f"width@pixels {', '.join(f'{width:g}@{pixels:g}' for width, pixels in limits.variants)}, "
            f"{tried[role]:,} networks looked at"
        )
        for role, limits in run.roles.items()
    }
    rows: dict[str, Any] = {
        "command": run.command,
        "begun": run.created,
        "ended": run.finished,
        "seconds": run.seconds,
        **roles,
        "estimator": f"{run.estimator['name']}: {run.estimator['effort']}",
        "latency table": {key: value for key, value in run.table.items() if key != "fidelity"},
        "table's fidelity": run.table.get("fidelity"),
        "machine": run.machine,
        "versions": run.versions,
        "arguments": run.arguments,
    }
    body = "\n".join(
        f"<tr><th>{escape(name)}</th><td>{escape(_text(value))}</td></tr>" for name, value in rows.items() if value
    )
    return f'<h2 id="made">How it was made</h2>\n<div class="scroll"><table><tbody>\n{body}\n</tbody></table></div>'


def _going_on(run: Run) -> str:
    folder = run.path
    specs = [shlex.quote(str(folder / f"{role}.json")) for role in run.roles]
    commands = [
        *(f"uv run python -m nas.train {spec}" for spec in specs),
        "uv run python -m nas.measure --check",
        f"uv run python -m nas.report {shlex.quote(str(folder))}",
    ]
    return (
        '<h2 id="next">To go on</h2>\n<p>Train what was found, check the latency table against this device as it is '
        f"now, draw this page again:</p>\n<pre>{escape(chr(10).join(commands))}</pre>"
    )


def _estimate(network: Network) -> str:
    """Estimated top-1 in percent, starred where it is extrapolated."""
    return f"{network.estimated_top1:.1f} ± {network.estimated_std:.1f}{'*' if network.extrapolated else ''}"


def _number(text: str) -> str:
    return f'<td class="number">{text}</td>'


def _text(value: Any) -> str:
    """A value of run.json for people: objects and lists in a row, without what is empty, numbers at four digits."""
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
