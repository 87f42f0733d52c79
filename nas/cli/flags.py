"""Flags that several commands share, each declared once.

A command that must know whether a flag was given sets the flag's default to None (`parser.set_defaults(seed=None)`).
"""

from __future__ import annotations

from argparse import ArgumentParser, _ArgumentGroup
from pathlib import Path

from nas.accuracy import ESTIMATORS
from nas.cli.arguments import natural_int, positive_float, positive_int, resolution
from nas.latency.runtimes import RUNTIMES

DATA, RECIPE = "fashion-mnist-sample", "quick"  # of a training, unless others are given


def add_budget_flag(parser: ArgumentParser | _ArgumentGroup, purpose: str, required: bool = False) -> None:
    """Add one latency budget; `purpose` says in the help what it is for."""
    parser.add_argument("--budget-ms", metavar="MS", type=positive_float, required=required, help=purpose)


def add_table_flags(parser: ArgumentParser) -> None:
    """Add the latency table and its runtime."""
    parser.add_argument("--table", metavar="FILE", help="latency table (default: this device's in latency_tables/)")
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        default="onnxruntime",
        help=f"runtime of the networks: {', '.join(RUNTIMES)} (default: onnxruntime)",
    )


def add_precision_flags(parser: ArgumentParser) -> None:
    """Add the threads and the precision of a table's runtime."""
    parser.add_argument(
        "--threads", metavar="N", type=positive_int, default=1, help="threads of the runtime (default: 1)"
    )
    parser.add_argument(
        "--precision",
        metavar="NAME",
        default="float32",
        help="precision of the networks: float32 or int8 (default: float32)",
    )


def add_runtime_flags(parser: ArgumentParser) -> None:
    """Add the threads and the precision of a table's runtime, and the permission to use another device's table."""
    add_precision_flags(parser)
    parser.add_argument(
        "--allow-other-device",
        action="store_true",
        help="accept another device's --table: a search relies on its predictions, a check compares this device to it",
    )


def add_variant_flags(parser: ArgumentParser) -> None:
    """Add the widths and resolutions of search spaces."""
    parser.add_argument(
        "--widths", metavar="W", nargs="+", type=positive_float, default=[], help="only these width multipliers"
    )
    parser.add_argument(
        "--resolutions", metavar="N", nargs="+", type=positive_int, default=[], help="only these resolutions in pixels"
    )


def add_data_flags(parser: ArgumentParser, purpose: str) -> None:
    """Add the images, their folder and their loaders; `purpose` says in the help what the images are for."""
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help=f"{purpose}: {DATA}, a data set of torchvision such as cifar10, or imagefolder:PATH with train/ and val/",
    )
    add_data_dir_flag(parser)
    add_loaders_flag(parser)


def add_data_dir_flag(parser: ArgumentParser) -> None:
    """Add the folder of torchvision's data sets."""
    parser.add_argument("--data-dir", metavar="DIR", help="folder that holds torchvision's data sets, or gets them")


def add_loaders_flag(parser: ArgumentParser) -> None:
    """Add the number of processes that read images."""
    parser.add_argument(
        "--loaders",
        metavar="N",
        type=natural_int,
        help="processes that read images from disk where there are many, at most; 0: none (default: one a core, up to "
        "8)",
    )


def add_training_flags(parser: ArgumentParser) -> None:
    """Add resolution, recipe and epochs of the training of one network."""
    parser.add_argument(
        "--resolution",
        metavar="N",
        type=resolution,
        help=f"resolution of the images in pixels (default: 32 for {DATA}, else the network's)",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        default=RECIPE,
        help=f"training recipe by name, or a path to a .toml file (default: {RECIPE})",
    )
    parser.add_argument("--epochs", metavar="N", type=positive_int, help="epochs of a training (default: the recipe's)")


def add_estimator_flag(parser: ArgumentParser) -> None:
    """Add the accuracy estimator."""
    parser.add_argument(
        "--estimator",
        metavar="NAME",
        default="imagenet-prior",
        help=f"accuracy estimator: {', '.join(ESTIMATORS)} (default: imagenet-prior; of a search with --data: "
        "replacement)",
    )


def add_workers_flag(parser: ArgumentParser, purpose: str) -> None:
    """Add the number of processes; `purpose` says in the help what they do, and how many there are by default."""
    parser.add_argument("--workers", metavar="N", type=positive_int, help=f"processes that {purpose}")


def add_run_flags(parser: ArgumentParser, folder: str) -> None:
    """Add the seed and the folder of a run; `folder` says in the help what its default is."""
    parser.add_argument(
        "--seed", metavar="N", type=natural_int, default=0, help="seed of all random numbers (default: 0)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help=f"folder of the run (default: {folder})")
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder")
