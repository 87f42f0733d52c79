"""The Optuna sampler: what it proposes, and that it keeps limits and repeats nothing."""

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import nas

DISTRIBUTIONS = {
    "kernel": CategoricalDistribution([3, 5, 7]),
    "act": CategoricalDistribution(["relu", None, True]),
    "width": IntDistribution(16, 64, step=16),
}
KERNEL, ACT = {3: 1.0, 5: 2.5, 7: 4.5}, {"relu": 0.0, None: 1.5, True: 3.0}
LIMIT = nas.LinearLimit({"kernel": KERNEL, "width": 0.1, "act": lambda choice: ACT[choice]}, most=8.0, name="ms")
POINTS = list(itertools.product(KERNEL, ACT, (16, 32, 48, 64)))


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def cost(kernel: int, act: Any, width: int) -> float:
    return KERNEL[kernel] + 0.1 * width + ACT[act]


def value(kernel: int, act: Any, width: int) -> float:
    return 2 * KERNEL[kernel] - ACT[act] ** 2 / 2 + 5 * (width / 64) ** 0.5


def asked(trial: optuna.Trial) -> tuple[Any, ...]:
    return (
        trial.suggest_categorical("kernel", [3, 5, 7]),
        trial.suggest_categorical("act", ["relu", None, True]),
        trial.suggest_int("width", 16, 64, step=16),
    )


def objective(trial: optuna.Trial) -> float:
    return value(*asked(trial))


def sampler(**settings: Any) -> nas.AdditiveSampler:
    return nas.AdditiveSampler(DISTRIBUTIONS, **({"limits": [LIMIT], "seed": 0} | settings))


def points(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [tuple(trial.params[name] for name in DISTRIBUTIONS) for trial in study.trials]


WITHIN = [point for point in POINTS if cost(*point) <= LIMIT.most]


def test_the_best_within_the_limit_is_found_in_either_direction() -> None:
    assert 10 < len(WITHIN) < len(POINTS) - 10
    for direction, best in (("maximize", max), ("minimize", min)):
        study = optuna.create_study(direction=direction, sampler=sampler())
        study.optimize(objective, n_trials=15)
        assert study.best_value == best(value(*point) for point in WITHIN)


def test_every_point_within_the_limit_comes_once_and_then_the_study_stops() -> None:
    study = optuna.create_study(sampler=sampler())
    study.optimize(objective, n_trials=200)
    assert sorted(map(repr, points(study))) == sorted(map(repr, WITHIN))


def test_a_point_at_the_limit_is_within_it() -> None:
    distributions = {f"x{i}": IntDistribution(0, 1) for i in range(3)}
    limit = nas.LinearLimit(dict.fromkeys(distributions, 1e6), most=2e6)
    study = optuna.create_study(sampler=nas.AdditiveSampler(distributions, [limit], seed=0))
    study.optimize(lambda trial: sum(trial.suggest_int(name, 0, 1) for name in distributions), n_trials=20)
    assert len(study.trials) == 7
    assert max(trial.values[0] for trial in study.trials) == 2


def test_a_known_start_leads_from_the_first_trial_on() -> None:
    start = {"kernel": KERNEL, "width": 0.1, "act": ACT}
    first = {}
    for direction in ("maximize", "minimize"):
        study = optuna.create_study(direction=direction, sampler=sampler(limits=[], start=start, seed=1))
        study.optimize(objective, n_trials=5)
        first[direction] = sum(cost(*point) for point in points(study)) / 5
    middle = sum(cost(*point) for point in POINTS) / len(POINTS)
    assert first["minimize"] < middle - 2 < middle + 2 < first["maximize"]


def test_several_limits_hold_together() -> None:
    narrow = nas.LinearLimit({"width": lambda width: -width}, most=-48, name="at least 48")
    study = optuna.create_study(sampler=sampler(limits=[LIMIT, narrow]))
    study.optimize(objective, n_trials=50)
    assert sorted(map(repr, points(study))) == sorted(repr(point) for point in WITHIN if point[2] >= 48)


def test_limits_that_nothing_keeps_are_refused_at_once() -> None:
    with pytest.raises(nas.NasError, match=r"nothing keeps 'ms': the least is 2\.6, allowed are 2"):
        sampler(limits=[nas.LinearLimit(LIMIT.costs, most=2.0, name="ms")])
    wide = nas.LinearLimit({"width": -1.0}, most=-64, name="wide")
    with pytest.raises(nas.NasError, match=r"nothing keeps all limits together \('small', 'wide'\)"):
        sampler(limits=[nas.LinearLimit(LIMIT.costs, most=6.0, name="small"), wide])


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"depth": {1: 2.0}}, "'depth', which is no parameter; known: kernel, act, width"),
        ({"kernel": {3: 1.0}}, "'kernel' has no number for its choice 5"),
        ({"act": 2.0}, "'act' has no number for its choice 'relu'"),
        ({"width": lambda width: float("inf")}, "'width' has the value inf"),
    ],
)
def test_costs_that_do_not_fit_the_choices_are_refused(limit: Any, message: str) -> None:
    with pytest.raises(nas.NasError, match=message):
        sampler(limits=[nas.LinearLimit(limit, most=1.0)])


