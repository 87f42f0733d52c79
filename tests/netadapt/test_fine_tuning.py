"""Proposals that are trained a little and evaluated on images."""

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.pictures import save_images

from nas.arch.spec import ArchSpec, BlockSpec
from nas.errors import NasError
from nas.models.inherited_weights import inherit_weights
from nas.models.mobilenet import MobileNet, build_model
from nas.netadapt import fine_tuning
from nas.netadapt.fine_tuning import (
    FineTunedProposals,
    FineTuning,
    evaluate_on_held_out,
    fine_tune,
    split_data,
)
from nas.training.data import EMBEDDED, load_data
from nas.training.disk_images import DiskImages
from nas.training.held_out import HELD_OUT_EVERY, HELD_OUT_IMAGES
from nas.training.recipes import Recipe
from nas.training.side_by_side import SideBySide, WorkerDiedError
from nas.training.tensor_images import TensorImages


@pytest.fixture
def model(tiny_spec: ArchSpec) -> MobileNet:
    torch.manual_seed(0)
    return build_model(tiny_spec, 10)


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train proposals in this process where a test does not say how many workers there are."""
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)


@pytest.fixture
def tuning(recipe: Recipe) -> FineTuning:
    return FineTuning(source=EMBEDDED, data_dir=None, recipe=recipe.replace(batch_size=32), steps=3)


@pytest.fixture
def specs(tiny_spec: ArchSpec) -> list[ArchSpec]:
    return [tiny_spec, tiny_spec.with_block(1, expanded=16), tiny_spec.with_block(1, out=8)]


def test_an_error_before_images_are_loaded_is_not_hidden_by_theirs(model: MobileNet, tuning: FineTuning) -> None:
    with (
        pytest.raises(RuntimeError, match="the real one"),
        FineTunedProposals(model, replace(tuning, source="imagefolder:nowhere")),
    ):
        raise RuntimeError("the real one")


def test_held_out_images_are_training_images_that_none_is_trained_on() -> None:
    whole, parts = load_data(EMBEDDED).train, split_data(EMBEDDED, None)
    assert isinstance(whole, TensorImages)
    assert isinstance(parts.train, TensorImages)
    assert isinstance(parts.val, TensorImages)
    assert len(parts.val) == min(HELD_OUT_IMAGES, len(whole) // HELD_OUT_EVERY)
    assert len(parts.train) + len(parts.val) == len(whole)
    both = torch.cat([parts.train.images, parts.val.images]).flatten(1).sort(0).values
    assert torch.equal(both, whole.images.flatten(1).sort(0).values)
    classes = torch.bincount(parts.val.labels, minlength=10)
    assert classes.min() > len(parts.val) / 20, "every class is among them"


def test_images_on_disk_are_split_too(tmp_path: Path) -> None:
    from PIL import Image

    for part in ("train", "val"):
        for number in range(10):
            folder = tmp_path / part / "cat"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (number, 0, 0)).save(folder / f"{number}.png")
    parts = split_data(f"imagefolder:{tmp_path}", None, 3)
    assert isinstance(parts.val, DiskImages)
    assert parts.val.loaders == 3
    assert (len(parts.train), len(parts.val)) == (8, 2)
    ((images, labels),) = parts.val.batches(4, 32)
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [0, 0]


def test_proposals_are_trained_alike_and_the_model_is_left_alone(
    model: MobileNet, tuning: FineTuning, specs: list[ArchSpec]
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = FineTunedProposals(model, tuning).estimate(specs)
    assert first.shape == (3,)
    assert ((first > 0) & (first < 100)).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert np.array_equal(FineTunedProposals(model, tuning).estimate(specs[::-1])[::-1], first), "in any order"
    later = FineTunedProposals(model, tuning, steps_done=1).estimate(specs)
    assert not np.array_equal(later, first), "each step has its own batches"


def test_training_helps(model: MobileNet, tuning: FineTuning, specs: list[ArchSpec]) -> None:
    data = split_data(EMBEDDED, None)
    faster = tuning.recipe.replace(learning_rate=0.12)  # an untrained network has a long way to go
    proposals = FineTunedProposals(model, FineTuning(source=EMBEDDED, data_dir=None, recipe=faster, steps=80))
    (accuracy,) = proposals.estimate(specs[1:2])
    untrained = evaluate_on_held_out(inherit_weights(specs[1], model), data)
    assert accuracy > untrained.mean_probability + 5
    kept = proposals.keep(specs[1])
    assert kept.mean_probability == accuracy
    assert kept.top1 > 30


def test_proposals_are_trained_by_the_recipes_optimiser(
    model: MobileNet, tuning: FineTuning, specs: list[ArchSpec]
) -> None:
    """AdamW moves every weight by about its learning rate, SGD by that times the gradient."""
    moved = {}
    for optimizer in ("adamw", "sgd"):
        recipe = tuning.recipe.replace(optimizer=optimizer, learning_rate=1e-3, weight_decay=0.0)
        proposals = FineTunedProposals(model, replace(tuning, recipe=recipe))
        proposals.estimate(specs[:1])
        proposals.keep(specs[0])
        moved[optimizer] = (proposals.model.features[0][0].weight - model.features[0][0].weight).abs().median()
    assert moved["sgd"] < moved["adamw"] / 5


def test_a_training_that_diverges_is_an_error(model: MobileNet, tuning: FineTuning, specs: list[ArchSpec]) -> None:
    """Its accuracy would be nan, which NetAdapt would prefer to all numbers."""
    wild = replace(tuning, recipe=tuning.recipe.replace(learning_rate=1e30))
    with pytest.raises(NasError, match="the training of a proposal diverged; take a recipe with a lower"):
        FineTunedProposals(model, wild).estimate(specs)


@pytest.mark.parametrize(
    ("readable", "message"),
    [
        (0, "none of the images to (train on|evaluate on) can be read"),
        (2, "it has 2 training images; .* takes at least 3"),
    ],
)
def test_images_that_are_too_few(
    model: MobileNet, tuning: FineTuning, specs: list[ArchSpec], tmp_path: Path, readable: int, message: str
) -> None:
    """Without an error a training would wait for the next batch for ever."""
    from PIL import Image

    for part in ("train", "val"):
        for number in range(readable or 10):
            folder = tmp_path / part / "cat"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40)).save(folder / f"{number}.png")
            if not readable:
                (folder / f"{number}.png").write_bytes(b"")
    proposals = FineTunedProposals(model, replace(tuning, source=f"imagefolder:{tmp_path}"))
    with pytest.raises(NasError, match=message):
        proposals.evaluate()
    with pytest.raises(NasError, match=message):
        proposals.estimate(specs[:1])


def test_any_number_of_images_is_enough(tiny_spec: ArchSpec, tuning: FineTuning) -> None:
    """Of 129 images a last batch has one, of which batch norm has no variance on a map of one pixel."""
    data = split_data(EMBEDDED, None)
    assert isinstance(data.train, TensorImages)
    halving = BlockSpec(kernel=3, expanded=16, out=16, stride=2)
    model = build_model(replace(tiny_spec, blocks=(*tiny_spec.blocks, halving, halving)), 10)
    for count in (2, 129):
        few = replace(data.train, images=data.train.images[:count], labels=data.train.labels[:count])
        fine_tune(model, replace(data, train=few), tuning, torch.Generator().manual_seed(0), seed=0)
        assert evaluate_on_held_out(model, data).mean_probability > 0


def test_proposals_are_evaluated_in_batches_of_the_recipe(model: MobileNet, tuning: FineTuning) -> None:
    """Else the memory of a small batch would not be enough."""
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, images: sizes.append(len(images[0])))
    evaluation = FineTunedProposals(model, tuning).evaluate()
    assert max(sizes) == tuning.recipe.batch_size
    assert evaluation.right == evaluate_on_held_out(model, split_data(EMBEDDED, None)).right


def test_later_proposals_inherit_from_the_kept_network(
    model: MobileNet, tuning: FineTuning, specs: list[ArchSpec]
) -> None:
    proposals = FineTunedProposals(model, tuning)
    accuracies = proposals.estimate(specs)
    kept = proposals.keep(specs[1])
    assert kept.mean_probability == accuracies[1]
    assert proposals.model.spec == specs[1]
    assert proposals.evaluate() == kept
    again = FineTunedProposals(proposals.model, tuning, steps_done=1)
    assert np.array_equal(again.estimate(specs[1:2]), proposals.estimate(specs[1:2]))


def test_workers_find_the_same_and_images_that_cannot_be_read_are_named_once(
    model: MobileNet, tuning: FineTuning, specs: list[ArchSpec], tmp_path: Path
) -> None:
    for part in ("train", "val"):
        save_images(tmp_path / part / "cat", 10, 200)
    broken = [tmp_path / "train" / "cat" / f"{number}.png" for number in (3, 5)]
    for file in broken:
        file.write_bytes(b"no image")
    own = replace(tuning, source=f"imagefolder:{tmp_path}", recipe=tuning.recipe.replace(batch_size=8))
    found = {}
    for workers in (1, 2):
        split_data.cache_clear()
        messages: list[str] = []
        with FineTunedProposals(model, own, workers=workers, say=messages.append) as proposals:
            first = proposals.estimate(specs)
            kept = proposals.keep(specs[2])
            found[workers] = [*first, kept, *proposals.estimate(specs[2:])]
            proposals.evaluate()
        assert sorted(line.partition(": ")[0] for line in messages) == [f"left out {file}" for file in broken]
    assert found[1] == found[2]


@pytest.mark.parametrize("deaths", [1, 2])
def test_what_a_killed_worker_left_is_done_again(
    monkeypatch: pytest.MonkeyPatch, model: MobileNet, tuning: FineTuning, specs: list[ArchSpec], deaths: int
) -> None:
    alone = FineTunedProposals(model, tuning, workers=1).estimate(specs)
    next_value, values = SideBySide.next_value, itertools.count(1)

    def dies(pool: SideBySide) -> tuple[int, Any]:
        if (at := next(values)) % 3 == 0 and at <= 3 * deaths:
            pool.close()
            raise WorkerDiedError("a process died")
        return next_value(pool)

    monkeypatch.setattr(SideBySide, "next_value", dies)
    monkeypatch.setattr(fine_tuning, "MOST_DEATHS", 1)
    messages: list[str] = []
    with FineTunedProposals(model, tuning, workers=1, say=messages.append) as proposals:
        if deaths == 1:
            assert np.array_equal(proposals.estimate(specs), alone)
        else:
            with pytest.raises(NasError, match=r"workers died 2 times in one step, .* --resume and fewer --workers"):
                proposals.estimate(specs)
    assert messages == ["warning: a worker died; the proposals that were not finished are done again"]


def test_ctrl_c_is_one_line_while_workers_run(tmp_path: Path, tiny_spec: ArchSpec, recipe: Recipe) -> None:
    """A terminal sends it to all processes. The proposals would take hours."""
    tiny_spec.save(tmp_path / "tiny.json")
    code = f"""
import signal, threading, time
from multiprocessing import active_children
from pathlib import Path
from nas.arch.spec import ArchSpec
from nas.cli.entry import run
from nas.models.mobilenet import build_model
from nas.netadapt.fine_tuning import FineTunedProposals, FineTuning
from nas.training.recipes import Recipe

def main(argv):
    spec = ArchSpec.load({str(tmp_path / "tiny.json")!r})
    recipe = Recipe.from_dict({recipe.to_dict()!r})
    tuning = FineTuning(source={EMBEDDED!r}, data_dir=None, recipe=recipe, steps=1_000_000)
    with FineTunedProposals(build_model(spec, 10), tuning, workers=2) as proposals:
        proposals.estimate([spec.with_block(1, expanded=expanded) for expanded in (8, 16, 24)])

def tell():
    while len(active_children()) < 2:
        time.sleep(0.01)
    print("started", flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=tell, daemon=True).start()
    run("netadapt", main)
"""
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert errors == "nas.netadapt: interrupted; everything that was finished is kept\n"
    assert process.returncode == 130
