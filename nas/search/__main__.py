"""Find the most accurate networks, a Large and a Small, within a latency budget on this CPU.

    python -m nas.search --budget-ms 20

The first search on a machine measures the latency table that it needs (two or three minutes). Later searches measure
only the rows that are new. The found networks are measured on the device. Their specs and a report are written to a
folder in reports/.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import Parser, count, natural_int, positive_float, positive_floats, positive_int
from nas.cli.console import RichConsole
from nas.cli.entry import run
from nas.cli.flags import (
    add_data_flags,
    add_estimator_flag,
    add_run_flags,
    add_runtime_flags,
    add_table_flags,
    add_variant_flags,
    add_workers_flag,
)
from nas.console import Console
from nas.errors import NasError
from nas.search.strategies import STRATEGIES

if TYPE_CHECKING:
    from nas.runs.record import NetworkResult, OptimalNetwork, ProvenOptimum, RunRecord
    from nas.search.request import SearchRequest


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if bool(arguments.budget_ms) == (arguments.front is not None):
        parser.error("one of --budget-ms and --front must be given")
    from nas.search.run import search

    console = RichConsole()
    request = _request(arguments, console)
    folder = search(request, _folder(arguments), resume=arguments.resume, console=console)

    from nas.report.writing import write_report
    from nas.runs.optima import load_optima
    from nas.runs.record import OPTIMA

    with console.progress("drawing the report"):
        page = write_report(folder.path)
    _show(folder.record, load_optima(folder.path / OPTIMA), console)
    specs = [f"{folder.path}/{result.target.name}.json" for result in folder.record.targets]
    train = f"python -m nas.train {specs[-1]}{_training_flags(request, specs[-1])}"
    print(f"\nspecs:  {' '.join(specs)}\nreport: {page}\ntrain:  {train}")


def _training_flags(request: SearchRequest, spec: str) -> str:
    """Return the flags that train a found network on the images of its search, from its weights where it has any."""
    weights = Path(spec).with_suffix(".pt")
    flags = f" --data {shlex.quote(request.data)}" if request.data else ""
    flags += f" --data-dir {shlex.quote(str(request.data_dir))}" if request.data_dir else ""
    return flags + (f" --init {shlex.quote(str(weights))}" if weights.exists() else "")


def _given(value: str | None, default: str) -> str:
    return default if value is None else value


def _parser() -> Parser:
    parser = Parser("search", __doc__)
    parser.add_argument(
        "--budget-ms",
        type=positive_floats,
        default=(),
        metavar="MS[,MS...]",
        help="latency budget of Large, or of Small with --only small; several are searched in one run",
    )
    parser.add_argument(
        "--front",
        type=positive_int,
        nargs="?",
        const=8,
        metavar="N",
        help="instead of a budget: search N budgets (default: 8) over the feasible range of this device",
    )
    parser.add_argument(
        "--small-budget-ms", type=positive_float, metavar="MS", help="budget of Small (default: 0.31 of Large's)"
    )
    parser.add_argument("--only", choices=("large", "small"), help="search one of the two alone")
    for name in ("large", "small"):
        parser.add_argument(
            f"--{name}-space",
            metavar="NAME",
            help=f"search space by name, or a path to a .py file (default: mobilenet_v3_{name}; with --data of images "
            "up to 96 px: mobilenet_v3_small_images, as Small alone)",
        )
    add_variant_flags(parser)
    add_table_flags(parser)
    add_runtime_flags(parser)
    add_estimator_flag(parser)
    parser.set_defaults(estimator=None)  # None: not given, so that --data can choose
    add_data_flags(parser, "images that the networks are for")
    parser.add_argument(
        "--minutes",
        type=positive_float,
        metavar="M",
        help="with --data: minutes for a teacher and its replacement blocks, once for all budgets (default: 10)",
    )
    parser.add_argument(
        "--teacher",
        metavar="DIR_OR_FILE",
        help="with --data: a network of the space that was trained on these images (default: one is trained)",
    )
    parser.add_argument(
        "--train-finalists",
        type=natural_int,
        metavar="K",
        help="with --data: train K networks a little, the best of each width first, and take the best of them; "
        "0: hand over no weights (default: 3)",
    )
    parser.add_argument(
        "--recipe-level", metavar="NAME", help="training that estimates speak for (default: mobilenet-v3)"
    )
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        help=f"search strategy: {', '.join(STRATEGIES)} (default: exact; with --estimator short-training: surrogate)",
    )
    parser.add_argument(
        "--objective",
        default="top1",
        metavar="NAME",
        help="top1 (default): the best within the budget; mnasnet: the best top1 * (latency / budget)^w, which can be "
        "over the budget",
    )
    parser.add_argument(
        "--reward-w", type=float, default=-0.07, metavar="W", help="exponent of mnasnet (default: -0.07)"
    )
    parser.add_argument(
        "--trials",
        type=positive_int,
        metavar="N",
        help="networks that the strategy proposes for each target (default: the strategy's)",
    )
    add_workers_flag(
        parser,
        "evaluate networks (default: one; of --estimator short-training as many as there are cores train for it, "
        "side by side, and with --storage as many as there are cores evaluate)",
    )
    parser.add_argument(
        "--storage", metavar="URL", help="data base (postgresql://…) that workers of several machines share"
    )
    parser.add_argument("--study", metavar="NAME", help="name of the search that the workers of a storage share")
    parser.add_argument(
        "--max-params", type=count, metavar="N", help="largest number of parameters, such as 3.5M, 800k or 3500000"
    )
    parser.add_argument(
        "--max-memory-mb",
        type=positive_float,
        metavar="MB",
        help="largest memory (10^6 bytes) of a running network: float32 parameters and the activations of its worst "
        "layer (inputs, outputs, residuals), without the runtime's own memory",
    )
    add_run_flags(parser, "reports/<budget>ms")
    return parser


def _request(arguments: argparse.Namespace, console: Console) -> SearchRequest:
    from nas.accuracy import ON_IMAGES, REPLACEMENT, TRAINING
    from nas.runs.target import SKELETONS, Target
    from nas.search.request import (
        SMALL_IMAGES_SPACE,
        SURROGATE,
        FrontRequest,
        SearchRequest,
        small_images_side,
        targets_of,
    )

    estimator = _given(arguments.estimator, REPLACEMENT if arguments.data else SearchRequest.estimator)
    only, large_space, small_space = arguments.only, arguments.large_space, arguments.small_space
    side = None
    if arguments.data and estimator in ON_IMAGES:
        side = small_images_side(arguments.data, arguments.data_dir, arguments.resolutions)
    if side is not None and large_space is None and small_space is None:
        console.say(
            f"small images, {side} px: searching {SMALL_IMAGES_SPACE}, as Small alone unless --only or "
            "--small-budget-ms say otherwise; --large-space and --small-space name other spaces"
        )
        large_space = small_space = SMALL_IMAGES_SPACE
        if arguments.small_budget_ms is None:
            only = only or "small"
    elif side is not None and SMALL_IMAGES_SPACE not in (large_space, small_space):
        console.say(
            f"note: {SMALL_IMAGES_SPACE} is made for images of {side} px; without --large-space and --small-space "
            "it is searched"
        )
    if arguments.front is not None:
        if arguments.small_budget_ms is not None:
            raise NasError("--small-budget-ms goes with one budget; leave it out, or search with --only small")
        targets: tuple[Target, ...] | FrontRequest = FrontRequest(arguments.front, (only,) if only else SKELETONS)
    else:
        targets = targets_of(arguments.budget_ms, arguments.small_budget_ms, only)
    return SearchRequest(
        targets=targets,
        large_space=_given(large_space, SearchRequest.large_space),
        small_space=_given(small_space, SearchRequest.small_space),
        widths=tuple(arguments.widths),
        resolutions=tuple(arguments.resolutions),
        table=arguments.table,
        runtime=arguments.runtime,
        threads=arguments.threads,
        precision=arguments.precision,
        allow_other_device=arguments.allow_other_device,
        estimator=estimator,
        data=arguments.data,
        data_dir=arguments.data_dir,
        images_side=None if arguments.resolutions else side,
        loaders=arguments.loaders,
        minutes=arguments.minutes,
        teacher=arguments.teacher,
        finalists=arguments.train_finalists,
        recipe_level=arguments.recipe_level,
        strategy=_given(arguments.strategy, SURROGATE if estimator == TRAINING else SearchRequest.strategy),
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


def _folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of the run: the one that is named, or one that is named after the budgets."""
    from nas.runs.folder import last_folder, unused_folder

    if arguments.out:
        return Path(arguments.out)
    budgets = ",".join(f"{ms:g}" for ms in arguments.budget_ms) + "ms"
    default = Path("reports") / ("front" if arguments.front is not None else budgets)
    return last_folder(default) if arguments.resume else unused_folder(default)


