"""Exports a trained network: ONNX in float32 and int8, a table of both, a model card::

    python -m nas.export reports/20ms/small.json                       # the training beside that spec
    python -m nas.export reports/mobilenet_v3_small-fashion-mnist-sample --torch-export

Writes model.onnx, model.int8.onnx and model.md into the folder of the training. On the embedded data a minute.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli import Parser, RichConsole
from nas.errors import NasError
from nas.files import write_text

if TYPE_CHECKING:  # torch takes seconds to load
    from rich.table import Table

    from nas.arch.spec import ArchSpec
    from nas.deploy.card import File
    from nas.deploy.trained import Trained

NAMED_CLASSES = 5  # in an error


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    console = RichConsole()
    training, spec = _training(args.training)
    path: Path = args.onnx or (training if training.is_dir() else training.parent) / "model.onnx"
    if path.suffix != ".onnx":
        raise NasError(f"--onnx is {path}; name a file that ends in .onnx, for the others are named after it")

    from nas.deploy.card import File, model_card
    from nas.deploy.export import TOLERANCE, accuracy, export_int8, export_onnx, export_program
    from nas.deploy.onnx_file import OnnxNetwork, time_networks
    from nas.deploy.trained import load_trained
    from nas.latency.device import Device
    from nas.training.data import load_data

    trained = load_trained(training)
    settings = trained.settings
    if spec is not None and spec.id != settings.spec.id:
        raise NasError(
            f"{trained.path}: is of another network ({settings.spec.name}, id {settings.spec.id}) than "
            f"{args.training} (id {spec.id}); train that, or name the folder of the training that is wanted"
        )
    difference = export_onnx(trained, path)
    console.say(
        f"{path}: its logits differ from torch's by {difference:.1e} at most ({TOLERANCE:g} are allowed), for any batch"
    )
    if args.torch_export:
        export_program(trained, path.with_suffix(".pt2"))
        console.say(f"{path.with_suffix('.pt2')}: a program of torch.export")
    data = load_data(settings.source, args.data_dir)
    if data.classes != trained.about.classes:
        raise NasError(
            f"{settings.source} has the classes {_listed(data.classes)} now, and {trained.path} was trained on "
            f"{_listed(trained.about.classes)}; put the old ones back, or train again"
        )
    int8 = path.with_suffix(".int8.onnx")
    export_int8(path, data.train, int8)
    networks = {"float32": OnnxNetwork.load(path), "int8": OnnxNetwork.load(int8)}
    times = time_networks(list(networks.values()), random.Random(0))
    files = [
        File(path=file, precision=precision, top1=accuracy(network, data.val), latency_ms=latency_ms)
        for file, (precision, network), latency_ms in zip((path, int8), networks.items(), times, strict=True)
    ]
    console.print(_table(files))
    device = Device.this()
    console.say(
        f"in {path.parent}; top-1 on the {len(data.val)} validation images of {settings.source}; "
        "ms at batch 1, 1 thread, here"
    )
    card = path.with_suffix(".md")
    write_text(card, model_card(trained, files, f"{device.cpu} (onnxruntime)", _expected(trained)))
    console.say(f"model card: {card}")
    console.say(f"predict:    python -m nas.predict {path} IMAGE …")


def _listed(classes: tuple[str, ...]) -> str:
    """A few of them, so that an error stays a line."""
    return ", ".join(classes[:NAMED_CLASSES]) + (f", … ({len(classes)})" if len(classes) > NAMED_CLASSES else "")


def _training(name: str) -> tuple[Path, ArchSpec | None]:
    """A checkpoint's file or the folder of a training; or that of a spec, beside it or in reports/, and the spec."""
    path = Path(name)
    if path.is_dir() or path.suffix == ".pt":
        return path, None
    from nas.arch.loading import load_spec
    from nas.training.run import trainings_of

    spec = load_spec(name)
    found = trainings_of(name, spec)
    if len(found) != 1:
        which = f"is trained more than once ({', '.join(map(str, found))})" if found else "is not trained yet"
        what = "name one of these folders" if found else f"run `python -m nas.train {name}` first"
        raise NasError(f"{name}: {which}; {what}")
    return found[0], spec


def _expected(trained: Trained) -> list[tuple[str, float]]:
    """What the latency tables that have all rows for it say, at the resolution it was trained at.

    Most are of ImageNet's 1,000 classes; that is said where it has others.
    """
    from nas.arch.parts import parts_of
    from nas.latency.table import TABLES, LatencyTable

    spec = trained.settings.spec.replace(resolution=trained.settings.resolution)
    found = []
    for path in sorted(TABLES.glob("*.json")):
        try:
            table = LatencyTable.load(path)
        except NasError:  # damaged, or of another version: it has nothing to say here
            continue
        if not table.missing(parts_of(spec, table.num_classes)):
            other = table.num_classes != len(trained.about.classes)
            classes = f", with {table.num_classes:,} classes" if other else ""
            found.append((f"{table.device.cpu}, {table.runtime}{classes}", float(table.predict_ms([spec])[0])))
    return found


def _table(files: list[File]) -> Table:
    from rich.table import Table

    table = Table("file", "precision", "MB", "top-1 %", "ms", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[2:]:
        column.justify = "right"
    for file in files:
        table.add_row(
            file.path.name, file.precision, f"{file.size_mb:.2f}", f"{file.top1:.2f}", f"{file.latency_ms:.2f}"
        )
    return table


def _parser() -> Parser:
    parser = Parser(
        prog="python -m nas.export",
        description=__doc__.partition("::")[0],
        epilog=__doc__.partition("::")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("training", metavar="DIR_OR_SPEC", help="the folder of a training, a checkpoint, or a spec")
    parser.add_argument("--onnx", metavar="FILE", type=Path, help="default: model.onnx in the folder of the training")
    parser.add_argument("--torch-export", action="store_true", help="write a .pt2 of torch.export, too")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where torchvision's sets lie or are put")
    return parser
