"""Tell big cores from little ones, and the hardware threads of one core, by what Linux shows of them below /sys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.system_files import ROOT, system_number, system_text

# Cores of one kind differ a little in clock where each is run as fast as its own silicon allows. On the processors that
# were looked at they differ by up to 6 %, and the next kind is 16 % slower at least.
SAME_KIND = 0.9


def spread(ranked: Sequence[int], number: int, root: Path = ROOT) -> list[int]:
    """Return the cores that so many threads of one program should have, the best of those in `ranked`, best first.

    They are of the fastest kind that has enough cores, and each is a physical core of its own. Where no kind has
    enough, the fastest kinds come first, and other hardware threads of the same cores last.
    """
    kinds = _kinds(ranked, root)
    physical = [core for core in ranked if core == _first_of_siblings(core, ranked, root)]
    for kind in kinds:
        if len(own := [core for core in physical if core in kind]) >= number:
            return own[:number]
    by_kind = [core for kind in kinds for core in ranked if core in kind]
    return sorted(by_kind, key=lambda core: core not in physical)[:number]


def _kinds(cores: Sequence[int], root: Path) -> list[set[int]]:
    """Return the cores by their kinds, the fastest kind first; one kind where the system does not say.

    The scheduler's capacity counts work done in a second, and its clock does not: it is the second choice.
    """
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {core: system_number(_folder(core, root) / file) for core in cores}
        if all(speeds.values()):
            break
    else:
        return [set(cores)]
    kinds: list[set[int]] = []
    fastest = 0
    for core in sorted(cores, key=lambda core: -speeds[core]):
        if not kinds or speeds[core] < SAME_KIND * fastest:
            kinds.append(set())
            fastest = speeds[core]
        kinds[-1].add(core)
    return kinds


def _first_of_siblings(core: int, ranked: Sequence[int], root: Path) -> int:
    """Return the best ranked of a physical core's hardware threads."""
    siblings = {core, *_listed(system_text(_folder(core, root) / "topology/thread_siblings_list"))}
    return next(other for other in ranked if other in siblings)


def _listed(text: str) -> list[int]:
    """Return the numbers of a list such as "0,48" or "0-1,4"."""
    ends = [part.partition("-") for part in text.split(",") if part]
    return [core for first, _, last in ends for core in range(int(first), int(last or first) + 1)]


def _folder(core: int, root: Path) -> Path:
    return root / f"sys/devices/system/cpu/cpu{core}"
