"""The images of a training lie somewhere else than before: the same ones are taken from there, others are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import synthetic

from nas import export, train
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError
from nas.training.checkpoint import load_checkpoint

SPEC = ArchSpec(
    name="tiny net",
    resolution=32,
    stem=StemSpec(out=8),
    blocks=(BlockSpec(kernel=3, expanded=16, out=8, stride=2),),
    head=HeadSpec(conv=16),
)
OLD, NEW = "imagefolder:old", "imagefolder:new/place"


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Go to an empty folder with a spec and images of two classes, on a machine that is known."""
    synthetic.empty_folder(monkeypatch, tmp_path)
    synthetic.install(monkeypatch)
    SPEC.save("tiny.json")
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            folder = Path("old", part, name)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def moved() -> None:
    """Train for an epoch, and move the images then."""
    train.main(["tiny.json", "--data", OLD, "--epochs", "1", "--out", "run", "--teacher", "tiny.json"])
    Path("new").mkdir()
    shutil.move("old", "new/place")


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
