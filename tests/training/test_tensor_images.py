import pytest
import torch
from support.pictures import PLAIN, bytes_of, numbered_images, seeded

from nas.training.recipes import AUGMENTS
from nas.training.tensor_images import TensorImages


def test_batches_are_all_images_in_order():
    images = numbered_images()
    batches = list(images.batches(4, 32))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))
    got = bytes_of(torch.cat([batch for batch, _ in batches]))
    assert torch.equal(got, images.images.expand(-1, 3, -1, -1))


def test_the_side_of_images_is_the_shorter_one():
    assert numbered_images(size=28).side == 28
    wide = TensorImages(torch.zeros(2, 3, 20, 48, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    assert wide.side == 20


def test_batches_are_resized():
    (images, _), *_ = numbered_images(size=28).batches(10, 48)
    assert images.shape == (10, 3, 48, 48)
    assert images.dtype == torch.float32


def test_chosen_images_come_in_the_order_they_were_named_in():
    ((images, labels),) = numbered_images().batches(4, 32, [7, 2])
    assert labels.tolist() == [7, 2]
    assert bytes_of(images)[:, 0, 0, 0].tolist() == [70, 20]


@pytest.mark.parametrize("channels", [1, 3])
def test_training_batches_are_full_shuffled_and_repeatable(channels):
    images = numbered_images(channels=channels)
    batches = list(images.training_batches(PLAIN, 32, seeded()))
    assert [len(labels) for _, labels in batches] == [4, 4]
    labels = torch.cat([labels for _, labels in batches]).tolist()
    assert len(set(labels)) == 8
    assert labels != sorted(labels)
    for batch, chosen in batches:
        assert torch.equal(bytes_of(batch), images.images[chosen].expand(-1, 3, -1, -1))
    again = list(images.training_batches(PLAIN, 32, seeded()))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))
    other = torch.cat([labels for _, labels in images.training_batches(PLAIN, 32, seeded(1))]).tolist()
    assert other != labels


def test_a_set_smaller_than_the_batch_is_one_batch():
    ((images, labels),) = numbered_images(3).training_batches(PLAIN, 32, seeded())
    assert images.shape == (3, 3, 32, 32)
    assert sorted(labels.tolist()) == [0, 1, 2]


def test_flips_are_mirror_images_of_about_half():
    images = numbered_images(200)
    recipe = PLAIN.replace(batch_size=200, flip=True)
    ((batch, labels),) = images.training_batches(recipe, 32, seeded())
    straight = (bytes_of(batch)[:, :1] == images.images[labels]).flatten(1).all(1)
    mirrored = (bytes_of(batch)[:, :1] == images.images[labels].flip(3)).flatten(1).all(1)
    assert torch.all(straight ^ mirrored)
    assert 60 < int(mirrored.sum()) < 140


def test_crops_are_windows_of_the_padded_image():
    size, pixels = 32, 3
    grid = torch.arange(1, 1 + size * size).reshape(1, 1, size, size) % 251 + 1
    images = TensorImages(grid.repeat(64, 1, 1, 1).to(torch.uint8), torch.zeros(64, dtype=torch.long))
    recipe = PLAIN.replace(batch_size=64, crop_padding=0.1)
    ((batch, _),) = images.training_batches(recipe, size, seeded())
    padded = torch.nn.functional.pad(images.images[0], [pixels] * 4)
    windows = {
        padded[0, top : top + size, left : left + size].numpy().tobytes(): (top, left)
        for top in range(2 * pixels + 1)
        for left in range(2 * pixels + 1)
    }
    places = [windows[image[0].numpy().tobytes()] for image in bytes_of(batch)]
    assert {top for top, _ in places} == {left for _, left in places} == set(range(2 * pixels + 1))


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_memory_are_changed_one_by_one(augment, channels):
    images = TensorImages(torch.full((40, channels, 32, 32), 100, dtype=torch.uint8), torch.arange(40))
    recipe = PLAIN.replace(batch_size=40, augment=augment, erase=0.5)
    torch.manual_seed(0)
    ((batch, _),) = images.training_batches(recipe, 32, seeded())
    assert batch.shape == (40, 3, 32, 32)
    assert batch.isfinite().all()
    erased = [int((image == 0).all(0).sum()) for image in batch]
    assert 8 < sum(count > 0 for count in erased) < 32
    assert len(set(erased)) > 5
    # Without an augmentation policy, pixels that were not erased are unchanged.
    if augment == "none":
        assert set(bytes_of(batch[[erased.index(0)]]).unique().tolist()) == {100}
    torch.manual_seed(0)
    ((again, _),) = images.training_batches(recipe, 32, seeded())
    assert torch.equal(batch, again)
