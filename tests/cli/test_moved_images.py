"""The images of a training lie somewhere else than before: the same ones are taken from there, others are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import synthetic
from support.tiny_net import TINY_NET

from nas import export, train
from nas.accuracy.short_training import ShortTraining
from nas.errors import NasError
from nas.netadapt import __main__ as netadapt
from nas.runs.record import load_record
from nas.search import __main__ as search
from nas.training.checkpoint import load_checkpoint

OLD, NEW = "imagefolder:old", "imagefolder:new/place"


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Go to an empty folder with a spec and images of two classes, on a machine that is known."""
    synthetic.empty_folder(monkeypatch, tmp_path)
    synthetic.install(monkeypatch)
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)  # processes start slowly
    TINY_NET.save("tiny.json")
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            folder = Path("old", part, name)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def move() -> None:
    Path("new").mkdir()
    shutil.move("old", "new/place")


@pytest.fixture
def moved() -> None:
    """Train for an epoch, and move the images then."""
    train.main(["tiny.json", "--data", OLD, "--epochs", "1", "--out", "run", "--teacher", "tiny.json"])
    move()


def refused(command: list[str]) -> str:
    """Return the error of a training or an export that writes nothing."""
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    with pytest.raises(NasError) as error:
        (export if command[0] == "run" else train).main(command)
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before
    assert "\n" not in str(error.value)
    return str(error.value)


RESUME, EXPORT = ["tiny.json", "--out", "run", "--resume"], ["run"]


@pytest.mark.usefixtures("moved")
def test_a_training_goes_on_with_the_same_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert "where the images were moved, name their place with --data" in refused(RESUME)
    capsys.readouterr()
    train.main([*RESUME, "--data", NEW])
    printed = capsys.readouterr().out
    assert f"tiny net on {NEW} (12 + 4 images, 2 classes)" in printed
    assert f"note: the same images were in {OLD} before" in printed
    for file in ("last.pt", "best.pt", "teacher/last.pt"):
        assert load_checkpoint(f"run/{file}")["source"] == NEW
    train.main(RESUME)  # it knows the new place now
    assert "before" not in capsys.readouterr().out


@pytest.mark.usefixtures("moved")
def test_a_training_is_exported_with_the_same_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert "where the images were moved, name their place with --data" in refused(EXPORT)
    capsys.readouterr()
    export.main([*EXPORT, "--data", NEW])
    printed = capsys.readouterr().out
    assert f"note: the images of the training are those of {NEW}, which were in {OLD}" in printed
    assert f"top-1 on the 4 validation images of {NEW}" in printed
    assert f"validation images of `{NEW}`" in Path("run/model.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("moved")
@pytest.mark.parametrize("command", [RESUME, EXPORT])
def test_other_images_are_refused(command: list[str]) -> None:
    command = [*command, "--data", NEW]
    Path("new/place/val/dog/0.png").rename("0.png")
    line = refused(command)
    assert f"{NEW} has 12 + 3 images, and run/" in line
    assert f".pt was trained on 12 + 4 of {OLD}; name the place where these are now" in line
    Path("0.png").rename("new/place/val/dog/0.png")
    for part in ("train", "val"):
        Path("new/place", part, "dog").rename(Path("new/place", part, "eel"))
    assert f"{NEW} has the classes cat, eel now, and run/" in refused(command)
    assert "there are no images in elsewhere/train" in refused([*command[:-1], "imagefolder:elsewhere"])


def test_a_data_set_of_a_name_is_no_moved_folder() -> None:
    train.main(["tiny.json", "--data", OLD, "--epochs", "1", "--out", "run"])
    assert "fashion-mnist-sample has the classes T-shirt/top" in refused([*EXPORT, "--data", "fashion-mnist-sample"])


def test_trimming_goes_on_with_the_same_images(capsys: pytest.CaptureFixture[str]) -> None:
    budget = ["--budget-ms", str(0.9 * synthetic.network_ms(TINY_NET, 2)), "--runtime", "synthetic"]
    command = ["tiny.json", *budget, "--shared-steps", "1", "--epochs", "1", "--out", "run"]
    netadapt.main([*command, "--data", OLD])
    steps = Path("run/steps.csv").read_text(encoding="utf-8")
    move()
    capsys.readouterr()
    netadapt.main([*command, "--resume", "--data", NEW, "--finish", "fine-tune"])
    assert f"note: run was begun with --data {OLD} (" in capsys.readouterr().out
    assert load_record(Path("run")).arguments["data"].startswith(f"{NEW} (")
    assert Path("run/steps.csv").read_text(encoding="utf-8") == steps
    assert load_checkpoint("run/final.pt")["source"] == NEW
    export.main(EXPORT)
    Path("new/place/val/dog/0.png").unlink()
    with pytest.raises(NasError, match=f"run was begun with --data {NEW} .*, not with --data {NEW} "):
        netadapt.main([*command, "--resume", "--data", NEW])


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_search_goes_on_with_the_same_images(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    monkeypatch.setattr("nas.search.sharing._run_workers", lambda *arguments: None)  # this process does all the work
    monkeypatch.setattr("nas.report.writing.write_report", lambda path: path / "index.html")
    monkeypatch.setitem(ShortTraining.__init__.__kwdefaults__, "epochs", 1)
    few = [
        "--large-space",
        "few.py",
        "--only",
        "large",
        "--runtime",
        "synthetic",
        "--trials",
        "2",
        "--estimator",
        "short-training",
    ]
    command = [*few, *workers, "--budget-ms", "0.7", "--out", "run"]
    search.main([*command, "--data", OLD])
    trained = Path("run/estimates.jsonl").read_text(encoding="utf-8")
    move()
    capsys.readouterr()
    search.main([*command, "--resume", "--data", NEW])
    assert f"note: run was begun with --data {OLD} (" in capsys.readouterr().out
    assert Path("run/estimates.jsonl").read_text(encoding="utf-8") == trained
