import csv
import dataclasses

import pytest
import torch

from nas.errors import NasError
from nas.training.checkpoint import load_checkpoint, load_model
from nas.training.data import TensorImages
from nas.training.loop import Metrics, evaluate
from nas.training.run import Settings, best_epoch, load_settings, train


@pytest.fixture
def settings(tiny_spec, little_data, recipe) -> Settings:
    return Settings(spec=tiny_spec, source=little_data.source, recipe=recipe, resolution=32)


class StoppedError(Exception):
    pass


def stopper(epoch: int, step: int):
    """Ends a training in the middle of an epoch, as Ctrl-C does."""

    def on_step(at):
        if (at.epoch, at.step) == (epoch, step):
            raise StoppedError

    return on_step


def without_times(rows):
    return [row._replace(seconds=0, images_per_second=0) for row in rows]


def test_a_run_leaves_its_folder(settings, little_data, tmp_path):
    seen = []
    rows = train(settings, little_data, tmp_path / "run", on_epoch=seen.append)
    assert rows == seen
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["best.pt", "last.pt", "metrics.csv"]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert [Metrics(*map(float, row.values())) for row in csv.DictReader(file)] == rows
    last, best = (load_checkpoint(tmp_path / "run" / name) for name in ("last.pt", "best.pt"))
    assert Settings.from_dict(last) == Settings.from_dict(best) == settings == load_settings(tmp_path / "run")
    assert (last["epoch"], best["epoch"]) == (3, best_epoch(rows).epoch)
    assert last["classes"] == list(little_data.classes)
    model = load_model(tmp_path / "run" / "best.pt")
    assert evaluate(model, little_data.val.batches(200, 32))[1] == best_epoch(rows).top1


@pytest.mark.parametrize("stop", [(1, 2), (2, 1), (3, 4)])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(settings, little_data, tmp_path, stop):
    whole = train(settings, little_data, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(settings, little_data, tmp_path / "stopped", on_step=stopper(*stop))
    assert load_checkpoint(tmp_path / "stopped" / "last.pt")["epoch"] == stop[0] - 1
    rows = train(settings, little_data, tmp_path / "stopped", resume=True)
    assert without_times(rows) == without_times(whole)
    for name in ("last.pt", "best.pt"):
        ours, theirs = (load_checkpoint(tmp_path / run / name) for run in ("stopped", "whole"))
        assert ours["epoch"] == theirs["epoch"]
        assert all(torch.equal(value, theirs["average"][key]) for key, value in ours["average"].items())


def test_a_finished_run_has_nothing_left_to_resume(settings, little_data, tmp_path):
    rows = train(settings, little_data, tmp_path)
    assert train(settings, little_data, tmp_path, resume=True) == rows


def test_a_folder_with_a_run_is_left_alone(settings, little_data, tmp_path):
    train(settings, little_data, tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(NasError, match=r"already holds a training; go on with it by --resume, or name another"):
        train(settings, little_data, tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_nothing_to_resume(settings, tmp_path):
    with pytest.raises(NasError, match="there is no training to resume here; leave out --resume"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 40}, "was trained with another resolution"),
        ({"seed": 1}, "was trained with another seed"),
    ],
)
def test_other_settings_are_refused(settings, little_data, tmp_path, change, message):
    train(settings, little_data, tmp_path)
    with pytest.raises(NasError, match=message):
        train(dataclasses.replace(settings, **change), little_data, tmp_path, resume=True)


def test_another_network_is_refused(settings, little_data, tmp_path):
    train(settings, little_data, tmp_path)
    other = dataclasses.replace(settings, spec=settings.spec.with_block(0, kernel=5))
    with pytest.raises(NasError, match=rf"last\.pt: is of another network \(tiny, id {settings.spec.id}\)"):
        train(other, little_data, tmp_path, resume=True)


def test_another_number_of_classes_is_refused(settings, little_data, tmp_path):
    train(settings, little_data, tmp_path)
    nine = dataclasses.replace(little_data, classes=little_data.classes[:9])
    with pytest.raises(NasError, match=r"last\.pt: was trained on 10 classes, not on the 9 of fashion-mnist-sample"):
        train(settings, nine, tmp_path, resume=True)


def test_a_truncated_checkpoint_is_refused(settings, little_data, tmp_path):
    train(settings, little_data, tmp_path)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NasError, match=r"last\.pt: not a checkpoint, or not a whole one"):
        train(settings, little_data, tmp_path, resume=True)


def test_a_training_that_diverges_keeps_what_it_had(settings, little_data, tmp_path):
    wild = dataclasses.replace(settings, recipe=settings.recipe.replace(learning_rate=1e30))
    with pytest.raises(NasError, match=r"the training loss is (nan|inf)"):
        train(wild, little_data, tmp_path)
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 0


def test_a_folder_that_cannot_be_made(settings, little_data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NasError, match="this folder cannot be made"):
        train(settings, little_data, tmp_path / "file" / "run")


def test_the_seed_is_of_the_first_weights_too(settings, little_data, tmp_path):
    quick = settings.recipe.replace(epochs=1)
    few = TensorImages(little_data.train.images[:2], little_data.train.labels[:2])
    data = dataclasses.replace(little_data, train=few)
    for seed in (0, 1):
        train(dataclasses.replace(settings, recipe=quick, seed=seed), data, tmp_path / str(seed))
    first, second = (load_checkpoint(tmp_path / str(seed) / "last.pt")["model"] for seed in (0, 1))
    assert not torch.allclose(first["features.0.0.weight"], second["features.0.0.weight"], atol=0.05)
