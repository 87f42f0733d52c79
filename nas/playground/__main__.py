"""Write a page in which you build networks by hand, and see their latency and accuracy at once.

    python -m nas.playground --open                  # of this device's latency table
    python -m nas.playground --spec reports/20ms     # begin from the networks that a run found
    python -m nas.playground --table FILE.json       # of another table, also of another device

The page is one file that works offline. In it you change kernels, expansions, SE, activations and depths, move a budget
that a solver keeps, and save the spec for `python -m nas.train`.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import Parser
from nas.cli.console import RichConsole
from nas.cli.entry import run
from nas.cli.flags import add_precision_flags, add_table_flags

if TYPE_CHECKING:
    from nas.latency.table import LatencyTable
    from nas.playground.data import Coverage

PAGE = Path("reports/playground.html")
LISTED = 8  # variants that are named one by one
SPACES = ("mobilenet_v3_large", "mobilenet_v3_small")


def main(argv: list[str] | None = None) -> None:
    """Run the command, and print the path of the page and what is on it."""
    arguments = _parser().parse_args(argv)

    from nas.accuracy.imagenet_prior import ImageNetPrior
    from nas.arch.loading import load_space
    from nas.playground.data import cover, own_starts
    from nas.playground.page import write_playground

    console = RichConsole()
    spaces = [load_space(name) for name in arguments.space]
    prior = ImageNetPrior(arguments.recipe_level) if arguments.recipe_level else ImageNetPrior()
    starts = own_starts(arguments.spec)
    table = _open_table(arguments, console)
    coverages = cover(table, spaces)
    write_playground(arguments.out, table, coverages, prior, starts)
    for coverage in coverages:
        console.say(f"{coverage.space.name}: {_variants_text(coverage)}")
    console.say(f"{arguments.out}: networks on {table.device.cpu}")
    if arguments.open:
        import webbrowser

        webbrowser.open(arguments.out.resolve().as_uri())


def _variants_text(coverage: Coverage) -> str:
    """Return the variants of a space that the page offers, or how many they are."""
    if len(coverage.variants) > LISTED:
        return f"{len(coverage.variants)} of {len(coverage.space.variants)} widths and resolutions"
    return ", ".join(map(str, coverage.variants)) or "no width and resolution has all rows in the table"


def _open_table(arguments: Namespace, console: RichConsole) -> LatencyTable:
    """Return the table of the arguments. Raises NasError if this device has none, and names what measures one."""
    from nas.errors import NasError
    from nas.latency.predictor import check_made_for, open_table
    from nas.latency.table import LatencyTable

    if arguments.table:
        table = LatencyTable.load(arguments.table)
        of = table.runtime
        wanted = arguments.runtime or of.name, arguments.threads or of.threads, arguments.precision or of.precision
        check_made_for(table, *wanted, num_classes=None)
        return table
    wanted = arguments.runtime or "onnxruntime", arguments.threads or 1, arguments.precision or "float32"
    table = open_table(None, wanted[0], wanted[1], console, precision=wanted[2])
    if not table.settled:
        raise NasError(
            f"there is no latency table of this device and runtime yet ({table.path}); `python -m nas.measure` "
            "measures one in a minute or two, and a search does; or name a table with --table"
        )
    return table


def _parser() -> Parser:
    parser = Parser("playground", __doc__)
    add_table_flags(parser)
    add_precision_flags(parser)
    parser.set_defaults(runtime=None, threads=None, precision=None)  # None: those of --table, or the defaults
    parser.add_argument(
        "--spec",
        metavar="SPEC",
        nargs="+",
        action="extend",
        default=[],
        help="networks to begin from: spec files, folders of runs, or published names such as mobilenet_v3_large@0.75",
    )
    parser.add_argument(
        "--space",
        metavar="NAME",
        nargs="+",
        default=list(SPACES),
        help=f"search spaces by name, or paths to .py files (default: {' '.join(SPACES)})",
    )
    parser.add_argument(
        "--recipe-level", metavar="NAME", help="training that estimates speak for (default: mobilenet-v3)"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, default=PAGE, help=f"the page (default: {PAGE})")
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    return parser


if __name__ == "__main__":
    run("playground", main)
