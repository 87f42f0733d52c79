"""Estimates by trainings of a second or less, and whole searches with such estimates."""

import functools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from support import synthetic
from support.pictures import save_images
from support.searching import Recorder

from nas.accuracy import short_training
from nas.accuracy.estimator import Estimates
from nas.accuracy.short_training import ShortTraining
from nas.arch.cost import count_cost
from nas.arch.loading import load_space
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, load_results
from nas.errors import NasError
from nas.runs.record import load_record
from nas.search import __main__ as search
from nas.search import request as search_request
from nas.search.request import SearchRequest, targets_of
from nas.search.run import search as find
from nas.training import side_by_side
from nas.training.data import EMBEDDED, load_data
from nas.training.disk_images import DiskImages
from nas.training.images import Data
from nas.training.loop import DivergedError, Training
from nas.training.recipes import Recipe
from nas.training.side_by_side import Ended
from nas.training.tensor_images import TensorImages


def tiny(out: int) -> ArchSpec:
    blocks = (BlockSpec(kernel=3, expanded=16, out=out, stride=2),)
    return ArchSpec(name="tiny", resolution=96, stem=StemSpec(out=8), blocks=blocks, head=HeadSpec(conv=32))


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Use few images, two epochs and this process. The list fills with the ids of the networks that are trained."""
    data, part = load_data(EMBEDDED), {}
    for name, images, count in (("train", data.train, 256), ("val", data.val, 100)):
        part[name] = TensorImages(images.images[:count], images.labels[:count])
    little = Data(data.source, data.classes, **part)
    done: list[str] = []
    build = short_training.build_model

    def built(spec: ArchSpec, *arguments: Any) -> Any:
        done.append(spec.id)
        return build(spec, *arguments)

    def load(source: str, data_dir: object, loaders: object = None) -> Data:
        load_data(source, data_dir)  # its errors
        return little

    monkeypatch.setattr(short_training, "load_data", load)
    monkeypatch.setattr(short_training, "build_model", built)
    monkeypatch.setitem(ShortTraining.__init__.__kwdefaults__, "epochs", 2)
    monkeypatch.setattr(side_by_side, "usable_cores", lambda: 1)
    return done


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


# Estimates --------------------------------------------------------------------------------------------


def test_an_estimate_is_the_validation_accuracy_of_a_training(trained: list[str]) -> None:
    estimator = ShortTraining()
    assert estimator.resolution == 32
    top1, std, extrapolated, diverged = estimator.estimate([tiny(8)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = short_training.build_model(tiny(8), 10, estimator._recipe.dropout)
    *_, last = Training(model, estimator.data, estimator._recipe, resolution=32).epochs()
    assert top1[0] == pytest.approx(last.top1, abs=1e-6)
    assert std[0] == pytest.approx(100 * np.sqrt(last.top1 / 100 * (1 - last.top1 / 100) / 100))
    assert not extrapolated[0]
    assert not diverged[0]
    assert "fashion-mnist-sample" in estimator.training_recipe
    assert "2 epochs" in estimator.training_recipe
    assert "32 px" in estimator.training_recipe


def test_data_smaller_than_a_batch_are_said(trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    ShortTraining(say=messages.append)
    assert not messages
    larger = short_training.load_recipe("quick").replace(batch_size=100_000)
    monkeypatch.setattr(short_training, "load_recipe", lambda name: larger)
    ShortTraining(say=messages.append)
    (warning,) = messages
    assert "images to train on are fewer than the batch of 100000 of recipe quick" in warning


def test_nothing_is_trained_twice(trained: list[str], tmp_path: Path) -> None:
    log, specs = tmp_path / "run" / "estimates.jsonl", [tiny(8), tiny(16)]
    one, other = ShortTraining(log=log), ShortTraining(log=log)
    first = one.estimate([*specs, specs[0]])
    assert trained == [spec.id for spec in specs]
    again = other.estimate(specs)  # another process, or a resumed run
    np.testing.assert_array_equal(again.top1, first.top1[:2])
    np.testing.assert_array_equal(again.std, first.std[:2])
    other.estimate([tiny(24)])
    one.estimate([tiny(24)])
    assert len(trained) == 3
    ShortTraining(log=log, seed=1).estimate(specs[:1])  # another training
    assert len(trained) == 4
    assert [entry["spec_id"] for entry in entries(log)] == trained


def test_half_a_line_of_a_killed_process_is_skipped(trained: list[str], tmp_path: Path) -> None:
    log = tmp_path / "estimates.jsonl"
    ShortTraining(log=log).estimate([tiny(8), tiny(16)])
    log.write_bytes(log.read_bytes()[:-20])
    ShortTraining(log=log).estimate([tiny(16)])
    assert trained == [tiny(8).id, tiny(16).id, tiny(16).id]
    ShortTraining(log=log).estimate([tiny(8), tiny(16)])
    assert len(trained) == 3


def estimates_of(top1: list[float], diverged: int | None = None) -> Estimates:
    """Return estimates of another process, of which one may have diverged."""
    of_all = np.arange(len(top1))
    return Estimates(np.array(top1), np.full(len(top1), 2.0), np.zeros(len(top1), bool), of_all == diverged)


@pytest.mark.parametrize("lost", ["spec_id", "settings", "curve", "top1", "std", "diverged"])
def test_a_line_that_is_no_result_is_named(trained: list[str], tmp_path: Path, lost: str) -> None:
    log = tmp_path / "estimates.jsonl"
    ShortTraining(log=log).add_estimates([tiny(8), tiny(16)], estimates_of([50.0, 60.0]))
    first, second = entries(log)
    del second[lost]
    for line in (second, second | {lost: None}, [], 3):
        log.write_text(f"{json.dumps(first)}\n{json.dumps(line)}\n", encoding="utf-8")
        with pytest.raises(
            NasError, match=r"estimates.jsonl: line 2 is not the result of a short training; remove"
        ) as error:
            ShortTraining(log=log).estimate([tiny(8)])
        assert "\n" not in str(error.value)
    assert not trained


class MadeUp:
    """A training whose top-1 grows with the network's parameters, and by the same amount every epoch."""

    def __init__(self, model: Any, data: Data, recipe: Recipe, **options: Any) -> None:
        self.recipe = recipe
        self.start = 10 * math.log10(count_cost(model.spec).params)

    def epochs(self, on_step: object = None) -> Iterator[SimpleNamespace]:
        for epoch in range(1, self.recipe.epochs + 1):
            yield SimpleNamespace(epoch=epoch, top1=self.start + 2 * epoch)


