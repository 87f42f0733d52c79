import struct

import numpy as np
import pytest
import torch
from PIL import Image

from nas.errors import NasError
from nas.training.data import (
    EMBEDDED,
    MEAN,
    STD,
    DiskImages,
    Share,
    TensorImages,
    load_data,
    mixing,
    source_names,
    source_slug,
)
from nas.training.recipes import AUGMENTS, load_recipe

PLAIN = load_recipe("quick").replace(batch_size=4, crop_padding=0.0, flip=False)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered_images(count: int = 10, channels: int = 1, size: int = 32) -> TensorImages:
    """Image i is a field of value 10 i + its column, with label i."""
    columns = torch.arange(size).expand(channels, size, size)
    images = torch.stack([10 * i + columns for i in range(count)]).to(torch.uint8)
    return TensorImages(images, torch.arange(count))


def bytes_of(images: torch.Tensor) -> torch.Tensor:
    """The images (n, 3, h, w) before they were normalised."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images * std + mean) * 255).round().to(torch.uint8)


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


def test_batches_are_all_images_in_order():
    images = numbered_images()
    batches = list(images.batches(4, 32))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))
    got = bytes_of(torch.cat([batch for batch, _ in batches]))
    assert torch.equal(got, images.images.expand(-1, 3, -1, -1))


def test_batches_are_resized():
    (images, _), *_ = numbered_images(size=28).batches(10, 48)
    assert images.shape == (10, 3, 48, 48)
    assert images.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_training_batches_are_full_shuffled_and_repeatable(channels):
    images = numbered_images(channels=channels)
    batches = list(images.training_batches(PLAIN, 32, generator()))
    assert [len(labels) for _, labels in batches] == [4, 4]
    labels = torch.cat([labels for _, labels in batches]).tolist()
    assert len(set(labels)) == 8
    assert labels != sorted(labels)
    for batch, chosen in batches:
        assert torch.equal(bytes_of(batch), images.images[chosen].expand(-1, 3, -1, -1))
    again = list(images.training_batches(PLAIN, 32, generator()))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))
    other = torch.cat([labels for _, labels in images.training_batches(PLAIN, 32, generator(1))]).tolist()
    assert other != labels


def test_a_set_smaller_than_the_batch_is_one_batch():
    ((images, labels),) = numbered_images(3).training_batches(PLAIN, 32, generator())
    assert images.shape == (3, 3, 32, 32)
    assert sorted(labels.tolist()) == [0, 1, 2]


def test_flips_are_mirror_images_of_about_half():
    images = numbered_images(200)
    recipe = PLAIN.replace(batch_size=200, flip=True)
    ((batch, labels),) = images.training_batches(recipe, 32, generator())
    straight = (bytes_of(batch)[:, :1] == images.images[labels]).flatten(1).all(1)
    mirrored = (bytes_of(batch)[:, :1] == images.images[labels].flip(3)).flatten(1).all(1)
    assert torch.all(straight ^ mirrored)
    assert 60 < int(mirrored.sum()) < 140


def test_crops_are_windows_of_the_padded_image():
    size, pixels = 32, 3
    grid = torch.arange(1, 1 + size * size).reshape(1, 1, size, size) % 251 + 1
    images = TensorImages(grid.repeat(64, 1, 1, 1).to(torch.uint8), torch.zeros(64, dtype=torch.long))
    recipe = PLAIN.replace(batch_size=64, crop_padding=0.1)
    ((batch, _),) = images.training_batches(recipe, size, generator())
    padded = torch.nn.functional.pad(images.images[0], [pixels] * 4)
    windows = {
        padded[0, top : top + size, left : left + size].numpy().tobytes(): (top, left)
        for top in range(2 * pixels + 1)
        for left in range(2 * pixels + 1)
    }
    places = [windows[image[0].numpy().tobytes()] for image in bytes_of(batch)]
    assert {top for top, _ in places} == {left for _, left in places} == set(range(2 * pixels + 1))


def save_images(folder, count: int, colour: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB" if i else "L", (40, 50), (colour, i, 0) if i else colour).save(folder / f"{i}.png")


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
    ((images, labels),) = data.train.training_batches(PLAIN, 32, generator())
    assert images.shape == (4, 3, 32, 32)
    assert set(bytes_of(images)[:, 0, 0, 0].tolist()) <= {200, 20}


def test_worker_processes_repeat_themselves_and_name_what_they_cannot_read(tmp_path, monkeypatch):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 6, 200)
    monkeypatch.setattr("nas.training.data.ALONE", 0)
    data = load_data(f"imagefolder:{tmp_path}")

    def epoch(seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in data.train.training_batches(PLAIN, 32, generator(seed))])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    broken = tmp_path / "val" / "cat" / "3.png"
    broken.write_bytes(b"no image")
    assert [len(labels) for _, labels in data.val.batches(2, 32)] == [2, 1, 2]
    assert list(data.unreadable) == [str(broken)]
    assert "cannot identify image file" in data.unreadable[str(broken)]


def test_image_folder_that_is_missing_or_uneven(tmp_path):
    with pytest.raises(NasError, match=r"there are no images in .*train; put one folder of images a class there"):
        load_data(f"imagefolder:{tmp_path}")
    save_images(tmp_path / "train" / "cat", 1, 0)
    with pytest.raises(NasError, match=r"there are no images in .*val"):
        load_data(f"imagefolder:{tmp_path}")
    save_images(tmp_path / "val" / "dog", 1, 0)
    with pytest.raises(NasError, match="the class 'cat' is in one of train/ and val/ only"):
        load_data(f"imagefolder:{tmp_path}")


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 3, 200)
        save_images(tmp_path / part / "dog", 3, 20)
    whole = (tmp_path / "train" / "cat" / "1.png").read_bytes()
    for broken, content in (("train/cat/0.png", whole[:60]), ("train/dog/2.png", b""), ("val/dog/1.png", b"no image")):
        (tmp_path / broken).write_bytes(content)
    data = load_data(f"imagefolder:{tmp_path}")
    recipe = PLAIN.replace(batch_size=6)
    ((images, labels),) = data.train.training_batches(recipe, 32, generator())
    # The next image stands in: 1.png of the cats for their first one, the first cat's for the last dog.
    assert sorted(labels.tolist()) == [0, 0, 0, 0, 1, 1]
    assert images.shape == (6, 3, 32, 32)
    ((_, labels),) = data.val.batches(10, 32)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    names = {str(tmp_path / name) for name in ("train/cat/0.png", "train/dog/2.png", "val/dog/1.png")}
    assert set(data.unreadable) == names
    assert all("\n" not in reason for reason in data.unreadable.values())


def test_a_set_without_a_readable_image_gives_no_batch(tmp_path):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 2, 0)
        for file in (tmp_path / part / "cat").iterdir():
            file.write_bytes(b"")
    data = load_data(f"imagefolder:{tmp_path}")
    assert list(data.val.batches(1, 32)) == list(data.train.training_batches(PLAIN, 32, generator())) == []


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_memory_are_changed_one_by_one(augment, channels):
    images = TensorImages(torch.full((40, channels, 32, 32), 100, dtype=torch.uint8), torch.arange(40))
    recipe = PLAIN.replace(batch_size=40, augment=augment, erase=0.5)
    torch.manual_seed(0)
    ((batch, _),) = images.training_batches(recipe, 32, generator())
    assert batch.shape == (40, 3, 32, 32)
    assert batch.isfinite().all()
    erased = [int((image == 0).all(0).sum()) for image in batch]
    assert 8 < sum(count > 0 for count in erased) < 32
    assert len(set(erased)) > 5
    # Where nothing else is done, what was not erased is as it was.
    if augment == "none":
        assert set(bytes_of(batch[[erased.index(0)]]).unique().tolist()) == {100}
    torch.manual_seed(0)
    ((again, _),) = images.training_batches(recipe, 32, generator())
    assert torch.equal(batch, again)


def test_images_from_disk_are_changed_by_the_recipe(tmp_path):
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 4, 200)
    data = load_data(f"imagefolder:{tmp_path}")
    torch.manual_seed(0)
    recipe = PLAIN.replace(augment="trivialaugment", erase=1.0)
    ((images, _),) = data.train.training_batches(recipe, 32, generator())
    assert all(bool((image == 0).all(0).any()) for image in images)


@pytest.mark.parametrize("disk", [False, True])
def test_processes_share_every_batch(disk, tmp_path):
    if disk:
        for part in ("train", "val"):
            for name in "abc":
                save_images(tmp_path / part / name, 4, 0)
        images = load_data(f"imagefolder:{tmp_path}").train
    else:
        images = numbered_images(12)
    whole = [labels.tolist() for _, labels in images.training_batches(PLAIN, 32, generator())]
    parts = [
        [labels.tolist() for _, labels in images.training_batches(PLAIN, 32, generator(), Share(index, 2))]
        for index in (0, 1)
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert (batch[::2], batch[1::2]) == (first, second)


def test_chosen_images_come_in_the_order_they_were_named_in():
    ((images, labels),) = numbered_images().batches(4, 32, [7, 2])
    assert labels.tolist() == [7, 2]
    assert bytes_of(images)[:, 0, 0, 0].tolist() == [70, 20]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_mixed_labels_are_shares(mixup, cutmix):
    torch.manual_seed(0)
    mix = mixing(PLAIN.replace(mixup=mixup, cutmix=cutmix), 5)
    images, labels = mix(torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 8, 8), torch.tensor([0, 1, 2, 4]))
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    assert 1 < int((labels > 0).sum(1).max()) <= 2
    # The mean of an image of value i has the mean of the values that its labels name.
    values = torch.tensor([0.0, 1.0, 2.0, 0.0, 3.0])
    torch.testing.assert_close(images.mean((1, 2, 3)), labels @ values)


def test_nothing_is_mixed_unless_the_recipe_says_so():
    assert mixing(PLAIN, 5) is None


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
