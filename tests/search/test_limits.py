"""Limits on parameters and memory, and corrections over pairs, against every network of a small space."""

import dataclasses
import functools
import itertools
import random

import numpy as np
import pytest
from support.problems import TINY as LARGER
from support.problems import estimates_of, every_encoding, latency, problem, score

from nas.arch.additive import AdditiveModel, Pair, can_follow
from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.space import SearchSpace
from nas.errors import NasError
from nas.names import resolve
from nas.search.canonical import CanonicalForm
from nas.search.extremes import fastest_ms, slowest_ms
from nas.search.limits import Limit, cost_limits
from nas.search.loop import run_trials
from nas.search.problem import Problem
from nas.search.solver import ranking, solve
from nas.search.strategies import STRATEGIES, nsga2
from nas.search.strategies.base import Strategy

# Fewer networks than the other tests' space has, for each is built to be counted.
TINY = dataclasses.replace(LARGER, stages=(dataclasses.replace(LARGER.stages[0], depths=(1, 2)), *LARGER.stages[1:]))
ENCODINGS = every_encoding(TINY)
WITHIN = 1e-6
CANONICAL = CanonicalForm(TINY)


@functools.cache
def costs() -> tuple[np.ndarray, np.ndarray]:
    """Parameters and memory (MB) of every encoding."""
    counted = [count_cost(spec) for spec in TINY.decode(ENCODINGS)]
    return np.array([c.params for c in counted]), np.array([c.memory_bytes / 1e6 for c in counted])


def limited(share: float, params: float | None, memory: float | None) -> Problem:
    """Bounds at so far a share of the way from the smallest to the largest network."""

    def between(values: np.ndarray, part: float | None) -> float | None:
        return None if part is None else float(values.min() + part * (values.max() - values.min()))

    all_params, all_memory = costs()
    case = problem(TINY, share, noise=0.3)
    return dataclasses.replace(case, others=cost_limits(TINY, between(all_params, params), between(all_memory, memory)))


CASES = [(0.5, 0.2, None), (2.0, 0.02, None), (0.5, None, 0.15), (2.0, None, 0.0), (0.3, 0.3, 0.1), (2.0, 0.3, 0.05)]


def paired(space: SearchSpace, seed: int = 0, classes: int = 3, size: float = 0.02) -> AdditiveModel:
    """Latencies with a correction, positive or negative, for every two classes of neighbours."""
    plain, generator = latency(space), np.random.default_rng(seed)
    pairs = []
    for first, second in itertools.product(range(len(space.slots)), repeat=2):
        if can_follow(space, first, second):
            shape = (len(space.variants), plain.options[first].shape[1], plain.options[second].shape[1])
            table = generator.normal(0, size, (shape[0], classes, classes))
            one, other = (generator.integers(classes, size=n) for n in shape[1:])
            pairs.append(Pair(first, second, table[:, one][:, :, other]))
    return AdditiveModel(space, plain.constants, plain.options, pairs)


def test_limits_are_what_networks_cost() -> None:
    space = load_space("mobilenet_v3_large").at([(0.35, 96), (1.4, 288)])
    rng = random.Random(0)
    specs = [space.smallest(variant) for variant in space.variants] + [space.sample(rng) for _ in range(20)]
    params, memory = cost_limits(space, 1, 1)
    counted = [count_cost(spec) for spec in specs]
    assert params(space.encode(specs)).tolist() == [cost.params for cost in counted]
    assert memory(space.encode(specs)).tolist() == [cost.memory_bytes for cost in counted]
    assert all(c.memory_bytes == 4 * c.params + c.peak_activation_bytes == c.param_bytes + c.peak_activation_bytes
               for c in counted)  # fmt: skip
    assert cost_limits(space) == ()
    (other,) = cost_limits(space, 1, num_classes=10)
    assert other(space.encode(specs)).tolist() == [count_cost(spec, 10).params for spec in specs]


def test_the_least_and_the_largest_are_bounds() -> None:
    for limit, values in zip(cost_limits(TINY, 1, 1), (costs()[0], costs()[1] * 1e6), strict=True):
        for variant in range(len(TINY.variants)):
            own = values[ENCODINGS[:, 0] == variant]
            assert limit.least()[variant] == own.min()
            assert limit.largest()[variant] >= own.max()


