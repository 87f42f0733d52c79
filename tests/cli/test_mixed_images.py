"""A folder of images of all kinds, as they are out there, is trained on, exported and predicted."""

import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny_net import TINY_NET

from nas import export, predict, train
from nas.cli.entry import run

RISING = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)).T.copy()  # dark above, light below
ORIENTATION, TURNED_BY_90 = 0x0112, 6
COMMANDS = {"train": train.main, "export": export.main, "predict": predict.main}
TRAINING = ["--recipe", "quicker.toml", "--epochs", "1", "--batch-size", "2", "--out", "trained"]
BROKEN = ("falling/empty.jpg", "falling/no_number.tif", "rising/cut.png")
LATIN_1 = os.fsdecode(b"caf\xe9")
Call = Callable[..., list[str]]


def grey(largest: float, kind: type) -> Callable[[np.ndarray], Image.Image]:
    return lambda pixels: Image.fromarray((pixels / 255 * largest).astype(kind))


def palette(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels).convert("P")
    image.info["transparency"] = bytes(range(256))
    return image


def colour(mode: str) -> Callable[[np.ndarray], Image.Image]:
    return lambda pixels: Image.fromarray(pixels).convert("RGB").convert(mode)


def with_alpha(mode: str) -> Callable[[np.ndarray], Image.Image]:
    def image(pixels: np.ndarray) -> Image.Image:
        grey = Image.fromarray(pixels)
        return Image.merge(mode, [*[grey] * (len(mode) - 1), Image.new("L", grey.size, 9)])

    return image


def turned(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    image.getexif()[ORIENTATION] = TURNED_BY_90
    return image


KINDS: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "8_bit.png": Image.fromarray,
    "12_bit.png": grey(4095, np.uint16),
    "16_bit.png": grey(65535, np.uint16),
    "16_bit.tif": grey(65535, np.uint16),
    "16_in_32_bit.tif": grey(65535, np.int32),
    "float.tif": grey(1, np.float32),
    "byte_float.tiff": grey(255, np.float32),
    "map.pgm": Image.fromarray,
    "palette.png": palette,
    "rgba.png": with_alpha("RGBA"),
    "la.png": with_alpha("LA"),
    "cmyk.tif": colour("CMYK"),
    "cmyk.jpg": colour("CMYK"),
    "photo.jpeg": Image.fromarray,
    "turned.jpg": turned,
    "turned.png": turned,
}


