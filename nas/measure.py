"""Measure the latency table of this CPU, or check the one that exists.

    python -m nas.measure                     # one width and resolution of each space: seconds
    python -m nas.measure --budget-ms 20      # the rows that a search under that budget needs
    python -m nas.measure --all               # every width and resolution: many minutes
    python -m nas.measure --check             # compare the table with 100 networks, measured whole
    python -m nas.measure --profile SPEC      # a network's time by kind of operation, as the runtime reports it
    python -m nas.measure --bundle FILE.zip   # write a zip that measures on a device without this package
    python -m nas.measure --from RESULTS      # make a table of what a bundle for Android has measured on a phone

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
    from nas.latency.predictor import LatencyPredictor
    from nas.latency.runtimes import Runtime
    from nas.latency.table import LatencyTable


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    from nas.arch.loading import load_space
    from nas.latency.predictor import open_runtime

    console = RichConsole()
    if arguments.results:
        _results(arguments, parser, console)
        return
    if arguments.out:
        raise NasError("--out names the table of --from; give --from RESULTS, or name a table with --table")
    if arguments.android and (not arguments.bundle or arguments.runtime != "litert"):
        raise NasError("--android writes a bundle of LiteRT: it goes with --bundle FILE.zip --runtime litert")
    arguments.runtime = arguments.runtime or "onnxruntime"
    arguments.threads = arguments.threads or 1
    arguments.precision = arguments.precision or "float32"
    spaces = [load_space(name) for name in arguments.space]
    if arguments.bundle:
        _bundle(arguments, parser, spaces, console)
        return
    if arguments.profile:
        runtime = open_runtime(arguments.runtime, arguments.threads, arguments.precision, console)
        _profile(arguments.profile, runtime, console)
        return
    table = _open_table(arguments, console)
    console.say(f"device: {table.device.cpu}, {table.runtime}")
    if arguments.check:
        _check(table, spaces, arguments.networks, console)
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
    from nas.search.near_optimum import fill_and_learn
    from nas.search.request import SMALL_SHARE
    from nas.search.variants import pick_variants

    rows_before, estimator = set(table.rows), load_estimator("imagenet-prior")
    predictor = LatencyPredictor(table, console)
    for space in spaces:
        at, known = space.at(_variants(arguments, space)), set(table.rows)
        if arguments.budget_ms:
            budget_ms = arguments.budget_ms * (SMALL_SHARE if space.name == "mobilenet_v3_small" else 1)
            at = at.at(pick_variants(predictor, at, estimator, budget_ms, title=space.name))
        parts = list(space_parts(at, table.num_classes))
        keys = {part.key for part in (*parts, *filter(None, map(context_of, parts)))}
        if noisy := [key for key in table.noisy() if key in keys & known]:
            console.say(f"{len(noisy)} rows were uncertain by over {NOISY:.0%}; they are measured again")
            table.forget(noisy)
        fill_and_learn(predictor, at, estimator, space.name)
    _repeat_contradicting(predictor, console)
    console.say(
        f"{table.path}: {len(table.rows)} rows, {len(table.rows.keys() - rows_before)} of them new, corrected by "
        f"{len(table.correction.evidence)} networks; reference {table.reference.spec.name} {table.reference_ms:.2f} ms"
    )
    if noisy := table.noisy():
        console.say(
            f"{len(noisy)} rows are still uncertain by over {NOISY:.0%}; the same command measures them again, better "
            "on a quieter machine:"
        )
        for key in noisy:
            console.say(f"  {key}: {table.rows[key].error:.0%}")


def _repeat_contradicting(predictor: LatencyPredictor, console: RichConsole) -> None:
    """Measure the networks again whose times contradict their rows, and list those that still do."""
    from nas.latency.learning import CONTRADICTION

    table = predictor.table
    if specs := table.contradicting:
        console.say(f"{len(specs)} networks contradict their rows by over {CONTRADICTION:.0%}; they are measured again")
        table.forget(predictor.network(spec).key for spec in specs)
        predictor.measure(specs, "measuring them again")
    if specs := table.contradicting:
        console.say(f"{len(specs)} networks still do, and the table does not learn from them:")
        for spec in specs:
            console.say(
                f"  {spec.id} at {spec.resolution} px: {table.part_ms(predictor.network(spec)):.3f} ms measured, "
                f"{table.predict(spec).time:.3f} ms predicted"
            )


def _variants(arguments: Namespace, space: SearchSpace) -> list[Variant]:
    """Return the widths and resolutions that were asked for; all for a budget to choose from; else 1.0 at 224."""
    from nas.arch.skeleton import Variant

    if arguments.widths or arguments.resolutions:
        widths, resolutions = arguments.widths or space.widths, arguments.resolutions or space.resolutions
        return [Variant(width, resolution) for width in widths for resolution in resolutions]
    if arguments.all or arguments.budget_ms:
        return list(space.variants)
    return [variant for variant in space.variants if variant == (1.0, 224)] or [space.variants[0]]


def _bundle(arguments: Namespace, parser: Parser, spaces: list[SearchSpace], console: RichConsole) -> None:
    """Write the files with which a device measures a table without this package."""
    from nas.arch.published import published_spec
    from nas.latency.bundle.android_writing import write_android_bundle
    from nas.latency.bundle.writing import plan_batches, write_bundle
    from nas.search.comparison import COMPARED, published_networks

    if flag := _given(arguments, parser, "budget_ms", "check", "profile", "networks", "table", "allow_other_device"):
        raise NasError(
            "--bundle measures nothing here: it goes with --android, --space, --widths, --resolutions, --all, "
            f"--runtime, --threads and --precision only, not with {flag}"
        )
    published, compared = [result.spec for result in published_networks()], map(published_spec, COMPARED)
    batches = plan_batches([space.at(_variants(arguments, space)) for space in spaces], published, compared)
    rows = sum(len(batch.parts) for batch in batches)
    path, threads, precision = arguments.bundle, arguments.threads, arguments.precision
    with console.progress("writing networks") as progress:
        if arguments.android:
            size, unzipped = write_android_bundle(
                path, batches, threads=threads, precision=precision, on_progress=progress
            )
            use = f"{unzipped / 1e6:.0f} MB unzipped; beside the phone unzip it and run measure.sh"
        else:
            size = write_bundle(
                path,
                batches,
                threads=threads,
                runtime=arguments.runtime,
                precision=precision,
                on_progress=progress,
            )
            use = "on the device unzip it and run measure.pyz"
    console.say(f"{path}: {rows} rows, {size / 1e6:.1f} MB; {use}")


def _results(arguments: Namespace, parser: Parser, console: RichConsole) -> None:
    """Make a table of what a bundle for Android has measured on a phone."""
    from nas.latency.bundle.android_results import NEW, AndroidResults
    from nas.latency.table_file import NOISY

    others = (
        *("bundle", "android", "budget_ms", "all", "check", "profile", "networks"),
        *("table", "space", "widths", "resolutions", "allow_other_device"),
    )
    if flag := _given(arguments, parser, *others):
        raise NasError(f"--from measures nothing: it goes with --out only, not with {flag}")
    results = AndroidResults.read(arguments.results)
    of = results.runtime
    for flag, wanted, has in (
        ("--runtime", arguments.runtime, of.name),
        ("--threads", arguments.threads, of.threads),
        ("--precision", arguments.precision, of.precision),
    ):
        if wanted not in (has, None):
            raise NasError(f"{results.path} is of {of}; leave {flag} {wanted} out")
    table = results.table(arguments.out)
    if table.path.exists():
        raise NasError(f"{table.path} exists already; remove it, or name another file with --out")
    if warning := results.warning:
        console.say(warning)
    table.save()
    if noisy := table.noisy():
        console.say(
            f"uncertain by over {NOISY:.0%}: {_counted(len(noisy), 'row')}, for example {noisy[0]!r}; if there are "
            f"many, close the phone's other apps, and {NEW}"
        )
    console.say(
        f"{table.path}: {table.device.cpu}, {_counted(len(table.rows), 'row')}, "
        f"{_counted(len(table.networks), 'network')}, reference {table.reference.spec.name} {table.reference_ms:.2f} ms"
    )
    console.say(f"next: {table.runtime.search_command(table.path)}")


def _given(arguments: Namespace, parser: Parser, *names: str) -> str | None:
    """Return the flag of the first of these arguments that has another value than its default, if any."""
    given = (name for name in names if getattr(arguments, name) != parser.get_default(name))
    return next((f"--{name.replace('_', '-')}" for name in given), None)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _check(table: LatencyTable, spaces: list[SearchSpace], networks: int, console: RichConsole) -> None:
    """Compare the table with whole networks, print its errors and write them into the table, which learns from them.

    Half of the networks are random, half are near the optimum of random budgets. The errors of another device's table
    on this device are only printed.
    """
    from nas.accuracy import load_estimator
    from nas.latency.device import Device
    from nas.latency.fidelity import NEAR_OPTIMAL, RANDOM, check, covered, fidelity_text, held_out, of_population
    from nas.search.near_optimum import additive_model, near_optimal_draw

    if not table.settled:
        raise NasError("there is no table of this device yet; `python -m nas.measure` makes one")
    views, rng = covered(table, spaces), random.Random(len(table.networks))
    here = table
    if table.other_device:
        # Networks of another device would tell a tilt: what the devices differ by.
        here = dataclasses.replace(table, device=Device.this(), networks={})
        console.say(
            "note: the table is of another device; its predictions are compared with the times of this one, which are "
            f"scaled so that {table.reference.spec.name} agrees"
        )
    estimator = load_estimator("imagenet-prior")
    draw_optimum = near_optimal_draw(table, estimator, rng)
    populations = {RANDOM: lambda space: space.sample(rng)}
    if all(additive_model(estimator, view) for view in views):
        populations[NEAR_OPTIMAL] = draw_optimum
    checks = []
    for population, draw in populations.items():
        drawn = held_out(table, views, max(1, networks // 2), draw)
        specs = [of_population(spec, population) for spec in drawn]
        if not specs:
            console.say(
                f"all {population} networks that were drawn are measured already: there is none to compare with"
            )
            continue
        with console.progress(f"measuring {population} networks") as progress:
            checks.append(check(table, specs, population=population, rng=rng, here=here, on_progress=progress))
        console.say(fidelity_text(checks[-1].fidelity))
    if checks and not table.other_device:
        checked = {one.fidelity.population: one.fidelity for one in checks}
        table.fidelity = tuple(({known.population: known for known in table.fidelity} | checked).values())
        for timings in (timings for one in checks for timings in one.sessions):
            table.remember(timings)
        table.save()
        console.say(f"{table.path} has learned from them; another check shows what it is worth by now")


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
        "--check", action="store_true", help="measure networks whole and write the table's errors into it"
    )
    task.add_argument("--profile", metavar="SPEC", help="print where a network's time goes: its name or its file")
    parser.add_argument(
        "--networks",
        metavar="N",
        type=positive_int,
        default=100,
        help="number of networks that --check measures, half of them random, half near-optimal (default: 100)",
    )
    parser.add_argument(
        "--bundle", metavar="FILE.zip", help="write this zip, which measures on a device without this package"
    )
    parser.add_argument(
        "--android",
        action="store_true",
        help="with --bundle and --runtime litert: the zip measures on a phone that is connected to a computer",
    )
    parser.add_argument(
        "--from", metavar="RESULTS", dest="results", help="make a table of what a bundle of --android has measured"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="the table of --from (default: named after the phone, in latency_tables/)"
    )
    add_table_flags(parser)
    add_runtime_flags(parser)
    parser.set_defaults(runtime=None, threads=None, precision=None)  # None: not given, as --from takes them
    return parser


if __name__ == "__main__":
    run("measure", main)
