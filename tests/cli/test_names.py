"""Names that are not UTF-8: commands take them, print and write them in one escaped form, and go on."""

import csv
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from PIL import Image
from support import synthetic
from support.tiny_net import TINY_NET

from nas import export, measure, predict, train
from nas.cli.entry import run
from nas.netadapt import __main__ as netadapt
from nas.report import __main__ as report
from nas.runs.reading import load_run
from nas.search import __main__ as search
from nas.training.checkpoint import load_checkpoint
from nas.utf8 import as_utf8

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere take no such names")

CAFE, DATA, RUN = (os.fsdecode(name) for name in (b"caf\xe9", b"donn\xe9es", b"r\xe9sultat"))
SHOWN_CAFE, SHOWN_DATA, SHOWN_RUN = r"caf\udce9", r"donn\udce9es", r"r\udce9sultat"
Call = Callable[..., str]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Go to an empty folder with a spec, on a machine that is known."""
    synthetic.empty_folder(monkeypatch, tmp_path)
    synthetic.install(monkeypatch)
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)  # processes start slowly
    TINY_NET.save("tiny.json")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs a command as its user does, on a console of strict UTF-8, and returns its output."""

    def called(command: ModuleType, *arguments: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", [str(command.__file__), *arguments])
        name = command.__name__.removesuffix(".__main__").removeprefix("nas.")
        ended: object = 0
        try:
            run(name, command.main)
        except SystemExit as end:
            ended = end.code
        except Exception:
            ended = as_utf8(traceback.format_exc())  # pytest's workers cannot send one with such a name
        assert ended == status
        printed = capsys.readouterr()
        return printed.out + printed.err

    return called


@pytest.fixture
def images() -> str:
    """Return the source of images of a class, in a folder, and in files with such names; one cannot be read."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for name in (CAFE, "tea"):
            folder = Path(DATA, part, name)
            folder.mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
                picture.save(folder / os.fsdecode(b"%d\xff.png" % number))
    Path(DATA, "train", "tea", os.fsdecode(b"broken\xff.png")).write_bytes(b"no picture")
    return f"imagefolder:{DATA}"


def texts(folder: str) -> dict[str, str]:
    """Return the files of text below a folder by their names, decoded as UTF-8 without mercy."""
    kinds = (".json", ".md", ".csv", ".html", ".jsonl", ".log")
    return {path.name: path.read_bytes().decode() for path in Path(folder).rglob("*") if path.suffix in kinds}


def test_a_training_is_made_resumed_exported_and_used(call: Call, images: str) -> None:
    out = call(train, "tiny.json", "--data", images, "--epochs", "1", "--out", RUN)
    assert f"tiny net on imagefolder:{SHOWN_DATA} (25 + 8 images, 2 classes)" in out
    assert rf"left out {SHOWN_DATA}/train/tea/broken\udcff.png: " in out
    assert "best accuracy" in call(train, "tiny.json", "--out", RUN, "--resume")  # finds the images again
    assert load_checkpoint(Path(RUN, "best.pt"))["classes"] == [SHOWN_CAFE, "tea"]

    out = call(export, RUN)
    assert f"validation images of imagefolder:{SHOWN_DATA}" in out
    assert f"2 classes: {SHOWN_CAFE}, tea" in texts(RUN)["model.md"]
    for file in ("model.onnx", "model.int8.onnx"):
        (entry,) = onnx.load_from_string(Path(RUN, file).read_bytes()).metadata_props
        assert json.loads(entry.value)["classes"] == [SHOWN_CAFE, "tea"]

    pictures = [str(path) for path in sorted(Path(DATA, "val").rglob("*.png"))]
    broken = str(Path(DATA, "train", "tea", os.fsdecode(b"broken\xff.png")))
    for model in (RUN, f"{RUN}/model.onnx", f"{RUN}/model.int8.onnx"):
        lines = call(predict, model, *pictures[:2], broken, *pictures[2:], status=2).splitlines()
        assert len(lines) == 9
        assert all(SHOWN_CAFE in line.partition(": ")[2] for line in lines[:-1])
        assert lines[-1].startswith(rf"nas.predict: error: {SHOWN_DATA}/train/tea/broken\udcff.png: this image")


def test_networks_are_trimmed_on_such_images(call: Call, images: str) -> None:
    budget = ["--budget-ms", str(0.9 * synthetic.network_ms(TINY_NET, 2)), "--runtime", "synthetic"]
    few = ["--data", images, "--shared-steps", "1", "--epochs", "1", "--out", RUN]
    assert f"network: {SHOWN_RUN}/final.json" in call(netadapt, "tiny.json", *budget, *few)
    assert f"network: {SHOWN_RUN}/final.json" in call(netadapt, "tiny.json", *budget, *few, "--resume")
    assert load_checkpoint(Path(RUN, "final.pt"))["classes"] == [SHOWN_CAFE, "tea"]
    written = texts(RUN)
    assert json.loads(written["run.json"])["arguments"]["data"].startswith(f"imagefolder:{SHOWN_DATA}")
    assert SHOWN_DATA in json.loads(written["trajectory.json"])["accuracy"]
    assert "model card" in call(export, RUN)


def test_a_search_leaves_its_results_and_its_report(call: Call) -> None:
    few = ["--large-space", "few.py", "--only", "large", "--runtime", "synthetic", "--trials", "4"]
    table = ["--table", f"{RUN}.json"]
    call(measure, "--space", "few.py", "--widths", "1.0", "--resolutions", "96", "--runtime", "synthetic", *table)
    out = call(search, *few, *table, "--budget-ms", "0.6", "--out", RUN)
    assert f"specs:  {SHOWN_RUN}/large.json" in out
    record = load_run(RUN).record
    assert f"--out '{SHOWN_RUN}'" in record.command
    assert record.table is not None
    assert record.table.file == f"{SHOWN_RUN}.json"
    written = texts(RUN)
    assert f"nas.report '{SHOWN_RUN}'" in written["index.html"].replace("&#39;", "'")
    assert json.loads(written["large.json"])["results"]["latency"]["table"] == f"{SHOWN_RUN}.json"
    assert list(csv.DictReader(written["trials.csv"].splitlines()))
    assert call(report, RUN) == f"{SHOWN_RUN}/index.html\n"
    call(search, *few, *table, "--budget-ms", "0.6", "--out", RUN, "--resume")


def test_a_table_can_have_such_a_name(call: Call) -> None:
    few = ["--space", "few.py", "--widths", "1.0", "--resolutions", "96"]
    for _ in range(2):  # a new table, and one that is there
        assert f"{SHOWN_RUN}.json: " in call(measure, *few, "--runtime", "synthetic", "--table", f"{RUN}.json")


def test_errors_and_consoles_of_other_encodings_show_escapes(call: Call) -> None:
    assert call(report, RUN, status=2).startswith(f"nas.report: error: {SHOWN_RUN}: no such folder")
    done = subprocess.run(
        [sys.executable, "-m", "nas"],
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict", "COLUMNS": "100"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(rb"of timm .*, \\u2026", done.stdout)


def test_tensorboard_takes_no_such_folder(call: Call, images: str) -> None:
    pytest.importorskip("tensorboard")
    out = call(train, "tiny.json", "--data", images, "--out", RUN, "--tensorboard", status=2)
    assert f"error: {SHOWN_RUN}: --tensorboard needs a folder whose name is UTF-8; name one with --out" in out
    assert not Path(RUN).exists()


def test_two_classes_that_would_be_written_alike_are_refused(call: Call, images: str) -> None:
    for part in ("train", "val"):
        Image.new("RGB", (40, 40)).save(Path(DATA, part, "tea", "1.png"))
        Path(DATA, part, "tea").rename(Path(DATA, part, SHOWN_CAFE))
    line = call(train, "tiny.json", "--data", images, status=2)
    assert line.startswith(f"nas.train: error: imagefolder:{SHOWN_DATA}: the name of the class 'caf")
    assert line.endswith("rename one of them\n")
    assert not Path("reports").exists()
