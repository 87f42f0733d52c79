"""Every strategy keeps the budget, proposes no network twice, and repeats its sequence for a seed, also resumed."""

import dataclasses
import functools
import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import spearmanr
from support.problems import TINY, every_encoding, latency_ms, problem, real_space

from nas.arch.encoding import Encoding
from nas.arch.space import SearchSpace
from nas.errors import NasError
from nas.names import resolve
from nas.runs.parameters import distributions, encoding_of, params_of
from nas.search.canonical import CanonicalForm
from nas.search.loop import run_trials
from nas.search.problem import Problem
from nas.search.strategies import STRATEGIES, nsga2
from nas.search.strategies.base import Strategy
from nas.search.strategies.evolution import EVOLUTION
from nas.search.strategies.exact import EXACT
from nas.search.strategies.random_search import RANDOM

TRIALS = 24
ENCODINGS = every_encoding(TINY)


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Strategy:
    """With populations small enough that they evolve within the trials of a test."""
    monkeypatch.setattr(nsga2, "POPULATION", 10)
    found: Strategy = resolve("strategy", request.param, STRATEGIES)
    return found


CANONICAL = CanonicalForm(TINY)


def encodings_of(
    case: Problem, strategy: Strategy, trials: int = TRIALS, seed: int = 0, finished: Sequence[Encoding] = ()
) -> list[Encoding]:
    before = [case.evaluate(encoding) for encoding in finished]
    return [trial.encoding for trial in run_trials(case, strategy, trials=trials, seed=seed, finished=before)]


CASES = {"half": 0.4, "tight": 0.1, "measured": 0.15, "free": 2.0, "real": 0.15}  # name -> share of the range


@functools.cache
def case_of(name: str) -> Problem:
    noise = {"measured": 0.3, "real": 0.1}.get(name, 0.0)
    return problem(real_space() if name == "real" else TINY, CASES[name], noise)


@functools.cache
def whole_search(strategy: Strategy) -> list[Encoding]:
    return encodings_of(case_of("measured"), strategy, seed=0)


@pytest.mark.parametrize("name", CASES)
def test_proposals_fit_are_new_and_are_canonical(strategy: Strategy, name: str) -> None:
    case = case_of(name)
    encodings = encodings_of(case, strategy, trials=6 if name == "real" else TRIALS)
    assert len(encodings) == (6 if name == "real" else TRIALS)
    assert all(case.fits(encoding) for encoding in encodings)
    assert all(case.latency(np.array([encoding]))[0] <= case.limit_ms for encoding in encodings)
    specs = case.space.decode([np.array(encoding) for encoding in encodings])
    assert len({spec.id for spec in specs}) == len(encodings)
    assert [tuple(encoding) for encoding in case.space.encode(specs).tolist()] == encodings
    for encoding in encodings:
        assert encoding_of(case.space, params_of(case.space, encoding)) == encoding


def test_one_sequence_a_seed(strategy: Strategy) -> None:
    case = case_of("measured")
    assert encodings_of(case, strategy, trials=15) == whole_search(strategy)[:15]
    if strategy is not EXACT:  # its first proposals are the optima, whatever the seed
        assert encodings_of(case, strategy, trials=15, seed=2) != whole_search(strategy)[:15]


@pytest.mark.parametrize("finished", [1, 10, 11, TRIALS - 1, TRIALS])
def test_a_resumed_search_goes_on_as_if_it_was_never_stopped(strategy: Strategy, finished: int) -> None:
    case = case_of("measured")
    whole = whole_search(strategy)
    assert encodings_of(case, strategy, finished=whole[:finished]) == whole[finished:]


def test_networks_that_are_evaluated_together_are_announced_and_do_not_wait_for_each_other(strategy: Strategy) -> None:
    begun: list[str] = []
    case = dataclasses.replace(
        case_of("measured"), together=4, begin=lambda specs: begun.extend(spec.id for spec in specs)
    )
    whole, known = [], []
    for trial in run_trials(case, strategy, trials=15, seed=0):
        known.append(len(begun))
        whole.append(trial)
    assert begun == [trial.spec.id for trial in whole]
    if strategy is EXACT:  # its sweep needs no results, so that it goes on as if it waited for them
        assert [trial.encoding for trial in whole] == whole_search(strategy)[:15]
    assert len(set(begun)) == 15
    assert known == [*range(4, 15), *[15] * 4]
    for finished in (1, 5, 12, 15):
        assert list(run_trials(case, strategy, trials=15, seed=0, finished=whole[:finished])) == whole[finished:]


