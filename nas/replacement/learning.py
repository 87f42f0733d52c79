"""Learn from a teacher what every change of one decision costs, and keep what was learned in a folder.

    lessons = learn_lessons(request, Path("reports/own_data/ab12…"), console)
    lessons.effects[Change(Slot(1, 0), "kernel", 3)].rise

The folder holds the plan of the work, the teacher's training, and a file of trained blocks for each position that is
done. So a run that was interrupted goes on where it was, and the next search with the same images learns nothing anew.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.errors import NasError
from nas.files import make_folder
from nas.models.mobilenet import MobileNet, build_model
from nas.replacement.blocks import new_block, train_blocks
from nas.replacement.choices import Change, Choices, Replacement
from nas.replacement.effects import Effect, log_loss_rises
from nas.replacement.kept import Judged, Plan, load_plan, load_position, save_plan, save_position
from nas.training.batchnorm import IMAGES
from nas.training.checkpoint import load_checkpoint, load_model
from nas.training.cores import train_shown
from nas.training.evaluation import Evaluation, evaluate_model
from nas.training.held_out import HELD_OUT_EVERY
from nas.training.images import Data, LabelledBatch, LeftOut
from nas.training.loop import DivergedError, Machine, Training
from nas.training.recipes import Recipe, load_recipe
from nas.training.run import BEST, LAST, Settings
from nas.training.side_by_side import Ended, SideBySide, networks_at_a_time
from nas.training.threads import threads_used

RECIPE = "quick"
# Of the minutes. The blocks, and judging them, take the rest.
TEACHER_SHARE, FINALISTS_SHARE = 0.75, 0.06
FINALISTS = 3  # trained side by side at the end of a search, where it does not ask for another number
MOST_STEPS = 3_700  # of the teacher, where an epoch has few: those of the recipe on the included images
LEAST_EPOCHS = 5  # of the teacher; where the minutes allow fewer, an epoch shows a part of the images
STEPS, LEAST_STEPS = 200, 30  # of each replacement, at most and at least
BATCH = 64  # images of such a step
EVALUATION_BATCH = 64
TIMED_STEPS, TIMED_ROUNDS = 3, 5
CHUNKS = 4  # parts of the work on blocks, at least: what is done of it survives an interruption
CHANCE_ERRORS = 3.0  # standard errors by which a teacher must be better than the most frequent class


@dataclass(frozen=True, kw_only=True)
class LessonRequest:
    """The question: what the choices of a space are worth on images.

    `data` has the images to train on and, as `val`, those held out to judge on. `teacher` is a checkpoint of the
    user's own, else one is trained. `minutes` are for all of it, on the cores of this machine.
    """

    choices: Choices
    resolution: int  # of the images, pixels
    data: Data
    minutes: float
    seed: int = 0
    teacher: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """The results of learning: the teacher, its top-1 (percent) on the held-out images, and every change's effect.

    `weights` holds the trained block of each change, without those that leave a block out.
    """

    choices: Choices
    resolution: int  # of the images, pixels
    plan: Plan
    teacher: MobileNet
    top1: float
    effects: dict[Change, Effect]
    weights: dict[Change, dict[str, Tensor]]


def learn_lessons(request: LessonRequest, folder: Path, console: Console) -> Lessons:
    """Return what a teacher says of every choice, from the folder where it is known, else learned now.

    Raises NasError for a teacher that is no better than chance, and where training does.
    """
    _check_images(request)
    make_folder(folder)
    with _alone_in(folder):
        return _lessons(request, folder, console)


def _lessons(request: LessonRequest, folder: Path, console: Console) -> Lessons:
    begun = time.monotonic()
    plan = load_plan(folder, console)
    if request.teacher is None and not plan.epochs:
        plan = save_plan(folder, plan._replace(**_teacher_steps(request)))
    teacher = load_model(request.teacher) if request.teacher else _teacher(request, plan, folder, console)
    evaluation = _evaluated(request, teacher)
    LeftOut(console.say)(request.data.unreadable)
    console.say(f"teacher: {evaluation.top1:.1f} % on {evaluation.images} held-out images of {request.data.source}")
    if not plan.steps:
        left = (1 - FINALISTS_SHARE) * 60 * request.minutes - (time.monotonic() - begun)
        plan = save_plan(folder, plan._replace(steps=_block_steps(request, teacher, left), **_finalist_steps(request)))
    effects, weights = _judged(request, plan, teacher, folder, console)
    return Lessons(
        choices=request.choices,
        resolution=request.resolution,
        plan=plan,
        teacher=teacher,
        top1=evaluation.top1,
        effects=effects,
        weights=weights,
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other searches out of a folder. Raises NasError where one is at work in it."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise NasError(f"{folder}: another search learns the same now; wait until it has ended") from None
    try:
        yield
    finally:
        lock.release()


def _teacher_steps(request: LessonRequest) -> dict[str, int]:
    """Return how many epochs of how many steps the teacher can be trained for in its share of the minutes."""
    recipe, data = load_recipe(RECIPE), request.data
    steps = TEACHER_SHARE * 60 * request.minutes / _step_seconds(request)
    # An epoch ends with batch norm's statistics and a validation, of which an image takes a third of a step's time.
    extra = (min(IMAGES, len(data.train)) + len(data.val)) / (3 * recipe.batch_size)
    whole = recipe.steps_of_epoch(len(data.train))
    steps *= whole / (whole + extra)
    epochs, epoch_steps = _divided(request, max(LEAST_EPOCHS, int(steps)), LEAST_EPOCHS)
    return {"epochs": epochs, "epoch_steps": epoch_steps}


def _finalist_steps(request: LessonRequest) -> dict[str, int]:
    """Return how many epochs of how many steps finalists can be trained for in their share of the minutes.

    A finalist's step takes about as long as one of the teacher, on one thread: it is smaller, and the teacher runs too.
    """
    rounds = math.ceil(FINALISTS / networks_at_a_time())
    with threads_used(1):
        seconds = _step_seconds(request)
    steps = FINALISTS_SHARE * 60 * request.minutes / seconds / rounds
    epochs, epoch_steps = _divided(request, max(1, int(steps)), 1)
    return {"finalist_epochs": epochs, "finalist_epoch_steps": epoch_steps}


def _step_seconds(request: LessonRequest) -> float:
    """Return the seconds of a step of the teacher's training, those of its images included."""
    recipe, data = load_recipe(RECIPE), request.data
    with torch.random.fork_rng():
        model = build_model(request.choices.teacher, len(data.classes), recipe.dropout)
    training = Training(model, data, recipe, resolution=request.resolution, machine=_machine())
    # The median, since a moment's load of other programs must not cut the whole training short.
    seconds = median(training.time_steps(TIMED_STEPS) for _ in range(TIMED_ROUNDS))
    return seconds + _batch_seconds(request, recipe)


