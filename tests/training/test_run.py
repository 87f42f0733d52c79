import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.training.checkpoint import load_checkpoint, load_model, save_checkpoint
from nas.training.data import load_data
from nas.training.evaluation import evaluate_model
from nas.training.loop import Metrics
from nas.training.run import Settings, best_epoch, load_settings, train
from nas.training.tensor_images import TensorImages


@pytest.fixture(scope="module")
def settings(tiny_spec, little_data, recipe) -> Settings:
    return Settings(spec=tiny_spec, source=little_data.source, recipe=recipe, resolution=32)


class Whole(NamedTuple):
    folder: Path
    rows: list[Metrics]


@pytest.fixture(scope="module")
def whole(settings, little_data, tmp_path_factory) -> Whole:
    """Return a training from beginning to end, whose folder tests do not write to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return Whole(folder, train(settings, little_data, folder))


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """Return a copy of its folder."""
    return shutil.copytree(whole.folder, tmp_path / "run")


class StoppedError(Exception):
    pass


def stopper(epoch: int, step: int):
    """Return a callback that ends a training in the middle of an epoch, as Ctrl-C does."""

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
    assert evaluate_model(model, little_data.val.batches(200, 32)).top1 == best_epoch(rows).top1


@pytest.mark.parametrize("stop", [(1, 2), (2, 1), (3, 4)])
def test_a_stopped_run_resumes_as_if_never_stopped(settings, little_data, whole, tmp_path, stop):
    with pytest.raises(StoppedError):
        train(settings, little_data, tmp_path / "stopped", on_step=stopper(*stop))
    assert load_checkpoint(tmp_path / "stopped" / "last.pt")["epoch"] == stop[0] - 1
    rows = train(settings, little_data, tmp_path / "stopped", resume=True)
    assert without_times(rows) == without_times(whole.rows)
    for name in ("last.pt", "best.pt"):
        ours, theirs = (load_checkpoint(folder / name) for folder in (tmp_path / "stopped", whole.folder))
        assert ours["epoch"] == theirs["epoch"]
        assert all(torch.equal(value, theirs["average"][key]) for key, value in ours["average"].items())


def test_a_finished_run_has_nothing_left_to_resume(settings, little_data, whole, run):
    assert train(settings, little_data, run, resume=True) == whole.rows


def test_a_folder_with_a_run_is_left_alone(settings, little_data, run):
    before = (run / "last.pt").read_bytes()
    with pytest.raises(NasError, match=r"already holds a training; continue it with --resume, or name another"):
        train(settings, little_data, run)
    assert (run / "last.pt").read_bytes() == before


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
def test_other_settings_are_refused(settings, little_data, run, change, message):
    with pytest.raises(NasError, match=message):
        train(dataclasses.replace(settings, **change), little_data, run, resume=True)


def test_another_network_is_refused(settings, little_data, run):
    other = dataclasses.replace(settings, spec=settings.spec.with_block(0, kernel=5))
    with pytest.raises(NasError, match=rf"last\.pt: is of another network \(tiny, id {settings.spec.id}\)"):
        train(other, little_data, run, resume=True)


def test_another_number_of_classes_is_refused(settings, little_data, run):
    nine = dataclasses.replace(little_data, classes=little_data.classes[:9])
    with pytest.raises(NasError, match=r"fashion-mnist-sample has the classes .* \(9\) now, and .*last\.pt was"):
        train(settings, nine, run, resume=True)


def test_a_truncated_checkpoint_is_refused(settings, little_data, run):
    content = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(NasError, match=r"last\.pt: not a file of weights: it seems to be cut off; remove it"):
        train(settings, little_data, run, resume=True)


def test_a_training_that_diverges_keeps_its_last_state(settings, little_data, tmp_path):
    wild = dataclasses.replace(settings, recipe=settings.recipe.replace(learning_rate=1e30))
    with pytest.raises(NasError, match=r"the training loss is (nan|inf)"):
        train(wild, little_data, tmp_path)
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 0


def test_a_folder_that_cannot_be_made(settings, little_data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NasError, match="this folder cannot be made"):
        train(settings, little_data, tmp_path / "file" / "run")


def test_the_seed_decides_the_first_weights_too(settings, little_data, tmp_path):
    quick = settings.recipe.replace(epochs=1)
    few = TensorImages(little_data.train.images[:2], little_data.train.labels[:2])
    data = dataclasses.replace(little_data, train=few)
    for seed in (0, 1):
        train(dataclasses.replace(settings, recipe=quick, seed=seed), data, tmp_path / str(seed))
    first, second = (load_checkpoint(tmp_path / str(seed) / "last.pt")["model"] for seed in (0, 1))
    assert not torch.allclose(first["features.0.0.weight"], second["features.0.0.weight"], atol=0.05)


# Other weights, teachers, TensorBoard -------------------------------------------------------------------


def test_first_weights_come_from_the_named_source(settings, little_data, whole, tmp_path):
    source = str(whole.folder / "best.pt")
    seen = []
    one = settings.recipe.replace(epochs=1, learning_rate=1e-9)
    rows = train(
        dataclasses.replace(settings, recipe=one, init=source), little_data, tmp_path / "second", on_init=seen.append
    )
    assert seen[0].fresh == ()
    assert rows[0].top1 == pytest.approx(load_checkpoint(source)["metrics"][0]["top1"], abs=1)
    with pytest.raises(NasError, match="was trained with another init"):
        train(dataclasses.replace(settings, recipe=one), little_data, tmp_path / "second", resume=True)


def test_a_training_with_a_teacher_resumes_exactly(settings, little_data, whole, tmp_path):
    torch.manual_seed(5)
    teacher = build_model(settings.spec, 10)
    taught = dataclasses.replace(settings, teacher="big.pt")
    at_once = train(taught, little_data, tmp_path / "at once", teacher=teacher)
    assert without_times(at_once) != without_times(whole.rows)
    with pytest.raises(StoppedError):
        train(taught, little_data, tmp_path / "stopped", teacher=teacher, on_step=stopper(2, 2))
    rows = train(taught, little_data, tmp_path / "stopped", teacher=teacher, resume=True)
    assert without_times(rows) == without_times(at_once)


def test_tensorboard_is_an_extra(settings, little_data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(NasError, match="--tensorboard needs the package tensorboard; install it with"):
        train(settings, little_data, tmp_path, tensorboard=True)


def test_tensorboard_gets_every_epoch(settings, little_data, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, epoch):
            written.append((name, value, epoch))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    rows = train(settings, little_data, tmp_path, tensorboard=True)
    assert written[0] == (str(tmp_path / "tensorboard"), 1)
    assert [(value, epoch) for name, value, epoch in written[1:] if name == "top1"] == [(r.top1, r.epoch) for r in rows]


# In separate processes ---------------------------------------------------------------------------------

PROGRAM = """
import sys, time, torch
from nas.training.data import load_data
from nas.training.images import Data
from nas.training.tensor_images import TensorImages
from nas.training.loop import Machine
from nas.training.processes import joined_processes
from nas.training.run import Settings, train
from nas.training.checkpoint import load_checkpoint
torch.set_num_threads(1)
out, settings, val = sys.argv[1], Settings.from_dict(load_checkpoint(sys.argv[2])), int(sys.argv[3])
stays_at = sys.argv[4:]
data = load_data(settings.source)
few = [TensorImages(part.images[:n], part.labels[:n]) for part, n in ((data.train, 600), (data.val, val))]
data = Data(data.source, data.classes, *few)
def on_step(step):
    print(step.epoch, step.step, flush=True)
    if stays_at == [f"{step.epoch} {step.step}"]:
        time.sleep(600)
