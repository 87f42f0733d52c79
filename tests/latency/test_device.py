"""The machine, its cores, and the threads that stay on them while programs are timed."""

import _thread
import dataclasses
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import synthetic
from support.trees import plant

from nas.arch.parts import NetworkPart
from nas.arch.published import published_spec
from nas.cpu import usable_cores
from nas.latency.device import Device, allowed_cores, hold, pinned
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
@pytest.mark.parametrize("name", ["onnxruntime", "litert", "openvino", "torch"])
def test_every_thread_of_a_runtime_stays_on_the_cores_while_rows_are_measured(name: str) -> None:
    """In a process of its own: some runtimes remember for good the cores that they were started on."""
    pytest.importorskip("ai_edge_litert" if name == "litert" else name, reason=f"{name} is not installed")
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600)
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


@needs_pinning
def test_a_thread_that_leaves_the_cores_is_brought_back(waiting: threading.Thread) -> None:
    everywhere, core = set(allowed_cores()), allowed_cores()[0]
    run = make_runtime("onnxruntime", 3).compile(PART)
    run()
    with pinned([core]):
        os.sched_setaffinity(max(affinities()), everywhere)
        hold([])
        assert everywhere in affinities().values()
        hold([core])
        assert set(map(frozenset, affinities().values())) == {frozenset([core])}
        assert os.sched_getaffinity(waiting.native_id or 0) == everywhere
    assert set(map(frozenset, affinities().values())) == {frozenset(everywhere)}


@needs_pinning
def test_a_thread_of_a_runtime_that_called_python_stays_on_the_cores_too() -> None:
    """Python then lists it among its own threads."""
    core, ready, done, native = allowed_cores()[0], threading.Event(), threading.Event(), list[int]()

    def call() -> None:
        native.append(threading.current_thread().native_id or 0)
        ready.set()
        done.wait(300)

    _thread.start_new_thread(call, ())  # this module alone does not enter it in the list
    try:
        assert ready.wait(300)
        assert native[0] in {thread.native_id for thread in threading.enumerate()}
        with pinned([core]):
            assert os.sched_getaffinity(native[0]) == {core}
    finally:
        done.set()


@needs_pinning
def test_a_thread_that_starts_while_others_are_pinned_is_pinned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not pinned yet may start it."""
    everywhere, lists = set(allowed_cores()), iter([[1], [1, 2], [1, 2], [1, 2, 3]])
    pins: list[tuple[int, set[int]]] = []
    monkeypatch.setattr("nas.latency.device._threads_to_pin", lambda: next(lists))
    monkeypatch.setattr("nas.latency.device._affinity", lambda thread, default: {7 + thread})
    monkeypatch.setattr("nas.latency.device._pin", lambda thread, cores: pins.append((thread, cores)))
    with pinned([0]):
        assert pins == [(1, {0}), (2, {0})]
    assert pins[2:] == [(1, {8}), (2, {9}), (3, everywhere)]


# Identity ---------------------------------------------------------------------------------------------


def arm(part: str, revision: int, variant: str = "0x0", features: str = "fp asimd evtstrm crc32 cpuid") -> str:
    """Return a processor's paragraph of /proc/cpuinfo without its first line."""
    return (
        f"BogoMIPS\t: 38.40\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: {variant}\nCPU part\t: {part}\nCPU revision\t: {revision}\n"
    )


def cpuinfo(*processors: str, end: str = "") -> str:
    return "\n".join(f"processor\t: {number}\n{text}" for number, text in enumerate(processors)) + f"\n{end}"


# github.com/hrw/arm-socs-table/issues/6 and github.com/fastfetch-cli/fastfetch/issues/1529, shortened.
PI_3 = cpuinfo(
    *["model name\t: ARMv8 Processor rev 4 (v8l)\n" + arm("0xd03", 4)] * 4,
    end="Hardware\t: BCM2835\nRevision\t: a02082\nSerial\t\t: 0\nModel\t\t: Raspberry Pi 3 Model B Rev 1.2",
)
PI_4 = cpuinfo(*[arm("0xd08", 3)] * 4, end="Revision\t: d03115\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5")
# github.com/hrw/arm-socs-table/issues/18: a Radxa Rock 5B.
NEWER = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
RK3588 = cpuinfo(*[arm("0xd05", 0, "0x2", NEWER)] * 4, *[arm("0xd0b", 0, "0x4", NEWER)] * 4)
# github.com/util-linux/util-linux, tests/ts/lscpu/dumps at 39465c7, shortened: armv7, rv64-visionfive2,
# loongarch-loongson_3a5000_hv and x86_64-epyc_7451.
EXYNOS_5 = (
    "Processor\t: ARMv7 Processor rev 4 (v7l)\nprocessor\t: 0\nBogoMIPS\t: 1694.10\n\nprocessor\t: 1\n\n"
    "Features\t: swp half thumb fastmult vfp edsp thumbee neon vfpv3 tls vfpv4 idiva idivt\nCPU implementer\t: 0x41\n"
    "CPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xc0f\nCPU revision\t: 4\n\n"
    "Hardware\t: SAMSUNG EXYNOS5 (Flattened Device Tree)\nRevision\t: 0000"
)
VISION_FIVE = cpuinfo("hart\t\t: 3\nisa\t\t: rv64imafdc\nmmu\t\t: sv39\nuarch\t\t: sifive,u74-mc\n")
LOONGSON = "system type\t\t: generic-loongson-machine\n\n" + cpuinfo("Model Name\t\t: Loongson-3A5000-HV\n")
EPYC = cpuinfo(
    "vendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7451 24-Core Processor\n"
    "stepping\t: 2\nflags\t\t: fpu sse2 fma avx f16c avx2 sha_ni\n"
)
HIDDEN = EPYC.replace(" 7451 24-Core Processor", "")  # as virtual machines show it


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    """The device of a /proc/cpuinfo and other files."""

    def read(text: str, architecture: str = "aarch64", **files: str) -> Device:
        monkeypatch.setattr(platform, "machine", lambda: architecture)
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        return Device.read(plant(root, {"proc/cpuinfo": text} | {f"proc/device-tree/{k}": v for k, v in files.items()}))

    return read