def _batch_seconds(request: LessonRequest, recipe: Recipe) -> float:
    """Return the seconds that a batch of training images takes to be read, behind the first one."""
    batches = request.data.train.training_batches(recipe, request.resolution, torch.Generator().manual_seed(0))
    next(batches, None)  # starts the loaders
    begun = time.perf_counter()
    read = sum(1 for _ in islice(batches, TIMED_STEPS))
    return (time.perf_counter() - begun) / max(1, read)


def _divided(request: LessonRequest, steps: int, least: int) -> tuple[int, int]:
    """Return the number of epochs, at least `least`, and the steps of each of them.

    There are as many epochs as in the recipe at most, or more of few images.
    """
    recipe = load_recipe(RECIPE)
    whole = recipe.steps_of_epoch(len(request.data.train))
    epochs = min(max(recipe.epochs, MOST_STEPS // whole), max(least, steps // whole))
    return epochs, min(whole, max(1, steps // epochs))


def _block_steps(request: LessonRequest, teacher: MobileNet, left: float) -> int:
    """Return for how many steps all replacements can be trained side by side in their share of the minutes.

    `left` are the seconds that are left: a teacher may have taken longer than its share.
    """
    work, seconds = _work_of(request), []
    with threads_used(1):
        for steps in (1, 1 + TIMED_STEPS):  # the difference leaves out what is done once
            begun = time.perf_counter()
            _trained_blocks(request.data, teacher, work, request.resolution, steps, request.seed)
            seconds.append(time.perf_counter() - begun)
        judging = _judging_seconds(request, teacher)
    each = max(seconds[1] - seconds[0], 1e-6) / TIMED_STEPS
    teachers = 0.0 if request.teacher else TEACHER_SHARE
    share = (1 - teachers - FINALISTS_SHARE) * 60 * request.minutes
    # A teacher that other programs delayed does not take more than half of the blocks' time.
    share = max(share / 2, min(share, left - sum(seconds)))
    return int(min(STEPS, max(LEAST_STEPS, (share * networks_at_a_time() - seconds[0] - judging) / each)))


def _judging_seconds(request: LessonRequest, teacher: MobileNet) -> float:
    """Return the seconds that the rises of all changes take on one thread, from those of one batch.

    On average half of the teacher's layers are behind a replacement.
    """
    images, _ = next(iter(request.data.val.batches(EVALUATION_BATCH, request.resolution)))
    device = next(teacher.parameters()).device
    begun = time.perf_counter()
    with torch.inference_mode():
        teacher.eval()(images.to(device, memory_format=torch.channels_last))
    return (time.perf_counter() - begun) / len(images) * len(request.data.val) * len(_work_of(request)) / 2


def _teacher(request: LessonRequest, plan: Plan, folder: Path, console: Console) -> MobileNet:
    """Return the teacher that is trained in the folder; one whose files are damaged is trained anew.

    Raises NasError where the training does.
    """
    try:
        if (folder / "teacher" / LAST).exists() and load_checkpoint(folder / "teacher" / LAST)["epoch"]:
            load_checkpoint(folder / "teacher" / BEST)
    except (NasError, KeyError) as error:
        console.say(f"note: {str(error).split(';')[0]}; the teacher and its replacement blocks are trained anew")
        for trained in ("teacher", "blocks"):
            shutil.rmtree(folder / trained, ignore_errors=True)
    recipe = load_recipe(RECIPE).replace(epochs=plan.epochs, epoch_steps=plan.epoch_steps)
    spec, out = request.choices.teacher, folder / "teacher"
    settings = Settings(
        spec=spec, source=request.data.source, recipe=recipe, resolution=request.resolution, seed=request.seed
    )
    try:
        train_shown(settings, request.data, out, console, f"training the teacher {spec.name}", machine=_machine())
    except DivergedError as error:
        raise DivergedError(
            f"the teacher: {str(error).split(';')[0]}; take another --seed, or train one yourself by a recipe with "
            f"a lower learning_rate and name it with --teacher (its last good state is {out / LAST})"
        ) from None
    return load_model(out / BEST)


def _check_images(request: LessonRequest) -> None:
    """Raise NasError for so few held-out images that even a teacher that is always right is no better than chance."""
    chance, count = 1 / len(request.data.classes), len(request.data.val)
    if chance + CHANCE_ERRORS * math.sqrt(chance * (1 - chance) / max(1, count)) >= 1:
        raise NasError(_too_few(request, f"of {len(request.data.classes)} classes"))


def _too_few(request: LessonRequest, of: str) -> str:
    return (
        f"{request.data.source}: {len(request.data.val)} held-out images {of} are too few to tell a teacher from "
        f"chance; every {HELD_OUT_EVERY}th training image is held out: add images, or search without --data"
    )


def _evaluated(request: LessonRequest, teacher: MobileNet) -> Evaluation:
    """Return the evaluation of the teacher on the held-out images.

    Raises NasError if it is no better than to name the most frequent class.
    """
    data = request.data
    counts = np.zeros(len(data.classes), int)

    def counted() -> Iterator[LabelledBatch]:
        for images, labels in data.val.batches(EVALUATION_BATCH, request.resolution):
            counts[:] += np.bincount(labels.numpy(), minlength=len(counts))
            yield images, labels

    evaluation = evaluate_model(teacher, counted())
    if not evaluation.images:
        raise NasError(f"{data.source}: none of the images to evaluate on can be read")
    chance = counts.max() / evaluation.images
    error = math.sqrt(chance * (1 - chance) / evaluation.images)
    if chance + CHANCE_ERRORS * error >= 1:
        raise NasError(_too_few(request, f"with {100 * chance:.0f} % of one class"))
    if evaluation.right / evaluation.images <= chance + CHANCE_ERRORS * error:
        raise NasError(
            f"the teacher is right for {evaluation.top1:.1f} % of the held-out images of {data.source}, no better than "
            f"chance ({100 * chance:.1f} %), so that it cannot judge blocks; give it more --minutes, or name a trained "
            "one with --teacher"
        )
    return evaluation


# Blocks -----------------------------------------------------------------------------------------------


def _work_of(request: LessonRequest) -> list[tuple[Change, Replacement]]:
    return [(change, request.choices.replacement(change)) for change in request.choices.changes()]


def _judged(
    request: LessonRequest, plan: Plan, teacher: MobileNet, folder: Path, console: Console
) -> tuple[dict[Change, Effect], dict[Change, dict[str, Tensor]]]:
    """Return the effect of every change, and the trained blocks; those that the folder holds are not trained again."""
    effects: dict[Change, Effect] = {}
    weights: dict[Change, dict[str, Tensor]] = {}

    def take(judged: Sequence[Judged]) -> None:
        for change, trained, effect in judged:
            effects[change] = effect
            if trained is not None:
                weights[change] = trained

    by_position: dict[int, list[tuple[Change, Replacement]]] = {}
    for change, replacement in _work_of(request):
        by_position.setdefault(replacement.position, []).append((change, replacement))
    for position in list(by_position):
        if (known := load_position(folder, position, console)) is not None:
            take(known)
            del by_position[position]
    pool = SideBySide(request.data)
    given = teacher.spec, teacher.state_dict(), len(request.data.classes)
    total, done = len(by_position), 0
    try:
        jobs = {
            pool.begin(_judge, *given, chunk, request.resolution, plan.steps, request.seed): chunk
            for chunk in _chunks(by_position, max(CHUNKS, pool.at_a_time))
        }
        with console.progress("training replacement blocks") as progress:
            while jobs:
                number, value = pool.next_value()
                if isinstance(value, Ended):
                    del jobs[number]
                    continue
                position, judged = value
                save_position(folder, position, judged)
                take(judged)
                done += 1
                progress(done / total, f"{done} of {total} places")
    finally:
        pool.close()
    return effects, weights


def _chunks(
    by_position: dict[int, list[tuple[Change, Replacement]]], number: int
) -> Iterator[dict[int, list[tuple[Change, Replacement]]]]:
    """Yield the work in at most `number` parts of neighbouring positions."""
    positions = sorted(by_position)
    for chosen in np.array_split(positions, min(number, len(positions))) if positions else ():
        yield {int(position): by_position[int(position)] for position in chosen}


def _judge(
    data: Data,
    stopped: Callable[[], bool],
    teacher_spec: ArchSpec,
    teacher_weights: dict[str, Tensor],
    classes: int,
    work: dict[int, list[tuple[Change, Replacement]]],
    resolution: int,
    steps: int,
    seed: int,
) -> Iterator[tuple[int, list[Judged]]]:
    """Train and judge the replacements of some positions, and yield each position's. It is a job of `SideBySide`."""
    teacher = build_model(teacher_spec, classes, 0.0)
    teacher.load_state_dict(teacher_weights)
    together = [pair for pairs in work.values() for pair in pairs]
    blocks = _trained_blocks(data, teacher, together, resolution, steps, seed)
    rises = log_loss_rises(teacher, blocks, data, resolution=resolution, batch_size=EVALUATION_BATCH)
    for position in work:
        yield (
            position,
            [
                (change, None if block is None else _on_cpu(block.state_dict()), Effect.of(rise))
                for (change, replacement), (_, block), rise in zip(together, blocks, rises, strict=True)
                if replacement.position == position
            ],
        )


def _trained_blocks(
    data: Data,
    teacher: MobileNet,
    work: Sequence[tuple[Change, Replacement]],
    resolution: int,
    steps: int,
    seed: int,
) -> list[tuple[int, torch.nn.Module | None]]:
    """Return the positions and modules of replacements after their training, None where a block is left out.

    All have the same seed, so that the result of one does not depend on which others are trained beside it.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher.to(device, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
    blocks: list[tuple[int, torch.nn.Module | None]] = []
    for _, replacement in work:
        block = None
        if replacement.block is not None:
            block = new_block(teacher, replacement, seed).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        blocks.append((replacement.position, block))
    learners = [(position, block) for position, block in blocks if block is not None]
    if learners:
        recipe = load_recipe(RECIPE)
        train_blocks(teacher, learners, data, recipe, resolution=resolution, steps=steps, batch_size=BATCH, seed=seed)
    return blocks


def _on_cpu(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in weights.items()}


def _machine() -> Machine:
    if torch.cuda.is_available():
        return Machine(device="cuda", bf16=True)
    return Machine()
