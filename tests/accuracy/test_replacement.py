"""Estimates from replacement blocks of a little space, and whole searches with them."""

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic
from support.replacing import FEW_STEPS, LARGEST, LITTLE, SIDE, data_of, learned_folder, lessons
from support.searching import Recorder
from support.synthetic import network_ms
from support.trainings import one_thread

from nas.accuracy import replacement
from nas.accuracy.estimator import SharedEstimator, WeightsEstimator
from nas.accuracy.replacement import OwnData, ReplacementBlocks
from nas.arch.spec import ArchSpec, load_results
from nas.cli.entry import run
from nas.errors import NasError
from nas.replacement import learning
from nas.replacement.learning import Lessons
from nas.runs.record import load_record
from nas.search import __main__ as search
from nas.training.checkpoint import load_checkpoint, load_model, save_checkpoint
from nas.training.evaluation import evaluate_model
from nas.training.images import Data

__all__ = ["learned_folder", "lessons", "one_thread"]


@pytest.fixture(autouse=True)
def learning_is_quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Go to an empty folder, where few images are learned in few steps in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)
    use(monkeypatch, data_of())
    plan = FEW_STEPS._asdict()
    teacher, blocks = ("epochs", "epoch_steps"), plan["steps"]
    monkeypatch.setattr(learning, "_teacher_steps", lambda request: {name: plan[name] for name in teacher})
    monkeypatch.setattr(learning, "_block_steps", lambda request, teacher, left: blocks)
    finalists = {name: value for name, value in plan.items() if name.startswith("finalist")}
    monkeypatch.setattr(learning, "_finalist_steps", lambda request: finalists)


def use(monkeypatch: pytest.MonkeyPatch, data: Data) -> None:
    monkeypatch.setattr(replacement, "load_data", lambda source, data_dir, loaders=None: data)


@pytest.fixture
def estimator(monkeypatch: pytest.MonkeyPatch, lessons: Lessons) -> ReplacementBlocks:
    """Return an estimator that is about to learn what is known already."""
    monkeypatch.setattr(replacement, "learn_lessons", lambda request, folder, console: lessons)
    return ReplacementBlocks(OwnData(root=Path("kept")))


# Estimates --------------------------------------------------------------------------------------------


def test_it_keeps_the_protocol(estimator: ReplacementBlocks) -> None:
    assert isinstance(estimator, WeightsEstimator)
    assert not isinstance(estimator, SharedEstimator)
    assert estimator.proxy is None
    assert estimator.training_recipe.startswith("bars, from a teacher and replacement blocks trained on it for 10 min")
    model = estimator.additive_model(LITTLE)
    encodings = LITTLE.encode([LARGEST, LITTLE.smallest((0.5, 48))])
    estimates = estimator.estimate(LITTLE.decode(encodings))
    assert estimates.top1 == pytest.approx(model(encodings), abs=1e-9)
    assert estimator.compile(LITTLE)(encodings).tolist() == model(encodings).tolist()
    assert (estimates.std > 0).all()
    assert not estimates.extrapolated.any()
    assert not estimates.diverged.any()


def test_a_space_must_be_learned_before_networks_are_estimated(estimator: ReplacementBlocks) -> None:
    with pytest.raises(NasError, match=r"^no space was learned yet; ask for its additive model first$"):
        estimator.estimate([LARGEST])
    estimator.additive_model(LITTLE)
    outside = LARGEST.replace(blocks=LARGEST.blocks[:2])
    assert estimator.estimate([LARGEST, outside]).extrapolated.tolist() == [False, True]


def test_a_space_is_learned_once(estimator: ReplacementBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator.additive_model(LITTLE)
    monkeypatch.setattr(replacement, "learn_lessons", None)
    estimator.additive_model(LITTLE.at([(1.0, 48)]))


def test_the_folder_is_named_after_all_that_counts(
    monkeypatch: pytest.MonkeyPatch, lessons: Lessons, learned_folder: Path, tmp_path: Path
) -> None:
    own, folders = OwnData(root=Path("kept")), []
    teacher = tmp_path / "teacher.pt"
    shutil.copy(learned_folder / "teacher" / "best.pt", teacher)
    space = dataclasses.replace(LITTLE, head=dataclasses.replace(LITTLE.head, hidden=24))
    for changes, of in (
        ({}, LITTLE),
        ({"minutes": 11.0}, LITTLE),
        ({"seed": 1}, LITTLE),
        ({"source": "others"}, LITTLE),
        ({"teacher": str(teacher)}, LITTLE),
        ({}, space),
    ):
        folders.append(ReplacementBlocks(dataclasses.replace(own, **changes))._folder(of))
    contents = load_checkpoint(teacher)
    save_checkpoint(teacher, {**contents, "epoch": 99})
    folders.append(ReplacementBlocks(dataclasses.replace(own, teacher=str(teacher)))._folder(LITTLE))
    use(monkeypatch, data_of(600))
    folders.append(ReplacementBlocks(dataclasses.replace(own, source="imagefolder:there"))._folder(LITTLE))
    assert all(folder.parent == Path("kept") and folder.name.startswith("little-") for folder in folders)
    assert len(set(folders)) == len(folders)
    settings = json.loads((folders[1] / "settings.json").read_text(encoding="utf-8"))
    assert (settings["minutes"], settings["space"]) == (11.0, "little")
    # Neither the variants that are searched nor the number that is written differently make it another one.
    assert ReplacementBlocks(own)._folder(LITTLE.at([(0.5, 48)])) == folders[0]
    assert ReplacementBlocks(dataclasses.replace(own, minutes=11))._folder(LITTLE) == folders[1]


def test_a_folder_counts_by_its_files_wherever_it_lies(tmp_path: Path, lessons: Lessons) -> None:
    def name_of(place: str) -> str:
        return (
            ReplacementBlocks(OwnData(root=Path("kept"), source=f"imagefolder:{tmp_path / place}"))._folder(LITTLE).name
        )

    (tmp_path / "one" / "train" / "a").mkdir(parents=True)
    image = tmp_path / "one" / "train" / "a" / "1.png"
    image.write_bytes(b"12")
    first = name_of("one")
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert name_of("moved") == first
    image.write_bytes(b"123")
    assert name_of("one") != first


def test_one_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, data_of(classes=1))
    with pytest.raises(NasError, match=r"^bars: it has one class; there is nothing to tell apart$"):
        ReplacementBlocks()


