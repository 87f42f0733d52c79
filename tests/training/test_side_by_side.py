"""Jobs side by side: in two processes that start once, and in this one."""

import multiprocessing
import os
import pickle
import threading
from collections import namedtuple
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from support.pictures import save_images
from support.worker_processes import count_until_stopped, die, fail, look_around

from nas.errors import NasError
from nas.training import side_by_side
from nas.training.data import load_data
from nas.training.disk_images import DiskImages
from nas.training.images import Data
from nas.training.side_by_side import Ended, SideBySide, WorkerDiedError
from nas.training.tensor_images import TensorImages


@pytest.fixture
def data(little_data: Data) -> Data:
    """Return images of this test alone: they move into shared memory."""
    parts = {
        name: TensorImages(part.images[:20].clone(), part.labels[:20].clone())
        for name, part in (("train", little_data.train), ("val", little_data.val))
        if isinstance(part, TensorImages)
    }
    return replace(little_data, **parts)


def values_of(pool: SideBySide, numbers: list[int]) -> dict[int, list[Any]]:
    """Return what jobs yield, by their numbers."""
    found: dict[int, list[Any]] = {number: [] for number in numbers}
    left = set(numbers)
    while left:
        number, value = pool.next_value()
        if isinstance(value, Ended):
            left.remove(number)
        else:
            found[number].append(value)
    return found


def test_jobs_share_images_and_processes_until_one_dies(data: Data) -> None:
    pool = SideBySide(data, at_a_time=2)
    before = set(active_children())
    seen = values_of(pool, [pool.begin(look_around, name) for name in "abcd"])
    assert [name for ((name, *_),) in seen.values()] == list("abcd")
    pids = {pid for ((_, pid, *_),) in seen.values()}
    assert pids <= {worker.process.pid for worker in pool._workers}
    assert len(pool._workers) == 2
    for ((_, _, threads, shared, pixels),) in seen.values():
        assert threads == 1
        assert shared
        assert pixels == int(data.train.images.sum())  # type: ignore[attr-defined]

    endless = pool.begin(count_until_stopped)
    assert pool.next_value() == (endless, 0)
    pool.stop(endless)
    assert values_of(pool, [endless])[endless] in ([], [1])
    numbers = [pool.begin(die), pool.begin(count_until_stopped)]
    with pytest.raises(WorkerDiedError, match=r"died \(signal SIGKILL, perhaps for want of memory\); continue the run"):
        values_of(pool, numbers)
    assert set(active_children()) <= before  # loaders of another test may have ended meanwhile


def test_a_process_sends_what_jobs_yield_and_raise(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread, which starts sooner than a process."""
    monkeypatch.setattr(side_by_side, "live_with_parent", lambda: None)
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=side_by_side._work, args=(theirs, pickle.dumps(data), 1))
    thread.start()

    def told(*requests: Any) -> tuple[Any, Any]:
        for request in requests:
            ours.send_bytes(pickle.dumps(request))
        return pickle.loads(ours.recv_bytes())  # type: ignore[no-any-return]

    assert told((count_until_stopped, ())) == (0, None)
    while told(None) != (Ended(), None):
        pass
    assert told(None, (fail, ("picture.png is no image",))) == (0, None)  # a stop that comes too late is nobody's
    _, error = told()
    assert type(error) is NasError
    assert str(error) == "picture.png is no image"
    assert not hasattr(error, "__notes__")
    assert told((fail, (1,))) == (0, None)
    _, bug = told()
    assert type(bug) is TypeError
    assert "in fail" in bug.__notes__[0]
    ours.close()
    thread.join(300)
    assert not thread.is_alive()


def test_one_job_at_a_time_is_done_here_by_one_thread(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "usable_cores", lambda: 1)
    torch.set_num_threads(2)
    for pool in (SideBySide(data), SideBySide(data, at_a_time=2)):
        for _ in range(2):  # a single job of several that could be done at a time
            ((_, pid, threads, shared, _),) = values_of(pool, [number := pool.begin(look_around, "a")])[number]
            assert (pid, threads, shared) == (os.getpid(), 1, False)
    assert torch.get_num_threads() == 2
    pool = SideBySide(data)
    endless, after = pool.begin(count_until_stopped), pool.begin(look_around, "b")
    assert pool.next_value() == (endless, 0)
    pool.stop(endless)
    assert values_of(pool, [endless, after])[endless] == []
    with pytest.raises(NasError, match=r"picture\.png"):
        values_of(pool, [pool.begin(fail, "picture.png is no image")])


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_a_value_without_a_job_is_a_mistake(data: Data, at_a_time: int) -> None:
    with pytest.raises(AssertionError, match="there is no job"):
        SideBySide(data, at_a_time=at_a_time).next_value()


def test_as_many_at_a_time_as_there_are_cores_and_one_on_a_gpu(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "usable_cores", lambda: 3)
    assert SideBySide(data).at_a_time == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert SideBySide(data).at_a_time == 1
    assert SideBySide(data, at_a_time=2).at_a_time == 2


def test_processes_divide_the_loaders(tmp_path: Path) -> None:
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 2, 200)
    data = load_data(f"imagefolder:{tmp_path}", loaders=5)
    data.train.unreadable["x.png"] = "no image"
    divided, other = (side_by_side._divided(data, index, 2) for index in (0, 1))
    assert isinstance(other, Data)
    assert isinstance(other.train, DiskImages)
    assert other.train.loaders == 2
    assert isinstance(divided, Data)
    assert isinstance(divided.train, DiskImages)
    assert isinstance(divided.val, DiskImages)
    assert (divided.train.loaders, divided.val.loaders) == (3, 3)
    assert divided.unreadable == {}
    ((images, _),) = pickle.loads(pickle.dumps(divided)).val.batches(2, 32)
    assert images.shape == (2, 3, 32, 32)


def test_images_that_find_no_room_in_shared_memory_are_copied(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(side_by_side.shutil, "disk_usage", lambda path: usage(1_000))
    copied = side_by_side._divided(data, 0, 2)
    assert isinstance(copied, bytes)
    assert torch.equal(pickle.loads(copied).train.images, data.train.images)  # type: ignore[attr-defined]
    assert not data.train.images.is_shared()  # type: ignore[attr-defined]
