"""Images on disk: what is read, and by which processes."""

import multiprocessing.process
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from support.pictures import PLAIN, save_images, seeded
from torch.utils.data import Dataset, Subset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.training.data import load_data
from nas.training.disk_images import DiskImages, with_share_of_loaders
from nas.training.images import Data
from nas.training.loop import Training


def test_loaders_repeat_themselves_and_name_unreadable_files(tmp_path, monkeypatch):
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


def test_the_side_of_images_is_that_of_the_largest_that_can_be_read(tmp_path):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 30, 20, size=(25, 20))
        save_images(tmp_path / part / "dog", 30, 40, size=(40, 50))
    data = load_data(f"imagefolder:{tmp_path}")
    assert data.train.side == 40
    for path in (tmp_path / "train" / "dog").iterdir():
        path.write_bytes(b"no image")
    assert data.train.side == 20
    for path in (tmp_path / "train" / "cat").iterdir():
        path.write_bytes(b"no image")
    assert data.train.side is None
    assert not data.unreadable  # that is for batches


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


# Loaders ------------------------------------------------------------------------------------------------


@pytest.fixture
def two_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two loaders read, however few the images are."""
    monkeypatch.setattr("nas.training.disk_images.FEW_IMAGES", 0)
    monkeypatch.setattr("nas.training.loaders.usable_cores", lambda: 2)


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


def test_loaders_live_as_long_as_the_images(
    pets: Data, tiny_spec: ArchSpec, two_loaders: None, started: list[str]
) -> None:
    """Two read the training images and two the validation images, however many epochs there are."""
    recipe = PLAIN.replace(epochs=2, augment="trivialaugment")
    training = Training(build_model(tiny_spec, 2), pets, recipe, resolution=32)
    counts = []
    for _ in training.epochs():
        counts.append(len(started))
    assert counts == [4, 4]


def test_loaders_that_stay_do_as_new_ones_would(pets: Data, two_loaders: None, tmp_path: Path) -> None:
    """An epoch's batches depend on its generator alone, so that a resumed training repeats an uninterrupted one."""
    recipe = PLAIN.replace(augment="trivialaugment", erase=0.5)

    def epoch(data: Data, seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in data.train.training_batches(recipe, 32, seeded(seed))])

    whole = [epoch(pets, seed) for seed in range(3)]
    resumed = load_data(pets.source)
    assert torch.equal(epoch(resumed, 2), whole[2])
    assert not torch.equal(whole[1], whole[2])


def test_an_epoch_that_is_left_early_leaves_nothing_behind(pets: Data, two_loaders: None, started: list[str]) -> None:
    batches = pets.train.batches(2, 32)
    next(batches)
    batches.close()
    labels = torch.cat([labels for _, labels in pets.train.batches(2, 32)])
    assert labels.tolist() == [0] * 12 + [1] * 12
    assert len(started) == 2


def test_two_epochs_at_once_have_their_own_loaders(pets: Data, two_loaders: None, started: list[str]) -> None:
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
    """It may not start other processes, so it reads the images without loaders."""
    program = tmp_path / "daemonic.py"
    program.write_text(DAEMONIC)
    done = subprocess.run([sys.executable, program, pets.source], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_batches_are_the_same_with_any_number_of_loaders(
    pets: Data, two_loaders: None, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = PLAIN.replace(augment="trivialaugment", erase=0.5)

    def epoch(loaders: int | None) -> torch.Tensor:
        data = load_data(pets.source, loaders=loaders)
        return torch.cat([images for images, _ in data.train.training_batches(recipe, 32, seeded())])

    random_state = torch.get_rng_state()
    batches = [epoch(loaders) for loaders in (0, 1, 3, None)]
    assert len(started) == 0 + 1 + 3 + 2
    assert all(torch.equal(batches[0], other) for other in batches[1:])
    assert torch.equal(torch.get_rng_state(), random_state)


# Machines without room for batches ----------------------------------------------------------------------


class Deadly(Dataset[Any]):
    """Images of which the last, in the second batch of three, ends the process that reads it."""

    def __init__(self, how: signal.Signals) -> None:
        self.how = how

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            os.kill(os.getpid(), self.how)
        return Image.new("RGB", (40, 40)), 0


@pytest.fixture
def shared_memory(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the shared memory that the loaders believe in; it has room."""
    memory = SimpleNamespace(total=2**36, free=2**36)
    monkeypatch.setattr("nas.training.loaders.shutil.disk_usage", lambda path: memory)
    return memory


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (signal.SIGBUS, r"has no memory to share its batches \(/dev/shm has 3 of 64 MB free\); enlarge it, or .*--lo"),
        (
            signal.SIGKILL,
            r"died \(signal SIGKILL, perhaps for want of memory\); take fewer loaders with",
        ),
        (signal.SIGSEGV, r"died \(signal SIGSEGV\); take fewer loaders with --loaders N, or none with --loaders 0$"),
    ],
)
def test_a_loader_that_dies_is_an_error_where_its_batch_is_waited_for(
    two_loaders: None,
    shared_memory: SimpleNamespace,
    how: signal.Signals,
    message: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch would raise it wherever the main thread is just then."""
    seconds_between_looks = (0.1,)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", seconds_between_looks)
    handler = signal.getsignal(signal.SIGCHLD)
    images = DiskImages(Deadly(how))
    batches = images.batches(3, 32)
    assert len(next(batches)[1]) == 3
    assert signal.getsignal(signal.SIGCHLD) == handler
    shared_memory.total, shared_memory.free = 64 * 2**20, 3 * 2**20
    with pytest.raises(NasError, match=message):
        list(batches)
    assert len(next(images.batches(3, 32))[1]) == 3, "new loaders read on"
    assert "shared memory" not in capfd.readouterr().err


def no_room(*arguments: Any, **keywords: Any) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_a_batch_that_finds_no_room_is_an_error(
    pets: Data, two_loaders: None, shared_memory: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch reserves the memory where the system can, and there nothing dies."""
    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", no_room)
    message = r"a loader of images has no memory .* \(/dev/shm is probably too small\); .* --loaders 0$"
    with pytest.raises(NasError, match=message):
        list(pets.val.batches(2, 32))


def test_little_shared_memory_is_said_and_left_alone(
    pets: Data, two_loaders: None, shared_memory: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers have 64 MB, less than a batch of 128 images of 224 pixels takes."""
    expected = [images for images, _ in pets.train.training_batches(PLAIN, 32, seeded())]
    assert pets.notes == ()
    shared_memory.total = shared_memory.free = 64 * 2**20
    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", no_room)
    data = load_data(pets.source)
    (note,) = data.notes
    assert note.startswith("/dev/shm has 64 of 64 MB free: batches come from the loaders through pipes")
    batches = list(data.train.training_batches(PLAIN, 32, seeded()))
    assert all(torch.equal(images, whole) for (images, _), whole in zip(batches, expected, strict=True))
    assert {labels.dtype for _, labels in batches} == {torch.int64}
    assert load_data(pets.source, loaders=0).notes == ()


def test_all_loaders_are_divided_between_processes(little_data):
    for loaders, shares in ((3, [2, 1]), (1, [1, 0]), (0, [0, 0])):
        images = DiskImages([], loaders=loaders)
        assert [with_share_of_loaders(images, index, 2).loaders for index in (0, 1)] == shares
    assert with_share_of_loaders(little_data.train, 0, 2) is little_data.train
