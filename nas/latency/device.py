"""Describe the machine: its description is in every table, so that another machine's table is never used unnoticed."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nas.cpu import usable_cores
from nas.errors import NasError

# The instruction sets that decide which kernels a runtime takes.
_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve")


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
        information = _first_cpu()
        flags = set(information.get("flags", information.get("Features", "")).split())
        name = information.get("model name") or platform.processor() or platform.machine() or "unknown CPU"
        # Virtual machines often hide the model's name; its numbers tell generations apart.
        numbers = [information.get(key) for key in ("cpu family", "model", "stepping")]
        if all(numbers) and not any(c.isdigit() for c in name):
            name = f"{name} {'-'.join(str(number) for number in numbers)}"
        cpufreq = Path("/sys/devices/system/cpu/cpu0/cpufreq")
        max_khz = _read(cpufreq / "cpuinfo_max_freq")
        return cls(
            cpu=name,
            flags=tuple(flag for flag in _FLAGS if flag in flags),
            cores=usable_cores(),
            architecture=platform.machine(),
            os=f"{platform.system()} {platform.release()}",
            governor=_read(cpufreq / "scaling_governor"),
            max_mhz=int(max_khz) // 1000 if max_khz else None,
        )


def _first_cpu() -> dict[str, str]:
    """Return the first processor of /proc/cpuinfo; empty where there is no such file."""
    text = _read(Path("/proc/cpuinfo")) or ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


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
    before = {thread: _affinity(thread, everywhere) for thread in _threads_to_pin()}
    try:
        for thread in before:
            _pin(thread, set(cores))
        yield True
    finally:
        for thread in _threads_to_pin():  # a thread that was started meanwhile took over the pin
            _pin(thread, before.get(thread, everywhere))


def _threads_to_pin() -> list[int]:
    """Return the native ids of the calling thread and of all threads that Python did not start."""
    calling, tasks = threading.get_native_id(), Path("/proc/self/task")
    others = {thread.native_id for thread in threading.enumerate()} - {calling}
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
