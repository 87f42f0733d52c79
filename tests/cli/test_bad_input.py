"""Mistakes on the command line and in users' files: status 2, one clear line on stderr, nothing written or lost."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import synthetic
from support.synthetic import Machine

from nas import measure, train
from nas.accuracy import ESTIMATORS
from nas.arch.loading import space_names
from nas.arch.published import published_spec
from nas.cli.entry import run
from nas.latency.measuring import new_table
from nas.latency.runtimes import RUNTIMES
from nas.latency.table import LatencyTable
from nas.netadapt import __main__ as netadapt
from nas.report import __main__ as report
from nas.runs.folder import RunFolder, new_record
from nas.search import __main__ as search
from nas.search.request import SearchRequest, targets_of
from nas.search.strategies import STRATEGIES


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Go to an empty folder, where nothing is measured for real."""
    synthetic.empty_folder(monkeypatch, tmp_path)
    return synthetic.install(monkeypatch)


Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], machine: Machine) -> Refused:
    """Run a command as its user does, and return the one line on stderr without the command's name."""

    def call(command: ModuleType, *arguments: str, measured: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", [str(command.__file__), *arguments])
        before = listing()
        name = command.__name__.removesuffix(".__main__").removeprefix("nas.")
        with pytest.raises(SystemExit) as end:
            run(name, command.main)
        assert end.value.code == 2
        errors = capsys.readouterr().err
        line, empty = errors.split("\n")
        assert line.startswith(f"nas.{name}: error: ")
        assert empty == ""
        assert len(line) < 800
        if not measured:
            assert listing() == before, "something was written"
            assert not machine.ran, "something was measured first"
        return line.partition("error: ")[2]

    return call


def listing() -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))}


def searched(*arguments: str) -> tuple[str, ...]:
    """Return the arguments of a valid search, and then these."""
    few = ("--large-space", "few.py", "--small-space", "few.py")
    return ("--budget-ms", "1", *few, "--runtime", "synthetic", *arguments)


# nas.search -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "-1", "-0.0", "nan", "inf", "1e999", "fast", "", "20ms"])
@pytest.mark.parametrize("flag", ["--budget-ms", "--small-budget-ms", "--widths"])
def test_numbers_that_are_no_milliseconds(refused: Refused, flag: str, value: str) -> None:
    line = refused(search, *searched(flag, value))
    assert line == f"argument {flag}: {value!r} is not a finite number above 0"


@pytest.mark.parametrize("flag", ["--small-budget-ms", "--widths"])
def test_flags_of_one_number_take_no_list(refused: Refused, flag: str) -> None:
    assert refused(search, *searched(flag, "2,5")) == f"argument {flag}: '2,5' is not a finite number above 0"


@pytest.mark.parametrize(
    ("value", "wrong"),
    [("2,", ""), (",5", ""), ("2,,5", ""), ("2,0", "0"), ("2;5", "2;5"), ("2,-5", "-5"), ("2,5ms", "5ms")],
)
def test_several_budgets_are_each_a_number(refused: Refused, value: str, wrong: str) -> None:
    line = refused(search, *searched("--budget-ms", value))
    assert line == f"argument --budget-ms: {wrong!r} is not a finite number above 0"


def test_two_budgets_are_no_mistake(refused: Refused) -> None:
    """Two budgets are accepted, so that the error is about the unknown strategy."""
    line = refused(search, *searched("--budget-ms", "2,5", "--strategy", "nonesuch"))
    assert line.startswith("unknown strategy 'nonesuch'; known: ")
    line = refused(search, *searched("--budget-ms", "2,5,2"))
    assert line == "two budgets of Large are (nearly) 2 ms; name each once"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "argument --trials: '0' is not a whole number of at least 1"),
        (["--trials", "many"], "argument --trials: 'many' is not a whole number of at least 1"),
        (["--resolutions", "0"], "argument --resolutions: '0' is not a whole number of at least 1"),
        (["--seed", "x"], "argument --seed: "),
        (["--only", "medium"], "argument --only: invalid choice: 'medium'"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["--budget-ms"], "argument --budget-ms: expected one argument"),
    ],
)
def test_arguments_that_are_none(refused: Refused, arguments: list[str], message: str) -> None:
    assert refused(search, *searched(*arguments)).startswith(message)


