import copy
import math

import pytest
import torch
from torch import nn

from nas.arch.loading import load_spec
from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.models.supernet import Supernet
from nas.training.data import EMBEDDED, load_data
from nas.training.distillation import Teacher
from nas.training.evaluation import Evaluation, evaluate_model
from nas.training.images import Data
from nas.training.loop import Machine, Training
from nas.training.recipes import load_recipe
from nas.training.tensor_images import TensorImages


def new_training(spec, data, recipe, seed=0) -> Training:
    torch.manual_seed(seed)
    return Training(build_model(spec, len(data.classes)), data, recipe, resolution=32, seed=seed)


def without_times(rows):
    return [row._replace(seconds=0, images_per_second=0) for row in rows]


def test_learns(tiny_spec, little_data, recipe):
    steps = []
    training = new_training(tiny_spec, little_data, recipe.replace(epochs=6, batch_size=32, learning_rate=0.03))
    rows = list(training.epochs(steps.append))
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1].train_loss < rows[0].train_loss
    assert rows[-1].top1 > max(35, rows[0].top1)
    assert len(steps) == 6 * 18
    assert (steps[20].epoch, steps[20].epochs, steps[20].step, steps[20].steps) == (2, 6, 3, 18)
    evaluation = evaluate_model(training.kept, little_data.val.batches(64, 32))
    assert (evaluation.top1, pytest.approx(evaluation.cross_entropy)) == (rows[-1].top1, rows[-1].val_loss)


def test_validation_is_not_at_chance_level_after_a_few_steps():
    """With the running statistics of momentum 0.01 it is: ten percent, and a loss that climbs."""
    data = load_data(EMBEDDED)
    few = TensorImages(data.train.images[:1_600], data.train.labels[:1_600])
    data = Data(data.source, data.classes, few, TensorImages(data.val.images[:500], data.val.labels[:500]))
    recipe = load_recipe("quick").replace(epochs=2, batch_size=64)
    rows = list(new_training(load_spec("mobilenet_v3_small"), data, recipe).epochs())
    assert rows[1].top1 > max(60, rows[0].top1)
    assert rows[1].val_loss < min(1.2, rows[0].val_loss)


