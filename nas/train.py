"""Run the command `python -m nas.train`; it stands in `nas.cli.train`."""

from nas.cli import run
from nas.cli.train import main

if __name__ == "__main__":
    run(main)
