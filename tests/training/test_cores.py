import dataclasses
import multiprocessing
from functools import partial

import pytest
import torch
from support.worker_processes import train_into

from nas.errors import NasError
from nas.training import cores
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.cores import Layout, layouts, load_layout_and_epochs, train_on_cores
from nas.training.loop import Machine
from nas.training.processes import Processes
from nas.training.run import LAST, Settings, train
from nas.training.tensor_images import TensorImages


@pytest.fixture(scope="module")
def settings(tiny_spec, little_data, recipe) -> Settings:
    return Settings(spec=tiny_spec, source=little_data.source, recipe=recipe.replace(epochs=2), resolution=32)


@pytest.fixture
def no_processes(monkeypatch):
    """Let nobody start a process."""

    def fail(*arguments):
        raise OSError("no more processes\nat all")

    monkeypatch.setattr(cores, "local_processes", fail)


def first_images(data, count):
    few = TensorImages(data.train.images[:count], data.train.labels[:count])
    return dataclasses.replace(data, train=few)


def layout_of(folder):
    layout, _ = load_layout_and_epochs(folder)
    return layout


def without_times(rows):
    return [row._replace(seconds=0, images_per_second=0) for row in rows]


def test_two_processes_train_one_network_and_survive_a_death(settings, little_data, tmp_path, monkeypatch):
    """A process that is killed ends the training; resumed, it repeats one that nobody disturbed to the last digit."""

    before = set(multiprocessing.active_children())  # loaders of another test may not have ended yet

    def kill_the_other(at):
        if (at.epoch, at.step) == (2, 2):
            (child,) = set(multiprocessing.active_children()) - before
            child.kill()

    work = cores._Work(settings, little_data, tmp_path / "whole", False, Machine(), None, None, {})
    with cores._started(work, 2) as local:
        whole = local.run(cores._train, 2, 1)
        local.shared = dataclasses.replace(work, out=tmp_path / "killed", first={"on_step": kill_the_other})
        with pytest.raises(NasError, match=r"that train together died \(signal SIGKILL.*; go on with --resume"):
            local.run(partial(train_into, tmp_path / "killed"), 2, 1)
    assert set(multiprocessing.active_children()) <= before
    assert whole[1].train_loss < whole[0].train_loss
    assert whole[1].top1 > 15
    assert layout_of(tmp_path / "killed") == Layout(2, 1)
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    said = []
    rows = train_on_cores(settings, little_data, tmp_path / "killed", resume=True, machine=Machine(), say=said.append)
    assert said == ["2 processes of 1 thread each train together"]
    assert without_times(rows) == without_times(whole)
    ours, theirs = (load_checkpoint(tmp_path / name / "last.pt")["model"] for name in ("killed", "whole"))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_layouts_use_all_cores_and_leave_batch_norm_enough_images():
    assert layouts(1, 128, 1) == [Layout(1, 1)]
    assert layouts(2, 128, 1) == [Layout(1, 2), Layout(2, 1)]
    assert layouts(8, 128, 1) == [Layout(1, 8), Layout(2, 4), Layout(4, 2), Layout(8, 1)]
    assert layouts(8, 32, 1) == layouts(8, 64, 2) == [Layout(1, 8), Layout(2, 4)]
    assert layouts(6, 128, 1) == [Layout(1, 6), Layout(2, 3), Layout(3, 2), Layout(6, 1)]
    assert layouts(4, 5, 1) == [Layout(1, 4)]


class ScriptedProcesses:
    """Local processes whose steps take what a test says, a time a round."""

    def __init__(self, seconds):
        self.seconds = {way: list(times) for way, times in seconds.items()}

    def run(self, task, count, threads):
        return self.seconds[Layout(count, threads)].pop(0)


@pytest.mark.parametrize(
    ("several", "best"), [((0.07, 0.05), Layout(2, 1)), ((0.5, 0.079), Layout(1, 2)), ((0.1, 0.1), Layout(1, 2))]
)
def test_the_fastest_layout_is_chosen_and_said(several, best):
    local, said = ScriptedProcesses({Layout(1, 2): (0.08, 0.09), Layout(2, 1): several}), []
    assert cores._fastest(local, [Layout(1, 2), Layout(2, 1)], 0.08, said.append) == best
    second = 1000 * min(several)
    times = f"80 ms in 1 process of 2 threads, {second:.0f} ms in 2 processes of 1 thread"
    assert said == [f"trains in {best} (a step took {times})"]


def test_a_short_training_starts_no_processes(settings, little_data, tmp_path, monkeypatch, no_processes):
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    monkeypatch.setattr(cores, "FEW_STEPS", 1)
    said: list[str] = []
    one = dataclasses.replace(settings, recipe=settings.recipe.replace(epochs=1))
    train_on_cores(one, first_images(little_data, 64), tmp_path, machine=Machine(), say=said.append)
    assert not said
    assert layout_of(tmp_path) == Layout(1, 2)
    assert torch.get_num_threads() == 1


def test_timing_leaves_random_numbers_alone(settings, little_data):
    before = torch.get_rng_state()
    work = cores._Work(settings, little_data, None, False, Machine(), None, None, {})
    assert cores._Timing(1)(work, Processes()) > 0
    assert torch.equal(before, torch.get_rng_state())


