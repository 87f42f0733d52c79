"""Finds the most accurate networks, a Large and a Small, within a latency budget on this CPU.

    python -m nas.search --budget-ms 20

The first search on a machine measures the latency table that it needs (two or three minutes); later ones measure only
what is new. What is found is measured on the device and lies, with a report, in a folder of `reports/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli import Parser, RichConsole, count, natural_int, positive_float, positive_floats, positive_int

if TYPE_CHECKING:
    from nas.search.request import Request


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if bool(arguments.budget_ms) == (arguments.front is not None):
        parser.error("one of --budget-ms and --front must be given")
    from nas.search.run import search

    request = _request(arguments)
    out = _folder(arguments, request)
    console = RichConsole()
    folder = search(request, out, resume=arguments.resume, console=console)

    from nas.report.writing import write_report

    with console.progress("drawing the report"):
        page = write_report(folder.path)
    _show(folder.manifest, console)
    specs = [f"{folder.path}/{role}.json" for role in folder.manifest["roles"]]
    print(f"\nspecs:  {' '.join(specs)}\nreport: {page}\ntrain:  python -m nas.train {specs[-1]}")


def _given(value: str | None, default: str) -> str:
    return default if value is None else value


def _parser() -> Parser:
    parser = Parser("python -m nas.search", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--budget-ms",
        type=positive_floats,
        default=(),
        metavar="MS[,MS...]",
        help="latency budget of Large; with --only small, of Small. Several: a search for each, in one run",
    )
    parser.add_argument(
        "--front",
        type=positive_int,
        nargs="?",
        const=8,
        metavar="N",
        help="instead of a budget: N of them (default: 8) over the feasible range of this device",
    )
    parser.add_argument(
        "--small-budget-ms", type=positive_float, metavar="MS", help="budget of Small (default: 0.31 of Large's)"
    )
    parser.add_argument("--only", choices=("large", "small"), help="search one of the two alone")
    parser.add_argument("--large-space", default="mobilenet_v3_large", metavar="NAME", help="or a path to a .py file")
    parser.add_argument("--small-space", default="mobilenet_v3_small", metavar="NAME", help="or a path to a .py file")
    parser.add_argument("--resolution", type=positive_int, nargs="+", default=[], metavar="N", help="only these")
    parser.add_argument(
        "--width", type=positive_float, nargs="+", default=[], metavar="W", help="only these multipliers"
    )
    parser.add_argument("--table", metavar="FILE", help="latency table (default: this device's in latency_tables/)")
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME")
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N", help="of the runtime")
    parser.add_argument("--precision", default="float32", metavar="NAME", help="of the networks: float32 or int8")
    parser.add_argument(
        "--allow-other-device", action="store_true", help="rest on the predictions of another device's --table"
    )
    parser.add_argument(
        "--estimator",
        metavar="NAME",
        help="default: imagenet-prior; with --data short-training, hours instead of a minute",
    )
    parser.add_argument(
        "--data", metavar="SOURCE", help="train each network a little on these images, as in nas.train, to judge it"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where torchvision's sets lie or are put")
    parser.add_argument(
        "--recipe-level", metavar="NAME", help="training effort that estimates speak for (default: mobilenet-v3)"
    )
    parser.add_argument("--strategy", metavar="NAME", help="default: exact; with --data fitted")
    parser.add_argument(
        "--objective",
        default="top1",
        metavar="NAME",
        help="top1 (default), within the budget; or mnasnet, top1 * (latency / budget)^w: what is found can be over it",
    )
    parser.add_argument("--reward-w", type=float, default=-0.07, metavar="W", help="of mnasnet (default: -0.07)")
    parser.add_argument("--trials", type=positive_int, metavar="N", help="networks a role that the strategy proposes")
    parser.add_argument("--workers", type=positive_int, default=1, metavar="N", help="processes that evaluate trials")
    parser.add_argument(
        "--storage", metavar="URL", help="data base (postgresql://…) on which workers of several machines meet"
    )
    parser.add_argument("--study", metavar="NAME", help="what the workers on a storage work on together")
    parser.add_argument("--max-params", type=count, metavar="N", help="at most so many parameters: 3.5M, 800k, 3500000")
    parser.add_argument(
        "--max-memory-mb",
        type=positive_float,
        metavar="MB",
        help="at most so many MB (10^6 bytes) while a network runs: float32 parameters and the activations of its "
        "worst layer (inputs, outputs, what is held beside them), without what the runtime needs for itself",
    )
    parser.add_argument("--seed", type=natural_int, default=0, metavar="N")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: reports/<budget>ms)")
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder")
    return parser


def _request(arguments: argparse.Namespace) -> Request:
    from nas.accuracy import TRAINING
    from nas.search.request import FITTED, Request

    return Request(
        budget_ms=arguments.budget_ms[0] if arguments.budget_ms else 0.0,
        several_ms=arguments.budget_ms if len(arguments.budget_ms) > 1 else (),
        front=arguments.front or 0,
        small_budget_ms=arguments.small_budget_ms,
        only=arguments.only,
        large_space=arguments.large_space,
        small_space=arguments.small_space,
        width=tuple(arguments.width),
        resolution=tuple(arguments.resolution),
        table=arguments.table,
        runtime=arguments.runtime,
        threads=arguments.threads,
        precision=arguments.precision,
        allow_other_device=arguments.allow_other_device,
        estimator=_given(arguments.estimator, TRAINING if arguments.data else Request.estimator),
        data=arguments.data,
        data_dir=arguments.data_dir,
        recipe_level=arguments.recipe_level,
        strategy=_given(arguments.strategy, FITTED if arguments.data else Request.strategy),
        objective=arguments.objective,
        reward_w=arguments.reward_w,
        trials=arguments.trials,
        workers=arguments.workers,
        storage=arguments.storage,
        study=arguments.study,
        max_params=arguments.max_params,
        max_memory_mb=arguments.max_memory_mb,
        seed=arguments.seed,
    )


def _folder(arguments: argparse.Namespace, request: Request) -> Path:
    from nas.runs.folder import last_folder, unused_folder

    if arguments.out:
        return Path(arguments.out)
    name = "front" if request.front else ",".join(f"{ms:g}" for ms in request.several_ms or [request.budget_ms]) + "ms"
    default = Path("reports") / name
    return last_folder(default) if arguments.resume else unused_folder(default)


def _show(manifest: dict[str, Any], console: RichConsole) -> None:
    """The found networks beside the published ones that were measured in the same rounds."""
    from rich import box
    from rich.table import Table

    from nas.search.results import COMPARED

    def latency_ms(network: dict[str, Any]) -> float:
        milliseconds = network["predicted_ms"] if network["measured_ms"] is None else network["measured_ms"]
        return float(milliseconds)

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("px", "ms", "MACs M", "params M", "top-1 % est.", "published"):
        table.add_column(heading, justify="right", no_wrap=True)
    predicted = manifest["table"]["other_device"]
    # What was measured in the same rounds; where nothing was, what was found, and the two that all know.
    shown = [
        network
        for network in manifest["networks"]
        if network["raw_ms"] is not None or (predicted and (network["role"] or network["name"] in COMPARED))
    ]
    for network in shown:
        published = network["kind"] == "published"
        table.add_row(
            network["name"],
            str(network["spec"]["resolution"]),
            f"{latency_ms(network):.2f}",
            f"{network['macs'] / 1e6:.0f}",
            f"{network['params'] / 1e6:.2f}",
            f"{network['estimated_top1']:.1f} ± {network['estimated_std']:.1f}"
            + ("*" if network["extrapolated"] else ""),
            f"{network['top1']:.1f}" if network["top1_source"] == "published" else "",
            style="" if published else "bold",
        )
    console.say("")
    console.print(table)
    how = "predicted, not measured, for" if predicted else "measured whole on"
    console.say(f"ms: {how} {manifest['table']['device']}, {manifest['table']['runtime']}, normalised")
    console.say(f"est.: {manifest['estimator']['name']}: {manifest['estimator']['effort']}")
    if any(network["extrapolated"] for network in shown):
        console.say("*: outside the range that the estimator was fitted to, its uncertainty doubled")
    for role, entry in manifest["roles"].items():
        found = next(network for network in shown if network["role"] == role)
        text = f"{role}: {latency_ms(found):.2f} of {entry['budget_ms']:.3g} ms"
        if latency_ms(found) > entry["budget_ms"]:
            text += ", over the budget: the objective weighs latency, it does not limit it"
        console.say(text + ("" if entry["binds"] else "; the budget does not bind, this is the space's most accurate"))
        if entry.get("optimum"):
            console.say(f"{role}: {_proven(entry['optimum'])}")


def _proven(optimum: dict[str, Any]) -> str:
    """What the model's optimum is, and how far from it a loop of trials came."""
    proven, loop = optimum["proven"], optimum["loop"]
    gap = proven["top1"] - loop["top1"]
    after = ", ".join(f"{runner_up['top1']:.3f}" for runner_up in optimum["runners_up"])
    return (
        f"proven optimum of the model within {optimum['limit_ms']:.3g} ms predicted: {proven['top1']:.3f} %"
        + (f" (next best {after})" if after else "")
        + f"; best of {loop['trials']} trials of {loop['strategy']}: {loop['top1']:.3f} %, {gap:.3f} below"
    )