def test_hyperband_stops_networks_that_fall_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(short_training, "Training", MadeUp)
    order = random.Random(0).sample(range(1, 31), 24)
    specs = [tiny(8 * k) for k in order]
    top1 = ShortTraining(epochs=8, log=tmp_path / "log").estimate(specs).top1
    logged = entries(tmp_path / "log")
    lengths = {entry["spec_id"]: len(entry["curve"]) for entry in logged}
    assert lengths[tiny(8 * max(order)).id] == 8
    assert 3 <= sum(length < 8 for length in lengths.values()) <= 21
    # The expected gain is what others had, so that the order is that of whole trainings.
    assert list(np.argsort(-top1)) == list(np.argsort([-k for k in order]))
    # Another process, or a resumed run, stops where this one would have.
    (tmp_path / "half").write_text("".join(json.dumps(entry) + "\n" for entry in logged[:12]), encoding="utf-8")
    ShortTraining(epochs=8, log=tmp_path / "half").estimate(specs)
    assert entries(tmp_path / "half") == logged


class Interleaved:
    """Does jobs as processes would that take turns by chance. Of those that are stopped some go on for a while."""

    def __init__(self, rng: random.Random, data: Data, at_a_time: int | None, threads: int) -> None:
        self.rng, self.data = rng, data
        self.at_a_time = rng.randint(2, 5)
        self.waiting: list[tuple[int, Iterator[Any]]] = []
        self.running: dict[int, Iterator[Any]] = {}
        self.stopped: set[int] = set()
        self.begun = self.yielded = 0

    def begin(self, job: Any, *arguments: Any) -> int:
        self.begun += 1
        self.waiting.append((self.begun, job(self.data, lambda: False, *arguments)))
        return self.begun

    def stop(self, number: int) -> None:
        self.stopped.add(number)

    def next_value(self) -> tuple[int, Any]:
        while self.waiting and len(self.running) < self.at_a_time:
            number, values = self.waiting.pop(0)
            self.running[number] = values
        number = self.rng.choice(list(self.running))
        late = number in self.stopped and self.rng.random() < 0.5
        value = Ended() if late else next(self.running[number], Ended())
        self.yielded += not isinstance(value, Ended)
        if isinstance(value, Ended):
            del self.running[number]
        return number, value


