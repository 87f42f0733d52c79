"""Measures the latency table of this CPU, or checks the one there is.

    python -m nas.measure                     # one width and resolution of each space: seconds
    python -m nas.measure --budget-ms 20      # what a search under that budget needs
    python -m nas.measure --all               # every width and resolution: many minutes
    python -m nas.measure --check             # 100 random networks, measured whole, against the table
    python -m nas.measure --profile SPEC      # where a network's time goes, by the runtime's own account
    python -m nas.measure --bundle FILE.zip   # nothing here: a zip to measure on a device without this package

A search measures by itself what it needs; this command is for tables that are made beforehand or checked.
"""

from __future__ import annotations

import dataclasses
import random
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli import Parser, RichConsole, positive_float, positive_int
from nas.errors import NasError
from nas.files import make_folder

if TYPE_CHECKING:
    from nas.arch.space import SearchSpace, Variant
    from nas.latency.runtimes import Runtime
    from nas.latency.table import LatencyTable


HOLDS = 0.03  # a bias beyond it is told as a table that no longer holds


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.mend and not arguments.check:
        parser.error("--mend goes with --check, which finds the factor")
    from nas.accuracy import load_estimator
    from nas.arch.loading import load_space
    from nas.arch.parts import context_of
    from nas.latency.measuring import new_table
    from nas.latency.predictor import LatencyPredictor, open_runtime, open_table
    from nas.latency.table import space_parts
    from nas.latency.table_file import NOISY
    from nas.search.request import SMALL_SHARE
    from nas.search.variants import pick_variants

    console = RichConsole()
    kind = arguments.runtime, arguments.threads, arguments.precision
    spaces = [load_space(name) for name in arguments.space]
    if arguments.bundle:
        _bundle(arguments, spaces, console)
        return
    if arguments.profile:
        _profile(arguments.profile, open_runtime(*kind, console), console)
        return
    if arguments.out and not Path(arguments.out).exists():
        make_folder(Path(arguments.out).parent)  # before anything is measured for it
        table = new_table(open_runtime(*kind, console))
    else:
        name, threads, precision = kind
        allowed = arguments.allow_other_device and arguments.check
        table = open_table(arguments.out, name, threads, console, precision=precision, allow_other_device=allowed)
    console.say(f"device: {table.device.cpu}, {table.runtime}")
    if arguments.check:
        _check(table, spaces, arguments.networks, arguments.mend, console)
        return
    prices = LatencyPredictor(table, console, file=arguments.out)
    for space in spaces:
        at = space.at(_variants(arguments, space))
        if arguments.budget_ms:
            budget = arguments.budget_ms * (SMALL_SHARE if space.name == "mobilenet_v3_small" else 1)
            at = at.at(pick_variants(prices, at, load_estimator("imagenet-prior"), budget))
        asked = list(space_parts(at, table.num_classes))
        keys = {part.key for part in (*asked, *filter(None, map(context_of, asked)))}
        if noisy := [key for key in table.noisy() if key in keys]:
            console.say(f"{len(noisy)} rows were uncertain by over {NOISY:.0%}; they are measured again")
            table.forget(noisy)
        prices.measure_space(at, space.name)
    console.say(
        f"{table.path}: {len(table.rows)} rows, {prices.rows_measured} of them new; "
        f"reference {table.reference.spec.name} {table.reference_ms:.2f} ms"
    )
    if noisy := table.noisy():
        console.say(
            f"{len(noisy)} rows stayed uncertain by over {NOISY:.0%}; the same command measures them again, better on "
            "a quieter machine:"
        )
        for key in noisy:
            console.say(f"  {key}: {table.rows[key].error:.0%}")


def _variants(arguments: Namespace, space: SearchSpace) -> list[Variant]:
    """The widths and resolutions asked for; a budget chooses among all; else 1.0 at 224."""
    from nas.arch.space import Variant

    if arguments.width or arguments.resolution:
        widths, resolutions = arguments.width or space.widths, arguments.resolution or space.resolutions
        return [Variant(width, resolution) for width in widths for resolution in resolutions]
    if arguments.all or arguments.budget_ms:
        return list(space.variants)
    return [variant for variant in space.variants if variant == (1.0, 224)] or [space.variants[0]]