def test_where_no_process_can_be_started_one_trains(settings, little_data, tmp_path, monkeypatch, no_processes):
    one, said = dataclasses.replace(settings, recipe=settings.recipe.replace(epochs=1)), []
    few = first_images(little_data, 8)
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    rows = train_on_cores(one, few, tmp_path / "no", processes=2, machine=Machine(), say=said.append)
    assert said == ["note: 2 processes cannot train together here (no more processes); one process trains"]
    assert (len(rows), layout_of(tmp_path / "no")) == (1, Layout(1, 2))
    monkeypatch.setattr(cores, "lack_of_shared_memory", lambda needed: f"{needed} bytes are too many")
    train_on_cores(one, few, tmp_path / "memory", processes=2, machine=Machine(), say=said.append)
    assert " bytes are too many); one process trains" in said[1]


def test_more_processes_than_cores_are_warned_of(settings, little_data, tmp_path, no_processes):
    one, said = dataclasses.replace(settings, recipe=settings.recipe.replace(epochs=1)), []
    train_on_cores(one, first_images(little_data, 8), tmp_path, processes=2, machine=Machine(), say=said.append)
    assert said[0] == "warning: 2 processes of 1 thread share 1 core; fewer are faster (--processes N)"


def test_too_many_processes_for_a_batch_are_refused(settings, little_data, tmp_path, no_processes):
    few = first_images(little_data, 7)
    with pytest.raises(NasError, match=r"--processes is 4, and a batch has 7 images; .* take at most --processes 3"):
        train_on_cores(settings, few, tmp_path, processes=4, machine=Machine())


# Resumed trainings -------------------------------------------------------------------------------------------


@pytest.fixture
def resumed(settings, little_data, tmp_path, no_processes):
    """Return a function that resumes a training after the first of two epochs, with other values in its checkpoint.

    It returns what was said, and the layout at the end.
    """
    few = first_images(little_data, 8)

    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, few, tmp_path, on_epoch=interrupt)
    contents = load_checkpoint(tmp_path / LAST)

    def resume(layout, processes=None, images=few):
        known = {key: value for key, value in contents.items() if key not in ("processes", "threads")}
        save_checkpoint(tmp_path / LAST, known | layout)
        said = []
        rows = train_on_cores(
            settings, images, tmp_path, processes=processes, resume=True, machine=Machine(), say=said.append
        )
        assert len(rows) == 2
        return said, layout_of(tmp_path)

    return resume


def test_a_checkpoint_without_a_layout_is_of_one_process_on_all_cores(resumed, monkeypatch):
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    assert resumed({}) == ([], Layout(1, 2))
    with pytest.raises(NasError, match="not a checkpoint that a training can resume from"):
        resumed({"processes": 0, "threads": 1})


def test_a_resumed_training_has_its_threads_again_and_is_warned_of_few_cores(resumed):
    said, layout = resumed({"processes": 1, "threads": 2}, processes=1)
    assert said == ["warning: 1 process of 2 threads shares 1 core, as many as the training had until now"]
    assert layout == Layout(1, 2)
    (warning, note), _ = resumed({"processes": 4, "threads": 1})
    assert warning == "warning: 4 processes of 1 thread share 1 core; fewer are faster (--processes N)"
    assert note.startswith("note: 4 processes cannot train together here")
    said, layout = resumed({"processes": 2, "threads": 1}, processes=1)
    assert said == ["note: the training had 2 processes until now; it goes on a little differently"]
    said, _ = resumed({"processes": 1, "threads": 1}, processes=2)
    assert said[0] == "note: the training had 1 process until now; it goes on a little differently"


def test_a_recorded_layout_must_fit_the_batch(resumed):
    with pytest.raises(NasError, match=r"the training had 8 processes until now, .* take at most --processes 4"):
        resumed({"processes": 8, "threads": 1})


def test_a_finished_training_starts_no_processes(settings, little_data, tmp_path, no_processes):
    one = dataclasses.replace(settings, recipe=settings.recipe.replace(epochs=1))
    few, said = first_images(little_data, 8), []
    rows = train(one, few, tmp_path)
    save_checkpoint(tmp_path / LAST, load_checkpoint(tmp_path / LAST) | {"processes": 2})
    again = train_on_cores(one, few, tmp_path, resume=True, machine=Machine(), say=said.append)
    assert (again, said) == (rows, [])


def test_a_compiled_network_is_not_timed(settings, little_data, tmp_path, monkeypatch, no_processes):
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    monkeypatch.setattr(cores, "SHORT_SECONDS", 0)
    monkeypatch.setattr(cores, "FEW_STEPS", 1)
    monkeypatch.setattr(torch, "compile", lambda module: module)
    one, said = dataclasses.replace(settings, recipe=settings.recipe.replace(epochs=1)), []
    few = first_images(little_data, 64)
    train_on_cores(one, few, tmp_path, machine=Machine(compile=True), say=said.append)
    assert (said, layout_of(tmp_path)) == ([], Layout(1, 2))