@pytest.mark.parametrize("order", range(4))
def test_networks_that_are_trained_at_a_time_have_the_results_of_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, order: int
) -> None:
    monkeypatch.setattr(short_training, "Training", Diverging)
    rng = random.Random(order)
    specs = [tiny(8 * k) for k in rng.sample(range(1, 31), 20)]
    expected = ShortTraining(epochs=8, log=tmp_path / "log").estimate(specs)
    logged = entries(tmp_path / "log")
    assert {len(entry["curve"]) for entry in logged} >= {1, 2, 8}
    assert any(entry["diverged"] for entry in logged)
    monkeypatch.setattr(short_training, "SideBySide", functools.partial(Interleaved, rng))
    together = ShortTraining(epochs=8, log=tmp_path / "together")
    together.begin(specs[:8])
    for index, spec in enumerate(specs):  # as a search does
        assert together.estimate([spec]).top1 == expected.top1[index]
        together.begin(specs[8 + index : 9 + index])
    assert entries(tmp_path / "together") == logged
    # What is decided stops trainings: few epochs are trained for nothing.
    assert together._pool.yielded < 1.5 * sum(len(entry["curve"]) for entry in logged)  # type: ignore[attr-defined]
    (tmp_path / "half").write_text("".join(json.dumps(entry) + "\n" for entry in logged[:7]), encoding="utf-8")
    ShortTraining(epochs=8, log=tmp_path / "half").estimate(specs)
    assert entries(tmp_path / "half") == logged


def test_a_killed_process_ends_a_batch_and_what_was_finished_is_kept(tmp_path: Path) -> None:
    specs = [tiny(8 * k) for k in (1, 3, 2, 4)]
    ShortTraining(log=tmp_path / "whole").estimate(specs)
    estimator = ShortTraining(log=tmp_path / "log", at_a_time=2)
    add, pool, killed = estimator._add, estimator._pool, list[bool]()
    hand_out = pool._hand_out

    def kill(*arguments: Any) -> None:
        add(*arguments)
        killed.append(True)
        for worker in pool._workers:  # all: one may have sent its last value already
            worker.process.kill()

    def hand_out_all_but_the_last() -> None:
        """One process may train several networks before the other has begun: the last waits for the kill."""
        held = [pool._waiting.pop()] if pool._waiting and not killed else []
        hand_out()
        pool._waiting.extend(held)

    estimator._add = kill  # type: ignore[method-assign]
    pool._hand_out = hand_out_all_but_the_last  # type: ignore[method-assign]
    died = r"^a process that trains a network died \(signal SIGKILL, perhaps for want of memory\); .* with --resume"
    with pytest.raises(NasError, match=died):
        estimator.estimate(specs)
    whole = entries(tmp_path / "whole")
    kept = entries(tmp_path / "log")
    assert 0 < len(kept) < len(specs)
    assert kept == whole[: len(kept)]
    assert not estimator._pool._workers
    ShortTraining(log=tmp_path / "log").estimate(specs)
    assert entries(tmp_path / "log") == whole