def _bundle(arguments: Namespace, spaces: list[SearchSpace], console: RichConsole) -> None:
    """Writes what a device needs to measure a table without this package."""
    from nas.arch.published import published_spec
    from nas.latency.bundle.writing import bundle_rows, write_bundle
    from nas.search.results import COMPARED, published_networks

    others = arguments.budget_ms, arguments.check, arguments.profile, arguments.out
    if any(others) or arguments.runtime != "onnxruntime":
        raise NasError(
            "--bundle measures nothing here and is of onnxruntime: it goes with --space, --width, --resolution, --all, "
            "--threads and --precision only"
        )
    published, compared = [result.spec for result in published_networks()], map(published_spec, COMPARED)
    sessions = bundle_rows([space.at(_variants(arguments, space)) for space in spaces], published, compared)
    rows = sum(len(session.parts) for session in sessions)
    with console.progress("writing networks") as progress:
        size = write_bundle(
            arguments.bundle,
            sessions,
            threads=arguments.threads,
            precision=arguments.precision,
            on_progress=lambda share: progress(share, f"{rows} rows"),
        )
    console.say(f"{arguments.bundle}: {rows} rows, {size / 1e6:.1f} MB; on the device unzip it and run measure.py")


def _check(table: LatencyTable, spaces: list[SearchSpace], networks: int, mend: bool, console: RichConsole) -> None:
    """Writes the table's errors into it, and prints them; those of another device's table on this one only prints."""
    from nas.latency.device import Device
    from nas.latency.fidelity import check, fidelity_text, held_out

    if table.path is None:
        raise NasError("there is no table of this device yet; `python -m nas.measure` makes one")
    if mend and table.other_device:
        raise NasError("--mend is for a table of this device")
    rng = random.Random(1)
    specs = held_out(table, spaces, networks, rng)
    here = dataclasses.replace(table, device=Device.this())  # measured as if it were of this device
    with console.progress("measuring whole networks") as progress:
        figures, _, _ = check(here, specs, rng=rng, on_progress=lambda share: progress(share, ""))
    if table.other_device:
        console.say(
            "note: the table is of another device; beside this one's times, scaled so that "
            f"{table.reference.spec.name} agrees, its predictions for"
        )
    else:
        table.fidelity = figures
        table.save()
    console.say(fidelity_text(figures))
    factor = 1 / (1 + figures["bias"])
    if mend:
        table.scale_rows([key for key in table.rows if not key.startswith("network ")], factor)
        table.fidelity = None  # those are another table's figures now
        table.save()
        console.say(f"all rows of blocks were multiplied by {factor:.3f}; check again")
    elif abs(figures["bias"]) > max(HOLDS, 2 * figures["noise_mape"]) and not table.other_device:
        console.say(
            f"the table no longer holds: its times multiplied by {factor:.3f} would agree with what this machine takes "
            "today; `python -m nas.measure --check --mend` does that"
        )


def _profile(name: str, runtime: Runtime, console: RichConsole) -> None:
    """Prints a network's milliseconds by kind of operation."""
    from nas.arch.loading import load_spec
    from nas.arch.parts import NetworkPart
    from nas.latency.runtimes import Profiler
    from nas.latency.table import RuntimeId

    spec = load_spec(name)
    if not isinstance(runtime, Profiler):
        raise NasError(f"the runtime {runtime.name} does not tell where time goes; take another with --runtime")
    profile = runtime.profile(NetworkPart(spec))
    total = sum(milliseconds for _, milliseconds in profile)
    console.say(f"{spec.name}, {spec.resolution} px, {RuntimeId.of(runtime)}: {total:.2f} ms while profiled, in")
    shown = [row for row in profile if row[1] >= 0.01 * total]
    rest = sum(milliseconds for _, milliseconds in profile[len(shown) :])
    others = [(f"{len(profile) - len(shown)} others", rest)] if rest else []
    for operation, milliseconds in shown + others:
        console.say(f"{milliseconds:9.3f} ms {milliseconds / total:6.1%}  {operation}")


def _parser() -> Parser:
    parser = Parser("python -m nas.measure", description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME")
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N")
    parser.add_argument("--precision", default="float32", metavar="NAME", help="float32 or int8")
    parser.add_argument(
        "--space", nargs="+", default=["mobilenet_v3_large", "mobilenet_v3_small"], metavar="NAME", help="or paths"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--budget-ms", type=positive_float, metavar="MS", help="the variants that can hold its optimum")
    what.add_argument("--all", action="store_true", help="every width and resolution")
    parser.add_argument("--width", nargs="+", type=positive_float, default=[], metavar="W", help="only these")
    parser.add_argument("--resolution", nargs="+", type=positive_int, default=[], metavar="N", help="only these")
    parser.add_argument("--bundle", metavar="FILE.zip", help="write this, to measure on a device without this package")
    what.add_argument(
        "--check", action="store_true", help="measure random networks and write the errors into the table"
    )
    what.add_argument("--profile", metavar="SPEC", help="where the time of a network goes: its name or a path")
    parser.add_argument(
        "--allow-other-device", action="store_true", help="with --check: how well another device's table holds here"
    )
    parser.add_argument("--networks", type=positive_int, default=100, metavar="N", help="of --check")
    parser.add_argument("--mend", action="store_true", help="with --check: multiply the rows by what makes them agree")
    parser.add_argument("--out", metavar="FILE", help="the table (default: this device's in latency_tables/)")
    return parser