def test_floats_are_refused() -> None:
    with pytest.raises(nas.NasError, match="'rate' is FloatDistribution; AdditiveSampler takes categorical and"):
        nas.AdditiveSampler({"rate": FloatDistribution(0, 1)})
    for given in (None, DISTRIBUTIONS):
        study = optuna.create_study(sampler=nas.AdditiveSampler(given))
        with pytest.raises(nas.NasError, match="rate"):
            study.optimize(lambda trial: objective(trial) + trial.suggest_float("rate", 0, 1), n_trials=1)


def test_other_parameters_than_given_and_long_ranges_are_refused() -> None:
    study = optuna.create_study(sampler=sampler(limits=[nas.LinearLimit({"width": -1.0}, most=-64)]))
    with pytest.raises(nas.NasError, match=r"asks for 'width' as IntDistribution\(high=24.*was given IntDistribution"):
        study.optimize(lambda trial: trial.suggest_int("width", 8, 24), n_trials=1)
    with pytest.raises(nas.NasError, match="'n' has 5,001 values"):
        nas.AdditiveSampler({"n": IntDistribution(0, 5000)})
    with pytest.raises(nas.NasError, match="need the distributions"):
        nas.AdditiveSampler(limits=[LIMIT])
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler())
    with pytest.raises(nas.NasError, match="2 objectives"):
        study.optimize(lambda trial: (0.0, 0.0), n_trials=1)


def test_without_distributions_they_are_inferred() -> None:
    study = optuna.create_study(direction="maximize", sampler=nas.AdditiveSampler(seed=0))
    study.optimize(objective, n_trials=100)
    assert sorted(map(repr, points(study))) == sorted(map(repr, POINTS))  # each once, then it stopped


def test_parameters_that_only_some_trials_have_are_sampled() -> None:
    def conditional(trial: optuna.Trial) -> float:
        kernel = trial.suggest_categorical("kernel", [3, 5])
        return kernel + (trial.suggest_int("extra", 0, 3) if kernel == 5 else 0)

    study = optuna.create_study(direction="maximize", sampler=nas.AdditiveSampler(seed=0))
    study.optimize(conditional, n_trials=20)
    assert len(study.trials) == 20
    assert study.best_value == 8


def test_failed_pruned_and_infinite_trials_are_not_repeated_and_do_no_harm() -> None:
    def fails(trial: optuna.Trial) -> float:
        point = asked(trial)
        if trial.number % 4 == 1:
            raise RuntimeError
        if trial.number % 4 == 2:
            raise optuna.TrialPruned
        return float("inf") if trial.number % 4 == 3 else value(*point)

    study = optuna.create_study(sampler=sampler())
    study.optimize(fails, n_trials=200, catch=RuntimeError)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert sorted(map(repr, points(study))) == sorted(map(repr, WITHIN))


