"""CPU quotas of control groups: both versions, nested, in containers with and without a namespace of their own."""

import os
from pathlib import Path

import pytest
from support.trees import plant

from nas.cpu import cpu_quota, quota_warning, usable_cores

# Lines as Linux writes them; of the mounts those that matter, as proc_pid_mountinfo(5) explains them.
VERSION_2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
VERSION_1 = (
    "26 25 0:23 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd\n"
    "30 25 0:27 / /sys/fs/cgroup/cpuset rw,relatime shared:14 - cgroup cgroup rw,cpuset\n"
    "31 25 0:28 {mounted} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct"
)
OF_VERSION_1 = "11:cpuset:/docker/3f2a\n4:cpu,cpuacct:/docker/3f2a\n1:name=systemd:/docker/3f2a"
SLICE = "sys/fs/cgroup/system.slice"


def groups(root: Path, cgroup: str, mounts: str) -> None:
    plant(root, {"proc/self/cgroup": cgroup, "proc/self/mountinfo": f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{mounts}"})


def test_no_quota_where_no_control_groups_are(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    groups(tmp_path, "0::/system.slice/a.service", VERSION_2)
    assert cpu_quota(tmp_path) is None, "the highest group has no cpu.max"
    plant(tmp_path, {f"{SLICE}/a.service/cpu.max": "max 100000"})
    assert cpu_quota(tmp_path) is None


def test_the_smallest_quota_of_all_levels_decides(tmp_path: Path) -> None:
    groups(tmp_path, "0::/system.slice/a.service/inner", VERSION_2)
    plant(tmp_path, {f"{SLICE}/a.service/inner/cpu.max": "400000 100000", f"{SLICE}/cpu.max": "max 100000"})
    assert cpu_quota(tmp_path) == 4
    plant(tmp_path, {f"{SLICE}/a.service/cpu.max": "75000 50000"})
    assert cpu_quota(tmp_path) == 1.5
    plant(tmp_path, {f"{SLICE}/b.service/cpu.max": "10000 100000"})
    assert cpu_quota(tmp_path) == 1.5, "another group's quota"


@pytest.mark.parametrize(
    ("mounted", "folder"), [("/docker/3f2a", ""), ("/", "docker/3f2a/"), ("/elsewhere", ""), ("/docker/3f2", "")]
)
def test_version_1_in_a_container(tmp_path: Path, mounted: str, folder: str) -> None:
    """Docker mounts a container's own group, or the host's highest one. Another controller's files do not count."""
    groups(tmp_path, OF_VERSION_1, VERSION_1.format(mounted=mounted))
    place = f"sys/fs/cgroup/cpu,cpuacct/{folder}cpu.cfs_"
    plant(tmp_path, {f"{place}quota_us": -1, f"{place}period_us": 100000})
    plant(tmp_path, {"sys/fs/cgroup/cpuset/cpu.cfs_quota_us": 1, "sys/fs/cgroup/cpuset/cpu.cfs_period_us": 1})
    assert cpu_quota(tmp_path) is None
    plant(tmp_path, {f"{place}quota_us": 250000})
    assert cpu_quota(tmp_path) == 2.5


def test_a_process_outside_of_its_namespace_sees_the_highest_group(tmp_path: Path) -> None:
    groups(tmp_path, "0::/../b", VERSION_2)
    plant(tmp_path, {"sys/fs/cgroup/cpu.max": "200000 100000", "sys/fs/b/cpu.max": "1 100000"})
    assert cpu_quota(tmp_path) == 2


def test_a_quota_counts_among_the_usable_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: set(range(8)), raising=False)
    assert usable_cores(tmp_path) == 8
    groups(tmp_path, "0::/", VERSION_2)
    for quota, cores in (("50000", 1), ("100000", 1), ("150000", 2), ("400000", 4), ("6400000", 8), ("max", 8)):
        plant(tmp_path, {"sys/fs/cgroup/cpu.max": f"{quota} 100000"})
        assert usable_cores(tmp_path) == cores


def test_a_quota_below_the_threads_is_said(tmp_path: Path) -> None:
    assert quota_warning(64, tmp_path) is None
    groups(tmp_path, "0::/", VERSION_2)
    plant(tmp_path, {"sys/fs/cgroup/cpu.max": "250000 100000"})
    assert quota_warning(2, tmp_path) is None
    said = quota_warning(3, tmp_path) or ""
    assert said.startswith("warning: a CPU quota of 2.5 cores (cgroup) stops 3 threads again and again")
    assert said.endswith("--threads 2 is the most that it carries")
    plant(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000"})
    said = quota_warning(1, tmp_path) or ""
    assert "a CPU quota of 0.5 cores (cgroup) stops 1 thread again" in said
    assert "--threads" not in said