def test_no_budget(refused: Refused) -> None:
    assert refused(search) == "one of --budget-ms and --front must be given"


@pytest.mark.parametrize(
    ("flag", "known"),
    [
        ("--large-space", space_names()),
        ("--small-space", space_names()),
        ("--runtime", RUNTIMES),
        ("--estimator", ESTIMATORS),
        ("--strategy", STRATEGIES),
        ("--recipe-level", ["mobilenet-v3", "torchvision"]),
    ],
)
def test_unknown_names_list_the_known_ones(refused: Refused, flag: str, known: list[str]) -> None:
    for name in ("nonesuch", "", "../nonesuch"):
        line = refused(search, *searched(flag, name))
        assert repr(name) in line
        assert all(other in line for other in known)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "broken.py: this search space does not load"),
        ("SPACE = (", "broken.py: this search space does not load (SyntaxError: "),
        ("1 / 0", "broken.py: this search space does not load (ZeroDivisionError: "),
        ("import nonesuch", "broken.py: this search space does not load (ModuleNotFoundError: "),
        ("SPACE = 1", "broken.py: the file must set SPACE to a nas.SearchSpace"),
        ("", "broken.py: the file must set SPACE to a nas.SearchSpace"),
        (synthetic.SPACE.replace("out=24", "out=0"), "broken.py: this search space does not load (NasError: "),
    ],
)
def test_spaces_that_do_not_load(refused: Refused, text: str | None, message: str) -> None:
    if text is not None:
        Path("broken.py").write_text(text, encoding="utf-8")
    assert refused(search, *searched("--large-space", "broken.py")).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--widths", "0.9"], "space few has no width 0.9; it has 0.75, 1"),
        (["--resolutions", "100"], "space few has no resolution 100; it has 96, 128"),
    ],
)
def test_variants_that_a_space_lacks(refused: Refused, arguments: list[str], message: str) -> None:
    assert refused(search, *searched(*arguments)).startswith(message)


def test_a_data_base_that_is_not_there(refused: Refused) -> None:
    """The error comes before the minutes that the latency table takes."""
    pytest.importorskip("psycopg", reason="the extra `distributed` is not installed")
    for url in ("nosuch://me@host/db", f"postgresql://me:secret@/db?host={Path.cwd()}"):
        line = refused(search, *searched("--storage", url, "--study", "s"))
        assert line.startswith(f"the storage {url.replace('secret', '***')} cannot be used (")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:sec@ret.invalid/x@localhost:1/db", "(the driver's message has a part of the password; write"),
        ("postgresql://me:sec/ret@localhost:1/db", "the storage postgresql://me:***@localhost:1/db cannot be used ("),
        ("postgresql://me@localhost:1/db?password=sec&ret=1", "postgresql://me@localhost:1/db?password=*** cannot be"),
        ("nosuch://me:sec/ret@host/db", "the storage nosuch://me:***@host/db cannot be used"),
        ("postgresql://me:secret/db", "--storage is not the URL of a data base, such as postgresql://"),
        ("me:secret@host/db", "--storage is not the URL of a data base, such as postgresql://"),
    ],
)
def test_no_part_of_a_password_is_in_an_error(refused: Refused, url: str, message: str) -> None:
    pytest.importorskip("psycopg", reason="the extra `distributed` is not installed")
    line = refused(search, *searched("--storage", url, "--study", "s"))
    assert message in line
    assert "sec" not in line
    assert "ret" not in line


def test_a_password_behind_a_misspelt_flag(refused: Refused) -> None:
    line = refused(search, *searched("--storge", "postgresql://me:sec/ret@host/db"))
    assert line == "unrecognized arguments: --storge postgresql://me:***@host/db"


# Tables -----------------------------------------------------------------------------------------------


@pytest.fixture
def table() -> dict[str, Any]:
    """Return a table of this machine in the form of its file."""
    made = new_table(synthetic.made_runtime())
    made.reference_ms = 4.0
    made.save("table.json")
    data: dict[str, Any] = json.loads(Path("table.json").read_text(encoding="utf-8"))
    LatencyTable.load("table.json").check_device()
    return data


