import json

import pytest

from nas.errors import NasError
from nas.training.recipes import load_recipe, recipe_names


def test_every_recipe_loads_and_cites_its_source_and_result():
    assert recipe_names() == ["modern", "paper", "quick", "torchvision"]
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.source
        assert recipe.published


def test_a_recipe_of_one_s_own_is_named_by_its_file(tmp_path):
    modern = load_recipe("modern")
    values = modern.to_dict() | {"source": "me"}
    del values["name"]
    # Fields that a file leaves out have their defaults.
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in ("flip", "momentum")]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    assert load_recipe(str(tmp_path / "mine.toml")) == modern.replace(name="mine", source="me")


@pytest.mark.parametrize(("name", "times"), [("quick", 2), ("modern", 2), ("paper", 4), ("torchvision", 4)])
def test_learning_rate_follows_the_batch(name, times):
    recipe = load_recipe(name)
    larger = recipe.with_batch_size(4 * recipe.batch_size)
    assert larger.learning_rate == pytest.approx(times * recipe.learning_rate)
    assert larger.replace(batch_size=recipe.batch_size, learning_rate=recipe.learning_rate) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1}, "batch_size is 1; it must be a whole number of at least 2"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"start": 0}, "start is 0; it must be a number above 0, at most 1"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"flip": 1}, "flip is 1"),
        ({"erase": 1.5}, "erase is 1.5; it must be a number from 0 to 1"),
        ({"mixup": -0.1}, "mixup is -0.1"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; it must be one of adamw, rmsprop, sgd"),
        ({"schedule": "linear"}, "schedule is 'linear'; it must be one of one_cycle, cosine, steps"),
        ({"augment": "augmix"}, "augment is 'augmix'; it must be one of none, autoaugment, randaugment, trivial"),
        ({"warmup": 0.0}, "warmup is 0; one_cycle needs a warm-up above 0"),
        ({"source": 3}, "source is 3; it must be a text"),
    ],
)
def test_impossible_values_are_refused(change, message):
    with pytest.raises(NasError, match=message):
        load_recipe("quick").replace(**change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = = 3", "mine.toml: Invalid value"),
        ("epochs = 3", "mine.toml: 'source' is missing"),
        ("speed = 3", "mine.toml: unknown key 'speed'; known: name, source, published, epochs"),
    ],
)
def test_files_that_are_wrong_are_refused(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(NasError, match=message):
        load_recipe(str(path))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(NasError, match=r"unknown recipe 'slow'; known: .*quick.* a path"):
        load_recipe("slow")