def test_a_teacher_of_other_classes_is_refused(lessons: Lessons, learned_folder: Path) -> None:
    contents = load_checkpoint(learned_folder / "teacher" / "best.pt")
    save_checkpoint("other.pt", {**contents, "classes": ["a", "b", "c"]})
    with pytest.raises(NasError, match=r"^other.pt: the teacher was trained on other classes than those of bars; name"):
        ReplacementBlocks(OwnData(teacher="other.pt")).check(LITTLE)


def test_finalists_are_trained_once_and_handed_over(
    estimator: ReplacementBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator.additive_model(LITTLE)
    specs, folder = [LARGEST.with_block(2, kernel=3), LARGEST.with_block(5, se=0)], Path("finalists")
    top1 = estimator.train_finalists(specs, folder)
    assert sorted(path.stem for path in folder.iterdir()) == sorted(spec.id for spec in specs)
    assert (top1 > 40).all()
    monkeypatch.setattr(replacement, "fine_tune_assembled", None)
    assert estimator.train_finalists(specs[::-1], folder).tolist() == top1.tolist()[::-1]
    named = specs[1].replace(name="found")
    reached = estimator.hand_over(named, folder, Path("small.pt"))
    model = load_model("small.pt")
    assert model.spec == named
    assert evaluate_model(model, data_of().val.batches(64, SIDE)).top1 == pytest.approx(reached.top1)
    assert reached.resolution == SIDE
    contents = load_checkpoint("small.pt")
    assert contents["classes"] == ["class 0", "class 1", "class 2"]
    assert contents["images"] == [480, 160]
    assert contents["held_out_top1"] == top1[1]


# Whole searches ---------------------------------------------------------------------------------------

SPACE_FILE = f"""
from nas.arch.skeleton import Stage, Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec

SPACE = {LITTLE!r}
"""
BUDGET_MS = f"{(network_ms(LITTLE.smallest((1.0, SIDE))) + network_ms(LARGEST)) / 2:.4f}"


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return the command on a synthetic machine and the little space. It returns what it prints."""
    synthetic.empty_folder(monkeypatch, tmp_path)
    synthetic.install(monkeypatch)
    Path("little.py").write_text(SPACE_FILE, encoding="utf-8")
    monkeypatch.setattr("nas.report.writing.write_report", lambda path: path / "index.html")

    def call(*arguments: str) -> str:
        few = ["--large-space", "little.py", "--small-space", "little.py", "--runtime", "synthetic", "--only", "small"]
        monkeypatch.setattr(
            sys, "argv", ["nas.search", *few, "--budget-ms", BUDGET_MS, "--trials", "6", "--out", "run", *arguments]
        )
        run("search", search.main)
        return capsys.readouterr().out

    return call


ON_DATA = ("--data", "fashion-mnist-sample", "--minutes", "0.5")


def test_a_search_hands_over_the_weights_of_what_it_found(
    searched: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.search.finalists.VARIANT_DOUBT", 100.0)  # the narrow networks have a finalist, too
    printed = " ".join(searched(*ON_DATA).split())
    assert "est.: replacement: bars, from a teacher and replacement blocks" in printed
    results, model = load_results(Path("run/small.json")), load_model("run/small.pt")
    assert model.spec.id == ArchSpec.load("run/small.json").id
    reached = evaluate_model(model, data_of().val.batches(64, SIDE)).top1
    assert results["accuracy"]["validation_top1"] == pytest.approx(reached, abs=1e-3)
    assert f"small: {reached:.2f} % on the validation images at {SIDE} px; its weights are in run/small.pt" in printed
    assert "train: python -m nas.train run/small.json --data fashion-mnist-sample --init run/small.pt" in printed
    told = re.findall(
        r"small: a finalist of width ([\d.]+), estimated at [\d.]+ %, reaches ([\d.]+) % on held-out images", printed
    )
    assert 1 <= len(told) <= 3
    assert {width for width, _ in told} == {"0.5", "1"}  # the best of each is trained
    best = max(float(top1) for _, top1 in told)
    assert load_checkpoint("run/small.pt")["held_out_top1"] == pytest.approx(best, abs=0.06)
    record = load_record(Path("run"))
    assert record.estimator.name == "replacement"
    assert [network.name for network in record.networks if network.found] == ["found small"]
    # The run repeats: it is resumed without another training, and says the same.
    small = Path("run/small.json").read_text(encoding="utf-8")
    for trained in ("nas.replacement.learning.train_blocks", "nas.accuracy.replacement.fine_tune_assembled"):
        monkeypatch.setattr(trained, None)
    searched(*ON_DATA, "--resume")
    assert Path("run/small.json").read_text(encoding="utf-8") == small
    # Another budget learns nothing anew, and no finalists mean no weights.
    printed = searched(*ON_DATA, "--train-finalists", "0", "--out", "without")
    assert printed.endswith("train:  python -m nas.train without/small.json --data fashion-mnist-sample\n")
    assert not Path("without/small.pt").exists()
    assert not Path("without/finalists").exists()
    assert "validation_top1" not in load_results(Path("without/small.json"))["accuracy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (*ON_DATA, "--workers", "2"),
            "--workers and --storage are for --estimator short-training: replacement trains",
        ),
        (("--minutes", "3"), "--minutes is for --estimator replacement; leave it out with imagenet-prior"),
        (("--teacher", "x"), "--teacher is for --estimator replacement; leave it out with imagenet-prior"),
        (("--train-finalists", "2"), "--train-finalists is for --estimator replacement; leave it out with imagenet-"),
        ((*ON_DATA, "--objective", "mnasnet", "--train-finalists", "2"), "--train-finalists is for --objective top1; "),
        ((*ON_DATA, "--minutes", "0"), "argument --minutes: '0' is not a finite number above 0"),
        ((*ON_DATA, "--train-finalists", "-1"), "argument --train-finalists: "),
        ((*ON_DATA, "--teacher", "nowhere.pt"), "nowhere.pt: no such file"),
        (("--estimator", "replacement"), "--estimator replacement trains networks: name the images with --data, such"),
        ((*ON_DATA, "--estimator", "short-training"), "--minutes is for --estimator replacement; leave it out with sh"),
        ((*ON_DATA, "--recipe-level", "timm-ra"), "--recipe-level belongs to imagenet-prior; replacement has one trai"),
    ],
)
def test_what_does_not_go_together_is_refused(
    searched: Callable[..., str], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert refused(searched, capsys, *arguments).startswith(f"nas.search: error: {message}")


def refused(searched: Callable[..., str], capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the line with which a command ends."""
    with pytest.raises(SystemExit) as end:
        searched(*arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not Path("run").exists()
    return line


def test_a_teacher_of_another_space_is_refused_before_anything_is_measured(
    searched: Callable[..., str], capsys: pytest.CaptureFixture[str], learned_folder: Path, lessons: Lessons
) -> None:
    contents = load_checkpoint(learned_folder / "teacher" / "best.pt")
    save_checkpoint("other.pt", {**contents, "spec": LARGEST.replace(norm_eps=1e-5).to_dict()})
    line = refused(searched, capsys, *ON_DATA, "--teacher", "other.pt")
    assert line == (
        "nas.search: error: the teacher little-teacher is not a network of the space little; name one that is, or "
        "leave --teacher out"
    )
    assert not Path("latency_tables").exists()


def test_data_chooses_the_estimator_and_the_exact_strategy(
    searched: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def stop(request: Any, *others: object, **more: object) -> None:
        seen.append(request)
        raise NasError("enough")

    monkeypatch.setattr("nas.search.run.search", stop)
    for arguments in (ON_DATA, (*ON_DATA[:2], "--estimator", "short-training"), ()):
        with pytest.raises(SystemExit):
            searched(*arguments)
    assert [(request.estimator, request.strategy) for request in seen] == [
        *(("replacement", "exact"), ("short-training", "surrogate"), ("imagenet-prior", "exact"))
    ]
    assert [request.minutes for request in seen] == [0.5, None, None]


def test_what_is_learned_is_said(monkeypatch: pytest.MonkeyPatch, lessons: Lessons) -> None:
    use(monkeypatch, dataclasses.replace(data_of(), notes=("some images are grey",)))
    monkeypatch.setattr(replacement, "learn_lessons", lambda request, folder, console: lessons)
    console = Recorder()
    model = ReplacementBlocks(OwnData(root=Path("kept")), console).additive_model(LITTLE)
    assert console.lines[0] == "note: some images are grey"
    assert console.lines[1].startswith("replacement blocks: ")
    assert np.isfinite(model(LITTLE.encode([LARGEST]))).all()