with joined_processes() as (processes, device):
    machine = Machine(device=device, processes=processes)
    train(settings, data, out, on_step=on_step, machine=machine)
"""


@pytest.fixture
def command(settings, tmp_path):
    save_checkpoint(tmp_path / "settings.pt", settings.to_dict())
    (tmp_path / "program.py").write_text(PROGRAM)

    def words(out: str, val: int) -> list[str]:
        """Return a program that trains on the first 600 images and validates on the first `val`."""
        return [str(tmp_path / "program.py"), str(tmp_path / out), str(tmp_path / "settings.pt"), str(val)]

    return words


def test_a_killed_run_resumes_as_if_never_killed(command, settings, little_data, whole, tmp_path):
    words = [sys.executable, *command("killed", 200), "2 2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line == "2 2\n":
                process.kill()
    assert process.returncode == -signal.SIGKILL
    rows = train(settings, little_data, tmp_path / "killed", resume=True)
    assert without_times(rows) == without_times(whole.rows)


def test_two_processes_train_one_network(command, settings, tmp_path):
    """They write one run, which is validated on all images and as good as that of one process."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *command("run", 201)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    last, best = (load_checkpoint(tmp_path / "run" / name) for name in ("last.pt", "best.pt"))
    assert last["epoch"] == settings.recipe.epochs
    assert [row["train_loss"] for row in last["metrics"]] == sorted(
        (row["train_loss"] for row in last["metrics"]), reverse=True
    )
    data = load_data(settings.source)
    val = TensorImages(data.val.images[:201], data.val.labels[:201])
    assert evaluate_model(load_model(tmp_path / "run" / "best.pt"), val.batches(201, 32)).top1 == pytest.approx(
        best["metrics"][0]["top1"]
    )
