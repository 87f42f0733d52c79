"""Start the program of a bundle: this is its `__main__.py`.

It checks what it needs before it imports anything, in a syntax that every Python 3 reads. The file needed.json beside
it in the zip has the packages by the modules that they hold.
"""

import importlib
import json
import sys
import zipfile
from pathlib import Path


def stop(text: str) -> None:
    """End with one line on stderr and status 2."""
    print("measure.pyz: error: " + text, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036, another Python than this package's starts it
        stop("this is Python %d.%d, and it takes 3.10 or newer" % sys.version_info[:2])  # noqa: UP031
    program = Path(__file__).parent.resolve()
    needed = json.loads(zipfile.ZipFile(str(program)).read("needed.json").decode())
    try:
        for module in needed:
            importlib.import_module(module)
    except ImportError as error:
        command = "python -m pip install " + " ".join(needed.values())
        stop(str(error) + "; `" + command + "` installs the packages that it needs")

    from nas.latency.bundle.runner import main

    main(program.parent)
