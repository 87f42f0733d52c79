"""Notice that heat, a power limit or a governor slows the processor while programs are timed, as far as Linux says it.

A slow processor changes ratios to the reference network little, but it does change the reference network's own time,
which turns ratios into milliseconds. Linux counts on Intel's processors how often heat stepped in
(docs.kernel.org/admin-guide/thermal/intel_thermal_throttle.html), and shows a clock on most
(docs.kernel.org/admin-guide/pm/cpufreq.html). Firmware that slows a processor by itself, as a Raspberry Pi's can, may
leave no trace.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nas.system_files import ROOT, system_number, system_text

SLOW = 0.7  # of the fastest clock; many cores at once, or wide instructions, run at three quarters of it by design
LOOKS = 3  # as many say more than a governor that has not noticed the work yet
SECONDS_BETWEEN = 0.2  # looks: one can take a millisecond

_log = logging.getLogger(__name__)


class Throttling:
    """A watch over the cores that programs are timed on. It says what it noticed in one line, once.

    By default the line is a warning of the module `logging`: where nothing else is set up, it appears on stderr.
    """

    def __init__(self, root: Path = ROOT, say: Callable[[str], None] = _log.warning) -> None:
        self._cpus = root / "sys/devices/system/cpu"
        self._say = say
        self._said = False
        self._shares: list[float] = []  # of the fastest clock, at each look
        self._looked = float("-inf")

    @contextmanager
    def watched(self, cores: Sequence[int]) -> Iterator[Callable[[], None]]:
        """Watch cores during the block, and yield a call that looks at their clocks: just after they were busy."""
        before = self._events(cores)
        yield lambda: self._look(cores)
        if self._said:
            return
        events = self._events(cores) - before
        share = statistics.median(self._shares) if len(self._shares) >= LOOKS else 1.0
        if events > 0 or share < SLOW:
            self._said = True
            self._say(self._line(cores, events, share))

    def _look(self, cores: Sequence[int]) -> None:
        """Note the clock of the core that is nearest to its fastest: the others may have been idle."""
        if (now := time.monotonic()) < self._looked + SECONDS_BETWEEN:
            return
        self._looked = now
        clocks = [(self._number(core, "scaling_cur_freq"), self._number(core, "cpuinfo_max_freq")) for core in cores]
        if shares := [current / fastest for current, fastest in clocks if current and fastest]:
            self._shares.append(max(shares))

    def _events(self, cores: Sequence[int]) -> int:
        """Return how often heat has stepped in since the system started: on these cores, and around the first."""
        paths = [self._cpus / f"cpu{core}/thermal_throttle/core_throttle_count" for core in cores]
        paths += [self._cpus / f"cpu{core}/thermal_throttle/package_throttle_count" for core in cores[:1]]
        return sum(system_number(path) for path in paths)

    def _line(self, cores: Sequence[int], events: int, share: float) -> str:
        governors = sorted({system_text(self._cpus / f"cpu{core}/cpufreq/scaling_governor") for core in cores} - {""})
        causes = f"heat, a power limit or the governor {', '.join(governors)}" if governors else "heat or a power limit"
        noticed = [f"heat stepped in {events} times"] if events > 0 else []
        noticed += [f"its clock was at {share:.0%} of the fastest ({causes})"] if share < SLOW else []
        return (
            f"warning: the processor was slowed while it was measured: {' and '.join(noticed)}; times are those of a "
            "slow device. Cool it or change its settings, remove the table and measure it again"
        )

    def _number(self, core: int, file: str) -> int:
        return system_number(self._cpus / f"cpu{core}/cpufreq/{file}")