def test_boards_of_one_maker_are_told_apart(named: Callable[..., Device]) -> None:
    pi_3, pi_4 = named(PI_3), named(PI_4)
    assert pi_3.cpu == "Raspberry Pi 3 Model B, Cortex-A53 r0p4"
    assert pi_4.cpu == "Raspberry Pi 4 Model B, Cortex-A72 r0p3"
    assert pi_3.identity != pi_4.identity
    assert pi_4.flags == ("asimd",)
    assert pi_4.name.startswith("raspberry-pi-4-model-b-cortex-a72-r0p3-asimd-")
    hidden = PI_4.replace("Model\t\t: Raspberry Pi 4 Model B Rev 1.5", "")
    assert named(hidden, model="Raspberry Pi 4 Model B Rev 1.1\0").identity == pi_4.identity
    assert named(hidden).cpu == "Cortex-A72 r0p3"


def test_all_kinds_of_cores_are_named(named: Callable[..., Device]) -> None:
    rock = named(RK3588, model="Radxa ROCK 5B\0")
    assert rock.cpu == "Radxa ROCK 5B, Cortex-A55 r2p0, Cortex-A76 r4p0"
    assert rock.flags == ("asimd", "asimdhp", "asimddp")


@pytest.mark.parametrize(
    ("text", "cpu"),
    [
        (EXYNOS_5, "SAMSUNG EXYNOS5 (Flattened Device Tree), Cortex-A15 r0p4"),
        (VISION_FIVE, "sifive,u74-mc"),
        (LOONGSON, "Loongson-3A5000-HV"),
        (cpuinfo(arm("0xfff", 1)), "Arm 0xfff r0p1"),
        (cpuinfo(arm("0xd08", 1).replace(": 0x41", ": 0x99")), "0x99 0xd08 r0p1"),
        (cpuinfo("CPU implementer\t: 0x61\nCPU part\t: 0x023\n"), "Firestorm-M1"),
        (cpuinfo("CPU implementer\t: 0x41\n"), "an-arm"),
        ("", "an-arm"),
    ],
)
def test_other_processors_are_named(
    named: Callable[..., Device], monkeypatch: pytest.MonkeyPatch, text: str, cpu: str
) -> None:
    """Numbers that no name is known for stay as they are."""
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert named(text, "an-arm").cpu == cpu


def test_names_of_x86_stay(named: Callable[..., Device]) -> None:
    """The files of tables are named after them; the digits are a hash over the identity."""
    epyc, hidden = (named(text, "x86_64", model="A board\0") for text in (EPYC, HIDDEN))
    assert epyc.identity == ("AMD EPYC 7451 24-Core Processor", ("avx", "avx2", "fma"), "x86_64")
    assert hidden.cpu == "AMD EPYC 23-1-2"
    measured = dataclasses.replace(hidden, cpu="AMD EPYC 25-17-1", flags=(*hidden.flags, "avx512f", "avx512_vnni"))
    assert measured.name == "amd-epyc-25-17-1-avx512-ed32f8"


@pytest.mark.skipif(os.name != "posix", reason="the command is a shell script here")
def test_one_mac_is_told_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no /proc, and `platform` says "arm" of each; a command says more."""
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert Device.read(tmp_path).cpu == "arm"
    says = '#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo "Apple M1 Pro"'
    command = plant(tmp_path, {"usr/sbin/sysctl": says}) / "usr/sbin/sysctl"
    command.chmod(0o755)
    assert Device.read(tmp_path).cpu == "Apple M1 Pro"
    assert Device.read(tmp_path).name.startswith("apple-m1-pro-arm64-")


def test_clock_and_governor_are_read(tmp_path: Path) -> None:
    """The clock is that of the fastest core."""
    cpu = "sys/devices/system/cpu/cpu"
    files = {f"{cpu}{core}/cpufreq/cpuinfo_max_freq": khz for core, khz in ((0, 1800000), (4, 2400000), (6, 2352000))}
    device = Device.read(plant(tmp_path, {**files, f"{cpu}0/cpufreq/scaling_governor": "schedutil"}))
    assert (device.max_mhz, device.governor) == (2400, "schedutil")
    assert (Device.read(tmp_path / "none").max_mhz, Device.read(tmp_path / "none").governor) == (None, None)


def test_the_device_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Device.this()
    monkeypatch.setattr("nas.latency.device._processors", lambda root: pytest.fail("it is read again"))
    assert Device.this() is first


def test_tests_can_be_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Device.this()
    with monkeypatch.context() as patch:
        there = synthetic.become(patch, flags=("avx2",))  # which no processor has alone
        assert Device.this() is there
        assert (there.cpu, there.flags) == (here.cpu, ("avx2",))
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
