import pytest
import torch
from torch import nn

from nas.errors import NasError
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


def cut(sizes: list[int]):
    """Return images of a map of one pixel in batches of these sizes."""
    images = 3 + 2 * torch.randn(sum(sizes), 4, 1, 1, generator=torch.Generator().manual_seed(0))
    return [(part, torch.zeros(len(part))) for part in images.split(sizes)]


def test_a_batch_weighs_as_much_as_it_has_images():
    norm = nn.BatchNorm2d(4)
    assert recalibrate(norm, cut([128, 128, 8])) == 264
    images = torch.cat([batch for batch, _ in cut([128, 128, 8])])
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))


@pytest.mark.parametrize("sizes", [[128, 1], [1, 128], [1, 1, 1], [64, 1, 64], [1, 1]])
def test_a_lone_image_joins_its_neighbour(sizes):
    """Batch norm has no variance of one image on a map of one pixel."""
    norm = nn.BatchNorm2d(4)
    assert recalibrate(norm, cut(sizes)) == sum(sizes)
    images = torch.cat([batch for batch, _ in cut(sizes)])
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))


@pytest.mark.parametrize("sizes", [[], [1]])
def test_too_few_images_are_refused(sizes):
    with pytest.raises(NasError, match="fewer than two of the images for batch norm's statistics can be read"):
        recalibrate(nn.BatchNorm2d(4), cut(sizes) if sizes else [])


def test_full_batches_are_averaged_as_torch_does():
    """To the last bit, so that trainings on fixed seeds stay what they were."""
    ours, torchs = nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=None)
    recalibrate(ours, batches(7, 128))
    for images, _ in batches(7, 128):
        torchs(images.contiguous(memory_format=torch.channels_last))
    assert torch.equal(ours.running_mean, torchs.running_mean)
    assert torch.equal(ours.running_var, torchs.running_var)


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
