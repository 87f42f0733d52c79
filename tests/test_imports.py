"""Imports run one way, and what needs no torch loads none.

The table below is the plan of the house. A new module belongs to a package of it; a new arrow between packages
is a decision, to be taken here.
"""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parent.parent


class Package(NamedTuple):
    """`may_import` names other packages; `third_party` is None where anything may be imported."""

    modules: tuple[str, ...]  # names or patterns
    may_import: tuple[str, ...] = ()
    third_party: tuple[str, ...] | None = ()


# From the ground up: each may import some of those above it in this table.
PACKAGES = {
    "face": Package(("nas",)),
    "ground": Package(
        (
            *("nas.errors", "nas.files", "nas.names", "nas.utf8", "nas.console", "nas.cpu", "nas.quiet"),
            "nas.system_files",
            "nas.interrupts",
            "nas.litert",
        ),
        (),
        ("optuna",),
    ),
    "arch": Package(
        ("nas.arch", "nas.arch.*", "search_spaces", "search_spaces.*"),
        ("ground",),
        ("ai_edge_litert", "flatbuffers", "numpy", "onnx"),
    ),
    "models": Package(("nas.models", "nas.models.*"), ("ground", "arch"), ("fvcore", "numpy", "torch", "torchvision")),
    "training": Package(("nas.training", "nas.training.*"), ("ground", "arch", "models"), None),
    "latency": Package(("nas.latency", "nas.latency.*"), ("ground", "arch", "models"), None),
    "replacement": Package(("nas.replacement", "nas.replacement.*"), ("ground", "arch", "models", "training"), None),
    "accuracy": Package(
        ("nas.accuracy", "nas.accuracy.*"), ("ground", "arch", "models", "training", "replacement"), None
    ),
    "cli": Package(("nas.cli", "nas.cli.*"), ("ground", "arch", "latency", "accuracy"), ("rich",)),
    "runs": Package(
        ("nas.runs", "nas.runs.*"), ("ground", "arch", "latency"), ("filelock", "msgspec", "numpy", "optuna", "pandas")
    ),
    "pages": Package(("nas.pages", "nas.pages.*"), (), ("jinja2", "plotly")),
    "report": Package(
        ("nas.report", "nas.report.*"),
        ("ground", "arch", "latency", "runs", "pages"),
        ("matplotlib", "msgspec", "numpy", "pandas"),
    ),
    "playground": Package(
        ("nas.playground", "nas.playground.*"), ("ground", "arch", "latency", "accuracy", "pages"), ("numpy",)
    ),
    "netadapt": Package(
        ("nas.netadapt", "nas.netadapt.*"),
        ("ground", "arch", "models", "training", "latency", "accuracy", "runs"),
        ("numpy", "torch"),
    ),
    "search": Package(
        ("nas.search", "nas.search.*"),
        ("ground", "arch", "models", "latency", "accuracy", "runs", "netadapt"),
        ("filelock", "msgspec", "numpy", "scipy", "optuna", "sqlalchemy"),
    ),
    "deploy": Package(("nas.deploy", "nas.deploy.*"), ("ground", "arch", "models", "training"), None),
    "commands": Package(
        (
            *("nas.__main__", "nas.measure", "nas.train", "nas.export", "nas.predict"),
            *("nas.search.__main__", "nas.netadapt.__main__", "nas.report.__main__", "nas.playground.__main__"),
        ),
        (
            *("ground", "arch", "models", "training", "latency", "cli", "accuracy"),
            *("runs", "report", "playground", "netadapt", "search", "deploy"),
        ),
        ("rich", "torch"),
    ),
}
HEAVY = ("torch", "torchvision", "onnxruntime", "openvino", "ai_edge_litert", "pandas", "matplotlib", "scipy", "optuna")
# Modules that must not load torch when they are imported; names or patterns.
NO_TORCH = (
    *("nas", *PACKAGES["ground"].modules, "nas.arch", "nas.arch.*", "nas.latency"),
    *(
        "nas.latency.*",
        "nas.accuracy",
        "nas.accuracy.estimator",
        "nas.accuracy.features",
        "nas.accuracy.*imagenet_prior",
        "nas.accuracy.nearest",
        "nas.accuracy.recipe_levels",
    ),
    *(
        "nas.runs",
        "nas.runs.*",
        "nas.pages",
        "nas.pages.*",
        "nas.report",
        "nas.report.*",
        "nas.playground",
        "nas.playground.*",
        "nas.search",
        "nas.search.*",
        "nas.cli",
        "nas.cli.*",
    ),
    *(
        "nas.netadapt",
        "nas.netadapt.algorithm",
        "nas.netadapt.proposals",
        "nas.netadapt.request",
        "nas.netadapt.run",
        "nas.netadapt.trimming",
    ),
    *("nas.netadapt.evaluators", "nas.netadapt.seed", "nas.netadapt.long_training"),
    *("search_spaces", "search_spaces.*", "nas.training.image_files", "nas.deploy.images"),
    *("nas.deploy.about", "nas.deploy.network", "nas.deploy.onnx_file", "nas.deploy.tflite_file"),
    *("nas.deploy.tflite_int8", "nas.deploy.prediction"),
    *PACKAGES["commands"].modules,
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


COMMANDS = [name for name in modules() if name in PACKAGES["commands"].modules]


def package_of(module: str) -> str:
    """The package of the table that a module belongs to; a command's `__main__` is none of its folder's."""
    if module in PACKAGES["commands"].modules:
        return "commands"
    packages = [
        name for name, package in PACKAGES.items() if any(fnmatch(module, pattern) for pattern in package.modules)
    ]
    assert len(packages) == 1, f"{module} must be in one package of the table, it is in {packages or 'none'}"
    return packages[0]


@cache
def imports(module: str) -> tuple[str, ...]:
    """Return a module's imports, anywhere in its file: modules of the project, others by the first name."""
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
            # `from nas import published` imports a module, `from nas.arch.published import FAMILIES` a name.
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield full if full in modules() else _known(source)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            target, colon, attribute = node.value.partition(":")  # of a registry, resolved when it is asked for
            if colon and attribute.isidentifier() and target in modules():
                yield target


def _known(name: str) -> str:
    return name if name in modules() else name.partition(".")[0]


def test_imports_are_read_from_the_code() -> None:
    """The reader itself, on a piece of code with every kind of import."""
    code = """
import os, nas.arch.spec
import torch.nn as nn
from nas.arch import cost
from nas.errors import NasError
from . import files
from .names import resolve
REGISTRY = {"torch": "nas.latency.runtimes.torch_eager:TorchEager"}
def later():
    from nas.latency import table
"""
    found = list(_imports(ast.parse(code), "nas.console", is_package=False))
    assert sorted(found) == sorted(
        [
            *("os", "nas.arch.spec", "torch", "nas.arch.cost", "nas.errors", "nas.files", "nas.names"),
            *("nas.latency.runtimes.torch_eager", "nas.latency.table"),
        ]
    )
    assert list(_imports(ast.parse("from . import table"), "nas.latency", is_package=True)) == ["nas.latency.table"]


def test_the_table_runs_one_way() -> None:
    """A package may import only those that stand above it in the table."""
    above: set[str] = set()
    for name, package in PACKAGES.items():
        assert set(package.may_import) <= above, f"{name}: {set(package.may_import) - above} come later"
        above.add(name)
    assert not any({"commands", "face"} & set(package.may_import) for package in PACKAGES.values())


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_what_its_package_may(module: str) -> None:
    name = package_of(module)
    package = PACKAGES[name]
    for imported in imports(module):
        if imported in modules():
            where = package_of(imported)
            assert where in (name, *package.may_import), f"{module} imports {imported}, which {name} may not"
        elif package.third_party is not None and imported not in sys.stdlib_module_names:
            assert imported in package.third_party, f"{module} imports {imported}, which {name} may not"


@pytest.mark.parametrize("name", PACKAGES)
def test_every_permission_is_used(name: str) -> None:
    """Every import that the table permits is used by some module."""
    package = PACKAGES[name]
    imported = {found for module in modules() if package_of(module) == name for found in imports(module)}
    used = {package_of(module) for module in imported if module in modules()}
    assert set(package.may_import) <= used, f"{name} imports nothing of {set(package.may_import) - used}"
    assert set(package.third_party or ()) <= imported, f"{name} imports nothing of {package.third_party}"


@pytest.mark.parametrize("module", [name for name in COMMANDS if name != "nas.__main__"])  # which runs any of them
def test_a_command_imports_no_other_command(module: str) -> None:
    assert not [name for name in imports(module) if name in modules() and package_of(name) == "commands"]


def test_modules_do_not_import_each_other_in_circles() -> None:
    todo = {name: {other for other in imports(name) if other in modules() and other != name} for name in modules()}
    for name in todo:  # for the sake of type checkers only, never at run time
        todo[name] -= for_types_only(name)
    while todo:
        leaves = [name for name, arrows in todo.items() if not arrows & todo.keys()]
        assert leaves, f"these modules import each other: {todo}"
        for name in leaves:
            del todo[name]


def for_types_only(module: str) -> set[str]:
    """Return what a module imports under `if TYPE_CHECKING:` and nowhere else."""
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
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_free_modules_load_no_torch() -> None:
    names = [name for name in modules() if any(fnmatch(name, pattern) for pattern in NO_TORCH)]
    if importlib.util.find_spec("ai_edge_litert") is None:
        names.remove("nas.arch.tflite_graph")  # the only one that imports an optional package at its top
    assert {"nas", "nas.arch.spec", "nas.arch.published", "nas.search.run"} <= set(names)
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
        f"print([name for name in ('numpy', *{HEAVY!r}) if name in sys.modules])"
    )
    assert report == "[]\n[]\n"


@pytest.mark.parametrize("module", COMMANDS)
def test_help_loads_nothing_heavy(module: str) -> None:
    """Help needs no torch, so that it answers in under a second."""
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
