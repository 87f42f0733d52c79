"""Images that are held out of those to train on."""

import pytest
import torch
from support.replacing import data_of

from nas.errors import NasError
from nas.training.held_out import HELD_OUT_EVERY, HELD_OUT_IMAGES, hold_out
from nas.training.images import Data
from nas.training.tensor_images import TensorImages


def numbered(count: int) -> Data:
    """Return a source whose training images are their numbers, and whose validation images are none of these."""
    train, val = (
        TensorImages(numbers.reshape(-1, 1, 1, 1), numbers % 3)
        for numbers in (torch.arange(count), torch.full((9,), -1))
    )
    return Data("numbers", ("a", "b", "c"), train, val)


def parts(count: int) -> tuple[list[int], list[int]]:
    data = hold_out(numbered(count))
    assert isinstance(data.train, TensorImages)
    assert isinstance(data.val, TensorImages)
    assert torch.equal(data.val.labels, data.val.images.flatten() % 3)
    return data.train.images.flatten().tolist(), data.val.images.flatten().tolist()


@pytest.mark.parametrize("count", [3, 4, 10, 11, HELD_OUT_EVERY * HELD_OUT_IMAGES])
def test_every_fifth_is_held_out_and_none_is_in_both(count: int) -> None:
    training, held_out = parts(count)
    assert held_out == list(range(0, count, HELD_OUT_EVERY))
    assert sorted(training + held_out) == list(range(count))
    assert len(training) >= 2


def test_of_many_images_so_many_are_held_out_at_most() -> None:
    count = HELD_OUT_EVERY * HELD_OUT_IMAGES + 1
    training, held_out = parts(count)
    assert HELD_OUT_IMAGES * 0.8 < len(held_out) <= HELD_OUT_IMAGES
    assert held_out[-1] > 0.99 * count, "some are held out of all parts"
    assert len(training) + len(held_out) == count


def test_the_source_stays_as_it_is() -> None:
    data = data_of(30)
    split = hold_out(data)
    assert (split.source, split.classes) == (data.source, data.classes)
    assert len(data.train) == 30


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_are_refused(count: int) -> None:
    with pytest.raises(NasError, match=f"^numbers: it has {count} training images; .* takes at least 3"):
        hold_out(numbered(count))
