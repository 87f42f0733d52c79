"""Files are written whole or not at all."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import make_folder, read_bytes, read_text, replacing, write_text

NOBODY = 65_534  # a user without rights, on every Unix


@pytest.fixture
def locked() -> Iterator[Path]:
    """Yield a folder with a file that the running process may neither read nor write."""
    if os.name != "posix":
        pytest.skip("permissions of other systems are another matter")
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others on their way down
        folder = Path(name)
        (folder / "a.json").write_text("{}")
        (folder / "a.json").chmod(0)
        folder.chmod(0o555)
        root = os.geteuid() == 0  # root may do everything, so the test becomes another user
        if root:
            os.seteuid(NOBODY)
        yield folder
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_text_round_trip_and_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "h-swish ≤ 20 ms\n")
    assert read_text(path) == "h-swish ≤ 20 ms\n"
    write_text(str(path), "second")
    assert read_text(str(path)) == "second"
    assert os.listdir(path.parent) == ["c.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, NasError, OSError])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failure_leaves_the_old_file_and_no_litter(
    error: type[BaseException], old: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    if old is not None:
        path.write_text(old)

    def write_half() -> None:
        with replacing(path) as side:
            side.write_text("half of the n")
            assert side.parent == path.parent  # else the renaming could not be one step
            assert side.suffix == path.suffix
            raise error("stopped")

    with pytest.raises(NasError if error is OSError else error):
        write_half()
    assert os.listdir(tmp_path) == ([] if old is None else ["a.json"])
    assert old is None or path.read_text() == old


def test_a_spec_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    spec, path = published_spec("mobilenet_v3_small"), tmp_path / "small.json"
    spec.save(path)
    with pytest.raises(ValueError, match="JSON compliant"):
        published_spec("mobilenet_v3_large").save(path, {"latency_ms": float("nan")})
    assert ArchSpec.load(path) == spec
    assert os.listdir(tmp_path) == ["small.json"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere an open file cannot be replaced")
def test_a_reader_meanwhile_reads_the_whole_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new and longer"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="modes are Unix's")
def test_a_written_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(NasError, match="this is a folder; name a file"):
        write_text(tmp_path, "text")
    with pytest.raises(NasError, match=r"cannot be made .*; name another place"):
        write_text(tmp_path / "file" / "a.txt", "text")
    with pytest.raises(NasError, match=r"cannot be made .*; name another place"):
        write_text(tmp_path / "file" / "folder" / "a.txt", "text")
    with pytest.raises(NasError, match="cannot be written"):
        write_text(tmp_path / ("x" * 250), "text")  # too long once the side file's mark is added
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_no_permission(locked: Path) -> None:
    with pytest.raises(NasError, match=r"a\.json: cannot be read \(Permission denied\)"):
        read_text(locked / "a.json")
    with pytest.raises(NasError, match=r"a\.json: cannot be read \(Permission denied\)"):
        ArchSpec.load(locked / "a.json")
    with pytest.raises(NasError, match="cannot be written"):
        write_text(locked / "b.json", "text")
    with pytest.raises(NasError, match="cannot be made"):
        make_folder(locked / "folder")
    assert os.listdir(locked) == ["a.json"]


def test_text_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x00\xff\xfe\x00")
    with pytest.raises(NasError, match="not a text file in UTF-8"):
        read_text(tmp_path / "binary")
    with pytest.raises(NasError, match="no such file"):
        read_text(tmp_path / "none")
    with pytest.raises(NasError, match="cannot be read"):
        read_text(tmp_path)
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(NasError, match=f"^{path}: "):
            read_bytes(path)
