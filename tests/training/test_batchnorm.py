import pytest
import torch
from torch import nn

from nas.training.batchnorm import IMAGES, recalibrate


def batches(count: int, size: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield 3 + 2 * torch.randn(size, 4, 5, 5, generator=generator), torch.zeros(size)


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_the_plain_average_over_the_batches(training):
    model = nn.Sequential(nn.BatchNorm2d(4, momentum=0.01), nn.ReLU(), nn.BatchNorm2d(4, momentum=0.3))
    model.train(training)
    before = {name: value.clone() for name, value in model.named_parameters()}
    recalibrate(model, batches(5, 64))
    first = model[0]
    images = [batch for batch, _ in batches(5, 64)]
    torch.testing.assert_close(first.running_mean, torch.stack([b.mean((0, 2, 3)) for b in images]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([b.var((0, 2, 3)) for b in images]).mean(0))
    assert (model[0].momentum, model[2].momentum) == (0.01, 0.3)
    assert model.training == training
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_old_statistics_leave_no_trace():
    norm = nn.BatchNorm2d(4)
    norm.running_mean.fill_(1e6)
    recalibrate(norm, batches(2, 64))
    assert float(norm.running_mean.abs().max()) < 4


def test_stops_when_it_has_seen_enough():
    seen = 0

    def counted():
        nonlocal seen
        for batch, labels in batches(100, 100):
            seen += len(batch)
            yield batch, labels

    recalibrate(nn.BatchNorm2d(4), counted())
    assert IMAGES <= seen < IMAGES + 200
