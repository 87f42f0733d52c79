"""Start the program of a bundle: this is its `__main__.py`.

It checks what it needs before it imports anything, in a syntax that every Python 3 reads.
"""

import sys
from pathlib import Path


def stop(text: str) -> None:
    """End with one line on stderr and status 2."""
    print("measure.pyz: error: " + text, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036, another Python than this package's starts it
        stop("this is Python %d.%d, and it takes 3.10 or newer" % sys.version_info[:2])  # noqa: UP031
    try:
        import numpy  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        stop(str(error) + "; `python -m pip install numpy onnxruntime` installs the packages that it needs")

    from nas.latency.bundle.runner import main

    main(Path(__file__).parent.resolve().parent)  # the folder of the zip that this file is in
