"""The examples run: losses fall, and a search finds the best within its limit."""

import itertools
import math
import random
import runpy
from pathlib import Path

import pytest
import torch

from nas.arch.loading import load_spec

EXAMPLES = Path(__file__).parent.parent / "examples"
HEADS = EXAMPLES / "heads.py"


@pytest.mark.parametrize("train", ["train_segmentation", "train_detection"])
def test_losses_of_the_heads_fall(train):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    functions = runpy.run_path(str(HEADS))
    shared = functions[train].__globals__
    shared.update(STEPS=4, BATCH=2, SIZE=96)
    torch.manual_seed(0)
    losses = functions[train](load_spec("mobilenet_v3_small"), random.Random(0))
    torch.set_num_threads(threads)
    assert len(losses) == 4
    assert losses[-1] < 0.9 * losses[0]


def test_masks_and_boxes_are_of_the_same_shapes():
    draw = runpy.run_path(str(HEADS))["draw"]
    rng = random.Random(0)
    for _ in range(20):
        image, mask, boxes, labels = draw(rng)
        assert image.shape == (3, *mask.shape)
        assert len(boxes) == len(labels)
        # The one drawn last is whole: at its middle is its label.
        left, top, right, bottom = boxes[-1].int().tolist()
        assert mask[(top + bottom) // 2, (left + right) // 2] == labels[-1]


def test_the_sampler_finds_nearly_the_best_within_the_limit(capsys):
    example = runpy.run_path(str(EXAMPLES / "optuna_sampler.py"))
    example["main"]()
    printed = capsys.readouterr().out
    value, cost = float(printed.split()[3]), float(printed.split()[6])
    costs = example["COST"].values()
    values = [
        60 + sum(i * math.sqrt(cost) for i, cost in enumerate(layers, start=1))
        for layers in itertools.product(costs, repeat=len(example["CHOICES"]))
        if sum(layers) <= 8.0
    ]
    assert cost <= 8.0
    assert sum(other > value + 0.005 for other in values) <= 3
