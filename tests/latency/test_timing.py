"""How a time is taken, on a machine whose clock moves by known amounts."""

import gc
import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import synthetic
from synthetic import Machine

from nas.latency import timing
from nas.latency.device import allowed_cores, pinned
from nas.latency.runtimes import Run
from nas.latency.timing import (
    GOOD_RUNS,
    MAX_ROUNDS,
    MIN_GOOD,
    SENTINEL_EVERY_MS,
    Bench,
    Session,
    fastest_cores,
    time_interleaved,
)

TIMES_MS = [0.05, 0.2, 0.3, 0.7, 1.1, 1.3, 2.0, 4.0]
SENTINEL_MS = 2.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return synthetic.install(monkeypatch)


def timed(machine: Machine, times_ms: list[float] = TIMES_MS, seed: int = 0, **options: Any) -> Session:
    programs = [machine.program(f"{ms} ms", ms) for ms in times_ms]
    return time_interleaved(programs, synthetic.bench(machine, SENTINEL_MS), rng=random.Random(seed), **options)


def errors(session: Session, times_ms: list[float] = TIMES_MS) -> np.ndarray:
    return np.array([t.ratio * SENTINEL_MS / ms - 1 for t, ms in zip(session.timings, times_ms, strict=True)])


def visits(machine: Machine) -> list[str]:
    """The names of what ran from the first sentinel on, runs of one program right after another as one."""
    names = [name for name, _ in itertools.groupby(machine.ran)]
    return names[names.index("sentinel") :]


# Ratios -----------------------------------------------------------------------------------------------


def test_an_undisturbed_machine_is_timed_exactly_and_quickly(machine: Machine) -> None:
    session = timed(machine)
    assert np.abs(errors(session)).max() < 1e-9
    assert session.sentinel_ms == pytest.approx(SENTINEL_MS)
    assert session.rounds == GOOD_RUNS
    for result, ms in zip(session.timings, TIMES_MS, strict=True):
        assert result.count == GOOD_RUNS
        assert result.quartiles == pytest.approx((ms / SENTINEL_MS, ms / SENTINEL_MS))
        assert result.error == pytest.approx(0, abs=1e-9)
        assert result.median_ms == pytest.approx(ms)


def test_drift_is_divided_out(machine: Machine) -> None:
    """A machine that becomes a third slower and faster again while it is timed."""
    times_ms = [0.1 + 0.05 * i for i in range(40)]
    machine.speed = lambda now: 1 + 0.3 * math.sin(2 * math.pi * now)
    session = timed(machine, times_ms, good_runs=16, max_rounds=60)
    assert machine.now > 1
    assert np.abs(errors(session, times_ms)).max() < 0.03
    assert np.abs(errors(session, times_ms)).mean() < 0.01
    raw = [abs(t.median_ms / ms - 1) for t, ms in zip(session.timings, times_ms, strict=True)]
    assert max(raw) > 0.1, "the clock alone would have been as good: this test proves nothing"


@pytest.mark.parametrize("speed", [0.5, 0.8, 0.95])
def test_a_machine_that_slows_down_for_good_gives_the_same_ratios(machine: Machine, speed: float) -> None:
    """As if another process took a share of it after a while."""
    machine.speed = lambda now: 1.0 if now < 0.1 else speed
    session = timed(machine, good_runs=12, max_rounds=60)
    assert machine.now > 0.2
    assert np.abs(errors(session)).max() < 0.02


def test_a_machine_that_was_faster_yesterday_gives_the_same_ratios(machine: Machine) -> None:
    """And says that it never was at the speed that is known of it."""
    machine.speed = lambda now: 0.7
    session = timed(machine, undisturbed_ms=SENTINEL_MS)
    assert np.abs(errors(session)).max() < 1e-9
    assert {result.count for result in session.timings} == {0}
    assert session.rounds == MAX_ROUNDS
    machine.speed = lambda now: 1.0
    session = timed(machine, undisturbed_ms=SENTINEL_MS)
    assert {result.count for result in session.timings} == {GOOD_RUNS}


def test_what_slows_different_work_by_different_shares_does_not_count(machine: Machine) -> None:
    """Half of the time a neighbour doubles the time of the programs, and adds half to the sentinel's."""
    disturbed = [False]
    rng = random.Random(0)
    plain = {name: machine.program(name, ms) for name, ms in (("sentinel", 2.0), ("a", 1.0), ("b", 3.0))}

    def program(name: str, slowed: float) -> Run:
        def run() -> None:
            disturbed[0] ^= rng.random() < 0.1
            machine.speed = lambda now: 1 / slowed if disturbed[0] else 1.0
            plain[name]()

        return run

    bench = Bench(synthetic.SyntheticRuntime(machine=machine), program("sentinel", 1.5), [])
    programs = [program("a", 2.0), program("b", 2.0)]
    session = time_interleaved(programs, bench, rng=random.Random(0), good_runs=12, max_rounds=200)
    assert [result.ratio for result in session.timings] == pytest.approx([0.5, 1.5])
    assert session.sentinel_ms == pytest.approx(2.0)


def test_outliers_do_not_move_the_ratio(machine: Machine) -> None:
    """Every seventh run, the sentinel's too, takes five times as long."""
    machine.outliers = 0.15
    assert np.abs(errors(timed(machine))).max() < 1e-9


