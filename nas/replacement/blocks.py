"""Train replacement blocks: each learns alone to give the teacher's feature map from the teacher's input.

A teacher is a trained network. In place of its block at some position another block is to stand: of another kernel,
with other expanded channels, with or without SE, with another activation. It begins with the weights of the teacher's
block as far as it has them, and sees what the teacher's block sees. Its loss is the squared error of its feature map
relative to that of the teacher's. No replacement knows of another one, so that a single run of the teacher serves
all of them (arXiv 2107.10624, section 3; arXiv 2411.19146, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.arch.spec import ArchSpec, HeadSpec, StemSpec
from nas.models.inherited_weights import inherit_weights
from nas.models.mobilenet import MobileNet, build_model
from nas.models.small_maps import use_small_map_convolutions
from nas.replacement.choices import Replacement
from nas.training.batchnorm import recalibrate
from nas.training.images import Data, endless_batches
from nas.training.loop import DivergedError
from nas.training.recipes import Recipe

LEARNING_RATE = 4e-3  # AdamW's, the largest; it falls to nothing along half a cosine
CALIBRATION_IMAGES = 1_024  # for batch norm's statistics


def new_block(teacher: MobileNet, replacement: Replacement, seed: int) -> nn.Module:
    """Return the module of a replacement, with the weights of the teacher's block as far as it has them.

    A smaller kernel is the centre of the larger one, and the expanded channels with the largest weights are kept. What
    the teacher's block lacks is initialised from `seed`.
    """
    position, block = replacement
    assert block is not None
    placed = list(teacher.spec.walk())[position]
    # A network of this block alone: to build a whole one for each replacement takes minutes.
    alone = ArchSpec(
        name="block",
        resolution=32,
        stem=StemSpec(out=placed.in_channels),
        blocks=(placed.block,),
        head=HeadSpec(conv=0),
        norm_eps=teacher.spec.norm_eps,
    )
    with torch.random.fork_rng(devices=[]):
        parent = build_model(alone, 2)
    parent.features[1].load_state_dict(teacher.features[1 + position].state_dict())
    child: nn.Module = inherit_weights(alone.replace(blocks=(block,)), parent, seed=seed).features[1]
    return child


def train_blocks(
    teacher: MobileNet,
    blocks: Sequence[tuple[int, nn.Module]],
    data: Data,
    recipe: Recipe,
    *,
    resolution: int,
    steps: int,
    batch_size: int,
    seed: int,
) -> None:
    """Train blocks, each with its position, for `steps` batches of training images, and set their statistics.

    Raises DivergedError for a block whose error is not finite, and NasError if no image can be read.
    """
    teacher.eval()
    device, last = _device_of(teacher), max(position for position, _ in blocks)
    optimizers = [torch.optim.AdamW(block.parameters(), LEARNING_RATE, weight_decay=0.0) for _, block in blocks]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) for optimizer in optimizers]
    generator = torch.Generator().manual_seed(seed)
    batches = endless_batches(data, recipe.replace(batch_size=batch_size), resolution, generator)
    for _, block in blocks:
        use_small_map_convolutions(block.train())
    for step in range(steps):
        images, _ = next(batches)
        maps = feature_maps(teacher, images.to(device, memory_format=torch.channels_last), last)
        for (position, block), optimizer, schedule in zip(blocks, optimizers, schedules, strict=True):
            wanted = maps[position + 1]
            loss = (block(maps[position]) - wanted).square().sum() / wanted.square().sum()
            if not math.isfinite(loss.item()):
                raise DivergedError(
                    f"the error of a replacement of block {position} is {loss.item()} in step {step + 1}: it diverged; "
                    "train the teacher for longer, with more --minutes"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    chosen = order[:CALIBRATION_IMAGES].tolist()
    recalibrate(_Beside(teacher, blocks), data.train.batches(batch_size, resolution, chosen), _device_of(teacher))
    for _, block in blocks:
        block.eval()


@torch.no_grad()
def feature_maps(teacher: MobileNet, images: Tensor, last: int) -> list[Tensor]:
    """Return the inputs of the teacher's blocks 0 to `last`, and behind them the output of the last."""
    maps = [teacher.features[0](images)]
    for position in range(last + 1):
        maps.append(teacher.features[1 + position](maps[-1]))
    return maps


class _Beside(nn.Module):
    """Blocks beside a teacher, each on the feature map of its position. The teacher is no part of it."""

    def __init__(self, teacher: MobileNet, blocks: Sequence[tuple[int, nn.Module]]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block for _, block in blocks)
        self._positions = [position for position, _ in blocks]
        self._teacher = (teacher,)  # in a tuple, so that it is not registered

    def forward(self, images: Tensor) -> None:
        maps = feature_maps(self._teacher[0], images, max(self._positions))
        for position, block in zip(self._positions, self.blocks, strict=True):
            block(maps[position])


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
