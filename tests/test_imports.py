"""Imports run one way, and what needs no torch loads none.

The table below is the plan of the house. A new module belongs into a room of it; a new arrow between rooms
is a decision, to be taken here.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parent.parent


class Room(NamedTuple):
    modules: tuple[str, ...]  # names or patterns
    may_import: tuple[str, ...] = ()  # rooms, or modules of rooms, besides the room itself
    packages: tuple[str, ...] | None = None  # third-party packages, also inside functions; None: any


BASE = ("errors", "files")
PLAIN = (*BASE, "spec", "space", "cost", "published", "registry")
TORCH_FREE = ("numpy", "scipy", "optuna", "pandas", "matplotlib", "rich", "onnx")
ROOMS = {
    "face": Room(("nas",), (), ()),
    "errors": Room(("nas.errors",), (), ()),
    "files": Room(("nas.files",), ("errors",), ()),
    "cli": Room(("nas.cli",), BASE, ("rich",)),
    "spec": Room(("nas.spec",), BASE, ()),
    "space": Room(("nas.space", "nas.additive"), (*BASE, "spec"), ("numpy",)),
    "cost": Room(("nas.cost",), (*BASE, "spec"), ()),
    "published": Room(("nas.published",), (*BASE, "spec"), ()),
    "search_spaces": Room(("search_spaces", "search_spaces.*"), ("spec", "space"), ()),
    "registry": Room(("nas.registry",), (*BASE, "spec", "space", "published", "search_spaces"), ()),
    "parts": Room(("nas.parts",), (*BASE, "spec", "cost"), ()),
    "onnx_graph": Room(("nas.onnx_graph",), (*BASE, "spec", "cost", "parts"), ("numpy", "onnx")),
    # Of models, the torch runtime alone has need, when it is asked for.
    "latency": Room(("nas.latency", "nas.latency.*"), (*PLAIN, "parts", "onnx_graph", "models")),
    "surrogate": Room(("nas.surrogate",), (*BASE, "spec", "space", "cost"), TORCH_FREE),
    "models": Room(("nas.models", "nas.models.*"), (*BASE, "spec", "cost")),
    "training": Room(("nas.training", "nas.training.*"), (*PLAIN, "models")),
    "estimators": Room(("nas.estimators", "nas.estimators.*"), (*PLAIN, "models", "training")),
    "strategies": Room(
        ("nas.strategies", "nas.strategies.*"),
        (*BASE, "spec", "space", "cost", "nas.latency.table", "surrogate"),
        TORCH_FREE,
    ),
    "deploy": Room(("nas.deploy", "nas.deploy.*"), (*PLAIN, "models", "training", "parts", "onnx_graph")),
    "front": Room(("nas.front",), (*BASE, "spec", "cost"), ("numpy",)),
    "reporting": Room(("nas.reporting", "nas.reporting.*"), (*PLAIN, "front"), TORCH_FREE),
    "run": Room(("nas.run",), (*PLAIN, "cli", "latency", "front"), TORCH_FREE),
    "pipeline": Room(
        ("nas.pipeline", "nas.pipeline.*"),
        (*PLAIN, "cli", "parts", "latency", "surrogate", "estimators", "strategies", "front", "reporting", "run"),
    ),
    "trimming": Room(
        ("nas.trimming", "nas.trimming.*"),
        (*PLAIN, "parts", "latency", "models", "training", "strategies", "run", "pipeline"),
    ),
    # The commands: short leaves, imported by nobody.
    "commands": Room(
        (
            *("nas.__main__", "nas.measure", "nas.search", "nas.train", "nas.netadapt", "nas.export"),
            *("nas.predict", "nas.report"),
        ),
        (
            *(*PLAIN, "cli", "parts", "onnx_graph", "latency", "surrogate", "models", "training", "estimators"),
            *("strategies", "deploy", "front", "reporting", "run", "pipeline", "trimming"),
        ),
    ),
}
HEAVY = ("torch", "torchvision", "onnxruntime", "openvino", "pandas", "matplotlib")
# Modules that must not load torch when they are imported; names or patterns.
NO_TORCH = (
    "nas",
    *("nas.errors", "nas.files", "nas.cli", "nas.spec", "nas.space", "nas.additive", "nas.cost", "nas.published"),
    *("nas.registry", "nas.parts", "nas.onnx_graph", "nas.latency", "nas.latency.*", "nas.surrogate", "nas.front"),
    *("nas.estimators", "nas.estimators.base", "nas.estimators.terms", "nas.estimators.*imagenet_prior"),
    *("nas.strategies", "nas.strategies.*", "nas.reporting", "nas.reporting.*", "nas.run", "nas.pipeline"),
    *("nas.pipeline.*", "nas.trimming", "nas.trimming.*"),
    *("search_spaces", "search_spaces.*"),
    *ROOMS["commands"].modules,
)


@cache
def modules() -> dict[str, Path]:
    """Every module of the project and its file."""
    found = {}
    for package in ("nas", "search_spaces"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


COMMANDS = [name for name in modules() if name in ROOMS["commands"].modules]


def room_of(module: str) -> str:
    rooms = [name for name, room in ROOMS.items() if any(fnmatch(module, pattern) for pattern in room.modules)]
    assert len(rooms) == 1, f"{module} must be in one room of the table, it is in {rooms or 'none'}"
    return rooms[0]


@cache
def imports(module: str) -> tuple[str, ...]:
    """What a module imports anywhere in its file: modules of the project, or other packages by their first name."""
    path = modules()[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(dict.fromkeys(_imports(tree, module, is_package=path.name == "__init__.py")))


def _imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_known(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                levels = node.level - is_package
                parents = module.split(".")[: -levels if levels else None]
                source = ".".join([*parents, *([source] if source else [])])
            # `from nas import published` imports a module, `from nas.published import FAMILIES` a name.
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield full if full in modules() else _known(source)


def _known(name: str) -> str:
    return name if name in modules() else name.partition(".")[0]


def test_imports_are_read_from_the_code() -> None:
    """The reader itself, on a piece of code with every kind of import."""
    code = """