TABLES: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "not JSON": (lambda table: "rows: many", "not JSON"),
    "empty": (lambda table: "", "not JSON"),
    "truncated": (lambda table: json.dumps(table)[:-9], "not JSON"),
    "a list": (lambda table: "[]", "must be a JSON object"),
    "newer": (lambda table: json.dumps(table | {"version": 5}), "a newer program wrote it"),
    "unknown key": (lambda table: json.dumps(table | {"colour": 1}), "unknown key 'colour'; known: "),
    "edited": (lambda table: json.dumps(table | {"reference": table["reference"] | {"ms": 5.0}}), "hash"),
    "NaN": (
        lambda table: json.dumps(
            table | {"rows": {"a": {"ratio": float("nan"), "quartiles": [1, 1], "count": 9, "error": 0}}}
        ),
        "row 'a' has the time nan",
    ),
    "another device": (
        lambda table: json.dumps(table | {"device": table["device"] | {"cpu": "Another CPU"}}),
        "of another device: Another CPU",
    ),
    "another runtime": (
        lambda table: json.dumps(table | {"runtime": table["runtime"] | {"name": "onnxruntime"}}),
        "of onnxruntime 1.0, 1 thread, float32; ask for that with --runtime onnxruntime",
    ),
}


@pytest.mark.parametrize("command", [search, measure], ids=["search", "measure"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_that_cannot_be_used(refused: Refused, table: dict[str, Any], name: str, command: ModuleType) -> None:
    broken, message = TABLES[name]
    Path("table.json").write_text(broken(table), encoding="utf-8")
    if command is search:
        line = refused(search, *searched("--table", "table.json"))
    else:
        line = refused(measure, "--space", "few.py", "--runtime", "synthetic", "--table", "table.json")
    assert line.startswith("table.json")
    assert message in line


@pytest.mark.parametrize("path", ["none.json", "folder", "few.py/table.json"])
def test_tables_that_are_no_files(refused: Refused, path: str) -> None:
    Path("folder").mkdir()
    assert refused(search, *searched("--table", path)).startswith(f"{path}: ")


def test_this_devices_own_broken_table(refused: Refused, table: dict[str, Any]) -> None:
    """The table is found without being named; the line says where it is."""
    own = new_table(synthetic.made_runtime()).path
    own.parent.mkdir()
    own.write_text("{", encoding="utf-8")
    assert refused(search, *searched()).startswith(f"{own}: not JSON")


# Folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["few.py", "few.py/run", "x" * 300, "/proc/run", "/dev/null/run"])
def test_folders_that_cannot_be_made(refused: Refused, out: str) -> None:
    line = refused(search, *searched("--out", out))
    assert line.startswith(f"{out}: this folder cannot be")


def begun(path: Path, **changes: Any) -> None:
    """Begin a run with the arguments of `searched()`."""
    few = {"large_space": "few.py", "small_space": "few.py", "runtime": "synthetic"}
    wanted = SearchRequest(targets=targets_of((1.0,)), **few, **changes)
    RunFolder.begin(path, new_record("python -m nas.search", wanted.arguments())).close()


def test_a_folder_that_holds_a_run(refused: Refused) -> None:
    begun(Path("run"))
    line = refused(search, *searched("--out", "run"))
    assert line == "run already holds a run; continue it with --resume, or name another folder with --out"
    line = refused(search, *searched("--out", "run", "--strategy", "tpe", "--resume"))
    assert line.startswith("run was begun with --strategy exact, not with --strategy tpe; ")
    line = refused(search, *searched("--out", "run", "--budget-ms", "2", "--resume"))
    assert line.startswith("run was begun with --budget-ms 1.0, not with --budget-ms 2.0; ")


def test_a_run_whose_files_are_broken(refused: Refused) -> None:
    begun(Path("run"))
    Path("run/run.json").write_text("{", encoding="utf-8")
    assert refused(search, *searched("--out", "run", "--resume")).startswith("run/run.json: not JSON")


def test_a_budget_that_cannot_be_kept(refused: Refused) -> None:
    line = refused(search, *searched("--budget-ms", "0.001", "--out", "run"), measured=True)
    assert line.startswith("no network of few is as fast as 0.001 ms on this device; the smallest feasible budget is")
    assert not Path("run/run.json").exists()


# nas.measure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "nonesuch"], "unknown search space 'nonesuch'; known: mobilenet_v3_large"),
        (["--runtime", "abacus"], "unknown runtime 'abacus'; known: "),
        (["--threads", "0"], "argument --threads: '0' is not a whole number of at least 1"),
        (["--budget-ms", "nan"], "argument --budget-ms: 'nan' is not a finite number above 0"),
        (["--networks", "-5"], "argument --networks: '-5' is not a whole number of at least 1"),
        (["--all", "--check"], "argument --check: not allowed with argument --all"),
        (["--check"], "there is no table of this device yet; `python -m nas.measure` makes one"),
        (["--bundle", "b.zip", "--profile", "mobilenet_v3_small"], "--bundle measures nothing here"),
    ],
)
def test_measurements_that_cannot_be(refused: Refused, arguments: list[str], message: str) -> None:
    assert refused(measure, "--space", "few.py", "--runtime", "synthetic", *arguments).startswith(message)


