import pytest
import torch

from nas.models.mobilenet import build_model
from nas.training.optimization import make_optimizer, make_schedule, moving_average
from nas.training.recipes import SCHEDULES, load_recipe, recipe_names


def test_average_of_weights_forgets_the_start():
    """With the recipe's decay alone half of the average would be the initial weights after 69 steps."""
    average, update = [torch.zeros(3)], moving_average(0.99)
    for step in range(1, 70):
        update(average, [torch.ones(3)], step)
    assert float(average[0][0]) > 0.99


def test_batch_norm_and_biases_do_not_decay(tiny_spec, recipe):
    decayed, others = make_optimizer(build_model(tiny_spec, 10), recipe).param_groups
    assert decayed["weight_decay"] == recipe.weight_decay
    assert others["weight_decay"] == 0
    assert {parameter.ndim for parameter in others["params"]} == {1}
    model = build_model(tiny_spec, 10)
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_everything_decays_where_the_recipe_says_so(tiny_spec, recipe):
    groups = make_optimizer(build_model(tiny_spec, 10), recipe.replace(decay_norms=True)).param_groups
    assert [group["weight_decay"] for group in groups] == [recipe.weight_decay] * 2


@pytest.mark.parametrize(
    ("name", "optimizer", "values"),
    [
        ("paper", torch.optim.RMSprop, {"momentum": 0.9, "alpha": 0.9, "eps": 1e-3, "lr": 0.1}),
        ("torchvision", torch.optim.RMSprop, {"momentum": 0.9, "alpha": 0.9, "eps": 0.0316, "lr": 0.064}),
        ("modern", torch.optim.AdamW, {"initial_lr": 4e-3, "eps": 1e-8}),
    ],
)
def test_optimisers_are_those_of_the_recipes(tiny_spec, name, optimizer, values):
    made = make_optimizer(build_model(tiny_spec, 10), load_recipe(name))
    make_schedule(made, load_recipe(name), steps=4)
    assert type(made) is optimizer
    for group in made.param_groups:
        assert {key: group[key] for key in values} == values


def rates(recipe, steps: int) -> list[float]:
    """Return the learning rate of each step of a training whose epochs have `steps` steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], recipe.learning_rate)
    schedule = make_schedule(optimizer, recipe, steps)
    found = []
    for _ in range(steps * recipe.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_schedules_are_those_of_the_recipes():
    paper = rates(load_recipe("paper").replace(epochs=9), 10)
    assert paper == pytest.approx([0.1] * 30 + [0.099] * 30 + [0.09801] * 30)
    cosine = rates(load_recipe("modern").replace(epochs=20, learning_rate=1.0, warmup=0.1, start=0.01), 10)
    assert cosine[0] == pytest.approx(0.01)
    assert max(cosine) == cosine[20] == pytest.approx(1.0)
    assert cosine[110] == pytest.approx(0.5)
    assert cosine[-1] < 1e-3
    quick = load_recipe("quick").replace(epochs=20, learning_rate=1.0, warmup=0.1, start=0.1)
    one_cycle = rates(quick, 10)
    assert one_cycle[0] == pytest.approx(0.1)
    assert max(one_cycle) == one_cycle[19] == pytest.approx(1.0)
    assert one_cycle[-1] < 1e-3


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_for_any_number_of_steps(name):
    """Torch's one-cycle schedule divides by zero at 10 steps with a warm-up of 0.1, and gives a single step no rate."""
    recipe = load_recipe(name)
    for epochs in range(1, 41):
        found = rates(recipe.replace(epochs=epochs), 1)
        assert found[0] >= recipe.start * recipe.learning_rate
        assert max(found) <= recipe.learning_rate * (1 + 1e-9)
    assert rates(recipe.replace(epochs=1), 1) == [recipe.learning_rate]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.1, 0.25, 0.5])
def test_short_trainings_reach_the_largest_rate(schedule, warmup):
    recipe = load_recipe("quick").replace(schedule=schedule, warmup=warmup, start=0.01, learning_rate=1.0)
    for epochs in range(1, 21):
        found = rates(recipe.replace(epochs=epochs), 1)
        assert found[0] >= 0.01
        assert max(found) > 0.5
    assert rates(recipe.replace(epochs=1, warmup=0.9), 1) == [1.0]