@pytest.mark.parametrize("case", CASES)
def test_exact_finds_what_trying_every_network_finds(case: tuple[float, float, float]) -> None:
    made = limited(*case)
    fits = np.all([limit(ENCODINGS) <= limit.most for limit in made.limits], axis=0)
    assert 0 < fits.sum() < 0.9 * len(ENCODINGS)
    scores = made.additive(ENCODINGS)
    for variant in range(len(TINY.variants)):
        own = fits & (ENCODINGS[:, 0] == variant)
        assert own.any() == (variant in made.feasible_variants)
        optimum = solve(score(TINY), made.limits, variant)
        assert (optimum is not None) == own.any()
        if optimum is not None:
            assert made.fits(optimum.encoding)
            assert optimum.score == pytest.approx(scores[own].max(), abs=WITHIN)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("case", CASES)
def test_strategies_keep_all_limits(
    name: str, case: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nsga2, "POPULATION", 6)
    strategy: Strategy = resolve("strategy", name, STRATEGIES)
    made = limited(*case)
    encodings = [trial.encoding for trial in run_trials(made, strategy, trials=12, seed=0)]
    fitting = np.all([limit(ENCODINGS) <= limit.most for limit in made.limits], axis=0)
    unique = {CANONICAL(tuple(encoding)) for encoding in ENCODINGS[fitting][:40].tolist()}
    assert len(set(encodings)) == len(encodings) >= min(12, len(unique))
    for spec in TINY.decode([np.array(encoding) for encoding in encodings]):
        cost = count_cost(spec)
        for limit in made.others:
            assert (cost.params if limit.name == "parameters" else cost.memory_bytes) <= limit.most


def test_repair_is_varied_under_every_limit() -> None:
    for case in CASES:
        made = limited(*case)
        fits = np.all([limit(ENCODINGS) <= limit.most for limit in made.limits], axis=0)
        fitting = {CANONICAL(tuple(encoding)) for encoding in ENCODINGS[fits].tolist()}
        rng = random.Random(0)
        samples = {made.sampler.sample(rng) for _ in range(150)}
        assert samples <= fitting
        assert len(samples) > min(0.2 * len(fitting), 50), case


def test_a_limit_that_nothing_keeps_names_the_smallest_value() -> None:
    params, memory = costs()
    case = problem(TINY, 2.0, noise=0.9)
    with pytest.raises(NasError, match=rf"at most 0\.001M parameters; the smallest has {params.min() / 1e6:.4g}M"):
        dataclasses.replace(case, others=cost_limits(TINY, 1000))
    with pytest.raises(NasError, match="at most 10 parameters; "):
        dataclasses.replace(case, others=cost_limits(TINY, 10))
    with pytest.raises(NasError, match=rf"at most 0\.01 MB of memory; the smallest has {memory.min():.4g} MB"):
        dataclasses.replace(case, others=cost_limits(TINY, None, 0.01))
    times = case.latency(ENCODINGS)
    few = cost_limits(TINY, float(params.min()))
    assert fastest_ms(case.latency, few) == pytest.approx(times[params == params.min()].min())
    assert fastest_ms(case.latency, few) > times.min()
    with pytest.raises(NasError, match=r"with at most .* parameters is as fast as .* ms; the fastest takes"):
        Problem(TINY, case.latency, case.estimate, float(times.min()), others=few)


# Pairs ------------------------------------------------------------------------------------------------


def test_sums_over_pairs_equal_a_plain_loop() -> None:
    sums = paired(TINY)
    plain = AdditiveModel(TINY, sums.constants, sums.options)
    rng = random.Random(0)
    for encoding in rng.sample(ENCODINGS.tolist(), 100):
        present = [i for i, slot in enumerate(TINY.slots) if encoding[TINY.slot_column(slot)] >= 0]
        options = {}
        for index in present:
            column, option = TINY.slot_column(TINY.slots[index]), 0
            for decision in range(column, column + 4):
                option = option * len(TINY.decisions[decision].choices) + encoding[decision]
            options[index] = option
        added = 0.0
        for first, second in itertools.pairwise(present):
            (values,) = [pair.values for pair in sums.pairs if pair[:2] == (first, second)]
            added += values[encoding[0], options[first], options[second]]
        encodings = np.array([encoding])
        assert sums(encodings)[0] == pytest.approx(plain(encodings)[0] + added)
        assert (-sums)(encodings)[0] == pytest.approx(-sums(encodings)[0])


