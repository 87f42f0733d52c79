"""Describe the machine: its description is in every table, so that another machine's table is never used unnoticed."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nas.cpu import usable_cores
from nas.errors import NasError
from nas.latency.arm_cores import core_name
from nas.system_files import ROOT, system_number, system_text

# The instruction sets that decide which kernels a runtime takes.
_X86_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")
_FLAGS = (*_X86_FLAGS, "neon", "asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16", "sve2", "sme")
# The keys of a model's name in /proc/cpuinfo: of x86, LoongArch, MIPS, POWER.
_MODEL_KEYS = ("model name", "Model Name", "cpu model", "cpu")


@dataclass(frozen=True, slots=True)
class Device:
    """A machine on which latency is measured."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    architecture: str
    os: str
    governor: str | None  # None: the system does not say
    max_mhz: int | None

    @property
    def name(self) -> str:
        """Return a short name that is fit for a file's and differs where the identity does."""
        words = "".join(c if c.isalnum() else " " for c in self.cpu.replace("(R)", "").replace("(TM)", "")).split()
        widest = next((flag for flag in ("avx512f", "avx2", "sve", "asimd") if flag in self.flags), self.architecture)
        noise = ("CPU", "Processor", "with", "Graphics")
        words = [*(word.lower() for word in words if word not in noise), widest.replace("avx512f", "avx512")]
        return "-".join([*words, hashlib.sha256(repr(self.identity).encode()).hexdigest()[:6]])

    @property
    def identity(self) -> tuple[str, tuple[str, ...], str]:
        """Return what two machines must share to count as one device."""
        return self.cpu, self.flags, self.architecture

    def to_dict(self) -> dict[str, Any]:
        """Return the description in the form of JSON."""
        return asdict(self) | {"flags": list(self.flags)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Device:
        """Return the object that `to_dict` wrote. Raises NasError."""
        try:
            return cls(**(data | {"flags": tuple(data["flags"])}))
        except (KeyError, TypeError) as error:
            raise NasError(f"its device cannot be read ({error}); remove it and measure it again") from None

    @classmethod
    @cache
    def this(cls) -> Device:
        """Return the machine that this process runs on, as far as its system says. It is read once."""
        return cls.read()

    @classmethod
    def read(cls, root: Path = ROOT) -> Device:
        """Return the machine whose /proc and /sys lie below `root`."""
        processors = _processors(root)
        known = next((p for p in processors if "flags" in p or "Features" in p), {})
        flags = set(known.get("flags", known.get("Features", "")).split())
        cpus = root / "sys/devices/system/cpu"
        max_khz = [khz for path in cpus.glob("cpu*/cpufreq/cpuinfo_max_freq") if (khz := system_number(path))]
        return cls(
            cpu=_cpu_name(processors, root),
            flags=tuple(flag for flag in _FLAGS if flag in flags),
            cores=usable_cores(root),
            architecture=platform.machine(),
            os=f"{platform.system()} {platform.release()}",
            governor=system_text(cpus / "cpu0/cpufreq/scaling_governor") or None,
            max_mhz=max(max_khz) // 1000 if max_khz else None,
        )


def _cpu_name(processors: list[dict[str, str]], root: Path) -> str:
    """Return the name by which a machine's processor is known.

    On x86 it is the model's name. The cores of other processors have names of their own, which say little of their
    caches and clocks: there the board's name stands before those of all kinds of cores, in their order.
    """
    first = processors[0] if processors else {}
    cores = [core_name(processor) or processor.get("uarch") for processor in processors]  # ARM, RISC-V
    if any(cores):
        return ", ".join(dict.fromkeys(filter(None, [_board(processors, root), *cores])))
    models = [value for key in _MODEL_KEYS for processor in processors if (value := processor.get(key))]
    name = models[0] if models else _brand(root) if not processors else None
    name = name or platform.processor() or platform.machine() or "unknown CPU"
    # Virtual machines often hide the model's name; its numbers tell generations apart.
    numbers = [first.get(key) for key in ("cpu family", "model", "stepping")]
    if all(numbers) and not any(c.isdigit() for c in name):
        name = f"{name} {'-'.join(str(number) for number in numbers)}"
    return name


def _processors(root: Path) -> list[dict[str, str]]:
    """Return the paragraphs of /proc/cpuinfo, mostly one a processor; empty where there is no such file."""
    paragraphs = system_text(root / "proc/cpuinfo").split("\n\n")
    pairs = ([line.partition(":") for line in paragraph.splitlines()] for paragraph in paragraphs if paragraph)
    return [{key.strip(): value.strip() for key, _, value in lines} for lines in pairs]


def _board(processors: list[dict[str, str]], root: Path) -> str | None:
    """Return the name of a board, without the revision of its layout.

    The device tree has it. Containers often hide that, and see what some boards write into /proc/cpuinfo. The field
    `Hardware` is the last resort: that of a Raspberry Pi is "BCM2835" on most of its models.
    """
    lines = [value for key in ("Model", "Hardware") for processor in processors if (value := processor.get(key))]
    named = system_text(root / "proc/device-tree/model").strip("\0\n ") or next(iter(lines), "")
    return re.sub(r" Rev [\d.]+$", "", named) or None


def _brand(root: Path) -> str | None:
    """Return what macOS calls its processor, such as "Apple M1 Pro", or None on other systems."""
    command = [str(root / "usr/sbin/sysctl"), "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def allowed_cores() -> list[int]:
    """Return the cores that this thread may run on; empty where the system cannot say (macOS, Windows)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def pinned(cores: list[int]) -> Iterator[bool]:
    """Keep the calling thread and the threads of runtimes on `cores` for the time being.

    Yields False where the system cannot pin. The pool of threads of a runtime is often older than the pin, and
    would roam: each of its threads is pinned too. Other Python threads stay where they are, so that they take no
    time on these cores.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield False
        return
    everywhere = os.sched_getaffinity(0)
    before: dict[int, set[int]] = {}
    try:
        # A thread that is not pinned yet may start others meanwhile, which are not pinned either.
        while new := [thread for thread in _threads_to_pin() if thread not in before]:
            for thread in new:
                before[thread] = _affinity(thread, everywhere)
                _pin(thread, set(cores))
        yield True
    finally:
        for thread in _threads_to_pin():  # a thread that was started meanwhile took over the pin
            _pin(thread, before.get(thread, everywhere))


def hold(cores: list[int]) -> None:
    """Pin again what has left `cores` within a `pinned` block.

    The threads of OpenVINO's pool go back to the cores that the process had at first, now and then, as they come from
    one program to another.
    """
    if cores and hasattr(os, "sched_setaffinity"):
        wanted = set(cores)
        for thread in _threads_to_pin():
            if _affinity(thread, wanted) != wanted:
                _pin(thread, wanted)


def _threads_to_pin() -> list[int]:
    """Return the native ids of the calling thread and of all threads that Python did not start.

    Python lists a thread of a runtime among its own, as a dummy, once that has called Python code.
    """
    calling, tasks = threading.get_native_id(), Path("/proc/self/task")
    known = [thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)]
    others = {thread.native_id for thread in known} - {calling}
    threads = [int(task.name) for task in tasks.iterdir()] if tasks.is_dir() else [calling]
    return [thread for thread in threads if thread not in others]


def _affinity(thread: int, default: set[int]) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:  # it has ended
        return default


def _pin(thread: int, cores: set[int]) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.sched_setaffinity(thread, cores)
