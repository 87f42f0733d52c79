"""The command as a user runs it, on a network that trains in a second."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from multiprocessing import current_process
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from nas import train
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.cli.entry import run
from nas.errors import NasError
from nas.training import data as training_data
from nas.training.checkpoint import load_checkpoint
from nas.training.image_files import open_rgb
from nas.training.images import Data
from nas.training.processes import Processes
from nas.training.tensor_images import TensorImages

SPEC = ArchSpec(
    name="tiny net",
    resolution=48,
    stem=StemSpec(out=8),
    blocks=(BlockSpec(kernel=3, expanded=16, out=8, stride=2),),
    head=HeadSpec(conv=16),
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Go to an empty folder with a spec in it, and embed 400 images instead of 12,000."""
    monkeypatch.chdir(tmp_path)
    SPEC.save("tiny.json")
    embedded = training_data._embedded()
    few = Data(
        embedded.source,
        embedded.classes,
        *(TensorImages(part.images[:200], part.labels[:200]) for part in (embedded.train, embedded.val)),
    )
    monkeypatch.setattr(training_data, "_embedded", lambda: few)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings_of(folder: str) -> dict:
    return load_checkpoint(Path(folder) / "last.pt")


def test_trains_and_reports_the_result(capsys):
    train.main(["tiny.json", "--epochs", "2"])
    out = capsys.readouterr().out
    folder = "reports/tiny-net-fashion-mnist-sample"
    assert f"into {folder}" in out
    assert "epoch   1: loss " in out
    assert "epoch   2: loss " in out
    assert "best accuracy " in out
    assert settings_of(folder)["resolution"] == 32
    assert settings_of(folder)["recipe"]["epochs"] == 2
    # What it says last is a program that runs.
    program = out.splitlines()[-1].strip() + "; print(model.spec.name)"
    assert "load_model" in program
    scope: dict = {}
    exec(program, scope)
    assert scope["model"].spec == SPEC


def test_every_argument_arrives():
    words = "--data fashion-mnist-sample --recipe quick --epochs 1 --resolution 40 --batch-size 50 --seed 3 --out here"
    train.main(["tiny.json", *words.split()])
    saved = settings_of("here")
    assert (saved["resolution"], saved["seed"], saved["source"]) == (40, 3, "fashion-mnist-sample")
    assert (saved["recipe"]["name"], saved["recipe"]["epochs"], saved["recipe"]["batch_size"]) == ("quick", 1, 50)


def test_starts_from_weights_and_learns_from_a_teacher(capsys):
    """The teacher, a spec, is trained first; a checkpoint is taken as it is."""
    wide = SPEC.with_block(0, expanded=32).replace(name="wide")
    wide.save("wide.json")
    train.main(["tiny.json", "--epochs", "2", "--teacher", "wide.json", "--out", "first"])
    out = capsys.readouterr().out
    assert out.index("training the teacher first, wide, into first/teacher") < out.index("best accuracy")
    assert load_checkpoint("first/teacher/last.pt")["epoch"] == 2
    saved = settings_of("first")
    assert (saved["teacher"], saved["init"], saved["epoch"]) == ("wide.json", None, 2)
    words = "wide.json --epochs 1 --teacher first/teacher/best.pt --init first/best.pt --accumulate 2 --out second"
    train.main(words.split())
    out = capsys.readouterr().out
    # The stem, its norm, the projection's norm, the last 1x1 with its norm, the classifier; not what is wider.
    assert "took the weights of 6 of 11 layers; new are features.1.block.0.0" in out
    assert (settings_of("second")["teacher"], settings_of("second")["init"]) == (
        "first/teacher/best.pt",
        "first/best.pt",
    )
    train.main(["wide.json", "--out", "second", "--resume"])
    with pytest.raises(
        NasError, match=r"--teacher is other\.pt, and the training to resume has first/teacher/best\.pt"
    ):
        train.main(["wide.json", "--out", "second", "--resume", "--teacher", "other.pt"])


def test_no_teacher_is_trained_for_a_folder_that_is_used(capsys):
    train.main(["tiny.json", "--epochs", "1", "--out", "here"])
    with pytest.raises(NasError, match="here: already holds a training"):
        train.main(["tiny.json", "--epochs", "1", "--teacher", "tiny.json", "--out", "here"])
    assert not Path("here/teacher").exists()


