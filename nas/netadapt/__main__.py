"""Run the command `python -m nas.netadapt`; it stands in `nas.cli.netadapt`."""

from nas.cli import run
from nas.cli.netadapt import main

if __name__ == "__main__":
    run(main)