def test_noise_averages_out_and_is_told(machine: Machine) -> None:
    machine.noise = 0.03
    long = timed(machine, good_runs=60, max_rounds=400, relative_error=1e-9)
    assert np.abs(errors(long)).max() < 0.03
    assert all(0.001 < result.error < 0.01 for result in long.timings)
    short = timed(machine, good_runs=6, max_rounds=6)
    assert np.mean([t.error for t in short.timings]) > 2 * np.mean([t.error for t in long.timings])
    assert all(t.quartiles[0] < t.ratio < t.quartiles[1] for t in long.timings)


# Rounds -----------------------------------------------------------------------------------------------


def test_quiet_programs_are_dropped_and_noisy_ones_kept_to_the_limit(machine: Machine) -> None:
    noisy = {"c", "f"}
    names = "abcdefgh"
    programs = [machine.program(name, 1.0, noise=0.4 if name in noisy else 0.0) for name in names]
    session = time_interleaved(programs, synthetic.bench(machine), rng=random.Random(0))
    assert session.rounds == MAX_ROUNDS
    for name, result in zip(names, session.timings, strict=True):
        assert result.count == (MAX_ROUNDS if name in noisy else GOOD_RUNS)
        assert visits(machine).count(name) == result.count


def test_rounds_bound_the_work(machine: Machine) -> None:
    machine.noise = 0.5
    assert timed(machine, good_runs=3, max_rounds=5).rounds == 5
    assert max(result.count for result in timed(machine, good_runs=3, max_rounds=5).timings) <= 5
    machine.noise = 0.0
    assert timed(machine, good_runs=3, max_rounds=5).rounds == 3
    assert MIN_GOOD <= GOOD_RUNS <= MAX_ROUNDS


def test_each_round_has_every_program_once_in_an_order_of_its_own(machine: Machine) -> None:
    timed(machine, good_runs=12, max_rounds=60)
    names = [f"{ms} ms" for ms in TIMES_MS]
    runs = [name for name in visits(machine) if name != "sentinel"]
    rounds = [runs[start : start + len(names)] for start in range(0, len(runs), len(names))]
    assert len(rounds) == 12
    assert all(sorted(order) == sorted(names) for order in rounds)
    assert len(set(map(tuple, rounds))) > 6


def test_the_seed_decides_the_order(machine: Machine) -> None:
    def order(seed: int) -> list[str]:
        machine.ran.clear()
        timed(machine, seed=seed)
        return list(machine.ran)

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize("count", [3, 60])
def test_the_sentinel_runs_in_between(machine: Machine, count: int) -> None:
    """Never more than its interval of other work (and the run that ends it) without it; it is the first and last."""
    timed(machine, [3.0] * count)
    runs = visits(machine)
    work = 0.0
    for name in runs:
        work = 0.0 if name == "sentinel" else work + 3.0
        assert work <= SENTINEL_EVERY_MS + 3.0 + 1e-9
    assert runs[0] == runs[-1] == "sentinel"


def test_progress_goes_up_to_the_end(machine: Machine) -> None:
    machine.noise = 0.02
    shares: list[float] = []
    timed(machine, on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_waits_until_the_end(machine: Machine, collecting: bool) -> None:
    seen: set[bool] = set()

    def failing() -> None:
        seen.add(gc.isenabled())
        if len(machine.ran) > 20:
            raise RuntimeError("broken")

    before = gc.isenabled()
    try:
        gc.enable() if collecting else gc.disable()
        programs = [machine.program("a", 1.0), failing]
        with pytest.raises(RuntimeError, match="broken"):
            time_interleaved(programs, synthetic.bench(machine), rng=random.Random(0))
        assert gc.isenabled() is collecting
        assert seen == {False}
    finally:
        gc.enable() if before else gc.disable()


# Cores ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not allowed_cores(), reason="this system cannot pin")
def test_the_process_may_run_everywhere_again_afterwards() -> None:
    before = allowed_cores()

    def fail() -> None:
        with pinned(before[:1]) as works:
            assert works
            assert allowed_cores() == before[:1]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert allowed_cores() == before


def test_a_system_that_cannot_pin_goes_on() -> None:
    with pinned([]) as works:
        assert not works


def test_the_quickest_cores_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Core 2 of four is the quickest, core 0 the slowest."""
    machine = Machine()
    here: list[int] = []
    monkeypatch.setattr(timing, "allowed_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(timing, "pinned", lambda cores: _Recorded(here, cores))
    machine.speed = lambda now: (0.5, 1.0, 1.2, 1.1)[here[0]]
    run = machine.program("sentinel", 1.0)
    assert fastest_cores(synthetic.SyntheticRuntime(1, machine), run) == [2]
    assert fastest_cores(synthetic.SyntheticRuntime(2, machine), run) == [2, 3]
    machine.ran.clear()
    assert fastest_cores(synthetic.SyntheticRuntime(4, machine), run) == [0, 1, 2, 3]
    assert not machine.ran, "there is nothing to choose"


class _Recorded:
    def __init__(self, here: list[int], cores: list[int]) -> None:
        self._here, self._cores = here, cores

    def __enter__(self) -> bool:
        self._here[:] = self._cores
        return True

    def __exit__(self, *error: object) -> None:
        self._here.clear()


def test_programs_run_on_the_cores_of_the_bench(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(timing, "pinned", lambda cores: asked.append(cores) or _Recorded([], cores))
    plain = synthetic.bench(machine)
    bench = Bench(plain.runtime, plain.sentinel, [7])
    time_interleaved([machine.program("a", 1.0)], bench, rng=random.Random(0))
    assert asked == [[7]]
