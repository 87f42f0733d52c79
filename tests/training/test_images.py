import pytest
from support.pictures import PLAIN, numbered_images, save_images, seeded

from nas.training.data import load_data
from nas.training.images import BatchShare


@pytest.mark.parametrize("disk", [False, True])
def test_processes_share_every_batch(disk, tmp_path):
    if disk:
        for part in ("train", "val"):
            for name in "abc":
                save_images(tmp_path / part / name, 4, 0)
        images = load_data(f"imagefolder:{tmp_path}").train
    else:
        images = numbered_images(12)
    whole = [labels.tolist() for _, labels in images.training_batches(PLAIN, 32, seeded())]
    parts = [
        [labels.tolist() for _, labels in images.training_batches(PLAIN, 32, seeded(), BatchShare(index, 2))]
        for index in (0, 1)
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert (batch[::2], batch[1::2]) == (first, second)