class Diverging(MadeUp):
    """Networks with an odd number of thousands of parameters diverge in the second epoch."""

    def __init__(self, model: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(model, *arguments, **options)
        self.odd = bool(count_cost(model.spec).params // 1000 % 2)

    def epochs(self, on_step: object = None) -> Iterator[SimpleNamespace]:
        for metrics in super().epochs():
            if self.odd and metrics.epoch == 2:
                raise DivergedError("the training diverged")
            yield metrics


def test_a_training_that_diverges_counts_as_the_worst(
    trained: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(short_training, "Training", Diverging)
    odd, even = (
        next(tiny(8 * k) for k in range(1, 99) if count_cost(tiny(8 * k)).params // 1000 % 2 == r) for r in (1, 0)
    )
    messages: list[str] = []
    first = ShortTraining(log=tmp_path / "log", say=messages.append).estimate([odd, even])
    assert first.top1[0] == 0 < first.top1[1]
    assert first.diverged.tolist() == [True, False]
    assert messages == [f"warning: the training of network {odd.id} diverged; it counts as 0 %"]
    logged = entries(tmp_path / "log")
    assert [(len(entry["curve"]), entry["diverged"]) for entry in logged] == [(1, True), (2, False)]
    again = ShortTraining(log=tmp_path / "log", say=messages.append).estimate([even, odd])
    assert again.top1.tolist() == first.top1.tolist()[::-1]
    assert again.diverged.tolist() == [False, True]
    assert len(messages) == len(trained) == 2, "it was trained again, or its failure is not known"


def test_images_that_cannot_be_read_are_named_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 6, 200)
        save_images(tmp_path / part / "dog", 6, 20)
    broken = tmp_path / "val" / "dog" / "2.png"
    broken.write_bytes(b"no image")
    (tmp_path / "val" / ".hidden").mkdir()
    monkeypatch.setattr(short_training, "load_data", load_data)
    messages: list[str] = []
    estimator = ShortTraining(f"imagefolder:{tmp_path}", loaders=3, resolution=32, say=messages.append)
    top1, std, _, _ = estimator.estimate([tiny(8), tiny(16)])
    read = 11
    share = np.clip(top1[0] / 100, 0.5 / read, 1 - 0.5 / read)
    assert std[0] == pytest.approx(100 * math.sqrt(share * (1 - share) / read))
    assert isinstance(estimator.data.val, DiskImages)
    assert estimator.data.val.loaders == 3
    assert [line.partition(":")[0] for line in messages] == ["note", "warning", f"left out {broken}"]


def test_another_error_of_a_training_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(self: MadeUp, on_step: object = None) -> Iterator[SimpleNamespace]:
        raise NasError("image.png cannot be read")

    monkeypatch.setattr(short_training, "Training", MadeUp)
    monkeypatch.setattr(MadeUp, "epochs", unreadable)
    with pytest.raises(NasError, match="cannot be read"):
        ShortTraining().estimate([tiny(8)])


def test_estimates_of_others_are_not_trained_again(trained: list[str]) -> None:
    estimator = ShortTraining()
    estimator.add_estimates([tiny(8), tiny(24), tiny(32)], estimates_of([61.5, 0.0, 0.0], diverged=1))
    estimates = estimator.estimate([tiny(8), tiny(24), tiny(32)])
    assert estimates.top1.tolist() == [61.5, 0, 0]
    assert estimates.std.tolist() == [2.0, 2.0, 2.0]
    assert estimates.diverged.tolist() == [False, True, False]
    estimator.estimate([tiny(16)])  # the pruner has no curve of the others, and needs none
    assert trained == [tiny(16).id]


def test_optuna_speaks_after_an_estimate(trained: list[str]) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    ShortTraining().estimate([tiny(8)])
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    optuna.logging.set_verbosity(before)


def test_encodings_are_estimated_like_specs(trained: list[str]) -> None:
    space = load_space("mobilenet_v3_small").at([(0.35, 96)])
    estimator, encodings = ShortTraining(), space.encode([space.smallest((0.35, 96))])
    assert estimator.compile(space)(encodings) == estimator.estimate([space.smallest((0.35, 96))]).top1
    assert len(trained) == 1


# Whole searches ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(short_training, "Training", MadeUp)  # MobileNetV3-Large takes a while otherwise
    synthetic.empty_folder(monkeypatch, tmp_path)
    synthetic.install(monkeypatch)
    return tmp_path


def request(**changes: Any) -> SearchRequest:
    plain: dict[str, Any] = {
        **{"targets": targets_of((0.7,), only="large"), "large_space": "few.py", "runtime": "synthetic", "trials": 4},
        **{"estimator": "short-training", "data": EMBEDDED, "strategy": "surrogate"},
    }
    return SearchRequest(**plain | changes)


def test_a_search_prints_the_validation_accuracy_of_that_data(
    folder: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--large-space", "few.py", "--only", "large", "--runtime", "synthetic", "--trials", "4"]
    common += ["--estimator", "short-training"]
    search.main([*common, "--budget-ms", "0.7", "--data", EMBEDDED, "--out", "run"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "est.: short-training: fashion-mnist-sample, validation accuracy after 2 epochs" in printed
    results = load_results(folder / "run" / "large.json")
    logged = {entry["spec_id"]: entry["top1"] for entry in entries(folder / "run" / "estimates.jsonl")}
    spec = ArchSpec.load(folder / "run" / "large.json")
    assert results["accuracy"]["top1"] == pytest.approx(logged[spec.id], abs=1e-3)
    assert len(trained) == len(set(trained)) == len(logged)
    record = load_record(folder / "run")
    for network in record.networks:  # published ones have been trained alike, or are left out
        assert network.published_top1 is None
        assert network.estimated_top1 == pytest.approx(logged[network.spec.id], abs=1e-3)
    assert {network.name for network in record.networks} > {"mobilenet_v3_large", "mobilenet_v3_small"}
    assert record.targets[0].optimum is None
    assert "fashion-mnist-sample" in (folder / "run" / "index.html").read_text(encoding="utf-8")


def test_a_killed_search_goes_on_without_training_again(
    folder: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find(request(), Path("whole"))
    once, build = list(trained), short_training.build_model
    trained.clear()
    for file in Path("latency_tables").iterdir():  # a table that has learned from the first search predicts otherwise
        file.unlink()

    def dies(spec: ArchSpec, *arguments: Any) -> Any:
        if len(trained) == 3:
            raise KeyboardInterrupt
        return build(spec, *arguments)

    monkeypatch.setattr(short_training, "build_model", dies)
    with pytest.raises(KeyboardInterrupt):
        find(request(), Path("run"))
    monkeypatch.setattr(short_training, "build_model", build)
    run = find(request(), Path("run"), resume=True)
    assert trained == once
    assert [t.trial.spec.id for t in run.trials("large")] == [t.trial.spec.id for t in whole.trials("large")]
    assert (Path("run") / "large.json").read_text() == (Path("whole") / "large.json").read_text()


@pytest.mark.parametrize(
    ("changes", "at_a_time", "threads"),
    [
        ({}, 4, 1),
        ({"workers": 1}, 1, 1),
        ({"workers": 2}, 1, 2),
        ({"workers": 3}, 1, 1),
        ({"storage": "sqlite:///s.db", "study": "s"}, 1, 1),
        ({"storage": "sqlite:///s.db", "study": "s", "workers": 1}, 1, 4),
    ],
)
def test_processes_times_threads_are_no_more_than_the_cores(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], at_a_time: int, threads: int
) -> None:
    for module in (side_by_side, search_request):
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    pool = request(**changes).load_estimator(folder)._pool  # type: ignore[attr-defined]
    assert request(**changes).processes == (4 // threads if "storage" in changes else changes.get("workers", 1))
    assert (pool.at_a_time, pool._threads) == (at_a_time, threads)


def test_a_search_goes_on_where_trainings_diverge(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_training, "Training", Diverging)
    console = Recorder()
    find(request(trials=6), Path("run"), console=console)
    logged = entries(folder / "run" / "estimates.jsonl")
    failed = {entry["spec_id"] for entry in logged if entry["diverged"]}
    assert 0 < len(failed) < len(logged), "all or none of the networks diverged"
    warnings = {f"warning: the training of network {spec_id} diverged; it counts as 0 %" for spec_id in failed}
    assert warnings <= set(console.lines)
    assert ArchSpec.load(folder / "run" / "large.json").id not in failed


@pytest.mark.parametrize("objective", ["top1", "mnasnet"])
def test_what_others_on_a_data_base_trained_is_not_trained_again(
    folder: Path, trained: list[str], objective: str
) -> None:
    shared = {"storage": "sqlite:///shared.db", "study": "common", "strategy": "random", "objective": objective}
    one = find(request(**shared), Path("one"))
    own = {logged.trial.spec.id: logged.trial.top1 for logged in one.trials("large", "random")}
    assert set(own) <= set(trained)
    trained.clear()
    two = find(request(**shared), Path("two"))
    assert {t.trial.spec.id: t.trial.top1 for t in two.trials("large", "random")} == pytest.approx(own)
    assert not set(own) & set(trained)


def test_other_strategies_work_beside_it(folder: Path, trained: list[str]) -> None:
    run = find(request(strategy="tpe"), Path("run"))
    assert len(run.trials("large", "tpe")) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "--estimator short-training trains networks: name the images with --data"),
        ({"estimator": "imagenet-prior"}, "--data is for --estimator replacement or short-training"),
        ({"strategy": "exact"}, "--strategy exact needs an accuracy that is a sum over blocks"),
        ({"resolutions": (96, 128)}, "name a single one with --resolutions"),
        ({"recipe_level": "timm-ra"}, "--recipe-level belongs to imagenet-prior"),
        ({"data": "no-such"}, "unknown data source 'no-such'"),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NasError, match=message) as error:
        find(request(**changes), Path("run"))
    assert "\n" not in str(error.value)
    assert not Path("run").exists()
