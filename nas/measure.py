"""Run the command `python -m nas.measure`; it stands in `nas.cli.measure`."""

from nas.cli import run
from nas.cli.measure import main

if __name__ == "__main__":
    run(main)
