"""Networks that are put together from the teacher's blocks and the trained replacements."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.replacing import LARGEST, LITTLE, SIDE, data_of
from torch import Tensor

from nas.arch.skeleton import Slot
from nas.arch.spec import ArchSpec
from nas.models.mobilenet import MobileNet, build_model
from nas.replacement.assembly import assemble, finalist_recipe, fine_tune_assembled
from nas.replacement.choices import Change, Choices
from nas.replacement.learning import Lessons
from nas.training.evaluation import evaluate_model
from nas.training.held_out import hold_out


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)


@torch.no_grad()
def logits(model: MobileNet) -> Tensor:
    ((images, _),) = data_of().val.batches(1_000, SIDE)
    found: Tensor = model.eval()(images[:8])
    return found


def same(one: Any, other: Any) -> bool:
    """Return whether two modules, or the states of two, are equal."""
    first, second = (part if isinstance(part, dict) else part.state_dict() for part in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_without_a_change_it_is_the_teacher(lessons: Lessons) -> None:
    assert same(assemble(LARGEST, lessons), lessons.teacher)
    assert torch.allclose(logits(assemble(LARGEST, lessons)), logits(lessons.teacher), atol=1e-5)


def test_a_change_brings_the_weights_of_its_replacement(lessons: Lessons) -> None:
    for change, weights in lessons.weights.items():
        replacement = lessons.choices.replacement(change)
        blocks = list(LARGEST.blocks)
        assert replacement.block is not None
        blocks[replacement.position] = replacement.block
        network = assemble(LARGEST.replace(blocks=tuple(blocks)), lessons)
        for index, module in enumerate(network.features):
            changed = index == 1 + replacement.position
            assert same(module, weights if changed else lessons.teacher.features[index])
        assert same(network.classifier, lessons.teacher.classifier)


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_blocks_that_the_teacher_lacks_are_new_and_come_from_the_seed(lessons: Lessons, width: float) -> None:
    spec = LITTLE.smallest((1.0, SIDE))
    small = replace(lessons, choices=Choices(LITTLE, spec), teacher=build_model(spec, 3, 0.0), weights={}, effects={})
    wanted = LITTLE.largest((width, SIDE))
    first, again = assemble(wanted, small, seed=1), assemble(wanted, small, seed=1)
    assert first.spec == wanted
    assert same(first, again)
    assert not same(first, assemble(wanted, small, seed=2))
    if width == 1.0:
        assert same(first.features[1], small.teacher.features[1])


def test_blocks_that_are_left_out_are_missing(lessons: Lessons) -> None:
    shallow = LARGEST.replace(blocks=(*LARGEST.blocks[:2], LARGEST.blocks[3]))
    network, teacher = assemble(shallow, lessons), lessons.teacher
    for index, other in ((0, 0), (1, 1), (2, 2), (3, 4), (-1, -1)):
        assert same(network.features[index], teacher.features[other])


def test_a_block_that_differs_twice_begins_with_the_most_alike(lessons: Lessons) -> None:
    """Of a replacement with the other kernel, and of one of the other expansion, the channels are those wanted."""
    twice = LARGEST.with_block(2, kernel=3, expanded=32)
    network = assemble(twice, lessons)
    expansion = lessons.weights[Change(Slot(0, 1), "expansion", 2)]
    (depthwise,) = (name for name, tensor in expansion.items() if tensor.ndim == 4 and tensor.shape[-1] == 5)
    assert torch.equal(network.features[3].state_dict()[depthwise], expansion[depthwise][:, :, 1:-1, 1:-1])


def test_trimmed_channels_are_those_of_the_largest_weights(lessons: Lessons) -> None:
    trimmed = LARGEST.with_block(2, expanded=56)
    network = assemble(trimmed, lessons)
    own, teachers = (model.features[3].state_dict() for model in (network, lessons.teacher))
    assert len(own["block.0.0.weight"]) == 56
    rows = {tuple(row.flatten().tolist()) for row in teachers["block.0.0.weight"]}
    assert all(tuple(row.flatten().tolist()) in rows for row in own["block.0.0.weight"])
    assert same(network.features[2], lessons.teacher.features[2])


def test_a_network_of_another_width_inherits_what_it_has(lessons: Lessons) -> None:
    narrow = LITTLE.largest((0.5, SIDE))
    network = assemble(narrow, lessons)
    assert network.spec.id == narrow.id
    stem = lessons.teacher.features[0].state_dict()["0.weight"]
    assert torch.equal(network.features[0].state_dict()["0.weight"], stem)


def test_a_network_that_does_not_fit_is_initialised_from_the_seed(lessons: Lessons) -> None:
    other = LARGEST.replace(blocks=LARGEST.blocks[:2])
    before = torch.get_rng_state()
    first, again, another = (assemble(other, lessons, seed=seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, another)
    assert torch.equal(torch.get_rng_state(), before)


def test_finalists_are_trained_for_the_epochs_of_the_plan(lessons: Lessons) -> None:
    recipe = finalist_recipe(lessons.plan)
    assert (recipe.epochs, recipe.epoch_steps) == (lessons.plan.finalist_epochs, lessons.plan.finalist_epoch_steps)


def specs() -> list[ArchSpec]:
    return [LARGEST.with_block(2, kernel=3), LARGEST.with_block(1, expanded=16), LARGEST]


def test_networks_are_returned_in_their_order_as_each_alone(lessons: Lessons) -> None:
    data, shares = hold_out(data_of()), list[float]()
    found = fine_tune_assembled(specs(), lessons, data, progress=lambda share, note: shares.append(share))
    (alone,) = fine_tune_assembled(specs()[1:2], lessons, data)
    assert same(found[1].weights, alone.weights)
    assert found[1].evaluation == alone.evaluation
    for spec, one in zip(specs(), found, strict=True):
        model = build_model(spec, 3, 0.0)
        model.load_state_dict(one.weights)
        assert evaluate_model(model.eval(), data.val.batches(64, SIDE)).top1 == one.evaluation.top1
        assert not same(one.weights, assemble(spec, lessons)), "nothing was trained"
    assert shares == pytest.approx([number / 6 for number in range(1, 7)])
