"""Run the command `python -m nas.search`; it stands in `nas.cli.search`."""

from nas.cli import run
from nas.cli.search import main

if __name__ == "__main__":
    run(main)
