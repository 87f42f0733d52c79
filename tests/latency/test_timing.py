"""Time programs on a machine whose clock moves by known amounts."""

import bisect
import gc
import itertools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic
from support.synthetic import Machine
from support.trees import plant

from nas.latency import timing
from nas.latency.device import allowed_cores, pinned
from nas.latency.throttling import Throttling
from nas.latency.timing import (
    BLOCK_ITERATIONS,
    NETWORK_ITERATIONS,
    REFERENCE_COPIES,
    ROW_RULE,
    Bench,
    Program,
    Session,
    StoppingRule,
    TimedRun,
    time_interleaved,
)

TIMES_MS = [0.05, 0.2, 0.3, 0.7, 1.1, 1.3, 2.0, 4.0]
REFERENCE_MS = 2.0
THOROUGH = StoppingRule(1e-9, 60, 60)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return synthetic.install(monkeypatch)


def timed(
    machine: Machine,
    times_ms: list[float] = TIMES_MS,
    stopping_rule: StoppingRule = ROW_RULE,
    seed: int = 0,
    **options: Any,
) -> Session:
    programs = [Program(machine.program(f"{ms} ms", ms), BLOCK_ITERATIONS) for ms in times_ms]
    return time_interleaved(
        programs, synthetic.bench(machine, REFERENCE_MS), stopping_rule, rng=random.Random(seed), **options
    )


def errors(session: Session, times_ms: list[float] = TIMES_MS) -> np.ndarray:
    return np.array([t.ratio * REFERENCE_MS / ms - 1 for t, ms in zip(session.timings, times_ms, strict=True)])


def turns(machine: Machine) -> list[str]:
    """Return the names of the programs in the order of their turns."""
    return [name for name, _ in itertools.groupby(machine.ran)]


# Ratios -----------------------------------------------------------------------------------------------


def test_an_undisturbed_machine_is_timed_exactly_and_in_few_rounds(machine: Machine) -> None:
    session = timed(machine)
    assert np.abs(errors(session)).max() < 1e-9
    assert session.reference_ms == pytest.approx(REFERENCE_MS)
    assert session.rounds == ROW_RULE.min_rounds
    for result, ms in zip(session.timings, TIMES_MS, strict=True):
        assert result.count == ROW_RULE.min_rounds
        assert result.quartiles == pytest.approx((ms / REFERENCE_MS, ms / REFERENCE_MS))
        assert result.error == pytest.approx(0, abs=1e-9)
        assert result.median_ms == pytest.approx(ms)


def test_drift_is_divided_out(machine: Machine) -> None:
    """A machine that becomes a third slower and faster again while it is timed."""
    times_ms = [0.1 + 0.05 * i for i in range(40)]
    machine.speed = lambda now: 1 + 0.3 * math.sin(2 * math.pi * now)
    session = timed(machine, times_ms, StoppingRule(1e-9, 16, 16))
    assert machine.now > 1
    assert np.abs(errors(session, times_ms)).max() < 0.02
    assert np.abs(errors(session, times_ms)).mean() < 0.005
    raw = [abs(t.median_ms / ms - 1) for t, ms in zip(session.timings, times_ms, strict=True)]
    assert max(raw) > 0.1, "the clock alone would have been as good: this test proves nothing"


@pytest.mark.parametrize("speed", [0.5, 0.8, 0.95])
def test_a_machine_that_slows_down_for_good_gives_the_same_ratios(machine: Machine, speed: float) -> None:
    """Another process takes a share of it after a while."""
    machine.speed = lambda now: 1.0 if now < 0.1 else speed
    session = timed(machine, stopping_rule=StoppingRule(1e-9, 12, 12))
    assert machine.now > 0.2
    assert np.abs(errors(session)).max() < 0.01