import os, nas.spec
import torch.nn as nn
from nas import cost
from nas.errors import NasError
from . import space
from .published import FAMILIES
def later():
    from nas.latency import table
"""
    found = list(_imports(ast.parse(code), "nas.files", is_package=False))
    assert found == [
        *("os", "nas.spec", "torch", "nas.cost", "nas.errors", "nas.space", "nas.published", "nas.latency.table")
    ]
    assert list(_imports(ast.parse("from . import table"), "nas.latency", is_package=True)) == ["nas.latency.table"]


def test_the_table_runs_one_way() -> None:
    """No chain of permissions leads from a room back to itself."""
    todo = {
        name: {arrow if arrow in ROOMS else room_of(arrow) for arrow in room.may_import} for name, room in ROOMS.items()
    }
    while todo:
        leaves = [name for name, arrows in todo.items() if not arrows & todo.keys()]
        assert leaves, f"these rooms import each other: {sorted(todo)}"
        for name in leaves:
            del todo[name]
    assert not any("commands" in room.may_import or "face" in room.may_import for room in ROOMS.values())


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_what_its_room_may(module: str) -> None:
    room = ROOMS[room_of(module)]
    for imported in imports(module):
        if imported in modules():
            where = room_of(imported)
            allowed = where == room_of(module) or where in room.may_import or imported in room.may_import
            # A package stands for its __init__; what that hands on is checked where it is written.
            assert allowed, f"{module} imports {imported}, which its room ({room_of(module)}) may not"
        elif room.packages is not None and imported not in sys.stdlib_module_names:
            assert imported in room.packages, f"{module} imports {imported}, which its room may not"


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_imports_no_other_command(module: str) -> None:
    assert not [name for name in imports(module) if name in modules() and room_of(name) == "commands"]


def test_modules_of_a_room_do_not_import_each_other_in_circles() -> None:
    todo = {name: {other for other in imports(name) if other in modules() and other != name} for name in modules()}
    for name in todo:  # for the sake of type checkers only, never at run time
        todo[name] -= for_types_only(name)
    while todo:
        leaves = [name for name, arrows in todo.items() if not arrows & todo.keys()]
        assert leaves, f"these modules import each other: {todo}"
        for name in leaves:
            del todo[name]


def for_types_only(module: str) -> set[str]:
    """What a module imports under `if TYPE_CHECKING:` and nowhere else."""
    path = modules()[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    inside = {name for node in guarded for name in _imports(ast.Module(node.body, []), module, False)}
    for node in guarded:
        node.body = [ast.Pass()]
    return inside - set(_imports(tree, module, path.name == "__init__.py"))


def test_every_public_name_leads_to_a_definition() -> None:
    import nas

    for name, module in nas._PUBLIC.items():
        assert module in modules(), f"nas.{name} should come from {module}, which does not exist"
        tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        assert name in defined
    assert set(dir(nas)) == set(nas._PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'lode_spec'"):
        nas.lode_spec  # noqa: B018


# In a fresh interpreter -------------------------------------------------------------------------------


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_free_modules_load_no_torch() -> None:
    names = [name for name in modules() if any(fnmatch(name, pattern) for pattern in NO_TORCH)]
    assert {"nas", "nas.spec", "nas.published", "nas.registry"} <= set(names)
    report = python(
        f"import importlib, sys\n"
        f"for name in {names!r}:\n"
        f"    importlib.import_module(name)\n"
        f"    if 'torch' in sys.modules:\n"
        f"        print(name)\n"
        f"        break\n"
    )
    assert report == "", f"{report.strip()} loads torch"


def test_naming_things_loads_nothing_heavy() -> None:
    report = python(
        "import sys, nas\n"
        "nas.load_space('mobilenet_v3_large').sample(__import__('random').Random(0))\n"
        "nas.count_cost(nas.load_spec('hardcorenas_a'))\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert report == "[]\n"


def test_import_nas_alone_loads_no_package_at_all() -> None:
    report = python(
        "import sys, nas\n"
        "print([name for name in sys.modules if name.startswith('nas.')])\n"
        f"print([name for name in ('numpy', 'scipy', 'optuna', *{HEAVY!r}) if name in sys.modules])"
    )
    assert report == "[]\n[]\n"


@pytest.mark.parametrize("module", COMMANDS)
def test_help_loads_nothing_heavy(module: str) -> None:
    """So that it answers in under a second."""
    report = python(
        "import runpy, sys\n"
        "sys.argv = ['-', '--help']\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert f"usage: python -m {module.removesuffix('.__main__')} " in report
    assert report.endswith("heavy: []\n")