def test_measuring_into_a_table_of_other_threads(refused: Refused, table: dict[str, Any]) -> None:
    Path("table.json").write_text(json.dumps(table), encoding="utf-8")
    line = refused(measure, "--space", "few.py", "--runtime", "synthetic", "--threads", "2", "--table", "table.json")
    assert line.startswith("table.json is of synthetic 1.0, 1 thread, float32; ask for that with --threads 1")


def test_measuring_into_a_folder_that_cannot_be_made(refused: Refused) -> None:
    line = refused(measure, "--space", "few.py", "--runtime", "synthetic", "--table", "few.py/table.json")
    assert line.startswith("few.py: this folder cannot be made")


def test_the_smallest_budget_is_named_by_the_flag_that_sets_it(refused: Refused) -> None:
    arguments = searched("--only", "small", "--small-budget-ms", "0.001", "--out", "run")
    line = refused(search, *arguments, measured=True)
    assert "the smallest feasible budget is --small-budget-ms 0." in line
    assert "--only" not in line


# nas.netadapt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: SEED, --budget-ms"),
        (["nonesuch", "--budget-ms", "1"], "unknown network 'nonesuch'; known: "),
        (["mobilenet_v3_small", "--budget-ms", "0"], "argument --budget-ms: '0' is not a finite number above 0"),
        (["mobilenet_v3_small", "--budget-ms", "1", "--step", "2"], "a step's share of the latency is 2; it must be"),
        (["mobilenet_v3_small", "--budget-ms", "1", "--metric", "x"], "unknown metric 'x'; known: ratio, accuracy"),
        (["mobilenet_v3_small", "--budget-ms", "1", "--allow", "se", "x"], "unknown option to cut 'x'; known: stem, "),
        (["mobilenet_v3_small", "--budget-ms", "1", "--estimator", "x"], "unknown estimator 'x'; known: imagenet-"),
        (
            ["mobilenet_v3_small", "--budget-ms", "1", "--estimator", "short-training"],
            "--estimator short-training is for searches; name the images with --data alone, and cuts are ",
        ),
        (
            ["mobilenet_v3_small", "--budget-ms", "1", "--estimator", "replacement"],
            "--estimator replacement is for searches; name the images with --data alone, and cuts are ",
        ),
        (["mobilenet_v3_small", "--budget-ms", "1", "--data", "x"], "unknown data source 'x'; known: fashion-mnist-"),
        (
            ["mobilenet_v3_small", "--budget-ms", "1", "--data", "fashion-mnist-sample", "--recipe", "x"],
            "unknown recipe 'x'; known: ",
        ),
        (["mobilenet_v3_small", "--budget-ms", "1", "--out", "few.py"], "few.py: this folder cannot be made"),
    ],
)
def test_trimmings_that_cannot_be(refused: Refused, arguments: list[str], message: str) -> None:
    assert refused(netadapt, "--runtime", "synthetic", *arguments).startswith(message)


# nas.report -------------------------------------------------------------------------------------------


def test_reports_of_folders_without_a_run(refused: Refused) -> None:
    assert refused(report) == "the following arguments are required: RUN"
    for name in ("nowhere", "few.py"):
        assert refused(report, name).startswith(f"{name}: no such folder; name the folder that a run of nas.search")
    assert refused(report, ".").startswith(".: not a run folder, for it has no run.json; name one that nas.search")


