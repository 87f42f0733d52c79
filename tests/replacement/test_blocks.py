"""Replacement blocks: how they begin, how they are trained, and what the rises of the log-loss say of them."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from support.replacing import LARGEST, LITTLE, SIDE, data_of
from torch import Tensor, nn

from nas.arch.skeleton import Slot
from nas.errors import NasError
from nas.models.mobilenet import MobileNet, build_model
from nas.replacement.blocks import feature_maps, new_block, train_blocks
from nas.replacement.choices import Change, Choices, Replacement
from nas.replacement.effects import Effect, log_loss_rises
from nas.replacement.learning import Lessons
from nas.training.held_out import hold_out
from nas.training.images import Data
from nas.training.loop import DivergedError
from nas.training.recipes import load_recipe

RECIPE = load_recipe("quick")
CHOICES = Choices(LITTLE, LARGEST)
KERNEL, EXPANSION, SE = (
    CHOICES.replacement(change)
    for change in (
        Change(Slot(0, 1), "kernel", 3),
        Change(Slot(1, 1), "expansion", 2),
        Change(Slot(1, 0), "se", False),
    )
)


@pytest.fixture
def data() -> Data:
    return hold_out(data_of())


@pytest.fixture
def teacher(lessons: Lessons) -> MobileNet:
    return copy.deepcopy(lessons.teacher)


def train(teacher: MobileNet, blocks: list[tuple[int, nn.Module]], data: Data, steps: int = 3, seed: int = 0) -> None:
    train_blocks(teacher, blocks, data, RECIPE, resolution=SIDE, steps=steps, batch_size=32, seed=seed)


@torch.no_grad()
def error(teacher: MobileNet, position: int, block: nn.Module, data: Data) -> float:
    """Return the squared error of a block's feature map, relative to the teacher's, on the held-out images."""
    ((images, _),) = data.val.batches(1_000, SIDE)
    maps = feature_maps(teacher.eval(), images, position)
    return float((block.eval()(maps[-2]) - maps[-1]).square().sum() / maps[-1].square().sum())


def rises(teacher: MobileNet, blocks: list[tuple[int, nn.Module | None]], data: Data, batch_size: int = 40) -> Any:
    return log_loss_rises(teacher, blocks, data, resolution=SIDE, batch_size=batch_size)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# Training ---------------------------------------------------------------------------------------------


def test_feature_maps_are_what_the_blocks_of_the_network_see_and_give(teacher: MobileNet, data: Data) -> None:
    ((images, _),) = data.val.batches(1_000, SIDE)
    maps = feature_maps(teacher.eval(), images[:4], 5)
    assert len(maps) == 7
    assert [m.shape[1] for m in maps] == [8, *(block.out for block in LARGEST.blocks)]
    behind = teacher.features[-1](maps[-1])
    assert torch.allclose(teacher.classifier(teacher.avgpool(behind).flatten(1)), teacher(images[:4]))


def test_the_teachers_own_block_is_without_error(teacher: MobileNet, data: Data) -> None:
    for position, block in enumerate(LARGEST.blocks):
        own = new_block(teacher, Replacement(position, block), seed=0)
        assert same(state_of(own), state_of(teacher.features[1 + position]))
        assert error(teacher, position, own, data) == pytest.approx(0, abs=1e-10)
        assert rises(teacher, [(position, own.eval())], data) == pytest.approx(0, abs=1e-5)


def test_a_block_begins_with_the_weights_of_the_teachers(teacher: MobileNet) -> None:
    (depthwise,) = (m for m in new_block(teacher, KERNEL, seed=0).modules() if getattr(m, "groups", 1) > 1)
    (whole,) = (m for m in teacher.features[3].modules() if getattr(m, "groups", 1) > 1)
    assert torch.equal(depthwise.weight, whole.weight[:, :, 1:-1, 1:-1])


def test_training_brings_a_block_closer_to_the_teachers(teacher: MobileNet, data: Data) -> None:
    narrow = CHOICES.replacement(Change(Slot(0, 0), "expansion", 2))
    for replacement in (KERNEL, narrow, SE):
        block = new_block(teacher, replacement, seed=0)
        before = error(teacher, replacement.position, block, data)
        train(teacher, [(replacement.position, block)], data, steps=30)
        assert not block.training
        assert error(teacher, replacement.position, block, data) < 0.8 * before


def test_no_block_depends_on_those_that_are_trained_beside_it(teacher: MobileNet, data: Data) -> None:
    alone = []
    for replacement in (KERNEL, EXPANSION, SE):
        block = new_block(teacher, replacement, seed=0)
        train(teacher, [(replacement.position, block)], data)
        alone.append(state_of(block))
    together = [(r.position, new_block(teacher, r, seed=0)) for r in (SE, EXPANSION, KERNEL)]
    train(teacher, together, data)
    assert all(same(state_of(block), one) for (_, block), one in zip(together, alone[::-1], strict=True))


def test_the_teacher_is_left_alone(teacher: MobileNet, data: Data) -> None:
    before = state_of(teacher)
    block = new_block(teacher, EXPANSION, seed=0)
    train(teacher, [(EXPANSION.position, block)], data)
    rises(teacher, [(EXPANSION.position, block), (2, None)], data)
    assert same(state_of(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_seed_chooses_the_batches(teacher: MobileNet, data: Data) -> None:
    trained = []
    for seed in (0, 0, 1):
        block = new_block(teacher, EXPANSION, seed=0)
        train(teacher, [(EXPANSION.position, block)], data, seed=seed)
        trained.append(state_of(block))
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


def test_fewer_images_than_a_batch_are_enough(teacher: MobileNet) -> None:
    few = hold_out(data_of(20))
    assert len(few.train) < 32
    block = new_block(teacher, EXPANSION, seed=0)
    train(teacher, [(EXPANSION.position, block)], few)
    assert np.isfinite(error(teacher, EXPANSION.position, block, few))


def test_an_error_that_is_not_finite_names_the_block_and_the_step(teacher: MobileNet, data: Data) -> None:
    block = new_block(teacher, EXPANSION, seed=0)
    with torch.no_grad():
        next(block.parameters()).fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"^the error of a replacement of block 4 is nan in step 1: .* --minutes$"):
        train(teacher, [(EXPANSION.position, block)], data)
    assert issubclass(DivergedError, NasError)


# Effects ----------------------------------------------------------------------------------------------


@torch.no_grad()
def log_losses(model: nn.Module, data: Data) -> np.ndarray:
    ((images, labels),) = data.val.batches(1_000, SIDE)
    losses: np.ndarray = nn.functional.cross_entropy(model.eval()(images), labels, reduction="none").numpy()
    return losses


def test_the_rise_without_a_block_is_that_of_the_network_without_it(teacher: MobileNet, data: Data) -> None:
    found = rises(teacher, [(position, None) for position in (2, 4, 5)], data)
    assert found.shape == (3, 96)
    for row, position in zip(found, (2, 4, 5), strict=True):
        shorter = copy.deepcopy(teacher)
        del shorter.features[1 + position]
        assert row == pytest.approx(log_losses(shorter, data) - log_losses(teacher, data), abs=1e-5)
        assert abs(row).max() > 1e-3


def test_the_rise_with_a_replacement_is_that_of_the_network_with_it(teacher: MobileNet, data: Data) -> None:
    block = new_block(teacher, KERNEL, seed=0)
    train(teacher, [(KERNEL.position, block)], data)
    blocks = tuple(KERNEL.block or block if at == KERNEL.position else block for at, block in enumerate(LARGEST.blocks))
    other = build_model(LARGEST.replace(blocks=blocks), 3, 0.0)
    for index, module in enumerate(other.features):
        module.load_state_dict((block if index == 1 + KERNEL.position else teacher.features[index]).state_dict())
    other.classifier.load_state_dict(teacher.classifier.state_dict())
    (row,) = rises(teacher, [(KERNEL.position, block)], data)
    assert row == pytest.approx(log_losses(other, data) - log_losses(teacher, data), abs=1e-5)
    assert rises(teacher, [(KERNEL.position, block)], data, batch_size=7)[0] == pytest.approx(row, abs=1e-5)


def test_an_effect_is_a_mean_with_its_error_and_both_halves() -> None:
    effect = Effect.of(np.array([1.0, 4.0, 3.0, 8.0]))
    assert effect.rise == 4.0
    assert effect.halves == (2.0, 6.0)
    assert effect.error == pytest.approx(np.sqrt((9 + 0 + 1 + 16) / 3 / 4))
