"""Which cores the threads of a program get, on machines with cores of several kinds and with hardware threads."""

from pathlib import Path

import pytest
from support.trees import plant

from nas.latency.topology import spread

# Capacity, fastest clock in kHz, and hardware threads of the same core. From github.com/util-linux/util-linux,
# tests/ts/lscpu/dumps at 39465c7: arm-A510-A710-A715-X3 (a Snapdragon 8 Gen 2), x86_64-epyc_7451 (48 cores).
SNAPDRAGON = [
    *[(280, 2016000, f"{core}") for core in range(3)],
    *[(855, 2803200, f"{core}") for core in range(3, 7)],
    (1024, 3187200, "7"),
]
EPYC = [(None, 2300000, f"{core % 48},{core % 48 + 48}") for core in range(96)]
# Made after github.com/cyring/CoreFreq/issues/323 and 514: Intel's kinds by the clock, two cores of the first a little
# faster than the rest of it.
HYBRID = [
    *[(None, 5000000 if core in (8, 9, 10, 11) else 4900000, f"{core & ~1}-{core | 1}") for core in range(16)],
    *[(None, 3800000, f"{core}") for core in range(16, 20)],
]
# Clusters of one kind on github.com/Joshua-Riek/ubuntu-rockchip/issues/294: the second does not reach its full clock.
RK3588 = [
    *[(None, 1800000, f"{core}") for core in range(4)],
    *[(None, khz, f"{core}") for core, khz in ((4, 2400000), (5, 2400000), (6, 2256000), (7, 2256000))],
]
Machine = list[tuple[int | None, int | None, str]]


def machine(root: Path, cpus: Machine) -> Path:
    files: dict[str, object] = {}
    for core, (capacity, khz, siblings) in enumerate(cpus):
        folder = f"sys/devices/system/cpu/cpu{core}"
        files[f"{folder}/topology/thread_siblings_list"] = siblings
        if capacity:
            files[f"{folder}/cpu_capacity"] = capacity
        if khz:
            files[f"{folder}/cpufreq/cpuinfo_max_freq"] = khz
    return plant(root, files)


@pytest.mark.parametrize(
    ("cpus", "number", "cores"),
    [
        (SNAPDRAGON, 2, {3, 4}),  # one core is faster, and alone of its kind
        (SNAPDRAGON, 4, {3, 4, 5, 6}),
        (SNAPDRAGON, 5, {3, 4, 5, 6, 7}),
        (SNAPDRAGON, 6, {0, 3, 4, 5, 6, 7}),
        (RK3588, 4, {4, 5, 6, 7}),
        (EPYC, 2, {0, 1}),
        (EPYC, 48, set(range(48))),
        (EPYC, 50, {*range(48), 48, 49}),
        (HYBRID, 2, {0, 2}),
        (HYBRID, 8, {*range(0, 16, 2)}),
        (HYBRID, 12, {*range(0, 16, 2), 16, 17, 18, 19}),
        (HYBRID, 13, {*range(0, 16, 2), 16, 17, 18, 19, 1}),
    ],
)
def test_threads_get_physical_cores_of_one_kind(tmp_path: Path, cpus: Machine, number: int, cores: set[int]) -> None:
    """In the order of their numbers, as where all are equally fast."""
    found = spread(range(len(cpus)), number, machine(tmp_path, cpus))
    assert len(found) == number
    assert set(found) == cores


def test_the_best_ranked_are_taken(tmp_path: Path) -> None:
    """A core that other work slows is ranked last, and its other hardware thread with it."""
    ranked = [19, 18, 17, 16, *range(15, 1, -1), 1, 0]
    root = machine(tmp_path, HYBRID)
    assert spread(ranked, 3, root) == [15, 13, 11]
    assert spread(ranked, 8, root)[-1] == 1
    assert spread([core for core in ranked if core > 2], 8, root) == [15, 13, 11, 9, 7, 5, 3, 19]


def test_capacities_go_before_clocks(tmp_path: Path) -> None:
    """A clock does not say how much a core does in a cycle."""
    cpus: Machine = [(400, 3000000, "0"), (400, 3000000, "1"), (1024, 2500000, "2"), (1024, 2500000, "3")]
    assert spread(range(4), 2, machine(tmp_path, cpus)) == [2, 3]


def test_a_system_that_says_nothing_has_one_kind(tmp_path: Path) -> None:
    assert spread([3, 1, 0, 2], 2, tmp_path) == [3, 1]
    some: Machine = [(None, 1000000, "0"), (None, None, "1"), (None, 2000000, "2"), (None, 2000000, "3")]
    assert spread([3, 1, 0, 2], 3, machine(tmp_path, some)) == [3, 1, 0]
