import copy

import pytest
import torch
from torch import nn

from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.registry import load_spec
from nas.training.data import EMBEDDED, Data, TensorImages, load_data
from nas.training.loop import Training, evaluate
from nas.training.recipes import load_recipe


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
    loss, top1 = evaluate(training.kept, little_data.val.batches(64, 32))
    assert (top1, pytest.approx(loss)) == (rows[-1].top1, rows[-1].val_loss)


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


def test_goes_on_from_a_state_as_if_never_stopped(tiny_spec, little_data, recipe):
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


def test_average_of_weights_forgets_the_start():
    """With the recipe's decay alone half of the average would be the initial weights after 69 steps."""
    from nas.training.loop import _moving_average

    average, update = [torch.zeros(3)], _moving_average(0.99)
    for step in range(1, 70):
        update(average, [torch.ones(3)], step)
    assert float(average[0][0]) > 0.99


def test_batch_norm_and_biases_do_not_decay(tiny_spec, little_data, recipe):
    decayed, others = new_training(tiny_spec, little_data, recipe).optimizer.param_groups
    assert decayed["weight_decay"] == recipe.weight_decay
    assert others["weight_decay"] == 0
    assert {parameter.ndim for parameter in others["params"]} == {1}
    model = build_model(tiny_spec, 10)
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


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
