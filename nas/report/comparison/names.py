"""Name devices by as few words as tell them apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from nas.utf8 import as_utf8

_NOISE = re.compile(r"\((?:R|TM)\)|\b(?:CPU|Processor)\b")  # in the names of processors


class DeviceParts(NamedTuple):
    """The processor, runtime, threads and precision that latencies hold for."""

    cpu: str
    runtime: str  # name and version
    threads: int
    precision: str

    @property
    def words(self) -> tuple[str, ...]:
        """Return the parts for readers, the processor without marks."""
        cpu = " ".join(_NOISE.sub(" ", self.cpu).split())
        return cpu or self.cpu, self.runtime, f"{self.threads} thread{'s' if self.threads > 1 else ''}", self.precision


def short_names(devices: Sequence[DeviceParts]) -> list[str]:
    """Return a name for each device: its processor, and what else differs from another one."""
    words = [device.words for device in devices]
    differ = [place for place in range(len(words[0])) if place == 0 or len({one[place] for one in words}) > 1]
    return [as_utf8(", ".join(one[place] for place in differ)) for one in words]
