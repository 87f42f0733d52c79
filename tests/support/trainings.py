"""Fixtures of a small network, few images and a short recipe."""

import pytest
import torch

from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.training.data import EMBEDDED, load_data
from nas.training.images import Data
from nas.training.recipes import Recipe, load_recipe
from nas.training.tensor_images import TensorImages


@pytest.fixture(scope="session")
def tiny_spec() -> ArchSpec:
    blocks = (
        BlockSpec(kernel=3, expanded=16, out=8, stride=2),
        BlockSpec(kernel=3, expanded=24, out=16, stride=2, se=8, activation="hswish"),
    )
    return ArchSpec(name="tiny", resolution=32, stem=StemSpec(out=8), blocks=blocks, head=HeadSpec(conv=32, hidden=16))


@pytest.fixture(scope="session")
def little_data() -> Data:
    """Return the first 600 training and 200 validation images of the embedded sample."""
    data = load_data(EMBEDDED)
    train, val = (
        TensorImages(part.images[:count], part.labels[:count]) for part, count in ((data.train, 600), (data.val, 200))
    )
    return Data(data.source, data.classes, train, val)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return load_recipe("quick").replace(epochs=3)


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread: small tensors gain nothing from more, and tests that run side by side lose."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
