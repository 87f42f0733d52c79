"""Images of every mode become the same RGB picture in training and in prediction."""

import inspect
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from nas.deploy.images import Preparation
from nas.errors import NasError
from nas.training.data import TORCHVISION, load_data
from nas.training.image_files import open_rgb
from nas.training.images import MEAN, STD

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))  # dark on the left, light on the right


def scaled(largest: float, kind: type) -> Image.Image:
    return Image.fromarray((RAMP / 255 * largest).round(0 if largest > 1 else 9).astype(kind))


def paletted() -> Image.Image:
    image = Image.fromarray(RAMP).convert("P")
    image.info["transparency"] = bytes(range(256))
    return image


GREY = {
    "8.png": scaled(255, np.uint8),
    "12.png": scaled(4095, np.uint16),
    "16.png": scaled(65535, np.uint16),
    "16.tif": scaled(65535, np.uint16),
    "16_in_32.tif": scaled(65535, np.int32),
    "8_in_32.tif": scaled(255, np.int32),
    "unit_float.tif": scaled(1, np.float32),
    "byte_float.tif": scaled(255, np.float32),
    "grey_and_alpha.png": Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (64, 64), 7)]),
    "palette.png": paletted(),
}


@pytest.mark.parametrize("name", GREY)
def test_grey_of_every_mode_is_kept(tmp_path: Path, name: str) -> None:
    GREY[name].save(tmp_path / name)
    with warnings.catch_warnings(action="error"):
        image = open_rgb(tmp_path / name)
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image)[..., 1], RAMP, atol=1)


def test_a_portable_greymap_has_the_range_that_it_tells(tmp_path: Path) -> None:
    path = tmp_path / "dark.pgm"
    path.write_bytes(b"P5 2 1 4095 " + struct.pack(">2H", 0, 205))
    assert np.asarray(open_rgb(path))[0, :, 0].tolist() == [0, 13]
    GREY["unit_float.tif"].save(tmp_path / "float.pfm")
    np.testing.assert_allclose(np.asarray(open_rgb(tmp_path / "float.pfm"))[..., 0], RAMP, atol=1)


def test_colours_stay_where_there_is_transparency(tmp_path: Path) -> None:
    colour = (250, 120, 10)
    Image.new("RGBA", (9, 9), (*colour, 3)).save(tmp_path / "rgba.png")
    Image.new("CMYK", (9, 9), (5, 135, 245, 0)).save(tmp_path / "cmyk.tif")
    for path in tmp_path.iterdir():
        assert np.asarray(open_rgb(path))[4, 4].tolist() == list(colour)


@pytest.mark.parametrize(
    "values", [np.array([[-5, 9]], np.int32), np.array([[0, 70_000]], np.int32), np.array([[0, np.nan]], np.float32)]
)
def test_grey_of_an_unknown_range_is_unreadable(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "depth.tif"
    Image.fromarray(values).save(path)
    preparation = Preparation(resolution=32, crop=1.0, mean=MEAN, std=STD)
    with pytest.raises(NasError, match=r"depth\.tif: this image cannot be read \(its grey goes from .* 0 to 65535\)"):
        preparation.load(path)


def save_pets(root: Path, files: dict[str, Image.Image]) -> None:
    """Write pictures as the set of pets has them, the names in lists for both parts."""
    folder = root / "oxford-iiit-pet"
    for part in ("images", "annotations"):
        (folder / part).mkdir(parents=True)
    for name, image in files.items():
        image.save(folder / "images" / f"{name}.jpg", format="PNG", exif=image.getexif())
    for part in ("trainval", "test"):
        (folder / "annotations" / f"{part}.txt").write_text("".join(f"{name} 1 1 1\n" for name in files))


def test_pets_are_read_as_all_others(tmp_path: Path) -> None:
    turned = Image.fromarray(RAMP).transpose(TURNS[6])
    turned.getexif()[ORIENTATION] = 6
    save_pets(tmp_path, {"Abyssinian_1": GREY["16.png"], "Abyssinian_2": GREY["8.png"], "Abyssinian_3": turned})
    data = load_data("oxford-iiit-pet", tmp_path)
    ((images, labels),) = data.val.batches(3, 56)
    assert labels.tolist() == [0, 0, 0]
    for image in images[[0, 2]]:
        np.testing.assert_allclose(image.numpy(), images[1].numpy(), atol=0.02)
    broken = tmp_path / "oxford-iiit-pet" / "images" / "Abyssinian_2.jpg"
    broken.write_bytes(b"")
    assert [len(labels) for _, labels in data.val.batches(3, 56)] == [2]
    assert list(data.val.unreadable) == [str(broken)]


def test_every_other_set_on_disk_takes_a_loader() -> None:
    in_memory = {"CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "STL10", "SVHN"}
    types = [getattr(datasets, entry.type) for entry in TORCHVISION.values() if entry.type not in in_memory]
    without = [
        kind.__name__
        for kind in types
        if "loader" not in inspect.signature(kind).parameters and not issubclass(kind, datasets.ImageFolder)
    ]
    assert without == ["OxfordIIITPet"]


def test_prediction_sees_what_validation_sees(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "ramp").mkdir(parents=True)
        for name, image in GREY.items():
            image.save(tmp_path / part / "ramp" / name)
    data = load_data(f"imagefolder:{tmp_path}")
    ((images, _),) = data.val.batches(len(GREY), 48)
    preparation = Preparation(resolution=48, crop=data.val.crop, mean=MEAN, std=STD)
    assert data.unreadable == {}
    for name, expected in zip(sorted(GREY), images, strict=True):
        np.testing.assert_allclose(
            preparation.load(tmp_path / "val" / "ramp" / name), expected.numpy(), atol=1e-5, err_msg=name
        )


# EXIF -------------------------------------------------------------------------------------------------

ORIENTATION = 0x0112
TURNS = {  # what was done to the upright picture before it was stored
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def save_turned(image: Image.Image, orientation: int, path: Path) -> None:
    turn, exif = TURNS[orientation], Image.Exif()
    exif[ORIENTATION] = orientation
    (image if turn is None else image.transpose(turn)).save(path, exif=exif)


@pytest.mark.parametrize("name", ["8.png", "16.png", "palette.png"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_upright_as_its_exif_data_say(tmp_path: Path, name: str, orientation: int) -> None:
    save_turned(GREY[name].crop((0, 0, 64, 40)), orientation, tmp_path / name)
    np.testing.assert_allclose(np.asarray(open_rgb(tmp_path / name))[..., 0], RAMP[:40], atol=1)


def test_training_and_prediction_turn_a_photograph_alike(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "ramp").mkdir(parents=True)
        save_turned(GREY["8.png"], 6, tmp_path / part / "ramp" / "photo.jpg")
    data = load_data(f"imagefolder:{tmp_path}")
    ((images, _),) = data.val.batches(1, 56)
    preparation = Preparation(resolution=56, crop=data.val.crop, mean=MEAN, std=STD)
    image = preparation.load(tmp_path / "val" / "ramp" / "photo.jpg")
    np.testing.assert_allclose(image, images[0].numpy(), atol=1e-5)
    assert image[0, :, 50].mean() > image[0, :, 5].mean() + 2, "dark on the left, light on the right"


def test_damaged_exif_data_leave_the_picture_as_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "8.jpg"
    GREY["8.png"].save(path, exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01\x03")
    with warnings.catch_warnings(action="error"):
        np.testing.assert_allclose(np.asarray(open_rgb(path))[..., 0], RAMP, atol=6)
