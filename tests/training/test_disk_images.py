"""Images on disk: what is read, and by which processes."""

import multiprocessing.process
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.pictures import PLAIN, save_images, seeded
from torch.utils.data import Dataset, Subset

from nas.arch.spec import ArchSpec
from nas.models.mobilenet import build_model
from nas.training.data import load_data
from nas.training.disk_images import DiskImages
from nas.training.images import Data
from nas.training.loop import Training


def test_worker_processes_repeat_themselves_and_name_unreadable_files(tmp_path, monkeypatch):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 6, 200)
    monkeypatch.setattr("nas.training.disk_images.FEW_IMAGES", 0)
    data = load_data(f"imagefolder:{tmp_path}")

    def epoch(seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in data.train.training_batches(PLAIN, 32, seeded(seed))])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    broken = tmp_path / "val" / "cat" / "3.png"
    broken.write_bytes(b"no image")
    assert [len(labels) for _, labels in data.val.batches(2, 32)] == [2, 1, 2]
    assert list(data.unreadable) == [str(broken)]
    assert "cannot identify image file" in data.unreadable[str(broken)]


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 3, 200)
        save_images(tmp_path / part / "dog", 3, 20)
    whole = (tmp_path / "train" / "cat" / "1.png").read_bytes()
    for broken, content in (("train/cat/0.png", whole[:60]), ("train/dog/2.png", b""), ("val/dog/1.png", b"no image")):
        (tmp_path / broken).write_bytes(content)
    data = load_data(f"imagefolder:{tmp_path}")
    recipe = PLAIN.replace(batch_size=6)
    ((images, labels),) = data.train.training_batches(recipe, 32, seeded())
    # The next image takes the place: 1.png of the cats that of 0.png, and the first cat that of the last dog.
    assert sorted(labels.tolist()) == [0, 0, 0, 0, 1, 1]
    assert images.shape == (6, 3, 32, 32)
    ((_, labels),) = data.val.batches(10, 32)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    names = {str(tmp_path / name) for name in ("train/cat/0.png", "train/dog/2.png", "val/dog/1.png")}
    assert set(data.unreadable) == names
    assert all("\n" not in reason for reason in data.unreadable.values())


def test_a_lone_readable_image_is_not_alone_in_its_batch(tmp_path, monkeypatch):
    """Batch norm has no variance of one image on a map of one pixel."""
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 3, 0)
    for name in "01":
        (tmp_path / "train" / "cat" / f"{name}.png").write_bytes(b"")
    monkeypatch.setattr("nas.training.disk_images.TRIES", 1)
    ((_, labels),) = load_data(f"imagefolder:{tmp_path}").train.training_batches(PLAIN, 32, seeded())
    assert labels.tolist() == [0, 0]


@pytest.mark.parametrize("attribute", ["samples", "_samples", "_image_files", "_images"])
def test_an_image_has_the_name_of_its_file_through_subsets(attribute: str) -> None:
    """torchvision's sets keep the files of their images under several names."""

    class Broken(Dataset[Any]):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Any:
            raise OSError("broken")

    files = [Path(f"{index}.jpg") for index in range(9)]
    whole = Broken()
    setattr(whole, attribute, [(file, 0) for file in files] if "samples" in attribute else files)
    images = DiskImages(Subset(Subset(whole, [8, 2, 4]), [2]))
    assert list(images.batches(4, 32)) == []
    assert images.unreadable == {"4.jpg": "broken"}


def test_a_set_without_a_readable_image_gives_no_batch(tmp_path):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 2, 0)
        for file in (tmp_path / part / "cat").iterdir():
            file.write_bytes(b"")
    data = load_data(f"imagefolder:{tmp_path}")
    assert list(data.val.batches(1, 32)) == list(data.train.training_batches(PLAIN, 32, seeded())) == []


def test_images_from_disk_are_changed_by_the_recipe(tmp_path):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 4, 200)
    data = load_data(f"imagefolder:{tmp_path}")
    torch.manual_seed(0)
    recipe = PLAIN.replace(augment="trivialaugment", erase=1.0)
    ((images, _),) = data.train.training_batches(recipe, 32, seeded())
    assert all(bool((image == 0).all(0).any()) for image in images)


# Worker processes ---------------------------------------------------------------------------------------


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two processes read, however few the images are."""
    monkeypatch.setattr("nas.training.disk_images.FEW_IMAGES", 0)
    monkeypatch.setattr("nas.training.disk_images.usable_cores", lambda: 2)


@pytest.fixture
def pets(tmp_path: Path) -> Data:
    for part, count in (("train", 12), ("val", 6)):
        save_images(tmp_path / part / "cat", count, 200)
        save_images(tmp_path / part / "dog", count, 20)
    return load_data(f"imagefolder:{tmp_path}")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of each process is added that starts during the test."""
    names: list[str] = []
    start = multiprocessing.process.BaseProcess.start

    def noted(process: multiprocessing.process.BaseProcess) -> None:
        names.append(process.name)
        start(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", noted)
    return names


def test_worker_processes_live_as_long_as_the_images(
    pets: Data, tiny_spec: ArchSpec, two_workers: None, started: list[str]
) -> None:
    """Two read the training images and two the validation images, however many epochs there are."""
    recipe = PLAIN.replace(epochs=2, augment="trivialaugment")
    training = Training(build_model(tiny_spec, 2), pets, recipe, resolution=32)
    counts = []
    for _ in training.epochs():
        counts.append(len(started))
    assert counts == [4, 4]


def test_workers_that_stay_do_as_new_ones_would(pets: Data, two_workers: None, tmp_path: Path) -> None:
    """An epoch's batches depend on its generator alone, so that a resumed training repeats an uninterrupted one."""
    recipe = PLAIN.replace(augment="trivialaugment", erase=0.5)

    def epoch(data: Data, seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in data.train.training_batches(recipe, 32, seeded(seed))])

    whole = [epoch(pets, seed) for seed in range(3)]
    resumed = load_data(pets.source)
    assert torch.equal(epoch(resumed, 2), whole[2])
    assert not torch.equal(whole[1], whole[2])


def test_an_epoch_that_is_left_early_leaves_nothing_behind(pets: Data, two_workers: None, started: list[str]) -> None:
    batches = pets.train.batches(2, 32)
    next(batches)
    batches.close()
    labels = torch.cat([labels for _, labels in pets.train.batches(2, 32)])
    assert labels.tolist() == [0] * 12 + [1] * 12
    assert len(started) == 2


def test_two_epochs_at_once_have_their_own_workers(pets: Data, two_workers: None, started: list[str]) -> None:
    for (one, _), (other, _) in zip(pets.train.batches(4, 32), pets.train.batches(4, 32), strict=True):
        assert torch.equal(one, other)
    assert len(started) == 4


DAEMONIC = """
import multiprocessing, sys
from nas.training import disk_images
from nas.training.data import load_data
disk_images.FEW_IMAGES = 0
def count():
    batches = list(load_data(sys.argv[1]).val.batches(4, 32))
    sys.exit(len(batches))
if __name__ == "__main__":
    process = multiprocessing.Process(target=count, daemon=True)
    process.start()
    process.join()
    print(process.exitcode)
"""


def test_a_daemonic_process_reads_by_itself(pets: Data, tmp_path: Path) -> None:
    """It may not start other processes, so it reads the images without workers."""
    program = tmp_path / "daemonic.py"
    program.write_text(DAEMONIC)
    done = subprocess.run([sys.executable, program, pets.source], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")
