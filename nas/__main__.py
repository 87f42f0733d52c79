"""List the commands, search spaces, published networks, latency tables, estimators, strategies and runtimes.

python -m nas                # a second; it loads neither torch nor a runtime
python -m nas --published    # every published network with its costs and accuracy
python -m nas COMMAND ...    # the same as python -m nas.COMMAND
"""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import Parser
from nas.cli.console import RichConsole
from nas.cli.entry import run
from nas.errors import NasError, unknown_name
from nas.names import resolve

if TYPE_CHECKING:
    from rich.table import Table

    from nas.arch.space import SearchSpace

COMMANDS = {
    "search": "nas.search.__main__:main",
    "train": "nas.train:main",
    "export": "nas.export:main",
    "predict": "nas.predict:main",
    "netadapt": "nas.netadapt.__main__:main",
    "measure": "nas.measure:main",
    "report": "nas.report.__main__:main",
    "playground": "nas.playground.__main__:main",
}
Rows = list[tuple[str, str]]


def main(called: str = "nas") -> None:
    """Run the command that the first argument names, such as `nas search --budget-ms 20`, or else the overview.

    `called` is the words that ran this program: `nas` or `python -m nas`.
    """
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in COMMANDS:
        sys.argv[:2] = [f"{called} {command}"]  # the command finds its own arguments, as if it alone had been called
        run(command, resolve("command", command, COMMANDS))
    else:
        sys.argv[0] = called
        run("overview", overview)


def overview(argv: list[str] | None = None) -> None:
    """Print all that there is by name."""
    parser = Parser("overview", __doc__)
    parser.add_argument("command", metavar="COMMAND", nargs="?", help=f"run a command: {', '.join(COMMANDS)}")
    parser.add_argument(
        "--published", action="store_true", help="list every published network with its costs and accuracy"
    )
    arguments, others = parser.parse_known_args(argv)
    if arguments.command is not None:  # `main` has run it if it is known and comes first
        if arguments.command in COMMANDS:
            raise NasError(f"the command {arguments.command} must come before its flags")
        raise unknown_name("command", arguments.command, list(COMMANDS))
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    console = RichConsole(file_width=160)
    if arguments.published:
        console.print(networks_table())
        return
    from rich.table import Table
    from rich.text import Text

    from nas.latency.table import TABLES

    console.say("Hardware-aware architecture search and NetAdapt around MobileNetV3, for CPUs.")
    for title, rows in (
        ("Commands: python -m nas.NAME --help", commands()),
        ("Search spaces", spaces()),
        ("Published networks: python -m nas --published for all", networks()),
        (f"Latency tables in {TABLES}", tables(TABLES)),
        ("Choices", choices()),
    ):
        grid = Table.grid(padding=(0, 2))
        for name, text in rows:
            grid.add_row(Text(f"  {name}"), Text(text))
        console.print(Text(f"\n{title}", style="bold"))
        console.print(grid)


# One function a section: names and a line about each ---------------------------------------------------


def commands() -> Rows:
    """Return the commands and the first lines of their docstrings, which are read without importing them."""
    rows = []
    for name, target in COMMANDS.items():
        found = find_spec(target.partition(":")[0])
        assert found is not None, target
        code = ast.parse(Path(str(found.origin)).read_text(encoding="utf-8"))
        line = (ast.get_docstring(code) or "").partition("\n")[0]
        rows.append((name, line.rstrip(":.")))
    return rows


def spaces() -> Rows:
    """Return the search spaces and their sizes."""
    from nas.arch.loading import load_space, space_names

    return [(name, _space_line(load_space(name))) for name in space_names()]


def networks() -> Rows:
    """Return the groups of published networks and a few names of each."""
    from nas.arch.families import FAMILIES
    from nas.arch.published import published_names

    listed = [name for name in published_names() if name not in FAMILIES]
    ofa = [name for name in listed if name.startswith("ofa_")]
    v4 = [name for name in listed if name.startswith("mobilenetv4_")]
    timm = [name for name in listed if name not in ofa and name not in v4]
    return [
        ("families", f"{', '.join(FAMILIES)}; NAME@WIDTH for a width, such as mobilenet_v3_large@0.75"),
        (f"{len(ofa)} of Once-for-All", f"{', '.join(ofa[:3])}, …"),
        (f"{len(timm)} of timm", f"{', '.join(timm[:5])}, …"),
        (f"{len(v4)} of MobileNetV4", ", ".join(v4)),
    ]


def tables(folder: Path) -> Rows:
    """Return the latency tables of a folder, with the error of each that cannot be read."""
    from nas.latency.table import LatencyTable

    rows = []
    for path in sorted(folder.glob("*.json")):
        try:
            table = LatencyTable.load(path)
        except NasError as error:
            rows.append((path.name, str(error)))
        else:
            rows.append((path.name, f"{table.device.cpu}; {table.runtime}; {len(table.rows):,} rows; {table.created}"))
    return rows or [("none yet", "python -m nas.search makes one if there is none; so does python -m nas.measure")]


def choices() -> Rows:
    """Return what can be chosen by name: estimators, strategies and runtimes."""
    from nas.accuracy import ESTIMATORS
    from nas.latency.runtimes import RUNTIMES
    from nas.search.strategies import STRATEGIES

    known = {"estimators": ESTIMATORS, "strategies": STRATEGIES, "runtimes": RUNTIMES}
    return [(name, ", ".join(names)) for name, names in known.items()]


def networks_table() -> Table:
    """Return every published network with its costs and its published accuracies, each with resolution and recipe."""
    from rich.table import Table

    from nas.arch.cost import count_cost
    from nas.arch.published import published_results

    table = Table("network", "px", "params (M)", "MACs (M)", "top-1 (%)", "trained by", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:5]:
        column.justify = "right"
    for spec, top1, recipe, _ in published_results():
        cost = count_cost(spec)
        figures = (spec.resolution, f"{cost.params / 1e6:.2f}", f"{cost.macs / 1e6:.1f}", f"{top1:.1f}")
        table.add_row(spec.name, *map(str, figures), recipe)
    return table


def _space_line(space: SearchSpace) -> str:
    widths, resolutions = space.widths, space.resolutions
    return (
        f"{space.size:.0e} networks of {len(space.stages)} stages; widths {min(widths):g} to {max(widths):g}; "
        f"{min(resolutions)} to {max(resolutions)} px"
    )


if __name__ == "__main__":
    main("python -m nas")
