import numpy as np
import pytest
import torch
from PIL import Image

from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.training.data import EMBEDDED, load_data
from nas.training.images import Data
from nas.training.recipes import load_recipe
from nas.training.run import Settings, train
from nas.training.tensor_images import TensorImages

SPEC = ArchSpec(
    name="tiny net",
    resolution=64,
    stem=StemSpec(out=8),
    blocks=(
        BlockSpec(kernel=3, expanded=16, out=8, stride=2),
        BlockSpec(kernel=3, expanded=24, out=16, stride=2, se=8, activation="hswish"),
    ),
    head=HeadSpec(conv=32, hidden=16),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def few() -> Data:
    """Return the first 1,200 training and 300 validation images of the embedded sample."""
    data = load_data(EMBEDDED)
    train, val = (
        TensorImages(part.images[:count], part.labels[:count]) for part, count in ((data.train, 1200), (data.val, 300))
    )
    return Data(data.source, data.classes, train, val)


@pytest.fixture(scope="session")
def training(few, tmp_path_factory):
    """Return the folder of a training of three seconds."""
    folder = tmp_path_factory.mktemp("training") / "tiny-fashion-mnist-sample"
    recipe = load_recipe("quick").replace(epochs=6, batch_size=32, learning_rate=0.02)
    train(Settings(spec=SPEC, source=few.source, recipe=recipe, resolution=32), few, folder)
    return folder


@pytest.fixture(scope="session")
def pictures(few, tmp_path_factory):
    """Return the files of the first validation images, in the order of the labels."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(40):
        Image.fromarray(np.asarray(few.val.images[index, 0])).save(folder / f"{index:02}.png")
    return sorted(folder.iterdir())