def save_kinds(folder: Path, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for name, made in KINDS.items():
        image = made(pixels)
        exif = {"exif": image.getexif()} if name.startswith("turned") else {}
        image.save(folder / name, **exif)
    wide = (pixels / 255 * 4095).astype(np.uint16)
    (folder / "12_bit.pgm").write_bytes(b"P5 64 64 4095 " + struct.pack(f">{wide.size}H", *wide.flat))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a spec and images of all kinds, of which some cannot be read or are none."""
    monkeypatch.chdir(tmp_path)
    TINY_NET.save("tiny.json")
    quick = (resources.files("nas.training") / "recipes" / "quick.toml").read_text()
    quicker, changed = re.subn(r"(?m)^learning_rate = .*$", "learning_rate = 0.1", quick)
    assert changed == 1
    Path("quicker.toml").write_text(quicker)
    for part in ("train", "val"):
        folder = Path("images", part)
        save_kinds(folder / "rising", RISING)
        save_kinds(folder / "falling", RISING[::-1].copy())
        save_kinds(folder / ".ipynb_checkpoints", RISING)
        for name in ("1.avif", "2.avif", "3.jfif", "4.jfif", "5.JFIF", "6.gif"):
            Image.fromarray(RISING).save(folder / "rising" / name, format="PNG")
        whole = (folder / "rising" / "16_bit.png").read_bytes()
        (folder / "rising" / "cut.png").write_bytes(whole[: len(whole) // 2])
        (folder / "falling" / "empty.jpg").write_bytes(b"")
        Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(folder / "falling" / "no_number.tif")
    return Path("images")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Yield a function that runs a command as a user does, and returns its lines on stdout."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def called(name: str, *arguments: str | Path) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        run(name, COMMANDS[name])
        return capsys.readouterr().out.splitlines()

    yield called
    torch.set_num_threads(threads)


def left_out(lines: list[str]) -> list[str]:
    """Return the files that were left out, in order."""
    return sorted(line.removeprefix("left out ").split(": ")[0] for line in lines if line.startswith("left out "))


def guesses(lines: list[str]) -> dict[str, dict[str, float]]:
    """Return the percentages of the classes by the file, as predictions show them."""
    found = {}
    for line in lines:
        file, _, shares = line.rpartition(": ")
        found[file] = {name: float(share) for name, share in re.findall(r"(\S+) ([\d.]+)%", shares)}
    return found


def test_images_of_all_kinds_are_trained_on_exported_and_predicted(
    images: Path, call: Call, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    unreadable = [images / part / name for part in ("train", "val") for name in BROKEN]
    said = call("train", "tiny.json", "--data", f"imagefolder:{images}", *TRAINING)
    assert f"imagefolder:{images} (37 + 37 images, 2 classes)" in said[0]
    for part in ("train", "val"):
        assert f"note: {images / part}: skipped the hidden folder .ipynb_checkpoints" in said
        passed_over = f"note: {images / part}: passed over files (3 .jfif, 2 .avif, 1 .gif); those that are images need"
        assert any(line.startswith(passed_over) for line in said)
    assert left_out(said) == sorted(map(str, unreadable))
    assert f"{len(unreadable)} images could not be read and were left out" in said

    said = call("export", "trained")
    assert left_out(said) == sorted(map(str, unreadable))
    assert any("top-1 on the 34 validation images" in line for line in said)

    readable = [images / "val" / name / kind for name in ("rising", "falling") for kind in (*KINDS, "12_bit.pgm")]
    by_torch, by_onnx = (guesses(call("predict", model, *readable)) for model in ("trained", "trained/model.onnx"))
    assert list(by_torch) == list(by_onnx) == list(map(str, readable))
    for file in readable:
        plain = by_torch[str(file.with_name("8_bit.png"))]
        assert by_onnx[str(file)] == pytest.approx(by_torch[str(file)], abs=0.11), f"{file}: ONNX differs from torch"
        assert by_torch[str(file)] == pytest.approx(plain, abs=0.5), f"{file}: differs from the picture in 8 bits"
        assert plain[file.parent.name] > 55, "otherwise nothing was learnt, and all pictures are alike"

    with pytest.raises(SystemExit) as status:
        call("predict", "trained/model.onnx", *unreadable, readable[0])
    assert status.value.code == 2
    printed = capsys.readouterr()
    assert guesses(printed.out.splitlines()) == {str(readable[0]): by_onnx[str(readable[0])]}
    *named, summary = printed.err.splitlines()
    assert [line.split(": ")[0] for line in named] == list(map(str, unreadable))
    assert summary == "nas.predict: error: 6 of 7 images cannot be read; they are named above"
    assert [str(warning.message) for warning in recwarn if "PIL" in warning.filename] == []


def test_names_that_are_not_utf_8(images: Path, call: Call) -> None:
    for part in ("train", "val"):
        (images / part / "rising").rename(images / part / LATIN_1)
        save_kinds(images / part / "rising", RISING.T.copy())
        file = images / part / "falling" / f"{LATIN_1}.png"
        Image.fromarray(RISING[::-1].copy()).save(file)
    call("train", "tiny.json", "--data", f"imagefolder:{images}", *TRAINING)
    call("export", "trained")
    lines = call("predict", "trained/model.onnx", images / "val" / LATIN_1 / "16_bit.png", file)
    assert len(lines) == 2
    assert all(len(re.findall(r"[\d.]+%", line)) == 3 for line in lines)