@pytest.fixture
def image_folder():
    for part in ("train", "val"):
        for name, grey in (("cat", 0), ("dog", 200)):
            folder = Path("images", part, name)
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("L", (40, 40), grey + index).save(folder / f"{index}.png")


def test_images_that_cannot_be_read_are_named_and_counted(image_folder, capsys):
    Path("images/train/dog/2.png").write_bytes(b"no image")
    Path("images/val/cat/1.png").write_bytes(b"")
    Path("images/val/cat/5.jfif").write_bytes(b"")
    words = "tiny.json --data imagefolder:images --epochs 2 --resolution 32 --batch-size 4 --out here"
    train.main(words.split())
    out = capsys.readouterr().out
    assert out.count("left out images/train/dog/2.png: ") == out.count("left out images/val/cat/1.png: ") == 1
    assert "2 images could not be read and were left out" in out
    assert "note: images/val: passed over files (1 .jfif)" in out.replace("\n", " ")


def test_a_loader_that_dies_is_one_line_with_the_flag_that_helps(image_folder, capsys, monkeypatch):
    def read(path):
        if current_process().daemon:
            os.kill(os.getpid(), signal.SIGBUS)
        return open_rgb(path)

    seconds_between_looks = (0.1,)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", seconds_between_looks)
    monkeypatch.setattr("nas.training.image_folder.open_rgb", read)
    monkeypatch.setattr("nas.training.disk_images.FEW_IMAGES", 0)
    words = "--data imagefolder:images --epochs 1 --resolution 32 --batch-size 4 --out here"
    arguments = ["tiny.json", *words.split()]
    monkeypatch.setattr("sys.argv", ["x", *arguments, "--loaders", "1"])
    with pytest.raises(SystemExit) as status:
        run("train", train.main)
    assert status.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nas.train: error: a loader of images has no memory to share its batches (/dev/shm ")
    train.main([*arguments, "--resume", "--loaders", "0"])
    assert "best accuracy " in capsys.readouterr().out


def test_data_smaller_than_a_batch_are_said(capsys):
    train.main(["tiny.json", "--epochs", "1", "--batch-size", "256", "--out", "here"])
    assert (
        "\nwarning: fashion-mnist-sample: 200 images to train on are fewer than the batch of 256 of recipe quick; an "
        "epoch is one step on all 200, at the learning rate for 256; a smaller --batch-size takes more steps, at a "
        "lower learning rate\n"
    ) in capsys.readouterr().out
    train.main(["tiny.json", "--epochs", "1", "--out", "there"])  # batches of 128
    assert "warning" not in capsys.readouterr().out


def test_a_spec_of_a_search_is_trained_beside_it():
    os.mkdir("run")
    SPEC.save("run/small.json")
    Path("run/run.json").write_text("{}")
    train.main(["run/small.json", "--epochs", "1"])
    assert Path("run/small-fashion-mnist-sample/best.pt").exists()


def test_resumes_with_the_settings_of_its_start(capsys):
    train.main(["tiny.json", "--epochs", "1", "--seed", "7", "--out", "here"])
    train.main(["tiny.json", "--out", "here", "--resume"])
    assert settings_of("here")["seed"] == 7
    capsys.readouterr()


def test_a_job_that_is_started_again_continues(capsys):
    command = ["tiny.json", "--epochs", "1", "--out", "here", "--resume"]
    train.main(command)
    assert "here holds no training to resume; a new one begins there\n" in capsys.readouterr().out
    train.main(command)
    printed = capsys.readouterr().out
    assert "holds no training" not in printed
    assert "epoch   1" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tiny.json --out here", "here: already holds a training; continue it with --resume, or name another folder"),
        ("tiny.json --out here --resume --epochs 9", "--epochs is 9, and the training to resume has 1; leave it out"),
        ("tiny.json --out here --resume --batch-size 9", "--batch-size is 9"),
        ("mobilenet_v2 --out here --resume", "the training to resume is of another network (tiny net"),
        ("nothing.json", "nothing.json: no such file"),
        ("no_network", "unknown network 'no_network'"),
        ("tiny.json --data nothing", "unknown data source 'nothing'; known: fashion-mnist-sample"),
        ("tiny.json --recipe nothing", "unknown recipe 'nothing'; known: modern, paper, quick, torchvision"),
        ("tiny.json --batch-size 1", "batch_size is 1; it must be a whole number of at least 2"),
        ("tiny.json --out tiny.json/x", "this folder cannot be made"),
    ],
)
def test_mistakes_are_named(arguments, message):
    train.main(["tiny.json", "--epochs", "1", "--out", "here"])
    with pytest.raises(NasError) as error:
        train.main(arguments.split())
    assert message in str(error.value)


