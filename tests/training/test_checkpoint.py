import pytest
import torch

from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.training.checkpoint import find_checkpoint, load_checkpoint, load_model, load_torch_file, save_checkpoint


def contents(spec, /, **changes):
    model = build_model(spec, 3)
    return {"spec": spec.to_dict(), "classes": ["a", "b", "c"], "average": model.state_dict()} | changes


def test_the_network_comes_back(tmp_path, tiny_spec):
    saved = contents(tiny_spec)
    save_checkpoint(tmp_path / "x.pt", saved)
    model = load_model(tmp_path / "x.pt")
    assert model.spec == tiny_spec
    assert not model.training
    assert all(torch.equal(value, saved["average"][name]) for name, value in model.state_dict().items())


def test_files_that_are_no_checkpoints_are_refused(tmp_path, tiny_spec):
    path = tmp_path / "x.pt"
    with pytest.raises(NasError, match=r"x\.pt: no such file"):
        load_checkpoint(path)
    save_checkpoint(path, contents(tiny_spec))
    whole = path.read_bytes()
    for part in (b"", whole[:100], whole[: len(whole) // 2], whole[:-30], b"text" * 100):
        path.write_bytes(part)
        with pytest.raises(NasError, match=r"x\.pt: not a file of weights"):
            load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(NasError, match=r"x\.pt: not a checkpoint of nas\.train"):
        load_checkpoint(path)
    torch.save({"version": 99}, path)
    with pytest.raises(NasError, match="version is 99; this program reads version 1"):
        load_checkpoint(path)


DAMAGED = [
    (lambda whole: b"", "it is empty"),
    (lambda whole: bytes(5000), "it begins with nothing but zeros, .*"),
    (lambda whole: b"\n<!DOCTYPE html><html><body>Not found</body></html>", "it seems to be a web page"),
    (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "it is a pointer of .*"),
    (lambda whole: whole[: len(whole) // 2], "it seems to be cut off"),
    (lambda whole: whole[:-30], "it seems to be cut off"),
]


@pytest.mark.parametrize(("damage", "seems"), DAMAGED)
def test_the_error_says_what_a_damaged_file_seems_to_be(tmp_path, damage, seems):
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(damage((tmp_path / "x.pt").read_bytes()))
    message = rf"x\.pt: not a file of weights: {seems}; remove it, and fetch or make it again$"
    with pytest.raises(NasError, match=message) as error:
        load_torch_file(tmp_path / "x.pt")
    assert "\n" not in str(error.value)


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(NasError, match=r"cannot be read \("):
        load_torch_file(tmp_path)


@pytest.mark.parametrize("change", [{"classes": ["a"]}, {"average": {}}, {"classes": None}, {"spec": {"version": 2}}])
def test_checkpoints_that_do_not_fit_are_refused(tmp_path, tiny_spec, change):
    save_checkpoint(tmp_path / "x.pt", contents(tiny_spec, **change))
    with pytest.raises(NasError, match=r"x\.pt: not a checkpoint of nas\.train"):
        load_model(tmp_path / "x.pt")


def test_a_checkpoint_is_found_by_its_folder_and_by_the_spec_beside_it(tmp_path, tiny_spec):
    tiny_spec.save(tmp_path / "final.json")
    with pytest.raises(NasError, match=r"final\.json: is a spec without weights beside it; name a checkpoint"):
        find_checkpoint(tmp_path / "final.json")
    with pytest.raises(NasError, match=r"its network has no weights; train it with .* first"):
        find_checkpoint(tmp_path)
    (tmp_path / "final.json").rename(tmp_path / "spec.json")
    assert find_checkpoint(tmp_path) == tmp_path / "best.pt"
    (tmp_path / "spec.json").rename(tmp_path / "final.json")
    for name in ("final.pt", "fine-tune/best.pt", "best.pt"):  # each is preferred to those before
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert find_checkpoint(tmp_path) == tmp_path / name
        assert find_checkpoint(tmp_path / name) == tmp_path / name
        assert find_checkpoint(tmp_path / "final.json") == tmp_path / "final.pt"


class Hostile:
    def __reduce__(self):
        return print, ("this must not run",)


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    torch.save({"version": 1, "spec": Hostile()}, tmp_path / "x.pt")
    with pytest.raises(NasError, match=r"x\.pt: not a file of weights, or not a whole one") as error:
        load_checkpoint(tmp_path / "x.pt")
    assert "weights_only" not in str(error.value)  # torch's advice on how to run it
    assert capsys.readouterr().out == ""


def test_a_full_disk_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource", reason="no limit on the size of files here")
    path = tmp_path / "x.pt"
    save_checkpoint(path, {"old": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(NasError, match=r"x\.pt: cannot be written \("):
            save_checkpoint(path, {"weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path) == {"version": 1, "old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]
