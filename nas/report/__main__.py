"""Draw a run again: figures as PNG and SVG in RUN/figures, and RUN/index.html that shows them.

python -m nas.report reports/20ms          # a few seconds
"""

from __future__ import annotations

from pathlib import Path

from nas.cli.arguments import Parser
from nas.cli.entry import run


def main(argv: list[str] | None = None) -> None:
    """Run the command, and print the path of the page."""
    parser = Parser("report", __doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder that nas.search wrote")
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    arguments = parser.parse_args(argv)

    from nas.report.writing import write_report

    page = write_report(arguments.run)
    print(page)
    if arguments.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


if __name__ == "__main__":
    run("report", main)
