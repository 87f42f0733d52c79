"""The integer program against every network of small spaces."""

import ctypes
import dataclasses
import os
import random
import sys
import threading
from typing import Any

import numpy as np
import pytest
from scipy.optimize import OptimizeResult
from support.problems import TINY, additive_model, every_encoding, latency, latency_ms, problem, score, within
from support.synthetic import added_ms

from nas.arch.loading import load_space
from nas.arch.parts import BlockPart
from nas.arch.skeleton import Stage
from nas.search import solver
from nas.search.solver import SolverError, solve

ENCODINGS = every_encoding(TINY)
WITHIN = 1e-6  # of the solver, in points of the score


def test_every_encoding_is_listed_once() -> None:
    assert len(ENCODINGS) == TINY.size
    assert len(np.unique(ENCODINGS, axis=0)) == len(ENCODINGS)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.5, 0.9, 1.5])
def test_finds_what_trying_every_network_finds(noise: float, share: float) -> None:
    case = problem(TINY, share, noise)
    times, scores = case.latency(ENCODINGS), case.additive(ENCODINGS)
    for variant in range(len(TINY.variants)):
        fits = (ENCODINGS[:, 0] == variant) & (times <= case.limit_ms)
        optimum = solve(score(TINY), case.limits, variant)
        assert (optimum is not None) == fits.any() == (variant in case.feasible_variants)
        if optimum is not None:
            assert optimum.score == pytest.approx(scores[fits].max(), abs=WITHIN)
            assert latency_ms(case.latency, optimum.encoding) <= case.limit_ms
            assert optimum.encoding[0] == variant
            assert optimum.encoding in set(map(tuple, ENCODINGS.tolist()))


@pytest.mark.parametrize("below", [0.0, 1e-12, 1e-9, 1e-7, 5e-7])
def test_a_budget_is_hard_to_the_last_digit(below: float) -> None:
    """A network a nanosecond over the budget is within the solver's tolerance, but not within the budget."""
    latencies, accuracy = latency(TINY), score(TINY)
    times, scores = latencies(ENCODINGS), accuracy(ENCODINGS)
    for index in np.random.default_rng(0).choice(np.flatnonzero(ENCODINGS[:, 0] == 1), 10):
        best = solve(accuracy, within(latencies, float(times[index]) + 0.01), 1)
        assert best is not None
        budget_ms = latency_ms(latencies, best.encoding) - below
        optimum = solve(accuracy, within(latencies, budget_ms), 1)
        assert optimum is not None
        assert latency_ms(latencies, optimum.encoding) <= budget_ms
        fits = (ENCODINGS[:, 0] == 1) & (times <= budget_ms)
        assert optimum.score == pytest.approx(scores[fits].max(), abs=WITHIN)


def test_a_variant_that_is_too_slow_has_no_answer() -> None:
    case = problem(TINY, 0.0)
    answers = [solve(score(TINY), case.limits, variant) for variant in range(3)]
    assert [answer is not None for answer in answers] == [True, False, False]
    assert solve(score(TINY), within(case.latency, 0.0), 0) is None


def test_of_two_widths_the_faster_multiple_of_16_wins() -> None:
    """184 channels take longer than 192 and score less, which no interpolation between widths would show."""
    stage = Stage(
        out=8, stride=1, depths=(1,), kernels=(5,), expansions=(22, 23, 24), se=(False,), activations=("relu",)
    )
    space = dataclasses.replace(TINY, stages=(stage,)).at([(1.0, 64)])
    latencies = latency(space)
    accuracy = additive_model(space, lambda placed: placed.block.expanded, [0.0])
    encodings = every_encoding(space)
    channels = np.array([spec.blocks[1].expanded for spec in space.decode(encodings)])
    assert channels.tolist() == [176, 184, 192]
    times = dict(zip(channels.tolist(), latencies(encodings), strict=True))
    assert times[176] < times[192] < times[184]
    optimum = solve(accuracy, within(latencies, times[184]), 0)
    assert optimum is not None
    assert space.decode([np.array(optimum.encoding)])[0].blocks[1].expanded == 192
    optimum = solve(accuracy, within(latencies, (times[192] + times[176]) / 2), 0)
    assert optimum is not None
    assert space.decode([np.array(optimum.encoding)])[0].blocks[1].expanded == 176


