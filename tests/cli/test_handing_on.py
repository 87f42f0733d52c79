"""What one command leaves goes into the next: every cell of the table in README.md."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from support import synthetic
from support.synthetic import network_ms

from nas import export, predict, train
from nas.accuracy.replacement import _contents
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError
from nas.netadapt import __main__ as netadapt
from nas.replacement.kept import Plan
from nas.training import data as training_data
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.images import Data
from nas.training.tensor_images import TensorImages

README = Path(__file__).parents[2] / "README.md"
LITERT = all(importlib.util.find_spec(name) for name in ("ai_edge_litert", "ai_edge_quantizer"))
SPEC = ArchSpec(
    name="tiny",
    resolution=32,
    stem=StemSpec(out=8),
    blocks=(BlockSpec(kernel=3, expanded=24, out=8, stride=2), BlockSpec(kernel=3, expanded=48, out=16, stride=2)),
    head=HeadSpec(conv=32),
)
# The place of what the table names. A search writes its specs so; `small.json` is of the same kind.
PLACES = {
    "search: large.json": "search/large.json",
    "playground: the spec that it saves": "search/playground.json",
    "search --data: large.pt": "searched/large.pt",
    "train: its folder": "search/large-fashion-mnist-sample",
    "train: best.pt": "search/large-fashion-mnist-sample/best.pt",
    "netadapt: its folder": "trimmed",
    "netadapt: final.json": "trimmed/final.json",
    "netadapt: final.pt": "trimmed/final.pt",
    "export: model.onnx": "trimmed/model.onnx",
    "export: model.int8.onnx": "trimmed/model.int8.onnx",
    "export: model.tflite": "trimmed/model.tflite",
    "export: model.int8.tflite": "trimmed/model.int8.tflite",
}
# Those that the page writes (`savedJson` of nas/playground/playground.js).
PLAYGROUND_RESULTS = {
    "predicted_ms": 1.0,
    "approximated_parts": 0,
    "device": "a CPU",
    "runtime": "onnxruntime 1.23.2",
    "estimated_top1": 60.0,
    "estimated_std": 1.0,
    "source": "nas.playground",
}


class Cell(NamedTuple):
    """Something that a command leaves, the command that it may go into, and what the table says of the two."""

    item: str
    into: str
    says: str


def cells() -> list[Cell]:
    """Return the cells of the table, one for each file or folder that a row names."""
    table = re.search(r"\| what a command leaves .*?\n\n", README.read_text(encoding="utf-8"), re.DOTALL)
    assert table is not None
    head, _, *rows = (
        [cell.strip() for cell in line.replace("`", "").strip("|").split("|")] for line in table[0].strip().splitlines()
    )
    found = []
    for row in rows:
        command, _, names = row[0].partition(": ")
        for name in names.split(", "):
            found += [Cell(f"{command}: {name}", into, says) for into, says in zip(head[1:], row[1:], strict=True)]
    return [cell for cell in found if "small." not in cell.item]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with what the commands leave, on a synthetic machine with few images."""
    folder = tmp_path_factory.mktemp("left")
    whole = training_data._embedded()
    few = Data(
        whole.source,
        whole.classes,
        TensorImages(whole.train.images[:300], whole.train.labels[:300]),
        TensorImages(whole.val.images[:60], whole.val.labels[:60]),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_data, "_embedded", lambda: few)
        synthetic.empty_folder(patch, folder)
        synthetic.install(patch)
        Path("search").mkdir()
        Path("search/run.json").write_text("{}")
        SPEC.save("search/large.json", {"measured_ms": 1.0})
        SPEC.save("search/playground.json", PLAYGROUND_RESULTS)
        Image.fromarray(np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)).save("picture.png")
        for spec in ("search/large.json", "search/playground.json"):
            train.main([spec, "--epochs", "1"])
        lessons = SimpleNamespace(plan=Plan(finalist_epochs=1), resolution=32, choices=SimpleNamespace(teacher=SPEC))
        weights = load_checkpoint(PLACES["train: best.pt"])["average"]
        contents = _contents(SPEC, weights, 50.0, few, lessons, seed=0)  # type: ignore[arg-type]
        save_checkpoint(PLACES["search --data: large.pt"], contents)
        trim(PLACES["train: best.pt"], "--out", "trimmed")
        export.main(["trimmed", "--format", "both" if LITERT else "onnx"])
        yield folder
    torch.set_num_threads(threads)


def trim(network: str, *arguments: str) -> None:
    weighted = "--weights" in arguments or not network.endswith(".json")
    budget_ms = 0.97 * network_ms(SPEC, 10 if weighted else 1000)
    netadapt.main([network, "--budget-ms", str(budget_ms), "--runtime", "synthetic", *arguments])


def use(place: str, into: str, out: Path) -> None:
    """Run a command on what another one left."""
    in_folder = ["--out", str(out)]
    last_spec = "search/large.json" if place.startswith("search") else "trimmed/final.json"
    if into == "train":
        train.main([place, "--epochs", "1", *in_folder])
    elif into.startswith("train "):
        train.main([last_spec, into.removeprefix("train "), place, "--epochs", "1", *in_folder])
    elif into == "netadapt":
        trim(place, *in_folder)
    elif into == "netadapt --weights":
        trim(last_spec, "--weights", place, *in_folder)
    elif into == "export":
        export.main([place, "--out", str(out.with_suffix(".onnx"))])
    else:
        assert into == "predict"
        predict.main([place, "picture.png"])


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: f"{cell.item} into {cell.into}")
def test_what_a_command_leaves_goes_into_the_next(
    cell: Cell, left: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, out = PLACES[cell.item], tmp_path / "out"
    if place.endswith(".tflite") and not LITERT:
        pytest.skip("ai-edge-litert or ai-edge-quantizer is not installed")
    assert (left / place).exists()
    if not cell.says:
        with pytest.raises(NasError) as error:
            use(place, cell.into, out)
        assert place in str(error.value)
        assert "\n" not in str(error.value)
        return
    use(place, cell.into, out)
    said = capsys.readouterr().out
    assert ("training the teacher first" in said) == (cell.says == "trained first")
    if cell.into == "train --init":
        assert re.search(r"took the weights of (\d+) of \1 layers", said)
    if cell.into.startswith("netadapt"):
        assert (out / "final.json").exists()
        assert (out / "final.pt").exists() == (cell.into == "netadapt --weights" or not place.endswith(".json"))


def test_what_is_not_trained_yet_says_what_comes_first(left: Path) -> None:
    SPEC.replace(name="new").save("new.json")
    with pytest.raises(NasError, match=r"is not trained yet; run `python -m nas\.train new\.json` first"):
        export.main(["new.json"])
    trim("search/large.json", "--out", "unweighted")
    for into in ("train --init", "train --teacher", "netadapt", "netadapt --weights", "export", "predict"):
        with pytest.raises(NasError, match=r"^unweighted: its network has no weights; train it with `python -m nas"):
            use("unweighted", into, left / into)