def test_a_machine_that_was_faster_yesterday_gives_the_same_ratios(machine: Machine) -> None:
    machine.speed = lambda now: 0.7
    session = timed(machine)
    assert np.abs(errors(session)).max() < 1e-9
    assert session.reference_ms == pytest.approx(REFERENCE_MS / 0.7)


def test_a_neighbour_that_comes_and_goes_does_not_move_the_ratios(machine: Machine) -> None:
    """Half of the time, some tens of milliseconds on end, everything takes half as long again."""
    rng = random.Random(0)
    edges = list(itertools.accumulate(rng.uniform(0.02, 0.08) for _ in range(2000)))
    machine.speed = lambda now: 1.0 if bisect.bisect(edges, now) % 2 else 1 / 1.5
    session = timed(machine, stopping_rule=THOROUGH)
    assert np.abs(errors(session)).max() < 0.01
    assert session.reference_ms == pytest.approx(REFERENCE_MS, rel=0.01)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_slows_different_work_by_different_shares_does_not_count(machine: Machine, seed: int) -> None:
    """A quarter of the time a neighbour doubles the time of the programs, and adds half to the reference's.

    Were it there most of the time, it would be taken for the machine.
    """
    rng, disturbed = random.Random(seed), [False]
    plain = {name: machine.program(name, ms) for name, ms in (("reference", 2.0), ("a", 1.0), ("b", 3.0))}

    def program(name: str, slowed: float) -> TimedRun:
        def run() -> None:
            disturbed.append(disturbed[-1] ^ (rng.random() < (0.1 if disturbed[-1] else 0.03)))
            machine.speed = lambda now: 1 / slowed if disturbed[-1] else 1.0
            plain[name]()

        return run

    bench = Bench(lambda: machine.now, [program("reference", 1.5)], [])
    programs = [Program(program("a", 2.0), BLOCK_ITERATIONS), Program(program("b", 2.0), BLOCK_ITERATIONS)]
    session = time_interleaved(programs, bench, THOROUGH, rng=random.Random(seed))
    assert 0.2 < np.mean(disturbed) < 0.3
    assert [result.ratio for result in session.timings] == pytest.approx([0.5, 1.5])
    assert session.reference_ms == pytest.approx(2.0)


def test_moments_at_which_the_speed_changes_hardly_count(machine: Machine) -> None:
    """A program that always runs where the machine becomes slower still counts fewer turns than it had."""
    steady = timed(machine, stopping_rule=THOROUGH)
    machine.speed = lambda now: 1.0 if int(now / 0.004) % 2 else 0.5
    restless = timed(machine, stopping_rule=THOROUGH)
    assert {result.count for result in steady.timings} == {60}
    assert np.mean([result.count for result in restless.timings]) < 57


def test_outliers_do_not_move_the_ratio(machine: Machine) -> None:
    """Every seventh run, the reference's too, takes five times as long."""
    machine.outliers = 0.15
    assert np.abs(errors(timed(machine))).max() < 1e-9


def test_noise_averages_out_and_is_reported(machine: Machine) -> None:
    machine.noise = 0.03
    long = timed(machine, stopping_rule=THOROUGH)
    assert np.abs(errors(long)).max() < 0.03
    assert all(0.001 < result.error < 0.01 for result in long.timings)
    short = timed(machine, stopping_rule=StoppingRule(1e-9, 6, 6))
    assert np.mean([t.error for t in short.timings]) > 2 * np.mean([t.error for t in long.timings])
    assert all(t.quartiles[0] < t.ratio < t.quartiles[1] for t in long.timings)


def test_iterations_that_warm_up_do_not_count(machine: Machine) -> None:
    """The first three runs of every turn take twice as long, the reference's too."""

    def program(name: str, ms: float) -> TimedRun:
        def run() -> None:
            last = list(itertools.takewhile(lambda other: other == name, reversed(machine.ran)))
            machine.now += (ms if len(last) >= NETWORK_ITERATIONS.warm_up else 2 * ms) / 1000
            machine.ran.append(name)

        return run

    bench = Bench(lambda: machine.now, [program("reference", 2.0)], [])
    programs = [Program(program(name, ms), NETWORK_ITERATIONS) for name, ms in (("a", 1.0), ("b", 3.0))]
    session = time_interleaved(programs, bench, rng=random.Random(0))
    assert [result.ratio for result in session.timings] == pytest.approx([0.5, 1.5])
    assert session.reference_ms == pytest.approx(2.0)


# Rounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noisy_ms", "unsteady"), [(0.3, 0), (1.0, 1)])
def test_quiet_programs_are_dropped_and_noisy_ones_kept_to_the_limit(
    machine: Machine, noisy_ms: float, unsteady: int
) -> None:
    """Noise of a program that is as long as the others looks like a change of speed, but costs a turn at most."""
    noisy = {"c", "f"}
    names = "abcdefgh"
    programs = [
        Program(
            machine.program(name, noisy_ms, noise=0.4) if name in noisy else machine.program(name, 1.0),
            BLOCK_ITERATIONS,
        )
        for name in names
    ]
    session = time_interleaved(programs, synthetic.bench(machine), rng=random.Random(0))
    assert session.rounds == ROW_RULE.max_rounds
    for name, result in zip(names, session.timings, strict=True):
        turns_taken = ROW_RULE.max_rounds if name in noisy else ROW_RULE.min_rounds
        assert turns(machine).count(name) == turns_taken
        assert machine.ran.count(name) == sum(BLOCK_ITERATIONS) * turns_taken
        assert turns_taken - unsteady <= result.count <= turns_taken


def test_rounds_bound_the_work(machine: Machine) -> None:
    machine.noise = 0.5
    assert timed(machine, stopping_rule=StoppingRule(0.01, 3, 5)).rounds == 5
    assert max(result.count for result in timed(machine, stopping_rule=StoppingRule(0.01, 3, 5)).timings) <= 5
    machine.noise = 0.0
    assert timed(machine, stopping_rule=StoppingRule(0.01, 3, 5)).rounds == 3


def test_each_round_has_every_program_once_in_an_order_of_its_own(machine: Machine) -> None:
    timed(machine, stopping_rule=StoppingRule(1e-9, 12, 12))
    names = [f"{ms} ms" for ms in TIMES_MS]
    runs = [name for name in turns(machine) if name != "reference"]
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


@pytest.mark.parametrize(("count", "of_a_round"), [(3, 1), (15, 2), (60, REFERENCE_COPIES)])
def test_the_reference_network_runs_in_every_round(machine: Machine, count: int, of_a_round: int) -> None:
    session = timed(machine, [3.0 + i / 100 for i in range(count)])
    runs = turns(machine)
    assert runs[0] == runs[-1] == "reference"
    assert runs.count("reference") == of_a_round * session.rounds + 1
    between = [len(list(group)) for name, group in itertools.groupby(runs, key=lambda name: name == "reference")]
    assert max(between) <= math.ceil(count / of_a_round)


def test_co_run_networks_run_in_every_round_and_are_timed(machine: Machine) -> None:
    co_run = [Program(machine.program(f"network {ms}", ms), NETWORK_ITERATIONS) for ms in (5.0, 8.0)]
    programs = [Program(machine.program("noisy", 1.0, noise=0.4), BLOCK_ITERATIONS)]
    bench = synthetic.bench(machine, REFERENCE_MS)
    session = time_interleaved(programs, bench, rng=random.Random(0), co_run=co_run)
    assert [t.ratio * REFERENCE_MS for t in session.co_run] == pytest.approx([5.0, 8.0], rel=0.02)
    assert len(session.timings) == 1
    assert machine.ran.count("network 5.0") == sum(NETWORK_ITERATIONS) * session.rounds


def test_nothing_to_time_is_no_error(machine: Machine) -> None:
    assert timed(machine, []).timings == ()