@pytest.mark.parametrize("flag", ["--epochs", "--batch-size", "--resolution", "--seed"])
@pytest.mark.parametrize("value", ["-1", "x", "1.5", "nan"])
def test_numbers_that_are_none_are_refused(flag, value, capsys):
    with pytest.raises(SystemExit) as error:
        train.main(["tiny.json", f"{flag}={value}"])
    assert error.value.code == 2
    assert f"argument {flag}: " in capsys.readouterr().err


def test_errors_are_one_line_and_status_2(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/nas/train.py", "nothing.json"])
    with pytest.raises(SystemExit) as error:
        run("train", train.main)
    assert error.value.code == 2
    assert capsys.readouterr().err == "nas.train: error: nothing.json: no such file\n"


def test_help_is_quick():
    """The processor's seconds count: on a busy machine those on the wall are others' too."""
    code = (
        "import runpy, sys, time\n"
        "sys.argv = ['nas.train', '--help']\n"
        "try: runpy.run_module('nas.train', run_name='__main__')\n"
        "finally: print('torch' in sys.modules, time.process_time())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.startswith("usage: ")
    loaded, seconds = result.stdout.splitlines()[-1].split()
    assert loaded == "False"
    assert float(seconds) < 5  # under one where nothing else runs


@pytest.fixture
def ctrl_c():
    """Let SIGINT raise KeyboardInterrupt, also in new processes: what a script starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_leaves_a_run_that_can_be_resumed(capsys, monkeypatch, ctrl_c):
    def interrupt(share, note):
        assert re.fullmatch(r"epoch [123]/3, [\d,]+ images/s", note)
        if note.startswith("epoch 2"):
            assert 1 / 3 < share <= 2 / 3
            signal.raise_signal(signal.SIGINT)

    command = ["tiny.json", "--epochs", "3", "--out", "here"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/nas/train.py", *command])
    with monkeypatch.context() as patch:
        patch.setattr(train.RichConsole, "progress", lambda console, title: nullcontext(interrupt))
        with pytest.raises(SystemExit) as error:
            run("train", train.main)
    assert error.value.code == 130
    assert capsys.readouterr().err == "nas.train: interrupted; everything that was finished is kept\n"
    assert settings_of("here")["epoch"] == 1
    train.main([*command, "--resume"])
    assert settings_of("here")["epoch"] == 3


# Processes -----------------------------------------------------------------------------------------------


def test_the_number_of_processes_is_kept(capsys):
    train.main(["tiny.json", "--epochs", "1", "--processes", "1", "--out", "one"])
    train.main(["tiny.json", "--epochs", "1", "--processes", "auto", "--out", "auto"])
    assert [(settings_of(out)["processes"], settings_of(out)["threads"]) for out in ("one", "auto")] == [(1, 1)] * 2


@pytest.mark.parametrize(
    ("count", "device", "message"),
    [
        (2, "cpu", "--processes is of no use under torchrun, whose --nproc-per-node decides; leave it out"),
        (1, "cuda", "--processes is for the cores of a CPU, and this training is on a GPU"),
    ],
)
def test_processes_are_refused_where_others_decide(monkeypatch, count, device, message):
    joined = nullcontext((Processes(0, count), torch.device(device)))
    monkeypatch.setattr("nas.training.processes.joined_processes", lambda: joined)
    with pytest.raises(NasError, match=message):
        train.main(["tiny.json", "--processes", "2"])


def test_ctrl_c_ends_all_processes_and_is_told_once(ctrl_c):
    command = [sys.executable, "-m", "nas.train", "tiny.json", "--epochs", "500", "--processes", "2", "--out", "run"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("epoch   1"):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
                break
        _, told = process.communicate(timeout=300)
    assert told == "nas.train: interrupted; everything that was finished is kept\n"
    assert process.returncode == 130
    deadline = time.monotonic() + 300  # Python's own tracker of what processes share ends a moment later
    while _group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group_lives(process.pid)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
