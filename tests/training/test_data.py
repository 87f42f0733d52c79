import shutil
import struct

import numpy as np
import pytest
import torch
from support.pictures import PLAIN, bytes_of, save_images, seeded

from nas.errors import NasError
from nas.training.data import EMBEDDED, load_data, source_names, source_slug
from nas.training.disk_images import DiskImages


def test_embedded_sample():
    data = load_data(EMBEDDED)
    assert (len(data.train), len(data.val), len(data.classes)) == (10_000, 2_000, 10)
    for part, count in ((data.train, 1_000), (data.val, 200)):
        assert torch.bincount(part.labels).tolist() == [count] * 10
        assert len(torch.unique(part.images.flatten(1), dim=0)) == 10 * count
    together = torch.cat([data.train.images, data.val.images]).flatten(1)
    assert len(torch.unique(together, dim=0)) == 12_000
    # Trousers have their colour in the middle, T-shirts further out.
    assert data.classes[:2] == ("T-shirt/top", "Trouser")
    trousers, shirts = (data.train.images[data.train.labels == label].float().mean((0, 1)) for label in (1, 0))
    assert trousers[:, 2:6].mean() < 10 < 40 < shirts[5:15, 2:6].mean()


def test_image_folder(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        save_images(tmp_path / part / "cat", count, 200)
        save_images(tmp_path / part / "dog", count, 20)
    data = load_data(f"imagefolder:{tmp_path}")
    assert isinstance(data.train, DiskImages)
    assert (len(data.train), len(data.val), data.classes) == (6, 4, ("cat", "dog"))
    ((images, labels),) = data.val.batches(10, 32)
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == [0, 0, 1, 1]
    assert bytes_of(images)[:, 0, 16, 16].tolist() == [200, 200, 20, 20]
    ((images, labels),) = data.train.training_batches(PLAIN, 32, seeded())
    assert images.shape == (4, 3, 32, 32)
    assert set(bytes_of(images)[:, 0, 0, 0].tolist()) <= {200, 20}


def test_image_folder_that_is_missing_or_uneven(tmp_path):
    with pytest.raises(NasError, match=r"there are no images in .*train; put one folder of images a class there"):
        load_data(f"imagefolder:{tmp_path}")
    save_images(tmp_path / "train" / "cat", 1, 0)
    with pytest.raises(NasError, match=r"there are no images in .*val; put"):
        load_data(f"imagefolder:{tmp_path}")
    save_images(tmp_path / "val" / "dog", 1, 0)
    with pytest.raises(NasError, match=r"there are no images of 'cat' in val/, 'dog' in train/; put some into"):
        load_data(f"imagefolder:{tmp_path}")


def test_an_empty_class_is_named_and_the_advice_helps(tmp_path):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 2, 0)
        (tmp_path / part / "dog").mkdir()
    (tmp_path / "val" / "dog" / "1.jfif").write_bytes(b"")
    with pytest.raises(
        NasError, match=r"no images of 'dog' in train/, 'dog' in val/ \(.*\(1 \.jfif\).*\); put some"
    ) as raised:
        load_data(f"imagefolder:{tmp_path}")
    assert "\n" not in str(raised.value)
    for part in ("train", "val"):
        shutil.rmtree(tmp_path / part / "dog")
    assert load_data(f"imagefolder:{tmp_path}").classes == ("cat",)


def test_many_classes_without_images_are_counted(tmp_path):
    save_images(tmp_path / "train" / "cat", 1, 0)
    for number in range(9):
        save_images(tmp_path / "val" / f"class{number}", 1, 0)
    with pytest.raises(NasError, match=r"no images of 'cat' in val/, .*'class3' in train/ and of 5 more; put"):
        load_data(f"imagefolder:{tmp_path}")


def test_hidden_folders_and_other_files_are_passed_over_and_said(tmp_path):
    for part in ("train", "val"):
        for folder in ("cat", "dog", ".ipynb_checkpoints", "cat/.thumbnails"):
            save_images(tmp_path / part / folder, 2, 0)
        (tmp_path / part / "dog" / "._0.png").write_bytes(b"")
    for name in ("1.jfif", "2.JFIF", "3.gif", "readme"):
        (tmp_path / "train" / "dog" / name).write_bytes(b"")
    data = load_data(f"imagefolder:{tmp_path}")
    assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 4, 4)
    train, val = tmp_path / "train", tmp_path / "val"
    assert data.notes[0] == f"{train}: skipped the hidden folder .ipynb_checkpoints and 1 more"
    assert data.notes[1].startswith(f"{train}: passed over files (2 .jfif, 1 .gif, 1 without an extension); those")
    assert data.notes[2:] == (f"{val}: skipped the hidden folder .ipynb_checkpoints and 1 more",)


def test_a_folder_of_passed_over_files_says_so(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.avif").write_bytes(b"")
    with pytest.raises(NasError, match=r"no images in .*train \(.*passed over files \(1 \.avif\).*\); put one folder"):
        load_data(f"imagefolder:{tmp_path}")


def idx_file(array: np.ndarray) -> bytes:
    """The format of MNIST's files."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_torchvision_set_on_disk(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    pixels = rng.integers(0, 256, (5, 28, 28), np.uint8)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_file(pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_file(np.arange(5, dtype=np.uint8)))
    data = load_data("mnist", tmp_path)
    assert (len(data.train), len(data.val), len(data.classes)) == (5, 5, 10)
    ((images, labels),) = data.val.batches(5, 28)
    assert np.array_equal(bytes_of(images)[:, 2].numpy(), pixels)
    assert labels.tolist() == [0, 1, 2, 3, 4]


def test_torchvision_set_that_is_missing(tmp_path, monkeypatch):
    with pytest.raises(NasError, match=r"cifar10: name the folder .* --data-dir"):
        load_data("cifar10")

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(NasError, match=r"cifar10: not in .* \(no network\); put its original files where .*CIFAR10"):
        load_data("cifar10", tmp_path)


def test_unknown_sources_list_the_known_ones():
    with pytest.raises(
        NasError, match=r"unknown data source 'cifar11'; known: fashion-mnist-sample, cifar10.*imagefol"
    ):
        load_data("cifar11")
    assert EMBEDDED in source_names()


def test_source_in_a_file_name(tmp_path):
    assert source_slug("cifar10") == "cifar10"
    assert source_slug(f"imagefolder:{tmp_path}/my pets/") == "imagefolder-my-pets"
