"""A space of few small networks, images that they learn in a moment, and what a teacher on these says of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.arch.skeleton import Stage, Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec
from nas.console import Silent
from nas.replacement.choices import Choices
from nas.replacement.learning import LessonRequest, Lessons, Plan, learn_lessons
from nas.training.held_out import hold_out
from nas.training.images import Data
from nas.training.tensor_images import TensorImages

RELU = ("relu",)
SIDE = 32  # pixels of the images
# The second stage has no stride, and its first block no residual.
LITTLE = SearchSpace(
    name="little",
    stem=StemSpec(out=8),
    first=BlockSpec(op="sepconv", kernel=3, expanded=8, out=8, stride=2),
    stages=(
        Stage(out=16, stride=2, depths=(1, 2), kernels=(3, 5), expansions=(2, 4), se=(False,), activations=RELU),
        Stage(out=24, stride=1, depths=(1, 3), kernels=(3,), expansions=(2, 3), se=(False, True), activations=RELU),
    ),
    head=HeadSpec(conv=144, hidden=16),
    widths=(0.5, 1.0),
    resolutions=(32, 48),
)
LARGEST = LITTLE.largest(Variant(1.0, SIDE)).replace(name="little-teacher")
FEW_STEPS = Plan(epochs=4, epoch_steps=3, steps=3, finalist_epochs=2, finalist_epoch_steps=2)


def images(count: int, classes: int = 3, seed: int = 0) -> TensorImages:
    """Return noise with a bright bar, whose place is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 80, (count, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    for label in range(classes):
        rows = slice(label * SIDE // classes, (label + 1) * SIDE // classes)
        pixels[labels == label, :, rows] += 150
    return TensorImages(pixels, labels)


def data_of(count: int = 480, classes: int = 3) -> Data:
    """Return a source of so many training images and a third as many to validate on."""
    names = tuple(f"class {number}" for number in range(classes))
    return Data("bars", names, images(count, classes), images(count // 3, classes, seed=1))


def request_of(data: Data | None = None, **changes: Any) -> LessonRequest:
    """Return the question what the choices of the space are worth on images, part of which are held out."""
    plain: dict[str, Any] = {
        **{"choices": Choices(LITTLE, LARGEST), "resolution": SIDE, "data": hold_out(data or data_of())},
        **{"minutes": 0.01},
    }
    return LessonRequest(**plain | changes)


@pytest.fixture(scope="session")
def learned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for what is learned in few steps."""
    folder = tmp_path_factory.mktemp("lessons")
    (folder / "plan.json").write_text(plan_text(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def lessons(learned_folder: Path) -> Lessons:
    """Return what was learned in this process. It is for all tests: none may change it."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)
        torch.set_num_threads(1)
        found = learn_lessons(request_of(), learned_folder, Silent())
    torch.set_num_threads(threads)
    return found


def plan_text(plan: Plan = FEW_STEPS) -> str:
    """Return the file of a plan."""
    return json.dumps(plan._asdict())
