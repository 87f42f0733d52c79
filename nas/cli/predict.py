"""Says what is on images, by a trained network::

    python -m nas.predict reports/20ms/small-fashion-mnist-sample/model.onnx shoe.png bag.jpg

MODEL is an ONNX file that nas.export wrote (torch is not needed then), a checkpoint, or the folder of a training.
"""

from __future__ import annotations

import argparse

from nas.cli import Parser, positive_int
from nas.errors import NasError


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    from nas.deploy.prediction import load_predictor

    predictor = load_predictor(args.model)
    failures = []
    for image in args.images:
        try:
            guesses = predictor.guesses(image, args.top)
        except NasError as error:
            failures.append(str(error))
        else:
            print(f"{image}: " + ", ".join(f"{guess.name} {guess.probability:.1%}" for guess in guesses))
    if failures:
        more = f"; and {len(failures) - 1} more" if len(failures) > 1 else ""
        raise NasError(f"{failures[0]}{more}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m nas.predict",
        description=__doc__.partition("::")[0],
        epilog=__doc__.partition("::")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument("--top", metavar="N", type=positive_int, default=3, help="classes an image (default: 3)")
    return parser
