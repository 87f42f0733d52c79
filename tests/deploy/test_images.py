"""Preparation without torch, against the transforms of validation images."""

import numpy as np
import pytest
from PIL import Image

from nas.deploy.images import Preparation
from nas.errors import NasError
from nas.training.disk_images import DISK_CROP, DiskImages
from nas.training.images import MEAN, STD

PLAIN = Preparation(resolution=48, crop=DISK_CROP, mean=MEAN, std=STD)


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


class OneImage:
    def __init__(self, image):
        self.image = image

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.image, 0


@pytest.mark.parametrize("size", [(50, 70), (71, 50), (200, 133), (48, 48), (55, 55), (20, 31)])
@pytest.mark.parametrize("resolution", [48, 33])
def test_is_what_validation_does(size, resolution):
    image = noise(*size)
    ((expected, _),) = DiskImages(OneImage(image)).batches(1, resolution)
    preparation = Preparation(resolution=resolution, crop=DISK_CROP, mean=MEAN, std=STD)
    np.testing.assert_allclose(preparation.prepared(image), expected[0].numpy(), atol=1e-5)


def test_whole_images_are_made_square():
    preparation = Preparation(resolution=32, crop=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    image = Image.new("RGB", (40, 20), (255, 0, 51))
    assert np.array_equal(
        preparation.prepared(image), np.broadcast_to(np.float32([[[1]], [[0]], [[0.2]]]), (3, 32, 32))
    )


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(NasError, match=r"x\.png: no such file"):
        PLAIN.load(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(NasError, match=r"x\.png: this image cannot be read \(cannot identify image file"):
        PLAIN.load(tmp_path / "x.png")


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P", "1", "I;16"):
        path = tmp_path / f"{mode.replace(';', '')}.png"
        Image.new(mode, (60, 60)).save(path)
        assert PLAIN.load(path).shape == (3, 48, 48)