def _show(record: RunRecord, optima: Sequence[OptimalNetwork], console: RichConsole) -> None:
    """Print the found networks beside the published ones that were measured in the same rounds."""
    from rich import box
    from rich.table import Table

    from nas.runs.optima import better_skeleton
    from nas.search.comparison import COMPARED

    assert record.table is not None
    assert record.estimator is not None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("", overflow="fold")
    for heading in ("px", "ms", "MACs M", "params M", "top-1 % est.", "published"):
        table.add_column(heading, justify="right", no_wrap=True)
    predicted = record.table.other_device
    # Where nothing was measured, the found networks and the two that everybody knows are shown.
    shown = [
        network
        for network in record.networks
        if network.raw_ms is not None or (predicted and (network.found or network.name in COMPARED))
    ]
    for network in shown:
        table.add_row(
            network.name,
            str(network.spec.resolution),
            f"{network.latency_ms:.2f}",
            f"{network.macs / 1e6:.0f}",
            f"{network.params / 1e6:.2f}",
            "–"
            if network.estimate is None
            else "{:.1f} ± {:.1f}".format(*network.estimate) + "*" * network.extrapolated,
            "" if network.published_top1 is None else f"{network.published_top1:.1f}",
            style="bold" if network.found else "",
        )
    console.say("")
    console.print(table)
    how = "predicted, not measured, for" if predicted else "measured whole on"
    console.say(f"ms: {how} {record.table.device}, {record.table.runtime}, normalised")
    console.say(f"est.: {record.estimator.name}: {record.estimator.training_recipe}")
    if any(network.extrapolated for network in shown):
        console.say("*: outside the range that the estimator was fitted to, its uncertainty doubled")
    _show_trainings([network for network in shown if network.found], console)
    for result in record.targets:
        name, budget_ms = result.target.name, result.target.budget_ms
        found = next(network for network in shown if network.target == name)
        text = f"{name}: {found.latency_ms:.2f} of {budget_ms:.3g} ms"
        if found.latency_ms > budget_ms:
            text += ", over the budget: the objective weighs latency, it does not limit it"
        if not result.binds:
            text += "; the budget does not bind, this is the most accurate network of the space"
        console.say(text)
        if result.optimum is not None:
            console.say(f"{name}: {_proven(result.optimum)}")
        if found.nearest:
            console.say(f"{name}: {_nearest(found)}")
        better = better_skeleton(optima, result.target, found.own_estimate[0], record.command)
        if better is not None:
            console.say(f"{name}: {better.text}; to search there: {better.command}")


