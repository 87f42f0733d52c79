import pytest

from nas.errors import NasError
from nas.training.recipes import load_recipe, recipe_names


def test_every_recipe_loads_and_cites_its_source():
    assert "quick" in recipe_names()
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.source


def test_a_recipe_of_one_s_own_is_named_by_its_file(tmp_path):
    quick = load_recipe("quick")
    lines = [f"{key} = {value!r}".lower() for key, value in quick.to_dict().items() if key not in ("name", "source")]
    (tmp_path / "mine.toml").write_text("\n".join([*lines, 'source = "me"']))
    assert load_recipe(str(tmp_path / "mine.toml")) == quick.replace(name="mine", source="me")


def test_learning_rate_follows_the_batch():
    quick = load_recipe("quick")
    assert quick.with_batch_size(4 * quick.batch_size).learning_rate == pytest.approx(2 * quick.learning_rate)


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
        ("speed = 3", "mine.toml: unknown key 'speed'; known: name, source, epochs"),
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
