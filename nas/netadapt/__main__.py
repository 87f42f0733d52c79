"""Trim a network to a latency budget on this CPU with NetAdapt, as MobileNetV3 uses it.

    python -m nas.netadapt mobilenet_v3_large --budget-ms 3
    python -m nas.netadapt mobilenet_v3_small --budget-ms 0.1 --data fashion-mnist-sample

Without --data the ImageNet prior estimates the accuracy of the proposals: two minutes. With --data the network is
trained on together with random networks that are cut from it, which say what each cut costs: about ten minutes for
MobileNetV3-Small at 32 px. --shared-steps, --bf16, --recipe, --epochs and --finish speak of a training and need --data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nas.arch.spec import ArchSpec
from nas.cli.arguments import Parser, positive_float, positive_int
from nas.cli.console import RichConsole
from nas.cli.entry import run
from nas.cli.flags import (
    add_budget_flag,
    add_data_flags,
    add_estimator_flag,
    add_precision_flags,
    add_run_flags,
    add_table_flags,
    add_training_flags,
    add_workers_flag,
)
from nas.netadapt.proposals import EXTRA_CUTS
from nas.netadapt.request import ALLOWED_ON_IMAGES, SHARED_STEPS


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    from nas.netadapt.request import NetAdaptRequest
    from nas.netadapt.run import trim
    from nas.netadapt.seed import load_seed

    known = {key: value for key, value in vars(arguments).items() if key not in ("out", "resume")}
    request = NetAdaptRequest(**known | {"allow": None if arguments.allow is None else tuple(arguments.allow)})
    seed = load_seed(request)
    trim(request, seed, _folder(arguments, seed.spec), resume=arguments.resume, console=RichConsole())


def _parser() -> Parser:
    parser = Parser("netadapt", __doc__)
    parser.add_argument(
        "network",
        metavar="SEED",
        help="a published network by name, a spec's file, or a checkpoint or a folder of nas.train or nas.netadapt",
    )
    add_budget_flag(parser, "latency to trim to", required=True)
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of the seed: a state dict, a checkpoint or the folder of its run, or DEFAULT for torchvision's",
    )
    add_data_flags(parser, "images on which cuts are trained and judged")
    add_training_flags(parser)
    parser.add_argument(
        "--shared-steps",
        type=positive_int,
        default=SHARED_STEPS,
        metavar="T",
        help=f"batches on which the weights are trained that all cuts share (default: {SHARED_STEPS})",
    )
    parser.add_argument("--bf16", action="store_true", help="compute that training in bfloat16, as on a GPU")
    parser.add_argument(
        "--finish",
        choices=("none", "fine-tune", "scratch"),
        default="none",
        help="train the final network, with its weights or from scratch as in the paper (default: none)",
    )
    parser.add_argument(
        "--step", type=positive_float, default=0.01, metavar="SHARE", help="smallest saving of a step (default: 0.01)"
    )
    parser.add_argument(
        "--metric", default="ratio", metavar="NAME", help="ratio (to the time saved; default) or accuracy"
    )
    parser.add_argument(
        "--allow",
        nargs="+",
        metavar="CUT",
        help=f"what may be cut beside expansions and bottlenecks: {', '.join(EXTRA_CUTS)} "
        f"(default: {' and '.join(ALLOWED_ON_IMAGES)} with --data, else nothing)",
    )
    add_table_flags(parser)
    add_precision_flags(parser)
    add_estimator_flag(parser)
    parser.add_argument(
        "--measure-every", type=positive_int, default=5, metavar="K", help="steps between measurements (default: 5)"
    )
    add_workers_flag(parser, "judge networks, each on one core (default: one a core; on a GPU one)")
    add_run_flags(parser, "reports/<network>-<budget>ms")
    return parser


def _folder(arguments: argparse.Namespace, spec: ArchSpec) -> Path:
    from nas.runs.folder import last_folder, unused_folder

    if arguments.out:
        return Path(arguments.out)
    default = Path("reports") / f"{spec.name}-{arguments.budget_ms:g}ms"
    return last_folder(default) if arguments.resume else unused_folder(default)


if __name__ == "__main__":
    run("netadapt", main)