def _show_trainings(found: Sequence[NetworkResult], console: RichConsole) -> None:
    """Print what the found networks would reach by the trainings that most can be told of."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("top-1 % est. by training", "epochs"):
        table.add_column(heading, overflow="fold")
    for network in found:
        table.add_column(network.name, justify="right", no_wrap=True)
    for level in found[0].recipe_levels:
        if level.title:
            levels = [next(n for n in one.recipe_levels if n.recipe_level == level.recipe_level) for one in found]
            estimates = [f"{one.top1:.1f} ± {one.std:.1f}" for one in levels]
            table.add_row(level.title, level.epochs, *estimates, style="bold" if level.of_run else "")
    if table.row_count:
        console.say("")
        console.print(table)
        console.say("")


def _nearest(network: NetworkResult) -> str:
    """Return the published networks nearest to a found one, with their estimates without them, as text."""
    each = (
        f"{near.name} at {near.resolution} px {near.published_top1:.1f} % "
        f"({near.left_out_top1:.1f}, {near.recipe_level})"
        for near in network.nearest
    )
    return f"nearest published (estimated by a fit without them for the training they had): {', '.join(each)}"


def _proven(optimum: ProvenOptimum) -> str:
    """Return the models' optimum, and how far from it a loop of trials ended, as text."""
    gap = optimum.best.top1 - optimum.loop.top1
    after = ", ".join(f"{runner_up.top1:.3f}" for runner_up in optimum.runners_up)
    return (
        f"proven optimum of the model within {optimum.limit_ms:.3g} ms predicted: {optimum.best.top1:.3f} %"
        + (f" (next best {after})" if after else "")
        + f"; best of {optimum.loop.trials} trials of {optimum.loop.strategy}: {optimum.loop.top1:.3f} %, "
        f"{gap:.3f} below"
    )


if __name__ == "__main__":
    run("search", main)
