"""What is learned is learned once, in whatever order, and goes on where it was interrupted."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.replacing import FEW_STEPS, LARGEST, LITTLE, images, plan_text, request_of
from support.searching import Recorder

from nas.console import Silent
from nas.errors import NasError
from nas.replacement import learning
from nas.replacement.choices import LEFT_OUT, Choices
from nas.replacement.learning import Lessons, Plan, learn_lessons
from nas.training.checkpoint import load_checkpoint, load_model, save_checkpoint
from nas.training.side_by_side import SideBySide


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train blocks in this process where a test does not say how many there are."""
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)


@pytest.fixture
def folder(lessons: Lessons, learned_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder of what was learned."""
    return Path(shutil.copytree(learned_folder, tmp_path / "lessons"))


@pytest.fixture
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("nas.replacement.learning.train_blocks", refuse)
    monkeypatch.setattr("nas.training.loop.Training._step", refuse)


def files(folder: Path) -> list[str]:
    """Return what is kept in a folder, without its lock."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file())


def same(one: Lessons, other: Lessons) -> bool:
    """Return whether two lessons are equal to the last digit."""
    return (
        one.effects == other.effects
        and one.top1 == other.top1
        and one.weights.keys() == other.weights.keys()
        and all(
            torch.equal(tensor, other.weights[change][name])
            for change, weights in one.weights.items()
            for name, tensor in weights.items()
        )
    )


def test_every_change_has_an_effect_and_every_new_block_weights(lessons: Lessons) -> None:
    changes = list(Choices(LITTLE, LARGEST).changes())
    assert set(lessons.effects) == set(changes)
    assert set(lessons.weights) == {change for change in changes if change.decision != LEFT_OUT}
    assert lessons.plan == FEW_STEPS
    assert lessons.top1 > 60
    assert all(effect.error > 0 for effect in lessons.effects.values())
    harmful = max(lessons.effects, key=lambda change: lessons.effects[change].rise)
    assert harmful.decision == LEFT_OUT


def test_nothing_is_learned_twice(lessons: Lessons, folder: Path, nothing_is_trained: None) -> None:
    before = files(folder)
    assert before == [
        *(f"blocks/{position:02}.pt" for position in range(1, 6)),
        *("plan.json", "teacher/best.pt", "teacher/last.pt", "teacher/metrics.csv"),
    ]
    assert same(learn_lessons(request_of(), folder, Silent()), lessons)
    assert files(folder) == before


class StoppedError(Exception):
    """The end of a process."""


@pytest.mark.parametrize("saved", [1, 3])
def test_an_interrupted_run_goes_on_where_it_was(
    lessons: Lessons, folder: Path, monkeypatch: pytest.MonkeyPatch, saved: int
) -> None:
    shutil.rmtree(folder / "blocks")
    save, trained = learning.save_position, list[int]()

    def interrupted(where: Path, position: int, judged: Any) -> None:
        if len(trained) == saved:
            raise StoppedError
        trained.append(position)
        save(where, position, judged)

    monkeypatch.setattr(learning, "save_position", interrupted)
    with pytest.raises(StoppedError):
        learn_lessons(request_of(), folder, Silent())
    monkeypatch.setattr(learning, "save_position", lambda *given: (trained.append(given[1]), save(*given)))
    assert same(learn_lessons(request_of(), folder, Silent()), lessons)
    assert sorted(trained) == [1, 2, 3, 4, 5], "a position was trained twice"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


@pytest.mark.parametrize(
    "damage",
    [cut, lambda file: file.write_bytes(b""), lambda file: save_checkpoint(file, {"replacements": [{"slot": [0, 0]}]})],
    ids=["cut", "empty", "other content"],
)
def test_damaged_blocks_are_trained_again(
    lessons: Lessons, folder: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    damage(folder / "blocks" / "03.pt")
    console, trained = Recorder(), list[int]()
    save = learning.save_position
    monkeypatch.setattr(learning, "save_position", lambda *given: (trained.append(given[1]), save(*given)))
    assert same(learn_lessons(request_of(), folder, console), lessons)
    assert trained == [3]
    (line,) = (line for line in console.lines if line.startswith("note: "))
    assert line == f"note: {folder / 'blocks' / '03.pt'} is not readable; its blocks are trained again"
    assert load_checkpoint(folder / "blocks" / "03.pt")


@pytest.mark.parametrize("text", ["", plan_text()[:-9], "[]", '{"epochs": "4"}', '{"steps": -1}', '{"colour": 3}'])
def test_a_damaged_plan_is_made_anew_with_all_that_rests_on_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Whatever is trained by another plan has other epochs and steps."""
    (folder / "plan.json").write_text(text, encoding="utf-8")
    console = Recorder()
    monkeypatch.setattr(learning, "_teacher", lambda *given: (_ for _ in ()).throw(StoppedError))
    with pytest.raises(StoppedError):
        learn_lessons(request_of(), folder, console)
    (line,) = console.lines
    assert line.startswith(f"note: {folder / 'plan.json'} is not readable; ")
    assert files(folder) == ["plan.json"]
    plan = Plan(**json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    assert plan.epochs >= learning.LEAST_EPOCHS
    assert plan.epoch_steps >= 1
    assert plan.steps == 0


def test_the_plan_is_decided_by_the_minutes_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "LEAST_STEPS", 2)
    monkeypatch.setattr(learning, "LEAST_EPOCHS", 2)
    monkeypatch.setattr(learning, "CHANCE_ERRORS", -math.inf)
    first = learn_lessons(request_of(minutes=1e-6), tmp_path, Silent())
    assert first.plan.epochs == 2
    assert first.plan.epoch_steps == 1
    assert first.plan.steps == 2
    assert first.plan.finalist_epochs == first.plan.finalist_epoch_steps == 1
    assert Plan(**json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))) == first.plan
    # A plan that is there is kept, whatever the time would be now.
    monkeypatch.setattr(learning, "_step_seconds", lambda request: 1e-9)
    assert learn_lessons(request_of(minutes=1e-6), tmp_path, Silent()).plan == first.plan


def test_more_minutes_are_more_steps_up_to_those_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_step_seconds", lambda request: 6.0)
    monkeypatch.setattr(learning, "MOST_STEPS", 210)
    data = request_of().data
    # Three images of an epoch's end take as long as one of a step.
    end = (len(data.train) + len(data.val)) / 3 / 128
    # An epoch of all images has 3 steps; there are at least 5 epochs, and as many as have the most steps.
    for steps, epochs, epoch_steps in ((1, 5, 1), (9, 5, 1), (12, 5, 2), (18, 6, 3), (9_999, 70, 3)):
        minutes = (steps + 0.1) * (3 + end) / 3 / 10 / learning.TEACHER_SHARE
        assert learning._teacher_steps(request_of(minutes=minutes)) == {"epochs": epochs, "epoch_steps": epoch_steps}
    for at_a_time, epochs in ((3, 4), (2, 2), (1, 1)):  # three finalists take one round, two or three
        monkeypatch.setattr(learning, "networks_at_a_time", lambda number=at_a_time: number)
        found = learning._finalist_steps(request_of(minutes=(12 + 0.1) / 10 / learning.FINALISTS_SHARE))
        assert found == {"finalist_epochs": epochs, "finalist_epoch_steps": 3}


# Teachers that cannot judge ---------------------------------------------------------------------------


def test_a_teacher_no_better_than_chance_is_an_error(folder: Path, nothing_is_trained: None) -> None:
    contents = load_checkpoint(folder / "teacher" / "best.pt")
    for tensor in contents["average"].values():
        tensor.zero_()
    save_checkpoint(folder / "teacher" / "best.pt", contents)
    chance = (
        r"^the teacher is right for 33.3 % of the held-out images of bars, no better than chance \(33.3 %\), .*--min"
    )
    with pytest.raises(NasError, match=chance) as error:
        learn_lessons(request_of(), folder, Silent())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("own_teacher", "left", "cores", "steps"),
    [
        (False, 1_000.0, 1, 103),  # a fifth of ten minutes, without one step and judging
        (False, 1_000.0, 2, learning.STEPS),
        (False, 100.0, 1, 84),  # the teacher took long
        (False, 0.0, 1, 46),  # half of their minutes, whatever the teacher took
        (True, 1_000.0, 1, learning.STEPS),  # no teacher is trained
    ],
)
def test_blocks_get_the_minutes_that_are_theirs(
    monkeypatch: pytest.MonkeyPatch, folder: Path, own_teacher: bool, left: float, cores: int, steps: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr(learning, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(learning, "networks_at_a_time", lambda: cores)
    monkeypatch.setattr(learning, "_judging_seconds", lambda *given: 10.0)

    def take(data: object, teacher: object, work: object, resolution: int, steps: int, seed: int) -> None:
        clock[0] += steps  # a second a step

    monkeypatch.setattr(learning, "_trained_blocks", take)
    checkpoint = folder / "teacher" / "best.pt"
    request = request_of(minutes=10.0, teacher=checkpoint if own_teacher else None)
    assert learning._block_steps(request, load_model(checkpoint), left) == steps


def test_images_too_few_to_tell_a_teacher_from_chance_are_refused_before_it_is_trained(
    tmp_path: Path, nothing_is_trained: None
) -> None:
    few = replace(request_of().data, val=images(4))
    with pytest.raises(NasError, match=r"^bars: 4 held-out images of 3 classes are too few to tell .*: add images"):
        learn_lessons(replace(request_of(), data=few), tmp_path, Silent())


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_damaged_teacher_is_trained_anew_with_its_blocks(lessons: Lessons, folder: Path, name: str) -> None:
    file, console = folder / "teacher" / name, Recorder()
    file.write_bytes(file.read_bytes()[:100])
    assert same(learn_lessons(request_of(), folder, console), lessons)
    assert any(line.endswith("the teacher and its replacement blocks are trained anew") for line in console.lines)


def test_two_searches_do_not_learn_the_same_at_once(folder: Path) -> None:
    with (
        learning._alone_in(folder),
        pytest.raises(NasError, match=r"another search learns the same now; wait until it has ended$"),
    ):
        learn_lessons(request_of(), folder, Silent())


def test_a_teacher_of_the_user_is_not_trained(lessons: Lessons, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "plan.json").write_text(plan_text(FEW_STEPS._replace(epochs=0, epoch_steps=0)))
    own = learn_lessons(request_of(teacher=folder / "teacher" / "best.pt"), tmp_path / "own", Silent())
    assert same(own, lessons)
    assert not (tmp_path / "own" / "teacher").exists()


def test_fewer_images_than_a_batch_are_learned_from(lessons: Lessons, folder: Path, tmp_path: Path) -> None:
    """The teacher is the user's; 16 images are fewer than any batch."""
    few = replace(request_of().data, train=images(16))
    request = request_of(teacher=folder / "teacher" / "best.pt")
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "plan.json").write_text(plan_text())
    found = learn_lessons(replace(request, data=few), tmp_path / "few", Silent())
    assert set(found.effects) == set(lessons.effects)
    assert found.effects != lessons.effects


def test_few_images_for_a_teacher_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Recorder()
    monkeypatch.setattr(learning, "_evaluated", lambda *given: (_ for _ in ()).throw(StoppedError))
    (tmp_path / "plan.json").write_text(plan_text(FEW_STEPS._replace(epochs=1, epoch_steps=1)))
    few = replace(request_of().data, train=images(16))
    with pytest.raises(StoppedError):
        learn_lessons(replace(request_of(), data=few), tmp_path, console)
    (warning,) = console.lines
    assert "16 images to train on are fewer than the batch of 128 of recipe quick" in warning


# Processes --------------------------------------------------------------------------------------------


def test_a_killed_process_ends_the_work_and_what_was_saved_is_what_one_process_learns(
    lessons: Lessons, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder / "blocks")
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 2)
    save, pools = learning.save_position, list[SideBySide]()

    def kept(data: Any) -> SideBySide:
        pools.append(SideBySide(data))
        return pools[-1]

    def kill(*given: Any) -> None:
        save(*given)
        next(worker.process for worker in pools[-1]._workers if worker.number).kill()

    monkeypatch.setattr(learning, "SideBySide", kept)
    monkeypatch.setattr(learning, "save_position", kill)
    died = r"^a process that trains a network died \(signal SIGKILL, perhaps for want of memory\); .* with --resume"
    with pytest.raises(NasError, match=died) as error:
        learn_lessons(request_of(), folder, Silent())
    assert "\n" not in str(error.value)
    assert pools[-1].at_a_time == 2
    assert not pools[-1]._workers
    assert 0 < len(list((folder / "blocks").iterdir())) < 5
    monkeypatch.setattr(learning, "save_position", save)
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)
    assert same(learn_lessons(request_of(), folder, Silent()), lessons)
