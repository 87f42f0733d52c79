"""Spaces, networks and registered things by name, and spaces and networks in the user's own files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.accuracy import ESTIMATORS, load_estimator
from nas.arch.loading import load_fingerprinted_space, load_space, load_spec, space_names
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.errors import NasError
from nas.latency.runtimes import RUNTIMES
from nas.names import resolve
from nas.search.strategies import STRATEGIES

REPOSITORY = Path(__file__).parent.parent.parent
SMALL = (REPOSITORY / "search_spaces" / "mobilenet_v3_small.py").read_text(encoding="utf-8")


# Spaces -----------------------------------------------------------------------------------------------


def test_every_file_of_search_spaces_is_a_space_of_its_own_name() -> None:
    files = {path.stem for path in (REPOSITORY / "search_spaces").glob("*.py")} - {"__init__"}
    assert set(space_names()) == files >= {"mobilenet_v3_large", "mobilenet_v3_small", "once_for_all"}
    for name in space_names():
        assert load_space(name).name == name


def test_a_users_space_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SMALL.replace('name="mobilenet_v3_small"', 'name="mine"').replace("out=96", "out=88"))
    space = load_space(str(path))
    assert isinstance(space, SearchSpace)
    assert (space.name, space.stages[-1].out) == ("mine", 88)
    assert load_space(path) == space


def test_a_users_space_is_executed_once_for_each_content(tmp_path: Path) -> None:
    path, log = tmp_path / "mine.py", tmp_path / "log"
    text = f"from search_spaces.once_for_all import SPACE\nopen({str(log)!r}, 'a').write('executed ')\n"
    edited = f"{text}SPACE = SPACE.at([(1.0, 224)])\n"
    path.write_text(text)
    space, fingerprint = load_space(path), load_fingerprinted_space(path)[1]
    (tmp_path / "folder").mkdir()
    assert load_space(path) is load_space(str(path)) is load_space(tmp_path / "folder" / ".." / "mine.py") is space
    assert log.read_text() == "executed "

    path.write_text(edited)
    assert load_space(path) == space.at([(1.0, 224)])
    assert load_space(path) is load_space(path)
    assert log.read_text() == "executed executed "
    assert load_fingerprinted_space(path)[1] != fingerprint

    path.write_text(text)
    assert load_space(path) is space
    assert load_fingerprinted_space(path)[1] == fingerprint
    assert log.read_text() == "executed executed "


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for out in (88, 80):
        path.write_text(f"{SMALL.replace('out=96', f'out={out}')}")
        os.utime(path, (0, 0))
        assert load_space(path).stages[-1].out == out


def test_a_space_that_failed_is_executed_again(tmp_path: Path) -> None:
    path, ready = tmp_path / "mine.py", tmp_path / "ready"
    path.write_text(f"open({str(ready)!r})\nfrom search_spaces.once_for_all import SPACE\n")
    with pytest.raises(NasError, match="does not load"):
        load_space(path)
    ready.touch()
    assert load_space(path) == load_space("once_for_all")


def test_fingerprints_name_the_content_alone(tmp_path: Path) -> None:
    names = space_names()
    fingerprints = {load_fingerprinted_space(name)[1] for name in names}
    assert len(fingerprints) == len(names)
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in fingerprints)
    (tmp_path / "copy.py").write_bytes((REPOSITORY / "search_spaces" / f"{names[0]}.py").read_bytes())
    assert load_fingerprinted_space(tmp_path / "copy.py")[1] == load_fingerprinted_space(names[0])[1]
    with pytest.raises(NasError, match="unknown search space 'none'"):
        load_fingerprinted_space("none")[1]
    with pytest.raises(NasError, match=r"none\.py: this search space does not load \(FileNotFoundError"):
        load_fingerprinted_space(tmp_path / "none.py")[1]


def test_a_relative_path_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("from search_spaces.once_for_all import SPACE\n")
    assert load_space("mine.py") == load_space("once_for_all")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must set SPACE to a nas.SearchSpace; search_spaces/mobilenet_v3_large.py is an example"),
        ("SPACE = {}", "must set SPACE"),
        ("from nas.arch.space import SearchSpace as SPACE", "must set SPACE"),
        ("SPACE = (", "does not load (SyntaxError: "),
        ("import no_such_module", "does not load (ModuleNotFoundError: No module named 'no_such_module')"),
        ("1 / 0", "does not load (ZeroDivisionError: "),
        ("from nas.arch.skeleton import Stage\nStage(out=0, stride=1)", "does not load (NasError: out is 0"),
        ("from nas.arch.skeleton import Stage\nStage(24, 1)", "does not load (TypeError: "),
        ("\x00", "does not load (SyntaxError: "),
    ],
)
def test_a_users_space_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(NasError) as caught:
        load_space(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NasError, match=r"none\.py: this search space does not load \(FileNotFoundError"):
        load_space(str(tmp_path / "none.py"))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(NasError, match=r"folder\.py: this search space does not load \("):
        load_space(str(tmp_path / "folder.py"))
    (tmp_path / "mine.txt").write_text("SPACE = 1")
    for name in ("mobilenet_v9", "", "mobilenet_v3_large.", str(tmp_path), str(tmp_path / "mine.txt"), "../x"):
        with pytest.raises(NasError, match=r"unknown search space .*; known: mobilenet_v3_large, .* a path to a \.py"):
            load_space(name)


# Networks ---------------------------------------------------------------------------------------------


def test_a_spec_by_name_width_and_resolution() -> None:
    assert load_spec("mobilenet_v3_large") == published_spec("mobilenet_v3_large")
    assert load_spec("mobilenet_v3_large@0.75", resolution=160).resolution == 160
    assert load_spec("mobilenet_v3_large", width=0.75) == published_spec("mobilenet_v3_large@0.75")
    assert load_spec("mobilenet_v3_large", width=0.75, scale_head=True).head.hidden == 960
    assert load_spec("hardcorenas_a", resolution=192).blocks == published_spec("hardcorenas_a").blocks


def test_a_spec_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, path = published_spec("mobilenet_v3_small").replace(name="mine"), tmp_path / "mine.json"
    spec.save(path)
    assert load_spec(path) == load_spec(str(path)) == spec
    assert load_spec(path, resolution=96) == spec.replace(resolution=96)
    spec.save(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert load_spec("mine.json") == load_spec("mine") == spec
    # A file does not hide a published network.
    spec.save(tmp_path / "mobilenet_v2")
    assert load_spec("mobilenet_v2") == published_spec("mobilenet_v2")


def test_a_spec_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        NasError, match=r"unknown network 'mobilenet_v9'; known: mobilenet_v1, .*, a path to a spec\.json"
    ):
        load_spec("mobilenet_v9")
    with pytest.raises(NasError, match=r"unknown network '\('; known"):
        load_spec("(")
    with pytest.raises(NasError, match="unknown network 'xxx"):
        load_spec("x" * 5_000)
    with pytest.raises(NasError, match=r"none\.json: no such file"):
        load_spec(tmp_path / "none.json")
    with pytest.raises(NasError, match="cannot be read"):
        load_spec(tmp_path)
    with pytest.raises(NasError, match="resolution is 16; it must be"):
        load_spec("mobilenet_v2", resolution=16)
    published_spec("mobilenet_v2").save(tmp_path / "a.json")
    with pytest.raises(NasError, match="the spec in a file has one width only"):
        load_spec(tmp_path / "a.json", width=0.5)
    with pytest.raises(NasError, match="the spec in a file has one width only"):
        load_spec(tmp_path / "a.json", scale_head=True)


@given(
    st.text(st.characters(exclude_characters="\0"), max_size=20),
    st.sampled_from([load_spec, load_space]),
    st.sampled_from(["", "/", ".json", ".py", "@"]),
)
def test_any_name_is_one_clear_line(text: str, load: Callable[[str], object], end: str) -> None:
    with pytest.raises(NasError):
        load(f"{text}{end}")


# Registries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("category", "known"), [("runtime", RUNTIMES), ("estimator", ESTIMATORS), ("strategy", STRATEGIES)]
)
def test_an_unknown_name_lists_the_known_ones(category: str, known: dict[str, str]) -> None:
    with pytest.raises(NasError) as caught:
        resolve(category, "abacus", known)
    assert str(caught.value) == f"unknown {category} 'abacus'; known: {', '.join(sorted(known))}"


def test_an_unknown_estimator() -> None:
    with pytest.raises(NasError, match=r"unknown estimator 'oracle'; known: .*imagenet-prior"):
        load_estimator("oracle")


@pytest.mark.parametrize(
    ("category", "name", "known"),
    [
        (category, name, known)
        for category, known in (("runtime", RUNTIMES), ("estimator", ESTIMATORS), ("strategy", STRATEGIES))
        for name in known
    ],
)
def test_every_name_leads_to_an_attribute(category: str, name: str, known: dict[str, str]) -> None:
    """Naming a runtime does not load it, so that this holds where it is not installed."""
    assert resolve(category, name, known) is not None