def test_comparisons_that_cannot_be(refused: Refused) -> None:
    mixed = "few.py is a run and one.json a latency table; compare runs, or two tables"
    assert refused(report, "one.json", "few.py") == mixed
    assert refused(report, "one.json").startswith("one.json is a latency table; name a second one to compare it with")
    assert refused(report, "one.json", "two.json") == "one.json: no such file"
    assert refused(report, "one", "two", "--out", "all").startswith("one: no such folder; name the folder that a run")
    assert refused(report, "one", "--format", "png,eps") == (
        "argument --format: 'eps' is not a format of figures; known: png, svg, pdf"
    )


# nas.train --------------------------------------------------------------------------------------------


def change_block(data: dict[str, Any], **fields: Any) -> dict[str, Any]:
    blocks = list(data["blocks"])
    blocks[3] = blocks[3] | fields
    return data | {"blocks": blocks}


SPECS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any] | str], str]] = {
    "not JSON": (lambda spec: "{", "not JSON"),
    "a list": (lambda spec: "[]", "a spec must be a JSON object"),
    "newer": (lambda spec: spec | {"version": 2}, "a newer program wrote it"),
    "unknown key": (lambda spec: spec | {"colour": 1}, "unknown key 'colour'"),
    "unknown key of a block": (lambda spec: change_block(spec, colour=1), "block 3: unknown key 'colour'"),
    "no channels": (lambda spec: change_block(spec, out=0), "block 3: out is 0; it must be a whole number from 1"),
    "negative channels": (lambda spec: change_block(spec, expanded=-8), "block 3: expanded is -8"),
    "half channels": (lambda spec: change_block(spec, expanded=8.5), "block 3: expanded is 8.5"),
    "even kernel": (lambda spec: change_block(spec, kernel=4), "block 3: kernel is 4; it must be odd"),
    "low resolution": (lambda spec: spec | {"resolution": 31}, "resolution is 31; it must be a whole number from 32"),
    "no blocks": (lambda spec: spec | {"blocks": []}, "there are 0 blocks"),
}


@pytest.mark.parametrize("name", SPECS)
def test_specs_that_cannot_be_built(refused: Refused, name: str) -> None:
    broken, message = SPECS[name]
    data = broken(published_spec("mobilenet_v3_small").to_dict())
    Path("spec.json").write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    line = refused(train, "spec.json")
    assert line.startswith("spec.json: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json"], "none.json: no such file"),
        (["nonesuch"], "unknown network 'nonesuch'; known: "),
        (["mobilenet_v3_small", "--data", "nonesuch"], "unknown data source 'nonesuch'; known: fashion-mnist-sample, "),
        (["mobilenet_v3_small", "--data", "imagefolder:none"], "imagefolder:none: there are no images in none/train"),
        (["mobilenet_v3_small", "--recipe", "nonesuch"], "unknown recipe 'nonesuch'; known: "),
        (["mobilenet_v3_small", "--epochs", "0"], "argument --epochs: '0' is not a whole number of at least 1"),
        (["mobilenet_v3_small", "--resolution", "31"], "argument --resolution: 31 pixels; it must be from 32"),
        (["mobilenet_v3_small", "--seed", "-1"], "argument --seed: '-1' is not a whole number of at least 0"),
        (["mobilenet_v3_small", "--out", "few.py"], "few.py: this folder cannot be made"),
        ([], "the following arguments are required: SPEC"),
    ],
)
def test_trainings_that_cannot_be(refused: Refused, arguments: list[str], message: str) -> None:
    assert refused(train, *arguments).startswith(message)


# How commands end -------------------------------------------------------------------------------------


def test_ctrl_c_ends_with_one_line_and_status_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", [str(search.__file__), *searched("--out", "run")])
    monkeypatch.setattr("nas.latency.predictor.measure_missing", interrupted)
    with pytest.raises(SystemExit) as end:
        run("search", search.main)
    assert end.value.code == 130
    assert capsys.readouterr().err == "nas.search: interrupted; everything that was finished is kept\n"
    assert Path("run/run.json").exists(), "there is nothing to resume"


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", [str(search.__file__), *searched()])
    monkeypatch.setattr("nas.latency.predictor.measure_missing", broken)
    with pytest.raises(ZeroDivisionError):
        run("search", search.main)


def test_as_a_process() -> None:
    """A process ends with exit status, standard output and standard error as a shell sees them."""
    command = [sys.executable, "-m", "nas.search", "--budget-ms", "1", "--large-space", "nonesuch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nas.search: error: unknown search space 'nonesuch'; known: mobilenet_v3_large, ")
    assert done.stderr.count("\n") == 1
