"""What there is: commands, search spaces, published networks, latency tables, estimators, strategies, runtimes::

python -m nas                # a second; loads neither torch nor a runtime
python -m nas --networks     # every published network with its costs and accuracy
"""

from __future__ import annotations

import ast
import sys
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nas.accuracy import ESTIMATORS
from nas.arch.cost import count_cost
from nas.arch.loading import load_space, space_names
from nas.arch.published import FAMILIES, published_names, published_results
from nas.arch.space import SearchSpace
from nas.cli import Parser
from nas.errors import NasError
from nas.latency.runtimes import RUNTIMES
from nas.latency.table import TABLES, LatencyTable
from nas.search.strategies import STRATEGIES

CHOICES = {"estimators": ESTIMATORS, "strategies": STRATEGIES, "runtimes": RUNTIMES}
Rows = list[tuple[str, str]]


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m nas", description="List what there is.")
    parser.add_argument(
        "--networks", action="store_true", help="list every published network with its costs and accuracy"
    )
    arguments = parser.parse_args(argv)
    # Into a file or a pipe goes every column whole; a terminal is as wide as it is.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    if arguments.networks:
        console.print(networks_table())
        return
    console.print("Hardware-aware architecture search and NetAdapt around MobileNetV3, for CPUs.")
    for title, rows in (
        ("Commands: python -m nas.NAME --help", commands()),
        ("Search spaces", spaces()),
        ("Published networks: python -m nas --networks for all", networks()),
        (f"Latency tables in {TABLES}", tables(TABLES)),
        ("To choose from", [(kind, ", ".join(known)) for kind, known in CHOICES.items()]),
    ):
        grid = Table.grid(padding=(0, 2))
        for name, text in rows:
            grid.add_row(f"  {name}", text)
        console.print(f"\n{title}", style="bold")
        console.print(grid)


# One function a section: names and a line about each ---------------------------------------------------


def commands() -> Rows:
    """The modules of `nas` that are run, by the first line of their docstrings; none is imported."""
    rows = []
    for file in sorted(Path(str(files("nas") / "cli")).glob("[a-z]*.py")):
        if file.stem != "overview":
            line = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            rows.append((file.stem, line.rstrip(":.")))
    return rows


def spaces() -> Rows:
    return [(name, _space_line(load_space(name))) for name in space_names()]


def networks() -> Rows:
    listed = [name for name in published_names() if name not in FAMILIES]
    ofa = [name for name in listed if name.startswith("ofa_")]
    timm = [name for name in listed if name not in ofa]
    return [
        ("families", f"{', '.join(FAMILIES)}; NAME@WIDTH for a width, such as mobilenet_v3_large@0.75"),
        (f"{len(ofa)} of Once-for-All", f"{', '.join(ofa[:3])}, …"),
        (f"{len(timm)} of timm", f"{', '.join(timm[:5])}, …"),
    ]


def tables(folder: Path) -> Rows:
    rows = []
    for path in sorted(folder.glob("*.json")):
        try:
            table = LatencyTable.load(path)
        except NasError as error:
            rows.append((path.name, str(error)))
        else:
            rows.append((path.name, f"{table.device.cpu}; {table.runtime}; {len(table.rows):,} rows; {table.created}"))
    return rows or [("none yet", "python -m nas.measure makes one; python -m nas.search too, if there is none")]


def networks_table() -> Table:
    """Every published network: its costs, and each accuracy published for it with the resolution and the recipe."""
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
