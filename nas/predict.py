"""Run the command `python -m nas.predict`; it stands in `nas.cli.predict`."""

from nas.cli import run
from nas.cli.predict import main

if __name__ == "__main__":
    run(main)
