"""What machine this is: written into every table, so that another machine's is never used unnoticed."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.errors import NasError

# The instruction sets that decide which kernels a runtime takes.
_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve")


@dataclass(frozen=True, slots=True)
class Device:
    cpu: str
    flags: tuple[str, ...]
    cores: int
    architecture: str
    os: str
    governor: str | None  # None: the system does not tell
    max_mhz: int | None

    @property
    def name(self) -> str:
        """Short and fit for a file's name."""
        words = "".join(c if c.isalnum() else " " for c in self.cpu.replace("(R)", "").replace("(TM)", "")).split()
        widest = next((flag for flag in ("avx512f", "avx2", "sve", "asimd") if flag in self.flags), self.architecture)
        noise = ("CPU", "Processor", "with", "Graphics")
        return "-".join([*(word.lower() for word in words if word not in noise), widest.replace("avx512f", "avx512")])

    @property
    def identity(self) -> tuple[str, tuple[str, ...], str]:
        """What must agree for two machines to count as one device."""
        return self.cpu, self.flags, self.architecture

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"flags": list(self.flags)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Device:
        try:
            return cls(**(data | {"flags": tuple(data["flags"])}))
        except (KeyError, TypeError) as error:
            raise NasError(f"its device cannot be read ({error}); measure it again") from None

    @classmethod
    def this(cls) -> Device:
        """The machine this runs on, as far as its system tells."""
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
            cores=os.cpu_count() or 1,
            architecture=platform.machine(),
            os=f"{platform.system()} {platform.release()}",
            governor=_read(cpufreq / "scaling_governor"),
            max_mhz=int(max_khz) // 1000 if max_khz else None,
        )


def _first_cpu() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is no such file."""
    text = _read(Path("/proc/cpuinfo")) or ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def allowed_cores() -> list[int]:
    """The cores this process may run on; empty where the system cannot say (macOS, Windows)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def pinned(cores: list[int]) -> Iterator[bool]:
    """Keeps this process on `cores` for the time being; gives False where the system cannot pin."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield True
    finally:
        os.sched_setaffinity(0, before)
