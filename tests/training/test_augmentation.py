import pytest
import torch
from support.pictures import PLAIN

from nas.training.augmentation import mixing


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_mixed_labels_are_shares(mixup, cutmix):
    torch.manual_seed(0)
    mix = mixing(PLAIN.replace(mixup=mixup, cutmix=cutmix), 5)
    images, labels = mix(torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 8, 8), torch.tensor([0, 1, 2, 4]))
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    assert 1 < int((labels > 0).sum(1).max()) <= 2
    # The mean of a mixed image is the mean of the values that its labels name.
    values = torch.tensor([0.0, 1.0, 2.0, 0.0, 3.0])
    torch.testing.assert_close(images.mean((1, 2, 3)), labels @ values)


def test_nothing_is_mixed_unless_the_recipe_says_so():
    assert mixing(PLAIN, 5) is None
