"""Measure the latency table of this CPU, or check the one that exists.

    python -m nas.measure                     # one width and resolution of each space: seconds
    python -m nas.measure --budget-ms 20      # the rows that a search under that budget needs
    python -m nas.measure --all               # every width and resolution: many minutes
    python -m nas.measure --check             # compare the table with 100 random networks, measured whole
    python -m nas.measure --profile SPEC      # a network's time by kind of operation, as the runtime reports it
    python -m nas.measure --bundle FILE.zip   # write a zip that measures on a device without this package

A search measures the rows that it needs itself. This command is for tables that are made beforehand or checked.
"""

from __future__ import annotations

import dataclasses
import random
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import Parser, positive_int
from nas.cli.console import RichConsole
from nas.cli.entry import run
from nas.cli.flags import add_budget_flag, add_runtime_flags, add_table_flags, add_variant_flags
from nas.errors import NasError
from nas.files import make_folder

if TYPE_CHECKING:
    from nas.arch.skeleton import Variant
    from nas.arch.space import SearchSpace
    from nas.latency.runtimes import Runtime
    from nas.latency.table import LatencyTable

LARGEST_BIAS = 0.03  # a table with a larger bias is reported as one that no longer holds


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.recalibrate and not arguments.check:
        parser.error("--recalibrate goes with --check, which finds the factor")
    from nas.arch.loading import load_space
    from nas.latency.predictor import open_runtime

    console = RichConsole()
    spaces = [load_space(name) for name in arguments.space]
    if arguments.bundle:
        _bundle(arguments, spaces, console)
        return
    if arguments.profile:
        runtime = open_runtime(arguments.runtime, arguments.threads, arguments.precision, console)
        _profile(arguments.profile, runtime, console)
        return
    table = _open_table(arguments, console)
    console.say(f"device: {table.device.cpu}, {table.runtime}")
    if arguments.check:
        _check(table, spaces, arguments.networks, arguments.recalibrate, console)
    else:
        _measure(table, spaces, arguments, console)


def _open_table(arguments: Namespace, console: RichConsole) -> LatencyTable:
    """Return the table that the arguments name, or a new one where there is none yet."""
    from nas.latency.measuring import new_table
    from nas.latency.predictor import open_runtime, open_table

    if arguments.table and not Path(arguments.table).exists():
        make_folder(Path(arguments.table).parent)  # fails before anything is measured for it
        runtime = open_runtime(arguments.runtime, arguments.threads, arguments.precision, console)
        return new_table(runtime, path=arguments.table)
    return open_table(
        arguments.table,
        arguments.runtime,
        arguments.threads,
        console,
        precision=arguments.precision,
        allow_other_device=arguments.allow_other_device and arguments.check,
    )


def _measure(table: LatencyTable, spaces: list[SearchSpace], arguments: Namespace, console: RichConsole) -> None:
    """Fill the table's rows for the spaces, and measure their uncertain rows again."""
    from nas.accuracy import load_estimator
    from nas.arch.parts import context_of
    from nas.latency.predictor import LatencyPredictor
    from nas.latency.table import space_parts
    from nas.latency.table_file import NOISY
    from nas.search.request import SMALL_SHARE
    from nas.search.variants import pick_variants

    rows_before = set(table.rows)
    predictor = LatencyPredictor(table, console)
    for space in spaces:
        at = space.at(_variants(arguments, space))
        if arguments.budget_ms:
            budget_ms = arguments.budget_ms * (SMALL_SHARE if space.name == "mobilenet_v3_small" else 1)
            at = at.at(pick_variants(predictor, at, load_estimator("imagenet-prior"), budget_ms))
        parts = list(space_parts(at, table.num_classes))
        keys = {part.key for part in (*parts, *filter(None, map(context_of, parts)))}
        if noisy := [key for key in table.noisy() if key in keys]:
            console.say(f"{len(noisy)} rows were uncertain by over {NOISY:.0%}; they are measured again")
            table.forget(noisy)
        predictor.fill_space(at, space.name)
    console.say(
        f"{table.path}: {len(table.rows)} rows, {len(table.rows.keys() - rows_before)} of them new; "
        f"reference {table.reference.spec.name} {table.reference_ms:.2f} ms"
    )
    if noisy := table.noisy():
        console.say(
            f"{len(noisy)} rows are still uncertain by over {NOISY:.0%}; the same command measures them again, better "
            "on a quieter machine:"
        )
        for key in noisy:
            console.say(f"  {key}: {table.rows[key].error:.0%}")


def _variants(arguments: Namespace, space: SearchSpace) -> list[Variant]:
    """Return the widths and resolutions that were asked for; all for a budget to choose from; else 1.0 at 224."""
    from nas.arch.skeleton import Variant

    if arguments.widths or arguments.resolutions:
        widths, resolutions = arguments.widths or space.widths, arguments.resolutions or space.resolutions
        return [Variant(width, resolution) for width in widths for resolution in resolutions]
    if arguments.all or arguments.budget_ms:
        return list(space.variants)
    return [variant for variant in space.variants if variant == (1.0, 224)] or [space.variants[0]]