def test_enqueued_values_are_kept_and_completed_within_the_limit() -> None:
    study = optuna.create_study(sampler=sampler())
    over = {"kernel": 7, "act": True, "width": 64}
    study.enqueue_trial(over)
    for _ in range(3):
        study.enqueue_trial({"kernel": 7})
    study.enqueue_trial({"kernel": 3, "act": "relu", "width": 16})
    study.optimize(objective, n_trials=200)
    first, *others = points(study)
    assert first == tuple(over.values())
    assert [point[0] for point in others[:3]] == [7] * 3
    assert sorted(map(repr, others)) == sorted(map(repr, WITHIN))


def test_enqueued_values_that_no_point_within_the_limits_has_are_named() -> None:
    study = optuna.create_study(sampler=sampler(limits=[nas.LinearLimit({"kernel": KERNEL}, most=3.0)]))
    study.enqueue_trial({"kernel": 7})
    with pytest.raises(nas.NasError, match="trial 0 was enqueued with values that no point within the limits has"):
        study.optimize(objective, n_trials=1)


def storages() -> list[Callable[[Path], BaseStorage]]:
    return [
        lambda folder: RDBStorage(f"sqlite:///{folder}/study.db"),
        lambda folder: JournalStorage(JournalFileBackend(f"{folder}/study.log")),
    ]


def test_a_resumed_study_goes_on_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = optuna.create_study(sampler=sampler(seed=3))
    whole.optimize(objective, n_trials=12)
    for trials in (5, 7):
        storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
        study = optuna.create_study(study_name="s", storage=storage, sampler=sampler(seed=3), load_if_exists=True)
        study.optimize(objective, n_trials=trials)
    assert points(study) == points(whole)
    other = optuna.create_study(sampler=sampler(seed=4))
    other.optimize(objective, n_trials=12)
    assert points(other) != points(whole)


@pytest.mark.parametrize("storage", storages(), ids=["sqlite", "journal"])
def test_two_workers_on_one_storage_share_the_points(storage: Callable[[Path], BaseStorage], tmp_path: Path) -> None:
    """Workers with the same seed ask before either has finished: nothing is evaluated twice."""
    limit = nas.LinearLimit(LIMIT.costs, most=5.0)
    within = [point for point in POINTS if cost(*point) <= limit.most]
    optuna.create_study(study_name="s", storage=storage(tmp_path))
    workers = [
        optuna.load_study(study_name="s", storage=storage(tmp_path), sampler=sampler(limits=[limit])) for _ in range(2)
    ]
    order = random.Random(0)
    running: list[tuple[optuna.Study, optuna.Trial]] = []
    for number in range(len(within)):
        worker = workers[number % 2]
        running.append((worker, worker.ask()))  # asks for no value yet: others know it by its announcement
        if len(running) == 3:
            worker, trial = running.pop(order.randrange(3))
            worker.tell(trial, objective(trial))
    for worker, trial in running:
        worker.tell(trial, objective(trial))
    assert sorted(map(repr, points(workers[0]))) == sorted(map(repr, within))


def test_a_point_that_another_worker_announces_meanwhile_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(sampler=sampler())
    rival = study.ask()
    storage = study._storage
    announce, stolen = storage.set_trial_system_attr, []

    def race(trial_id: int, key: str, announced: Any) -> None:
        announce(trial_id, key, announced)
        if not stolen:  # the rival announces the same one at the same time
            stolen.append(announced)
            announce(rival._trial_id, key, announced)

    monkeypatch.setattr(storage, "set_trial_system_attr", race)
    own = study.ask()
    asked(own)
    asked_by_rival = json.loads(stolen[0])
    internal = {name: DISTRIBUTIONS[name].to_internal_repr(value) for name, value in own.params.items()}
    assert internal != asked_by_rival


def test_when_all_points_are_known_asking_repeats_one_within_the_limit() -> None:
    study = optuna.create_study(sampler=sampler())
    study.optimize(objective)
    trial = study.ask()
    assert asked(trial) in WITHIN