def test_the_slowest_network_within_other_limits_is_found() -> None:
    case, (params, _) = problem(TINY, 2.0, noise=0.9), costs()
    times = case.latency(ENCODINGS)
    assert slowest_ms(case.latency) == pytest.approx(times.max())
    for share in (0.0, 0.3, 0.7):
        most = float(np.quantile(params, share))
        assert slowest_ms(case.latency, cost_limits(TINY, most)) == pytest.approx(times[params <= most].max())


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_is_exact_with_pairs(seed: int, share: float) -> None:
    latencies, accuracy = paired(TINY, seed), paired(TINY, seed + 10, size=0.5)
    accuracy = AdditiveModel(TINY, score(TINY).constants, score(TINY).options, accuracy.pairs)
    times, scores = latencies(ENCODINGS), accuracy(ENCODINGS)
    budget_ms = float(np.quantile(times, share))
    for variant in range(len(TINY.variants)):
        fits = (ENCODINGS[:, 0] == variant) & (times <= budget_ms)
        optimum = solve(accuracy, [Limit("latency", budget_ms, latencies)], variant)
        assert (optimum is not None) == fits.any()
        if optimum is not None:
            assert optimum.score == pytest.approx(scores[fits].max(), abs=WITHIN)


def test_the_fastest_network_is_found_with_pairs() -> None:
    latencies = paired(TINY, size=0.1)
    assert fastest_ms(latencies) == pytest.approx(latencies(ENCODINGS).min(), abs=1e-9)


@pytest.mark.parametrize("name", ["random", "tpe", "exact"])
def test_strategies_keep_a_budget_with_pairs(name: str) -> None:
    space = TINY.at([(2.0, 32)])  # where a network has one encoding, whatever its made-up corrections are
    latencies, accuracy = paired(space, size=0.1), score(space)
    case = Problem(
        space, latencies, estimates_of(accuracy), float(np.quantile(latencies(every_encoding(space)), 0.05)), accuracy
    )
    strategy = resolve("strategy", name, STRATEGIES)
    encodings = [trial.encoding for trial in run_trials(case, strategy, trials=15, seed=0)]
    assert len(set(encodings)) == 15
    assert (latencies(np.array(encodings)) <= case.limit_ms).all()


# Runners-up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [(0.3, None, None), (0.5, 0.2, 0.2)])
def test_the_ranking_is_that_of_all_networks(case: tuple[float, float, float]) -> None:
    made = limited(*case)
    fits = np.all([limit(ENCODINGS) <= limit.most for limit in made.limits], axis=0)
    scores = {CANONICAL(tuple(encoding)): value for encoding, value in
              zip(ENCODINGS[fits].tolist(), made.additive(ENCODINGS[fits]), strict=True)}  # fmt: skip
    wanted = sorted(scores.values(), reverse=True)[:12]
    best = list(itertools.islice(ranking(made.additive, made.limits, made.feasible_variants), 12))
    assert [optimum.score for optimum in best] == pytest.approx(wanted, abs=WITHIN)
    assert len({optimum.encoding for optimum in best}) == 12
    assert all(made.fits(optimum.encoding) for optimum in best)
    raw = list(itertools.islice(ranking(score(TINY), made.limits, made.feasible_variants), 12))
    assert len({optimum.encoding for optimum in raw}) == 12


def test_a_small_space_is_ranked_to_its_end() -> None:
    stages = tuple(dataclasses.replace(stage, kernels=(3,), expansions=(2,)) for stage in TINY.stages)
    space = dataclasses.replace(TINY, stages=stages).at([(1.0, 32)])
    case = problem(space, 0.5)
    fitting = {CANONICAL(tuple(encoding)) for encoding in every_encoding(space).tolist() if case.fits(tuple(encoding))}
    assert {optimum.encoding for optimum in ranking(case.additive, case.limits, case.feasible_variants)} == fitting
