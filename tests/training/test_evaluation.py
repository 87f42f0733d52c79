"""The one evaluation loop, on logits that are known."""

import math

import pytest
import torch
from torch import nn

from nas.arch.spec import ArchSpec
from nas.models.mobilenet import build_model
from nas.training.evaluation import Evaluation, evaluate, evaluate_model
from nas.training.images import Data

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, 5.0, 0.0]])
LABELS = torch.tensor([0, 1, 1])


def test_sums_and_means_by_hand() -> None:
    images = LOGITS[:, :, None, None]
    batches = [(images[:2], LABELS[:2]), (images[2:], LABELS[2:])]
    evaluation = evaluate(lambda batch: batch[:, :, 0, 0], batches)
    likelihoods = [
        math.exp(2) / (math.exp(2) + 2),
        math.e / (1 + math.e + math.exp(3)),
        math.exp(5) / (math.exp(5) + 2),
    ]
    assert (evaluation.right, evaluation.images) == (2, 3)
    assert evaluation.top1 == pytest.approx(200 / 3)
    assert evaluation.mean_probability == pytest.approx(100 * sum(likelihoods) / 3)
    assert evaluation.cross_entropy == pytest.approx(-sum(map(math.log, likelihoods)) / 3)


def test_no_images_are_counted_as_none() -> None:
    assert evaluate(lambda images: images, []) == Evaluation(0.0, 0.0, 0, 0)


def test_a_network_is_evaluated_as_its_outputs_say(tiny_spec: ArchSpec, little_data: Data) -> None:
    torch.manual_seed(0)
    model = build_model(tiny_spec, 10).train()
    evaluation = evaluate_model(model, little_data.val.batches(64, 32))
    ((images, labels),) = little_data.val.batches(200, 32)
    assert not model.training
    with torch.inference_mode():
        logits = model(images)
    assert evaluation.images == 200
    assert evaluation.top1 == pytest.approx(100 * float((logits.argmax(1) == labels).float().mean()))
    assert evaluation.cross_entropy == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