def test_a_small_space_is_searched_to_its_end(strategy: Strategy) -> None:
    """Every network within the limit is proposed once, and then the search ends."""
    stages = tuple(dataclasses.replace(stage, kernels=(3,), expansions=(2,)) for stage in TINY.stages)
    space = dataclasses.replace(TINY, stages=stages).at([(1.0, 32), (2.0, 32)])
    case = problem(space, 0.3)
    encodings = every_encoding(space)
    fitting = {spec.id for spec in space.decode(encodings[case.latency(encodings) <= case.limit_ms])}
    assert 10 < len(fitting) < len(encodings)
    found = encodings_of(case, strategy, trials=len(encodings) + 10)
    assert len(found) == len(fitting)
    assert {spec.id for spec in space.decode([np.array(encoding) for encoding in found])} == fitting
    assert encodings_of(case, strategy, trials=len(encodings) + 10, finished=found) == []


def test_a_space_of_one_network(strategy: Strategy) -> None:
    stages = tuple(
        dataclasses.replace(stage, depths=stage.depths[:1], kernels=(3,), expansions=(2,), se=(False,))
        for stage in TINY.stages
    )
    space = dataclasses.replace(TINY, stages=stages).at([(1.0, 32)])
    assert encodings_of(problem(space, 0.0), strategy) == [tuple(every_encoding(space)[0].tolist())]


def test_none_is_worse_than_chance(strategy: Strategy) -> None:
    """The best of 40 trials lies in the top 7 percent of all networks within the limit."""
    case = case_of("measured")
    best = max(case.additive(np.array(encodings_of(case, strategy, trials=40))))
    times, scores = case.latency(ENCODINGS), case.additive(ENCODINGS)
    fitting = np.sort(scores[times <= case.limit_ms])
    share = np.searchsorted(fitting, best) / len(fitting)
    assert share > 0.93
    if strategy is EXACT:
        assert best == pytest.approx(fitting[-1], abs=1e-6)


# One by one -------------------------------------------------------------------------------------------


def test_exact_begins_with_the_optimum_of_each_variant() -> None:
    case = case_of("measured")
    first = encodings_of(case, EXACT, trials=len(case.feasible_variants))
    times, scores = case.latency(ENCODINGS), case.additive(ENCODINGS)
    for encoding, variant in zip(first, case.feasible_variants, strict=True):
        best = scores[(ENCODINGS[:, 0] == variant) & (times <= case.limit_ms)].max()
        assert case.additive(np.array([encoding]))[0] == pytest.approx(best, abs=1e-6)


def test_exact_then_follows_the_front_down() -> None:
    case = problem(TINY.at([(1.0, 64)]), 0.8)
    encodings = np.array(encodings_of(case, EXACT, trials=12))
    times, scores = case.latency(encodings), case.additive(encodings)
    assert times.max() == times[0]
    assert scores.max() == scores[0]
    assert spearmanr(times, range(12)).statistic < -0.8


def test_exact_needs_a_sum_over_blocks() -> None:
    case = dataclasses.replace(case_of("half"), additive=None)
    with pytest.raises(NasError, match="needs an estimator with an additive model, such as imagenet-prior"):
        encodings_of(case, EXACT)
    assert len(encodings_of(case, RANDOM)) == TRIALS


def test_evolution_samples_at_random_until_there_is_a_population() -> None:
    case = case_of("free")
    encodings = encodings_of(case, EVOLUTION, trials=130)
    assert encodings[:TRIALS] == encodings_of(case, RANDOM)
    scores = case.additive(np.array(encodings))
    assert scores[100:].mean() > scores[:100].mean() + scores[:100].std(), "the winners' children are no better"
    assert encodings_of(case, EVOLUTION, trials=130, finished=encodings[:110]) == encodings[110:]


