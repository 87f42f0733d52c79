"""Classify images with a trained network.

    python -m nas.predict reports/20ms/small-fashion-mnist-sample/model.onnx shoe.png bag.jpg

MODEL is an ONNX or TFLite file that nas.export wrote (it needs no torch), a checkpoint, or the folder of a training or
of nas.netadapt.
"""

from __future__ import annotations

import sys

from nas.cli.arguments import Parser, positive_int
from nas.cli.entry import run
from nas.errors import NasError


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    from nas.deploy.prediction import load_classifier

    classifier = load_classifier(arguments.model)
    failures = []
    for image in arguments.images:
        try:
            guesses = classifier.guesses(image, arguments.top)
        except NasError as error:
            failures.append(str(error))
        else:
            print(f"{image}: " + ", ".join(f"{guess.name} {guess.probability:.1%}" for guess in guesses))
    if len(failures) > 1:
        for failure in failures:
            print(failure, file=sys.stderr)
        raise NasError(f"{len(failures)} of {len(arguments.images)} images cannot be read; they are named above")
    if failures:
        raise NasError(failures[0])


def _parser() -> Parser:
    parser = Parser("predict", __doc__)
    parser.add_argument(
        "model", metavar="MODEL", help="an ONNX or TFLite file, a checkpoint, or the folder of a training"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--top", metavar="N", type=positive_int, default=3, help="classes shown per image (default: 3)")
    return parser


if __name__ == "__main__":
    run("predict", main)
