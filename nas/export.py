"""Export a trained network: ONNX or TFLite in float32 and int8, a table of all, and a model card.

    python -m nas.export reports/20ms/small.json                       # the training beside that spec
    python -m nas.export reports/20ms/small.json --format tflite       # for LiteRT; both: ONNX and TFLite
    python -m nas.export reports/mobilenet_v3_small-fashion-mnist-sample --torch-export

It writes model.onnx, model.int8.onnx and model.md into the folder of the training; from the weights that a search hands
over, small.pt, it writes small.onnx, small.int8.onnx and small.md beside them. On the embedded data it takes a minute.
With --format tflite they are model.tflite and model.int8.tflite. The model card, model.md, is of the files that the
last call wrote.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import Parser
from nas.cli.console import RichConsole
from nas.cli.entry import run
from nas.cli.flags import add_data_dir_flag, add_loaders_flag
from nas.errors import NasError
from nas.files import write_text

if TYPE_CHECKING:  # torch takes seconds to load
    from rich.table import Table

    from nas.arch.spec import ArchSpec
    from nas.deploy.card import ExportedFile
    from nas.deploy.trained import TrainedNetwork
    from nas.training.images import Data


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    console = RichConsole()
    training, spec = _find_training(arguments.training)
    formats = ("onnx", "tflite") if arguments.format == "both" else (arguments.format,)
    stem = _stem(arguments.out, formats) if arguments.out else _stem_of(training)
    if "tflite" in formats:  # before minutes pass
        from nas.deploy.tflite_int8 import import_quantizer
        from nas.litert import import_litert

        import_litert()
        import_quantizer()

    from nas.deploy import export
    from nas.deploy.card import model_card
    from nas.deploy.trained import load_trained
    from nas.latency.device import Device
    from nas.training.images import LeftOut

    trained = load_trained(training)
    settings = trained.settings
    if spec is not None and spec.id != settings.spec.id:
        raise NasError(
            f"{trained.path}: is of another network ({settings.spec.name}, id {settings.spec.id}) than "
            f"{arguments.training} (id {spec.id}); train that, or name the folder of the training that is wanted"
        )
    data = trained.trained_on.load(arguments.data, arguments.data_dir, arguments.loaders)
    if data.source != settings.source:
        console.say(f"note: the images of the training are those of {data.source}, which were in {settings.source}")
        settings = dataclasses.replace(settings, source=data.source)
        trained = dataclasses.replace(trained, settings=settings)
    for note in data.notes:
        console.say(f"note: {note}")
    precisions: dict[Path, str] = {}
    for name in formats:
        if name == "onnx":
            write, quantise, batch = export.export_onnx, export.export_int8_onnx, "any batch"
        else:
            write, quantise, batch = export.export_tflite, export.export_int8_tflite, "batch 1"
        float32, int8 = Path(f"{stem}.{name}"), Path(f"{stem}.int8.{name}")
        difference = write(trained, data.val, float32)
        console.say(
            f"{float32}: on validation images its logits differ from torch's by at most {difference:.1e} of their "
            f"spread ({export.TOLERANCE:g} is allowed), for {batch}"
        )
        quantise(float32, data.train, int8)
        precisions |= {float32: "float32", int8: "int8"}
    if arguments.torch_export:
        program = Path(f"{stem}.pt2")
        export.export_program(trained, program)
        console.say(f"{program}: a program of torch.export")
    files = _compared(precisions, data)
    LeftOut(console.say)(data.unreadable)
    console.print(_table(files))
    read = len(data.val) - len(data.val.unreadable)
    console.say(
        f"in {stem.parent}; top-1 on the {read} validation images of {settings.source}; "
        "ms on this device at batch 1, 1 thread"
    )
    card = Path(f"{stem}.md")
    runtimes = ", ".join(dict.fromkeys(file.runtime for file in files))
    write_text(card, model_card(trained, files, f"{Device.this().cpu} ({runtimes})", _predicted_ms(trained)))
    console.say(f"model card: {card}")
    console.say(f"predict:    python -m nas.predict {files[0].path} IMAGE …")


def _find_training(name: str) -> tuple[Path, ArchSpec | None]:
    """Return the path of a training, and the spec if `name` is one.

    A checkpoint and a folder are returned as they are. A spec's trainings and weights lie beside it or in
    reports/. Raises NasError if it has none or several.
    """
    path = Path(name)
    if path.is_dir() or path.suffix == ".pt":
        return path, None
    from nas.arch.loading import load_spec
    from nas.training.run import trainings_of

    spec = load_spec(name)
    found = trainings_of(name, spec)
    if path.suffix == ".json" and (beside := path.with_suffix(".pt")).exists():  # of nas.netadapt
        found.append(beside)
    if not found:
        raise NasError(f"{name}: is not trained yet; run `python -m nas.train {name}` first")
    if len(found) > 1:
        raise NasError(f"{name}: is trained more than once ({', '.join(map(str, found))}); name one of these")
    return found[0], spec


def _stem(file: Path, formats: Sequence[str]) -> Path:
    """Return the path of a float32 file without its ending. Raises NasError for an ending of another format."""
    if file.suffix not in [f".{name}" for name in formats]:
        endings = " or ".join(f".{name}" for name in formats)
        raise NasError(f"--out is {file}; name a file that ends in {endings}, for the other files are named after it")
    return file.with_suffix("")


def _stem_of(training: Path) -> Path:
    """Return the path, without an ending, of the files for a folder or a checkpoint.

    The networks of one search lie in one folder.
    """
    from nas.training.checkpoint import CHECKPOINTS

    if training.is_dir():
        return training / "model"
    return training.with_name("model" if training.name in CHECKPOINTS else training.stem)


def _compared(precisions: Mapping[Path, str], data: Data) -> list[ExportedFile]:
    """Return exported files, given with their precisions, with their accuracy and their latency as taken in turns."""
    from nas.deploy.card import ExportedFile
    from nas.deploy.export import accuracy
    from nas.deploy.network import load_network, time_networks

    networks = [load_network(path) for path in precisions]
    times = time_networks(networks, random.Random(0))
    return [
        ExportedFile(
            path=path,
            runtime=network.runtime,
            precision=precision,
            top1=accuracy(network, data.val),
            latency_ms=latency_ms,
        )
        for (path, precision), network, latency_ms in zip(precisions.items(), networks, times, strict=True)
    ]


def _predicted_ms(trained: TrainedNetwork) -> list[tuple[str, float]]:
    """Return the latency (ms) that each table predicts which has all rows of the network at its training's resolution.

    The text before it names the table's device and runtime, and its number of classes if the network has another one.
    """
    from nas.arch.parts import parts_of
    from nas.latency.table import TABLES, LatencyTable

    spec = trained.settings.spec.replace(resolution=trained.settings.resolution)
    predicted = []
    for path in sorted(TABLES.glob("*.json")):
        try:
            table = LatencyTable.load(path)
        except NasError:  # damaged, or of another version
            continue
        if not table.missing(parts_of(spec, table.num_classes)):
            other = table.num_classes != len(trained.about.classes)
            classes = f", with {table.num_classes:,} classes" if other else ""
            predicted.append((f"{table.device.cpu}, {table.runtime}{classes}", float(table.predict_ms([spec])[0])))
    return predicted


def _table(files: list[ExportedFile]) -> Table:
    """Return the files as a table with size, accuracy and latency."""
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
    parser = Parser("export", __doc__)
    parser.add_argument(
        "training",
        metavar="DIR_OR_SPEC",
        help="the folder of a training or of nas.netadapt, a checkpoint, or a spec that was trained",
    )
    parser.add_argument(
        "--format",
        choices=("onnx", "tflite", "both"),
        default="onnx",
        help="ONNX for onnxruntime and OpenVINO, TFLite for LiteRT on phones and boards, or both (default: onnx)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the float32 file, after which the others are named (default: model.onnx or model.tflite in the folder of "
        "the training, small.onnx or small.tflite beside small.pt)",
    )
    parser.add_argument("--torch-export", action="store_true", help="write a .pt2 file of torch.export too")
    parser.add_argument(
        "--data", metavar="SOURCE", help="imagefolder:PATH where the images of the training were moved since"
    )
    add_data_dir_flag(parser)
    add_loaders_flag(parser)
    return parser


if __name__ == "__main__":
    run("export", main)
