"""Trims a network to a latency budget on this CPU: NetAdapt, as MobileNetV3 uses it.

    python -m nas.netadapt mobilenet_v3_large --budget-ms 3
    python -m nas.netadapt mobilenet_v3_small --budget-ms 0.4 --data fashion-mnist-sample

Without --data the ImageNet prior judges what is cut: two minutes. With --data each proposal inherits the network's
weights, is trained for a few steps, and is judged on images: a quarter of an hour for MobileNetV3-Small at 32 px.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nas.arch.spec import ArchSpec
from nas.cli import Parser, RichConsole, natural_int, positive_float, positive_int


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    from nas.netadapt.request import Request
    from nas.netadapt.run import trim
    from nas.netadapt.seed import load_seed

    known = {key: value for key, value in vars(arguments).items() if key not in ("out", "resume")}
    request = Request(**known | {"allow": tuple(arguments.allow)})
    seed = load_seed(request)
    trim(request, seed, _folder(arguments, seed.spec), resume=arguments.resume, console=RichConsole())


def _parser() -> Parser:
    parser = Parser("python -m nas.netadapt", description=__doc__.splitlines()[0])
    parser.add_argument(
        "network", metavar="SEED", help="a published network by name, a spec's file, or a checkpoint of nas.train"
    )
    parser.add_argument("--budget-ms", type=positive_float, required=True, metavar="MS")
    parser.add_argument(
        "--weights", metavar="FILE", help="of the seed: a state dict or checkpoint, or DEFAULT for torchvision's"
    )
    parser.add_argument("--data", metavar="SOURCE", help="judge by training on these images, as in nas.train")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where torchvision's sets lie or are put")
    parser.add_argument("--resolution", type=positive_int, metavar="N", help="pixels (default: 32 on embedded images)")
    parser.add_argument("--proposal-steps", type=positive_int, default=10, metavar="T", help="batches (default: 10)")
    parser.add_argument("--recipe", default="quick", metavar="NAME", help="by name (quick), or a path to a .toml file")
    parser.add_argument("--epochs", type=positive_int, metavar="N", help="of a seed without weights, and of --finish")
    parser.add_argument(
        "--finish",
        choices=("none", "fine-tune", "scratch"),
        default="none",
        help="train what is left, with its weights or from scratch as in the paper",
    )
    parser.add_argument(
        "--step", type=positive_float, default=0.01, metavar="SHARE", help="least saving of a step (default: 0.01)"
    )
    parser.add_argument("--metric", default="ratio", metavar="NAME", help="ratio (to the time saved) or accuracy")
    parser.add_argument(
        "--allow",
        nargs="+",
        default=[],
        metavar="CUT",
        help="beyond expansions and bottlenecks: se, kernel, activation, resolution, head",
    )
    parser.add_argument("--table", metavar="FILE", help="latency table (default: this device's in latency_tables/)")
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME")
    parser.add_argument("--estimator", default="imagenet-prior", metavar="NAME", help="without --data")
    parser.add_argument("--measure-every", type=positive_int, default=5, metavar="K", help="steps (default: 5)")
    parser.add_argument("--workers", type=positive_int, default=1, metavar="N", help="processes that train proposals")
    parser.add_argument("--seed", type=natural_int, default=0, metavar="N")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: reports/<seed>-<budget>ms)")
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder")
    return parser


def _folder(arguments: argparse.Namespace, spec: ArchSpec) -> Path:
    from nas.runs.folder import last_folder, unused_folder

    if arguments.out:
        return Path(arguments.out)
    default = Path("reports") / f"{spec.name}-{arguments.budget_ms:g}ms"
    return last_folder(default) if arguments.resume else unused_folder(default)
