"""Run the command `python -m nas.report`; it stands in `nas.cli.report`."""

from nas.cli import run
from nas.cli.report import main

if __name__ == "__main__":
    run(main)
