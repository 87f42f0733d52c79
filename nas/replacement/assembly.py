"""Put networks together from the teacher's blocks and trained replacements, and fine-tune them with the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.arch.skeleton import Slot
from nas.arch.spec import ArchSpec, BlockSpec
from nas.models.inherited_weights import classes_of, inherit_weights
from nas.models.mobilenet import MobileNet, build_model
from nas.replacement.choices import slots_of
from nas.replacement.learning import RECIPE, Lessons, Plan
from nas.training.distillation import Teacher
from nas.training.evaluation import Evaluation, evaluate_model
from nas.training.images import Data
from nas.training.loop import Machine, Training
from nas.training.optimization import INHERITED_SHARE
from nas.training.recipes import Recipe, load_recipe
from nas.training.side_by_side import Ended, SideBySide

EVALUATION_BATCH = 64


class FineTuned(NamedTuple):
    """A network after its fine-tuning: its weights, and its evaluation on the held-out images."""

    weights: dict[str, Tensor]
    evaluation: Evaluation


def assemble(spec: ArchSpec, lessons: Lessons, *, seed: int = 0) -> MobileNet:
    """Return the network of `spec` with the weights that were learned for its blocks.

    A block that differs from the teacher's in one decision has the weights of that replacement. One that differs in
    several begins with those of the block that has most in common with it. What nothing was learned for is initialised
    from `seed`; that is all of a network that does not fit the space.
    """
    slots = slots_of(lessons.choices.space, spec)
    if slots is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(spec, classes_of(lessons.teacher), 0.0)
    return inherit_weights(spec, _parent(spec, slots, lessons, seed), seed=seed)


def _parent(spec: ArchSpec, slots: Sequence[Slot], lessons: Lessons, seed: int) -> MobileNet:
    """Return a network of trained blocks, as many as `spec` has, each with as much in common with its block as can be.

    Where a block of the teacher stands unchanged the network is the teacher.
    """
    teacher, choices = lessons.teacher, lessons.choices
    modules: list[tuple[nn.Module | None, dict[str, Tensor] | None]] = [(teacher.features[1], None)]
    blocks = [teacher.spec.blocks[0]]
    for slot, wanted in zip(slots, spec.blocks[1:], strict=True):
        block, weights = _most_alike(slot, wanted, lessons)
        blocks.append(block)
        modules.append((teacher.features[1 + choices.position(slot)] if slot in choices.options else None, weights))
    parent_spec = teacher.spec.replace(blocks=tuple(blocks), resolution=spec.resolution)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the blocks that the teacher lacks
        parent = build_model(parent_spec, classes_of(teacher), 0.0)
    parent.features[0].load_state_dict(teacher.features[0].state_dict())
    for index, (module, weights) in enumerate(modules):
        if weights is None and module is not None:
            weights = module.state_dict()
        if weights is not None:
            parent.features[1 + index].load_state_dict(weights)
    if teacher.spec.head.conv:
        parent.features[-1].load_state_dict(teacher.features[-1].state_dict())
    parent.classifier.load_state_dict(teacher.classifier.state_dict())
    return parent


def _most_alike(slot: Slot, wanted: BlockSpec, lessons: Lessons) -> tuple[BlockSpec, dict[str, Tensor] | None]:
    """Return the trained block that is most like the wanted one, and its weights; None for the teacher's own."""
    choices = lessons.choices
    if slot not in choices.options:
        return wanted.replace(out=choices.space.stage_out(slot.stage, choices.width)), None
    known: list[tuple[BlockSpec, dict[str, Tensor] | None]] = [
        (lessons.teacher.spec.blocks[choices.position(slot)], None)
    ]
    for change, weights in lessons.weights.items():
        block = choices.replacement(change).block
        if change.slot == slot and block is not None:
            known.append((block, weights))
    return min(known, key=lambda one: _unlike(one[0], wanted))


def _unlike(known: BlockSpec, wanted: BlockSpec) -> tuple[int, int]:
    """Return in how many decisions a block differs from the wanted one, and how many channels it lacks or has more."""
    differing = [
        known.kernel != wanted.kernel,
        known.expanded != wanted.expanded,
        bool(known.se) != bool(wanted.se),
        known.activation != wanted.activation,
    ]
    return sum(differing), abs(known.expanded - wanted.expanded)


def finalist_recipe(plan: Plan) -> Recipe:
    """Return the recipe of finalists: `quick` at a part of its learning rate, for the epochs of the plan."""
    recipe = load_recipe(RECIPE)
    return recipe.replace(
        epochs=plan.finalist_epochs,
        epoch_steps=plan.finalist_epoch_steps,
        learning_rate=INHERITED_SHARE * recipe.learning_rate,
    )


def fine_tune_assembled(
    specs: Sequence[ArchSpec],
    lessons: Lessons,
    data: Data,
    *,
    seed: int = 0,
    progress: Callable[[float, str], None] = lambda share, note: None,
) -> list[FineTuned]:
    """Return assembled networks after `finalist_recipe`, trained side by side on the labels and the teacher's outputs.

    Raises NasError where training does.
    """
    recipe = finalist_recipe(lessons.plan)
    pool = SideBySide(data)
    teacher = lessons.teacher
    given = teacher.spec, teacher.state_dict(), len(data.classes), recipe, lessons.resolution, seed
    results: dict[int, FineTuned] = {}
    epochs_done = 0
    try:
        jobs = {
            pool.begin(_fine_tuned, spec, assemble(spec, lessons, seed=seed).state_dict(), *given): index
            for index, spec in enumerate(specs)
        }
        waited_for = dict(jobs)
        while waited_for:
            number, value = pool.next_value()
            if isinstance(value, Ended):
                del waited_for[number]
            elif isinstance(value, FineTuned):
                results[jobs[number]] = value
            else:
                epochs_done += 1
                progress(epochs_done / (len(specs) * recipe.epochs), f"{len(specs)} networks")
    finally:
        pool.close()
    return [results[index] for index in range(len(specs))]


def _fine_tuned(
    data: Data,
    stopped: Callable[[], bool],
    spec: ArchSpec,
    weights: dict[str, Tensor],
    teacher_spec: ArchSpec,
    teacher_weights: dict[str, Tensor],
    classes: int,
    recipe: Recipe,
    resolution: int,
    seed: int,
) -> Iterator[FineTuned | int]:
    """Train a network, yield the number of each finished epoch, then the network. It is a job of `SideBySide`."""
    model, teacher = build_model(spec, classes, recipe.dropout), build_model(teacher_spec, classes, 0.0)
    model.load_state_dict(weights)
    teacher.load_state_dict(teacher_weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = Machine(device=device, bf16=device == "cuda")
    training = Training(
        model, data, recipe, resolution=resolution, seed=seed, machine=machine, teacher=Teacher(teacher)
    )
    for metrics in training.epochs():
        yield metrics.epoch
    evaluation = evaluate_model(training.kept, data.val.batches(EVALUATION_BATCH, resolution))
    yield FineTuned({name: tensor.cpu() for name, tensor in training.kept.state_dict().items()}, evaluation)