# Made to fit ------------------------------------------------------------------------------------------


def test_a_budget_that_nothing_fits_is_refused_with_the_fastest() -> None:
    case = problem(TINY, 0.0)
    fastest = case.latency(ENCODINGS).min()
    assert case.limit_ms == fastest
    with pytest.raises(NasError, match=rf"the fastest takes {fastest:.3g} ms") as error:
        case.with_limit(fastest * (1 - 1e-12))
    assert "tiny" in str(error.value)


@pytest.mark.parametrize("noise", [0.0, 0.9])
def test_the_fastest_network_is_reached_from_anywhere(noise: float) -> None:
    """With noisy latencies, repair by single choices can get stuck where only a change of several choices is faster."""
    case = problem(TINY, 0.0, noise)
    times = case.latency(ENCODINGS)
    assert case._fastest_ms.min() == pytest.approx(times.min())
    fastest = {tuple(encoding) for encoding in ENCODINGS[times <= case.limit_ms].tolist()}
    for seed in range(100):
        rng = random.Random(seed)
        assert CANONICAL(case.sampler.sample(rng)) in {CANONICAL(encoding) for encoding in fastest}


def test_what_fits_is_left_alone() -> None:
    case = problem(TINY, 0.5)
    canonical = {tuple(encoding) for encoding in TINY.encode(TINY.decode(ENCODINGS[::97])).tolist()}
    kept = [encoding for encoding in canonical if case.fits(encoding)]
    assert len(kept) > 20
    assert all(case.sampler.repair(encoding, random.Random(0)) == encoding for encoding in kept)


def test_repair_reaches_all_of_a_small_space() -> None:
    """Repair returns many different networks."""
    case = problem(TINY, 0.1)
    times = case.latency(ENCODINGS)
    fitting = {CANONICAL(tuple(encoding)) for encoding in ENCODINGS[times <= case.limit_ms].tolist()}
    rng = random.Random(0)
    samples = {case.sampler.sample(rng) for _ in range(1_000)}
    assert samples <= fitting
    assert len(samples) > min(0.25 * len(fitting), 300)


def test_canonical_encodings_are_those_of_encode() -> None:
    case = problem(TINY, 1.0)
    encodings = [tuple(encoding) for encoding in ENCODINGS[::61].tolist()]
    encoded = [
        tuple(encoding)
        for encoding in TINY.encode(TINY.decode([np.array(encoding) for encoding in encodings])).tolist()
    ]
    assert [CANONICAL(encoding) for encoding in encodings] == encoded
    assert sum(one != other for one, other in zip(encodings, encoded, strict=True)) > 10
    same = [
        (latency_ms(case.latency, one), latency_ms(case.latency, other))
        for one, other in zip(encodings, encoded, strict=True)
    ]
    assert all(one == other for one, other in same), "one network, two latencies"


def test_widths_that_round_to_the_same_network_count_once(strategy: Strategy) -> None:
    space = dataclasses.replace(TINY, widths=(1.0, 1.02), resolutions=(32,), variants=())
    specs = space.decode([np.array(encoding) for encoding in encodings_of(problem(space, 0.5), strategy, trials=20)])
    assert len({spec.id for spec in specs}) == 20


# Parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [TINY, real_space()], ids=lambda space: space.name)
def test_parameters_are_the_decisions(space: SearchSpace) -> None:
    rng = random.Random(0)
    encodings = [tuple(space.encode([space.sample(rng)])[0].tolist()) for _ in range(100)]
    decisions = distributions(space)
    assert list(decisions) == [decision.name for decision in space.decisions]
    for encoding in encodings:
        params = params_of(space, encoding)
        assert list(params) == list(decisions)
        assert encoding_of(space, params) == encoding
        assert all(decisions[name]._contains(decisions[name].to_internal_repr(value)) for name, value in params.items())
    for one, other in itertools.combinations(encodings[:30], 2):
        assert (params_of(space, one) == params_of(space, other)) == (one == other)
