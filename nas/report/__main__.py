"""Draw a run again, or compare several runs, or the latency tables of two devices.

python -m nas.report reports/20ms                        # figures as PNG and SVG in RUN/figures, and RUN/index.html
python -m nas.report reports/20ms --format pdf           # for a paper; the numbers of each figure are beside it as CSV
python -m nas.report reports/20ms reports/20ms-2         # the fronts of both, in reports/comparison
python -m nas.report TABLE1.json TABLE2.json             # the same networks on both devices, in reports/devices
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

from nas.cli.arguments import Parser
from nas.cli.entry import run
from nas.report.formats import DEFAULT_FORMATS, FORMATS


def main(argv: list[str] | None = None) -> None:
    """Run the command, and print the path of the page."""
    parser = Parser("report", __doc__)
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="folder that nas.search wrote; several of them, or two files of latency tables, are compared",
    )
    parser.add_argument(
        "--format",
        metavar="NAME",
        action="extend",
        type=_formats,
        help=f"formats of the figures: {', '.join(FORMATS)}, with commas between them (default: "
        f"{','.join(DEFAULT_FORMATS)})",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder of a comparison (default: reports/comparison, reports/devices)"
    )
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    arguments = parser.parse_args(argv)

    from nas.report.writing import write_asked

    page = write_asked(arguments.runs, arguments.out, tuple(dict.fromkeys(arguments.format or DEFAULT_FORMATS)))
    print(page)
    if arguments.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _formats(text: str) -> list[str]:
    """Parse names of formats with commas between them."""
    names = text.split(",")
    for name in names:
        if name not in FORMATS:
            raise ArgumentTypeError(f"{name!r} is not a format of figures; known: {', '.join(FORMATS)}")
    return names


if __name__ == "__main__":
    run("report", main)
