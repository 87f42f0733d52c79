"""Run the command `python -m nas`; it stands in `nas.cli.overview`."""

from nas.cli import run
from nas.cli.overview import main

if __name__ == "__main__":
    run(main)