def test_progress_goes_up_to_the_end(machine: Machine) -> None:
    machine.noise = 0.02
    shares: list[float] = []
    timed(machine, on_progress=lambda share, note: shares.append(share))
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
        programs = [Program(machine.program("a", 1.0), BLOCK_ITERATIONS), Program(failing, BLOCK_ITERATIONS)]
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


def test_the_fastest_cores_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Core 2 of four is the fastest, core 0 the slowest. The programs of several threads are compiled on theirs."""
    machine = Machine()
    here: list[int] = []
    monkeypatch.setattr(timing, "allowed_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(timing, "pinned", lambda cores: _Recorded(here, cores))
    monkeypatch.setattr(timing, "spread", lambda ranked, number: asked.append([*ranked]) or ranked[:number])  # type: ignore[func-returns-value]
    asked: list[list[int]] = []
    machine.speed = lambda now: (0.5, 1.0, 1.2, 1.1)[here[0]]

    run = machine.program("reference", 1.0)
    monkeypatch.setattr(timing, "_arithmetic", machine.program("arithmetic", 1.0))
    compiled_on: list[list[int]] = []

    def cores(threads: int) -> list[int]:
        machine.ran.clear()
        compiled_on.clear()
        bench = Bench.of(lambda: machine.now, threads, lambda: compiled_on.append([*here]) or run)  # type: ignore[func-returns-value]
        assert len(bench.references) == len(compiled_on) == REFERENCE_COPIES
        return bench.cores

    assert cores(1) == [2]
    assert not asked, "one thread takes the fastest core of all"
    assert set(machine.ran) == {"reference"}
    assert compiled_on[0] == []
    assert cores(2) == [2, 3]
    assert asked == [[2, 3, 1, 0]]
    assert set(machine.ran) == {"arithmetic"}
    assert compiled_on[0] == [2, 3]
    for threads in (4, 5):
        assert cores(threads) == [0, 1, 2, 3]
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
    bench = Bench(plain.clock, plain.references, [7])
    time_interleaved([Program(machine.program("a", 1.0), BLOCK_ITERATIONS)], bench, rng=random.Random(0))
    assert asked == [[7]]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_a_pool_are_back_on_their_cores_before_what_is_timed(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, threads: int
) -> None:
    monkeypatch.setattr(timing, "pinned", lambda cores: _Recorded([], cores))
    monkeypatch.setattr(timing, "hold", lambda cores: machine.ran.append(str(cores)))
    plain = synthetic.bench(machine)
    bench = Bench(plain.clock, plain.references, [6, 7], threads)
    time_interleaved([Program(machine.program("a", 1.0), BLOCK_ITERATIONS)], bench, rng=random.Random(0))
    begun = machine.ran.index("a")
    cores = "[6, 7]" if threads > 1 else "[]"
    assert machine.ran[begun : begun + 4] == ["a", cores, "a", "a"]


def test_a_processor_that_is_slowed_is_noticed_in_all_rounds_together(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, tmp_path: Path
) -> None:
    """Each session has two rounds; a governor may have missed the work in so few."""
    monkeypatch.setattr(timing, "pinned", lambda cores: _Recorded([], cores))
    monkeypatch.setattr("nas.latency.throttling.SECONDS_BETWEEN", 0)
    clock = "sys/devices/system/cpu/cpu7/cpufreq"
    plant(tmp_path, {f"{clock}/scaling_cur_freq": 600000, f"{clock}/cpuinfo_max_freq": 1500000})
    said: list[str] = []
    plain = synthetic.bench(machine)
    bench = Bench(plain.clock, plain.references, [7], throttling=Throttling(tmp_path, said.append))
    lines = []
    for _ in range(3):
        programs = [Program(machine.program("a", 1.0), BLOCK_ITERATIONS)]
        time_interleaved(programs, bench, StoppingRule(0.01, 2, 2), rng=random.Random(0))
        lines.append(len(said))
    assert lines == [0, 1, 1]