def test_the_kept_module_has_the_published_constants(tiny_spec, little_data, recipe):
    training = new_training(tiny_spec, little_data, recipe.replace(epochs=1))
    list(training.epochs())
    norms = [module for module in training.kept.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}
    assert not training.kept.training
    # The average's own statistics, not those of the last step's weights.
    pairs = zip(training.model.buffers(), training.kept.buffers(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_is_repeatable_and_the_seed_counts(tiny_spec, little_data, recipe):
    first, again, other = (
        without_times(new_training(tiny_spec, little_data, recipe, seed).epochs()) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_leaves_the_global_random_state_alone(tiny_spec, little_data, recipe):
    training = new_training(tiny_spec, little_data, recipe.replace(epochs=1))
    before = torch.get_rng_state()
    list(training.epochs())
    assert torch.equal(before, torch.get_rng_state())


def test_resumes_from_a_state_as_if_never_stopped(tiny_spec, little_data, recipe):
    whole = new_training(tiny_spec, little_data, recipe)
    rows = list(whole.epochs())
    stopped = new_training(tiny_spec, little_data, recipe)
    next(stopped.epochs())
    state = copy.deepcopy(stopped.state())
    resumed = new_training(tiny_spec, little_data, recipe)
    torch.nn.init.zeros_(resumed.model.classifier[-1].weight)  # its own start must not matter
    resumed.load_state(state)
    assert without_times(resumed.epochs()) == without_times(rows[1:])
    for ours, theirs in zip(resumed.kept.state_dict().values(), whole.kept.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["paper", "modern", "torchvision"])
def test_every_recipe_resumes_from_its_state(tiny_spec, little_data, name):
    few = TensorImages(little_data.train.images[:64], little_data.train.labels[:64])
    data = Data(little_data.source, little_data.classes, few, little_data.val)
    recipe = load_recipe(name).replace(epochs=3, batch_size=32, learning_rate=1e-3, warmup=0.3)
    rows = list(new_training(tiny_spec, data, recipe).epochs())
    stopped = new_training(tiny_spec, data, recipe)
    next(stopped.epochs())
    resumed = new_training(tiny_spec, data, recipe)
    resumed.load_state(copy.deepcopy(stopped.state()))
    assert without_times(resumed.epochs()) == without_times(rows[1:])


def test_a_batch_in_parts_has_the_gradient_of_the_whole(tiny_spec, little_data, recipe):
    """Batch norm sees the parts. Without it the weights after a step are the same."""
    few = TensorImages(little_data.train.images[:32], little_data.train.labels[:32])
    data = Data(little_data.source, little_data.classes, few, little_data.val)
    weights = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = build_model(tiny_spec, 10, dropout=0.0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.forward = lambda images: images
        machine = Machine(accumulate=parts)
        one = recipe.replace(epochs=1, batch_size=32, optimizer="sgd")
        training = Training(model, data, one, resolution=32, machine=machine)
        training._recalibrate = lambda model: None
        list(training.epochs())
        weights.append(training.model.state_dict())
    for whole, parts in zip(weights[0].values(), weights[1].values(), strict=True):
        torch.testing.assert_close(parts, whole)


def test_no_part_of_a_batch_is_a_single_image(tiny_spec, little_data, recipe):
    """Batch norm has no variance of one image on a map of one pixel."""
    few = TensorImages(little_data.train.images[:20], little_data.train.labels[:20])
    data = Data(little_data.source, little_data.classes, few, little_data.val)
    training = Training(
        build_model(tiny_spec, 10),
        data,
        recipe.replace(epochs=1, batch_size=10),
        resolution=32,
        machine=Machine(accumulate=4),
    )
    sizes = []
    training.model.register_forward_pre_hook(lambda model, images: sizes.append(len(images[0])) or None)
    training._recalibrate = lambda model: None
    training._validate = lambda model: Evaluation(0.0, 0.0, 0, 1)
    list(training.epochs())
    assert sizes == [3, 3, 2, 2] * 2


def test_validation_takes_no_more_images_at_a_time_than_a_step(tiny_spec, little_data, recipe):
    """Else the memory of a small batch would not be enough. The accuracy is the same."""
    recipe, machine = recipe.replace(epochs=1, batch_size=64), Machine(accumulate=2)
    training = Training(build_model(tiny_spec, 10), little_data, recipe, resolution=32, machine=machine)
    sizes = []

    def note(model, images):
        if not model.training:
            sizes.append(len(images[0]))

    training.kept.register_forward_pre_hook(note)
    (metrics,) = training.epochs()
    assert sizes == [32] * 6 + [8]
    assert metrics.top1 == evaluate_model(training.kept, little_data.val.batches(500, 32)).top1


def test_too_small_batches_for_their_parts_are_refused(tiny_spec, little_data, recipe):
    with pytest.raises(
        NasError, match="batch_size is 6; with 1 processes and 4 accumulated parts it must be at least 8"
    ):
        Training(
            build_model(tiny_spec, 10),
            little_data,
            recipe.replace(batch_size=6),
            resolution=32,
            machine=Machine(accumulate=4),
        )


def test_bfloat16_and_mixed_labels_train_too(tiny_spec, little_data, recipe):
    recipe = recipe.replace(epochs=2, mixup=0.2, cutmix=1.0)
    torch.manual_seed(0)
    training = Training(build_model(tiny_spec, 10), little_data, recipe, resolution=32, machine=Machine(bf16=True))
    first, second = training.epochs()
    assert second.train_loss < first.train_loss
    assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}


def test_the_student_learns_from_its_teacher(tiny_spec, little_data, recipe):
    """The teacher always answers class 3, which the labels do not."""
    few = TensorImages(little_data.train.images[:128], little_data.train.labels[:128])
    data = Data(little_data.source, little_data.classes, few, little_data.val)
    teacher = build_model(tiny_spec, 10)
    nn.init.zeros_(teacher.classifier[-1].weight)
    with torch.no_grad():
        teacher.classifier[-1].bias[3] = 12.0
    losses = {}
    for weight in (0.0, 0.5):
        torch.manual_seed(0)
        student = build_model(tiny_spec, 10)
        training = Training(
            student, data, recipe.replace(epochs=1), resolution=32, teacher=Teacher(teacher, weight=weight)
        )
        list(training.epochs())
        losses[weight] = student.classifier[-1].bias[3].item()
    assert losses[0.5] > losses[0.0]
    assert not teacher.training


def test_a_teacher_of_other_classes_is_refused(tiny_spec, little_data, recipe):
    with pytest.raises(NasError, match="the network has 7 classes and fashion-mnist-sample has 10"):
        Training(
            build_model(tiny_spec, 10), little_data, recipe, resolution=32, teacher=Teacher(build_model(tiny_spec, 7))
        )


def test_a_loss_that_is_not_finite_ends_the_training(tiny_spec, little_data, recipe):
    training = new_training(tiny_spec, little_data, recipe)
    nn.init.constant_(training.model.classifier[-1].weight, float("nan"))
    with pytest.raises(NasError, match=r"the training loss is nan in epoch 1, step 1: .* lower learning_rate"):
        list(training.epochs())


def test_class_count_that_differs_is_refused(tiny_spec, little_data, recipe):
    with pytest.raises(NasError, match="the network has 7 classes and fashion-mnist-sample has 10"):
        Training(build_model(tiny_spec, 7), little_data, recipe, resolution=32)


def test_too_few_images_are_refused(tiny_spec, little_data, recipe):
    one = TensorImages(little_data.train.images[:1], little_data.train.labels[:1])
    with pytest.raises(NasError, match="1 images to train on and 200 to validate on"):
        Training(
            build_model(tiny_spec, 10),
            Data("one", little_data.classes, one, little_data.val),
            recipe,
            resolution=32,
        )


class Alternating:
    """A narrowing that draws one of two networks."""

    def __init__(self, *specs):
        self.specs, self.drawn = specs, []

    def draw(self, random_seed):
        self.drawn.append(random_seed % 2)
        return self.specs[random_seed % 2]


def test_each_step_trains_a_network_that_is_cut_from_the_model(tiny_spec, little_data, recipe):
    narrower = tiny_spec.with_block(1, expanded=8)
    recipe = recipe.replace(epochs=1, batch_size=32)
    narrowing = Alternating(tiny_spec, narrower)
    torch.manual_seed(0)
    training = Training(build_model(tiny_spec, 10), little_data, recipe, resolution=32, narrowing=narrowing)
    (metrics,) = training.epochs()
    assert len(narrowing.drawn) == 18
    assert set(narrowing.drawn) == {0, 1}
    assert metrics.top1 == evaluate_model(training.kept, little_data.val.batches(64, 32)).top1, "of the whole network"
    plain = new_training(tiny_spec, little_data, recipe)
    list(plain.epochs())
    assert not torch.equal(plain.model.classifier[0].weight, training.model.classifier[0].weight)
    torch.manual_seed(0)
    again = Training(build_model(tiny_spec, 10), little_data, recipe, resolution=32, narrowing=narrowing)
    list(again.epochs())
    assert all(torch.equal(value, again.state()["model"][name]) for name, value in training.state()["model"].items())


def test_mixed_labels_train_networks_that_are_cut_too(tiny_spec, little_data, recipe):
    """A recipe applies whole: the same step without mixup and cutmix learns something else."""
    weights = []
    for share in (0.0, 1.0):
        mixed = recipe.replace(epochs=1, epoch_steps=3, mixup=share, cutmix=share)
        narrowing = Alternating(tiny_spec, tiny_spec.with_block(1, expanded=8))
        torch.manual_seed(0)
        training = Training(build_model(tiny_spec, 10), little_data, mixed, resolution=32, narrowing=narrowing)
        (metrics,) = training.epochs()
        assert math.isfinite(metrics.train_loss)
        weights.append(training.model.classifier[0].weight)
    assert not torch.equal(*weights)


def test_channels_beyond_a_narrow_network_stay_as_they_are(tiny_spec, little_data, recipe):
    narrower = tiny_spec.with_block(1, expanded=8)
    recipe = recipe.replace(epochs=1, epoch_steps=3, weight_decay=0.0)
    torch.manual_seed(0)
    model = build_model(tiny_spec, 10)
    training = Training(model, little_data, recipe, resolution=32, narrowing=Alternating(narrower, narrower))
    before = training.model.features[2].block[0][0].weight.detach().clone()
    list(training.epochs())
    after = training.model.features[2].block[0][0].weight
    assert torch.equal(after[8:], before[8:])
    assert not torch.equal(after[:8], before[:8])


def test_images_are_scaled_to_the_resolution_of_the_network_that_is_trained(
    tiny_spec, little_data, recipe, monkeypatch
):
    sides = []

    def logits(supernet, spec, images):
        sides.append(images.shape[-1])
        return real(supernet, spec, images)

    real = Supernet.logits
    monkeypatch.setattr(Supernet, "logits", logits)
    higher = tiny_spec.replace(resolution=48)
    recipe = recipe.replace(epochs=1, batch_size=32)
    narrowing = Alternating(higher, tiny_spec)
    torch.manual_seed(0)
    training = Training(build_model(tiny_spec, 10), little_data, recipe, resolution=32, narrowing=narrowing)
    list(training.epochs())
    assert sides == [(48, 32)[drawn] for drawn in narrowing.drawn]
    assert set(sides) == {48, 32}
