"""Processors that heat or a governor slows, as Linux shows them below /sys."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.trees import plant

from nas.latency import throttling
from nas.latency.throttling import Throttling

CPU = "sys/devices/system/cpu/cpu"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "SECONDS_BETWEEN", 0)


def clocks(root: Path, *shares: float, governor: str = "ondemand") -> None:
    """Give each core its share of 1.8 GHz: the clock of a Rockchip RK3588's little cores."""
    for core, share in enumerate(shares):
        folder = f"{CPU}{core}/cpufreq"
        files = {"scaling_cur_freq": int(1800000 * share), "cpuinfo_max_freq": 1800000, "scaling_governor": governor}
        plant(root, {f"{folder}/{name}": content for name, content in files.items()})


def heat(root: Path, core: int, cores: int, package: int) -> None:
    """Set the counters of docs.kernel.org/admin-guide/thermal/intel_thermal_throttle.html."""
    counts = {"core_throttle_count": cores, "package_throttle_count": package}
    plant(root, {f"{CPU}{core}/thermal_throttle/{name}": count for name, count in counts.items()})


def watched(watch: Throttling, cores: list[int], looks: int = 3) -> None:
    with watch.watched(cores) as look:
        for _ in range(looks):
            look()


def test_a_slow_clock_is_said_once(tmp_path: Path) -> None:
    """Of several cores some may be idle as they are looked at: the fastest one counts."""
    said: list[str] = []
    watch = Throttling(tmp_path, said.append)
    clocks(tmp_path, 0.2, 0.75, 0.2)
    watched(watch, [0, 1, 2])
    assert not said
    watch = Throttling(tmp_path, said.append)
    clocks(tmp_path, 0.2, 0.5, 0.2)
    watched(watch, [0, 1], looks=2)
    assert not said, "too few looks"
    watched(watch, [0, 1], looks=1)
    watched(watch, [0, 1])
    (line,) = said
    assert "its clock was at 50% of the fastest (heat, a power limit or the governor ondemand)" in line
    assert "heat stepped in" not in line
    assert line.count("\n") == 0


def test_a_clock_that_is_slow_for_a_moment_is_not_said(tmp_path: Path) -> None:
    said: list[str] = []
    with Throttling(tmp_path, said.append).watched([0]) as look:
        for share in (1.0, 0.4, 0.98, 0.4, 1.0):
            clocks(tmp_path, share)
            look()
    assert not said


def test_heat_that_steps_in_meanwhile_is_said_once(tmp_path: Path) -> None:
    """A package is counted once, whichever core shows it; and other cores' heat is not that of these."""
    said: list[str] = []
    watch = Throttling(tmp_path, said.append)
    for core in range(3):
        heat(tmp_path, core, 5, 11)
    watched(watch, [0, 1])
    assert not said, "they counted before"
    with watch.watched([0, 1]) as look:
        look()
        for core, cores in enumerate((6, 5, 9)):
            heat(tmp_path, core, cores, 13)
    assert ["heat stepped in 3 times;" in line for line in said] == [True]
    with watch.watched([0, 1]):
        heat(tmp_path, 0, 99, 99)
    assert len(said) == 1


def test_nothing_is_said_of_a_session_that_fails(tmp_path: Path) -> None:
    said: list[str] = []
    heat(tmp_path, 0, 1, 1)

    def fail() -> None:
        with Throttling(tmp_path, said.append).watched([0]):
            heat(tmp_path, 0, 2, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not said


def test_a_system_that_shows_nothing_is_left_alone(tmp_path: Path) -> None:
    for cores in ([], [0, 1]):
        watched(Throttling(tmp_path, pytest.fail), cores)


def test_looks_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a clock interrupts its core."""
    monkeypatch.setattr(throttling, "SECONDS_BETWEEN", 1.0)
    now = [0.0]
    monkeypatch.setattr(throttling, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clocks(tmp_path, 0.5)
    said: list[str] = []
    with Throttling(tmp_path, said.append).watched([0]) as look:
        for now[0] in (0.0, 0.5, 0.9, 1.0, 1.9):
            look()
    assert not said, "two looks are too few"


def test_the_line_is_a_warning_by_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clocks(tmp_path, 0.5)
    watched(Throttling(tmp_path), [0])
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "nas.latency.throttling")
