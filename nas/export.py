"""Run the command `python -m nas.export`; it stands in `nas.cli.export`."""

from nas.cli import run
from nas.cli.export import main

if __name__ == "__main__":
    run(main)
