"""Count the cores that this process may use: those it may run on, and what a CPU quota of its control groups leaves."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nas.system_files import ROOT, system_text


def usable_cores(root: Path = ROOT) -> int:
    """Return how many cores this process may keep busy, or all of the machine's where the system cannot say.

    A CPU quota counts as whole cores, rounded up. Its files are read below `root`.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cores = affinity or os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the CPU time that control groups leave this process, in cores, or None where there is no quota.

    A quota of any level counts for all groups below it, so that the smallest decides. Both versions are read:
    `cpu.max` (docs.kernel.org/admin-guide/cgroup-v2.html) and `cpu.cfs_quota_us` (docs.kernel.org/scheduler/sched-bwc).
    """
    quotas = [quota for folder in _control_groups(root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def quota_warning(threads: int, root: Path = ROOT) -> str | None:
    """Return the line to say where a CPU quota stops so many threads, or None where it leaves them alone."""
    quota = cpu_quota(root)
    if quota is None or quota >= threads:
        return None
    plural = "s" if threads > 1 else ""
    fewer = f"--threads {int(quota)} is the most that it carries" if quota >= 1 else "raise it to a core at least"
    return (
        f"warning: a CPU quota of {quota:.3g} cores (cgroup) stops {threads} thread{plural} again and again: "
        f"times will be long and differ from run to run; {fewer}"
    )


def _control_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups that can hold a quota, from its own up to the highest it sees.

    A container often sees its own group as the highest. Without a namespace of its own it knows the group's full path,
    of which the mount shows the end only.
    """
    groups = {}
    for line in system_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            groups["cgroup" if controllers else "cgroup2"] = path
    for line in system_text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = (*after.split(" ", 2), "", "")[:3]
        if kind not in groups or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        mounted, point = before.split()[3:5]
        highest = root / point.lstrip("/")
        folder = highest / _below(groups[kind], mounted)
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(highest))


def _below(path: str, mounted: str) -> str:
    """Return a group's path below the mounted one; empty where the mount does not show it."""
    group = PurePosixPath(path)
    shown = group.is_relative_to(mounted) and ".." not in group.parts
    return str(group.relative_to(mounted)) if shown else ""


def _quota(group: Path) -> float | None:
    quota, period = (*system_text(group / "cpu.max").split(), "", "")[:2]
    if not quota:
        quota, period = (system_text(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None  # "max" and "-1": none