def _bundle(arguments: Namespace, spaces: list[SearchSpace], console: RichConsole) -> None:
    """Write the files with which a device measures a table without this package."""
    from nas.arch.published import published_spec
    from nas.latency.bundle.writing import plan_batches, write_bundle
    from nas.search.comparison import COMPARED, published_networks

    others = arguments.budget_ms, arguments.check, arguments.profile, arguments.table
    if any(others) or arguments.runtime != "onnxruntime":
        raise NasError(
            "--bundle measures nothing here and is of onnxruntime: it goes with --space, --widths, --resolutions, "
            "--all, --threads and --precision only"
        )
    published, compared = [result.spec for result in published_networks()], map(published_spec, COMPARED)
    batches = plan_batches([space.at(_variants(arguments, space)) for space in spaces], published, compared)
    rows = sum(len(batch.parts) for batch in batches)
    with console.progress("writing networks") as progress:
        size = write_bundle(
            arguments.bundle,
            batches,
            threads=arguments.threads,
            precision=arguments.precision,
            on_progress=progress,
        )
    console.say(f"{arguments.bundle}: {rows} rows, {size / 1e6:.1f} MB; on the device unzip it and run measure.pyz")


def _check(
    table: LatencyTable, spaces: list[SearchSpace], networks: int, recalibrate: bool, console: RichConsole
) -> None:
    """Compare the table with random networks, print its errors, and write them into the table.

    The errors of another device's table on this device are only printed.
    """
    from nas.latency.device import Device
    from nas.latency.fidelity import check, fidelity_text, held_out

    if not table.settled:
        raise NasError("there is no table of this device yet; `python -m nas.measure` makes one")
    if recalibrate and table.other_device:
        raise NasError("--recalibrate is for a table of this device")
    rng = random.Random(1)
    specs = held_out(table, spaces, networks, rng)
    here = dataclasses.replace(table, device=Device.this())  # measured as if it were of this device
    with console.progress("measuring whole networks") as progress:
        fidelity, _, _ = check(here, specs, rng=rng, on_progress=progress)
    if table.other_device:
        console.say(
            "note: the table is of another device; its predictions are compared with the times of this one, which are "
            f"scaled so that {table.reference.spec.name} agrees"
        )
    else:
        table.fidelity = fidelity
        table.save()
    console.say(fidelity_text(fidelity))
    factor = 1 / (1 + fidelity.bias)
    if recalibrate:
        table.scale_rows([key for key in table.rows if not key.startswith("network ")], factor)
        table.fidelity = None  # the figures were those of the table before
        table.save()
        console.say(f"all rows of blocks were multiplied by {factor:.3f}; check the table again")
    elif abs(fidelity.bias) > max(LARGEST_BIAS, 2 * fidelity.noise_mape) and not table.other_device:
        console.say(
            f"the table no longer holds: its times multiplied by {factor:.3f} would agree with what this machine takes "
            "today; `python -m nas.measure --check --recalibrate` does that"
        )


def _profile(name: str, runtime: Runtime, console: RichConsole) -> None:
    """Print a network's milliseconds by kind of operation."""
    from nas.arch.loading import load_spec
    from nas.arch.parts import NetworkPart
    from nas.latency.runtimes import Profiler
    from nas.latency.table import RuntimeId

    spec = load_spec(name)
    if not isinstance(runtime, Profiler):
        raise NasError(f"the runtime {runtime.name} cannot profile; name another one with --runtime")
    profile = runtime.profile(NetworkPart(spec))
    total = sum(milliseconds for _, milliseconds in profile)
    console.say(f"{spec.name}, {spec.resolution} px, {RuntimeId.of(runtime)}: {total:.2f} ms while profiled, in")
    shown = [row for row in profile if row[1] >= 0.01 * total]
    rest = sum(milliseconds for _, milliseconds in profile[len(shown) :])
    others = [(f"{len(profile) - len(shown)} others", rest)] if rest else []
    for operation, milliseconds in shown + others:
        console.say(f"{milliseconds:9.3f} ms {milliseconds / total:6.1%}  {operation}")


def _parser() -> Parser:
    parser = Parser("measure", __doc__)
    parser.add_argument(
        "--space",
        metavar="NAME",
        nargs="+",
        default=["mobilenet_v3_large", "mobilenet_v3_small"],
        help="search spaces by name, or paths to .py files (default: mobilenet_v3_large mobilenet_v3_small)",
    )
    add_variant_flags(parser)
    task = parser.add_mutually_exclusive_group()
    add_budget_flag(task, "measure the variants that can hold its optimum")
    task.add_argument("--all", action="store_true", help="measure every width and resolution")
    task.add_argument(
        "--check", action="store_true", help="measure random networks and write the table's errors into it"
    )
    task.add_argument("--profile", metavar="SPEC", help="print where a network's time goes: its name or its file")
    parser.add_argument(
        "--networks",
        metavar="N",
        type=positive_int,
        default=100,
        help="number of networks that --check measures (default: 100)",
    )
    parser.add_argument(
        "--recalibrate",
        action="store_true",
        help="with --check: multiply the rows by the factor that makes them agree with the networks",
    )
    parser.add_argument(
        "--bundle", metavar="FILE.zip", help="write this zip, which measures on a device without this package"
    )
    add_table_flags(parser)
    add_runtime_flags(parser)
    return parser


if __name__ == "__main__":
    run("measure", main)
