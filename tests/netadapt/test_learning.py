"""The costs of cuts, learned on images."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.arch.spec import ArchSpec
from nas.console import Silent
from nas.models.mobilenet import MobileNet, build_model
from nas.netadapt import learning
from nas.netadapt.learning import CutSurrogate, Question, cut_network, evaluate, judged_networks, learn, split_data
from nas.netadapt.narrowing import RandomCuts
from nas.netadapt.proposals import EXTRA_CUTS
from nas.training.data import EMBEDDED, load_data
from nas.training.disk_images import DiskImages
from nas.training.held_out import HELD_OUT_EVERY, HELD_OUT_IMAGES
from nas.training.images import Data
from nas.training.recipes import Recipe
from nas.training.tensor_images import TensorImages


@pytest.fixture
def model(tiny_spec: ArchSpec) -> MobileNet:
    torch.manual_seed(0)
    return build_model(tiny_spec, 10).eval()


@pytest.fixture
def question(
    model: MobileNet, tiny_spec: ArchSpec, little_data: Data, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> Question:
    monkeypatch.setattr(learning, "LEAST_JUDGED", 6)
    monkeypatch.setattr(learning, "JUDGED_PER_PLACE", 1)
    monkeypatch.setattr(learning, "CALIBRATION_IMAGES", 32)
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)
    return Question(model=model, data=little_data, recipe=recipe.replace(batch_size=16), steps=4)


@pytest.fixture
def tiny_cuts(tiny_spec: ArchSpec) -> RandomCuts:
    return RandomCuts(tiny_spec, 0.5, ("stem", "head"))


# The surrogate ----------------------------------------------------------------------------------------


def made_up(cuts: RandomCuts, specs: Sequence[ArchSpec], slopes: np.ndarray) -> np.ndarray:
    """Return accuracies that are sums of the logarithms of the channels, with a little noise."""
    logs = np.log([[place.channels_in(spec) / place.channels for place in cuts.places] for spec in specs])
    noise = np.random.default_rng(1).normal(0, 0.02, len(specs))
    values: np.ndarray = 60 + logs @ slopes + noise
    return values


@pytest.fixture
def cuts(tiny_spec: ArchSpec) -> RandomCuts:
    wide = tiny_spec.with_block(0, expanded=64).with_block(1, expanded=96)
    return RandomCuts(wide, 0.25, ("stem", "head"))


def test_it_finds_what_each_place_is_worth(cuts: RandomCuts) -> None:
    rng = np.random.default_rng(0)
    judged, unseen = ([cuts.random(rng) for _ in range(count)] for count in (80, 50))
    slopes = np.linspace(0.2, 3, len(cuts.places))
    surrogate = CutSurrogate(cuts, judged, made_up(cuts, judged, slopes), believed=0.0)
    truth = made_up(cuts, unseen, slopes)
    assert np.abs(surrogate.estimate(unseen) - truth).max() < 0.1 * truth.std()


def test_a_belief_alone_takes_all_places_for_equal(cuts: RandomCuts) -> None:
    rng = np.random.default_rng(0)
    judged = [cuts.random(rng) for _ in range(80)]
    slopes = np.linspace(0.2, 3, len(cuts.places))
    surrogate = CutSurrogate(cuts, judged, made_up(cuts, judged, slopes), believed=1.0)
    halves = [place.cut(cuts.spec, place.channels // 2) for place in cuts.places]
    assert np.ptp(surrogate.estimate(halves)) < 1e-9


def test_other_cuts_have_columns_of_their_own(tiny_spec: ArchSpec) -> None:
    spec = tiny_spec.with_block(1, kernel=5, se=8, activation="hswish")
    cuts = RandomCuts(spec, 0.5, EXTRA_CUTS)
    rng = np.random.default_rng(0)
    judged = [cuts.random(rng) for _ in range(80)]
    values = np.array([60.0 - (not one.blocks[1].se) - 0.5 * (one.blocks[1].kernel == 3) for one in judged])
    surrogate = CutSurrogate(cuts, judged, values, believed=0.0)
    full, no_se, small = surrogate.estimate([spec, spec.with_block(1, se=0), spec.with_block(1, kernel=3)])
    assert full - no_se == pytest.approx(1, abs=0.15)
    assert full - small == pytest.approx(0.5, abs=0.15)


# Learning ---------------------------------------------------------------------------------------------


def test_cuts_are_learned_once(
    question: Question, tiny_cuts: RandomCuts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = learn(question, tiny_cuts, tmp_path, Silent())
    judged = json.loads((tmp_path / "judged.json").read_text())
    specs = judged_networks(tiny_cuts, 0)
    assert set(judged) == {spec.id for spec in specs}
    estimates = learned.surrogate.estimate(specs)
    assert ((estimates > 0) & (estimates < 100)).all()

    def never(*arguments: object) -> None:
        raise AssertionError("it is known")

    monkeypatch.setattr(learning, "_evaluate", never)
    again = learn(question, tiny_cuts, tmp_path, Silent())
    assert np.array_equal(again.surrogate.estimate(specs), estimates)
    for name, weights in again.supernet.model.state_dict().items():
        assert torch.equal(weights, learned.supernet.model.state_dict()[name])


def test_what_was_judged_before_an_interruption_is_not_judged_again(
    question: Question, tiny_cuts: RandomCuts, tmp_path: Path
) -> None:
    learned = learn(question, tiny_cuts, tmp_path, Silent())
    judged = json.loads((tmp_path / "judged.json").read_text())
    first, *_ = judged
    (tmp_path / "judged.json").write_text(json.dumps({first: judged[first]}))
    again = learn(question, tiny_cuts, tmp_path, Silent())
    assert json.loads((tmp_path / "judged.json").read_text()) == judged
    specs = judged_networks(tiny_cuts, 0)
    assert np.array_equal(again.surrogate.estimate(specs), learned.surrogate.estimate(specs))


def test_the_training_reaches_narrow_networks(question: Question, tiny_cuts: RandomCuts, tmp_path: Path) -> None:
    """The seed's weights are good for the seed, and for what is cut from it only after the training."""
    narrow = tiny_cuts.uniform(0.5)
    losses = []
    for steps in (1, 240):
        learned = learn(replace(question, steps=steps), tiny_cuts, tmp_path / str(steps), Silent())
        network = cut_network(learned.supernet, narrow, question.data, 0)
        losses.append(evaluate(network, question.data).cross_entropy)
    assert losses[1] < losses[0] - 0.1


def test_batch_norm_of_a_cut_network_is_its_own(question: Question, tiny_cuts: RandomCuts, tmp_path: Path) -> None:
    learned = learn(question, tiny_cuts, tmp_path, Silent())
    narrow = tiny_cuts.uniform(0.5)
    network = cut_network(learned.supernet, narrow, question.data, 0)
    shared = learned.supernet.network(narrow)
    mean, other = (one.features[1].block[0][1].running_mean for one in (network, shared))
    assert not torch.equal(mean, other)
    again = cut_network(learned.supernet, narrow, question.data, 0)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


# Images -----------------------------------------------------------------------------------------------


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
