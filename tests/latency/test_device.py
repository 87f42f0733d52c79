"""The machine, its cores, and the threads that stay on them while programs are timed."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import synthetic

from nas.arch.parts import NetworkPart
from nas.arch.published import published_spec
from nas.cpu import usable_cores
from nas.latency.device import Device, allowed_cores, pinned
from nas.latency.runtimes import make_runtime

TASKS = Path("/proc/self/task")
PART = NetworkPart(published_spec("mobilenet_v3_small").replace(resolution=64), 10)

needs_pinning = pytest.mark.skipif(
    len(allowed_cores()) < 2 or not TASKS.is_dir(), reason="this system cannot pin, or has one core"
)


def affinities() -> dict[int, set[int]]:
    """Return the cores of every thread of this process that Python did not start, and of the calling one."""
    others = {thread.native_id for thread in threading.enumerate()} - {threading.get_native_id()}
    return {
        thread: os.sched_getaffinity(thread)
        for thread in (int(task.name) for task in TASKS.iterdir())
        if thread not in others
    }


@pytest.fixture
def waiting() -> Iterator[threading.Thread]:
    """A Python thread, like the one that draws a progress bar."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield thread
    done.set()
    thread.join()


@needs_pinning
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_every_thread_of_a_runtime_stays_on_the_cores_while_rows_are_measured(name: str) -> None:
    """In a process of its own: some runtimes remember for good the cores that they were started on."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    code = f"""
import os, threading
from pathlib import Path
from nas.arch.parts import ContextPart, HeadPart, NetworkPart
from nas.arch.published import published_spec
from nas.latency import timing
from nas.latency.device import allowed_cores
from nas.latency.measuring import measure_missing, new_table
from nas.latency.networks import measure_latency
from nas.latency.runtimes import make_runtime
from nas.latency.timing import StoppingRule

everywhere, core = set(allowed_cores()), allowed_cores()[-1]
timing.allowed_cores = lambda: [core]
runtime = make_runtime({name!r}, 3)
seen, largest, compiled = set(), 0, type(runtime).compile

def affinities():
    others = {{thread.native_id for thread in threading.enumerate()}} - {{threading.get_native_id()}}
    tasks = {{int(task.name) for task in Path("/proc/self/task").iterdir()}} - others
    return [frozenset(os.sched_getaffinity(task)) for task in tasks]

def compile(self, part):
    run = compiled(self, part)
    def observed():
        global largest
        run()
        seen.update(affinities())
        largest = max(largest, len(affinities()))
    return observed

type(runtime).compile = compile
table = new_table(runtime)
spec = published_spec("mobilenet_v3_small").replace(resolution=64)
measure_missing(table, [NetworkPart(spec), ContextPart(8, 4)])
measure_latency([spec], table=table, stopping_rule=StoppingRule(1, 5, 5))
assert seen == {{frozenset([core])}}, seen
assert set(affinities()) == {{frozenset(everywhere)}}, affinities()
print(largest)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3, "the runtime has no pool: this test proves nothing"


@needs_pinning
@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_pool_that_is_older_than_the_pin_stays_on_the_cores_too(name: str, waiting: threading.Thread) -> None:
    """The threads that Python started stay where they were."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    everywhere, core, run = set(allowed_cores()), allowed_cores()[-1], make_runtime(name, 3).compile(PART)
    run()
    pool = affinities()
    assert len(pool) >= 3, "the runtime has no pool: this test proves nothing"
    with pinned([core]):
        run()
        assert set(map(frozenset, affinities().values())) == {frozenset([core])}
        assert pool.keys() <= affinities().keys()
        assert os.sched_getaffinity(waiting.native_id or 0) == everywhere
    assert set(map(frozenset, affinities().values())) == {frozenset(everywhere)}


@needs_pinning
def test_a_thread_keeps_a_pin_of_its_own() -> None:
    """Each thread goes back to where it was, which need not be where the calling one was."""
    everywhere, core = set(allowed_cores()), allowed_cores()[0]
    run = make_runtime("onnxruntime", 3).compile(PART)
    run()
    own = max(affinities())
    os.sched_setaffinity(own, {core})
    try:
        with pinned([allowed_cores()[-1]]):
            assert os.sched_getaffinity(own) == {allowed_cores()[-1]}
        assert os.sched_getaffinity(own) == {core}
    finally:
        os.sched_setaffinity(own, everywhere)


def test_the_device_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Device.this()
    monkeypatch.setattr("nas.latency.device._first_cpu", lambda: pytest.fail("it is read again"))
    assert Device.this() is first


def test_tests_can_be_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Device.this()
    with monkeypatch.context() as patch:
        there = synthetic.become(patch, flags=("avx",))
        assert Device.this() is there
        assert (there.cpu, there.flags) == (here.cpu, ("avx",))
        assert there.identity != here.identity
    assert Device.this() is here


@needs_pinning
def test_cores_that_this_process_may_not_use_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below an empty folder no quota is found, whatever this machine has."""
    monkeypatch.setattr(os, "cpu_count", lambda: 99)
    assert usable_cores(tmp_path) == len(allowed_cores())
    with pinned(allowed_cores()[:1]):
        assert usable_cores(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores(tmp_path) == 99