def test_a_real_space_is_solved_whole() -> None:
    """A space of 20 slots with 36 options each, some 10^38 networks, is solved to its optimum."""
    space = load_space("mobilenet_v3_large").at([(1.0, 224)])
    case = problem(space, 0.3)
    optimum = solve(score(space), case.limits, 0)
    assert optimum is not None
    assert 0.99 * case.limit_ms < latency_ms(case.latency, optimum.encoding) <= case.limit_ms
    (spec,) = space.decode([np.array(optimum.encoding)])
    assert sum(added_ms(BlockPart(*placed)) for placed in spec.walk()) < latency_ms(case.latency, optimum.encoding)
    # No single change that still fits makes it better.
    rng = random.Random(0)
    changed = np.array([space.mutate_encoding(optimum.encoding, rng, 0.02) for _ in range(2_000)])
    fits = case.latency(changed) <= case.limit_ms
    assert fits.sum() > 100
    assert case.additive(changed)[fits].max() <= optimum.score + WITHIN


@pytest.mark.parametrize("status", [1, 3, 4])
@pytest.mark.parametrize("has_solution", [True, False])
def test_without_a_proof_there_is_no_answer(monkeypatch: pytest.MonkeyPatch, status: int, has_solution: bool) -> None:
    """A solver that stops early has proven neither that its solution is optimal nor that there is none."""
    real = solver.milp

    def unproven(*arguments: Any, **options: Any) -> OptimizeResult:
        found = real(*arguments, **options)
        return OptimizeResult(x=found.x if has_solution else None, status=status, message="Time limit reached")

    monkeypatch.setattr(solver, "milp", unproven)
    with pytest.raises(SolverError, match=r"the integer program of tiny was not solved: Time limit reached"):
        solve(score(TINY), problem(TINY, 0.5).limits, 0)


def test_where_presolve_proves_nothing_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, real = problem(TINY, 0.5).limits, solver.milp
    wanted = solve(score(TINY), limits, 0)

    def undecided(*arguments: Any, options: dict[str, Any], **others: Any) -> OptimizeResult:
        if options["presolve"]:
            return OptimizeResult(x=None, status=4, message="infeasible or unbounded")
        return real(*arguments, options=options, **others)

    monkeypatch.setattr(solver, "milp", undecided)
    assert solve(score(TINY), limits, 0) == wanted


def test_other_output_comes_through_while_it_solves(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Other threads can write to standard output meanwhile."""
    real = solver.milp

    def with_output(*arguments: Any, **options: Any) -> OptimizeResult:
        os.write(1, b"from another thread\n")
        return real(*arguments, **options)

    monkeypatch.setattr(solver, "milp", with_output)
    solve(score(TINY), problem(TINY, 0.5).limits, 0)
    assert capfd.readouterr().out == "from another thread\n"


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Lines that HiGHS writes to standard output in about one of twenty solves are suppressed."""
    latencies, accuracy = latency(TINY), score(TINY)
    times = latencies(ENCODINGS[ENCODINGS[:, 0] == 1])
    for budget_ms in np.sort(times)[:: len(times) // 40]:
        solve(accuracy, within(latencies, budget_ms), 1)
    ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None).fflush(None)
    print("and what Python prints comes through")
    assert capfd.readouterr().out == "and what Python prints comes through\n"


def test_two_threads_that_solve_give_c_its_output_back() -> None:
    """The first to begin ends first: neither may leave the other's stream behind."""
    stream = solver._c_stdout()
    if stream is None:
        pytest.skip("there is no stream to exchange")
    before = stream.value
    first_inside, first_ends, second_inside = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with solver._NO_DEBUG_OUTPUT:
            first_inside.set()
            assert second_inside.wait(300)
        first_ends.set()

    thread = threading.Thread(target=first)
    thread.start()
    assert first_inside.wait(300)
    with solver._NO_DEBUG_OUTPUT:
        second_inside.set()
        assert first_ends.wait(300)
        assert stream.value != before
    thread.join()
    assert stream.value == before
