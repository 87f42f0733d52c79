"""Bundles: what they hold, that measuring them elsewhere gives a table, and that no moment to be killed loses a run."""

import ast
import errno
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from support import synthetic
from support.synthetic import Machine, network_ms

from nas import measure
from nas.arch.cost import count_cost
from nas.arch.loading import load_space, load_spec
from nas.arch.parts import BlockPart, NetworkPart, Part, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec
from nas.errors import NasError
from nas.latency.bundle import runner, writing
from nas.latency.bundle.archive import ARCHIVE, Bundle, Graph
from nas.latency.bundle.formats import FORMATS
from nas.latency.bundle.runner import ProgressLine, duration
from nas.latency.bundle.writing import PlannedBatch, plan_batches, without_weights, write_bundle
from nas.latency.device import Device
from nas.latency.measuring import co_run_networks
from nas.latency.table import LatencyTable, default_path, space_parts
from nas.latency.throttling import Throttling
from nas.latency.timing import ANCHOR_RULE, REFERENCE_COPIES, ROW_RULE, StoppingRule, TimedRun

VARIANT = (0.75, 96)
COMPARED = load_spec("mobilenet_v3_small", resolution=96)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    path = tmp_path_factory.mktemp("space") / "few.py"
    path.write_text(synthetic.SPACE, encoding="utf-8")
    return load_space(path).at([VARIANT])


@pytest.fixture(scope="module")
def batches(space: SearchSpace) -> list[PlannedBatch]:
    return plan_batches([space], [], [COMPARED])


@pytest.fixture(scope="module")
def parts(batches: list[PlannedBatch]) -> dict[str, Part]:
    """All parts that run, by their keys."""
    run = [part for batch in batches for part in (*batch.parts, *map(NetworkPart, batch.co_run))]
    return {part.key: part for part in (*run, NetworkPart(COMPARED))}


@pytest.fixture(scope="module")
def zipped(batches: list[PlannedBatch], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    assert write_bundle(path, batches) == path.stat().st_size
    return path


@pytest.fixture(scope="module")
def few_zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_bundle(tmp_path_factory.mktemp("bundle") / "few.zip", "onnxruntime")


@pytest.fixture(scope="module", params=FORMATS)
def runtime(request: pytest.FixtureRequest) -> str:
    """A runtime that a bundle can be of."""
    pytest.importorskip(FORMATS[request.param].module)
    return request.param


@pytest.fixture(scope="module")
def few_of_runtime(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_bundle(tmp_path_factory.mktemp("bundle") / "few.zip", runtime)


def few_bundle(path: Path, runtime: str) -> Path:
    """Write the reference and the parts of one network in three batches of two rounds: a second on a real runtime."""
    anchors, rows = plan_batches([], [], [COMPARED])
    with pytest.MonkeyPatch.context() as patch:
        for rule in ("ANCHOR_RULE", "ROW_RULE"):
            patch.setattr(writing, rule, StoppingRule(1.0, 2, 2))
        batches = [anchors, PlannedBatch(rows.parts[:6], []), PlannedBatch(rows.parts[6:], [COMPARED])]
        write_bundle(path, batches, runtime=runtime)
    return path


def unzipped(path: Path, folder: Path) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


class Model(bytes):
    """A model of the archive, with its key."""

    key: str


class BundleRuntime(synthetic.SyntheticRuntime):
    """A runtime that runs a model on the machine as the part that its key names."""

    name = "onnxruntime"
    version = onnxruntime.__version__

    def __init__(self, threads: int, precision: str, machine: Machine, parts: dict[str, Part]) -> None:
        super().__init__(threads, machine=machine)
        self.precision = precision
        self.parts = parts

    def load(self, model: Model) -> TimedRun:
        part = self.parts[model.key]
        assert isinstance(part, NetworkPart) or onnx.load_from_string(model).graph.name == part.key
        return self.compile(part)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, parts: dict[str, Part], tmp_path: Path) -> Machine:
    """The device, in an empty folder."""
    machine, read = synthetic.install(monkeypatch), Bundle.model

    def model(self: Bundle, key: str) -> Model:
        found = Model(read(self, key))
        found.key = key
        return found

    monkeypatch.setattr(Bundle, "model", model)
    monkeypatch.setattr(Graph, "filled", lambda self, zeros: zeros)  # a test of its own, and slow
    monkeypatch.setattr(
        runner, "make_runtime", lambda name, threads, precision: BundleRuntime(threads, precision, machine, parts)
    )
    monkeypatch.setattr(runner, "usable_cores", lambda: 2)
    monkeypatch.setattr(runner, "quota_warning", lambda threads: None)
    monkeypatch.chdir(tmp_path)
    return machine


@pytest.fixture
def folder(zipped: Path, tmp_path: Path) -> Path:
    return unzipped(zipped, tmp_path / "bundle")


@pytest.fixture
def few_folder(few_zipped: Path, tmp_path: Path) -> Path:
    return unzipped(few_zipped, tmp_path / "few")


# What is in it ----------------------------------------------------------------------------------------


def test_what_a_search_asks_for_is_in_it(batches: list[PlannedBatch], space: SearchSpace) -> None:
    table = LatencyTable(device=Device.this(), runtime=None, reference_ms=1.0, path=Path())  # type: ignore[arg-type]
    wanted = [*space_parts(space), *parts_of(COMPARED), NetworkPart(published_spec("mobilenet_v3_large"))]
    wanted += [NetworkPart(end(variant)) for variant in space.variants for end in (space.smallest, space.largest)]
    keys = [part.key for batch in batches for part in batch.parts]
    assert set(keys) == {part.key for part in (*table.missing(wanted), table.reference)}  # known by definition
    assert len(keys) == len(set(keys))
    published = load_spec("mobilenet_v2")
    assert NetworkPart(published) in plan_batches([space], [published], [])[0].parts


def test_rows_are_timed_as_this_package_times_them(batches: list[PlannedBatch], space: SearchSpace) -> None:
    """Whole networks first, which set the reference time; then variant by variant, with the same co-run networks."""
    anchors, rows, others = batches
    assert {type(part) for part in anchors.parts} == {NetworkPart}
    assert (anchors.stopping_rule, rows.stopping_rule, others.stopping_rule) == (ANCHOR_RULE, ROW_RULE, ROW_RULE)
    assert (anchors.co_run, rows.co_run, others.co_run) == ([], co_run_networks(space), [])
    assert {part.key for part in space_parts(space)} <= {part.key for part in rows.parts}


def test_anchor_networks_fit_into_memory(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BATCH_BYTES", 8 << 20)
    specs = [space.sample(random.Random(seed)) for seed in range(20)]
    sizes = [[count_cost(part.spec).param_bytes for part in rows.parts] for rows in plan_batches([], specs, [])]
    assert sum(map(len, sizes)) == 21
    assert max(map(len, sizes)) > 1
    assert all(len(size) == 1 or sum(size) <= 8 << 20 for size in sizes)


def test_three_files_whose_weights_travel_light(zipped: Path, batches: list[PlannedBatch], tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped) as archive:
        assert archive.namelist() == ["README.txt", "measure.pyz", ARCHIVE]
        readme = archive.read("README.txt").decode()
    assert len(readme.splitlines()) == 5
    assert "python measure.pyz" in readme
    assert "--table FILE --allow-other-device --runtime onnxruntime --threads 1 --precision float32\n" in readme
    bytes_of_weights = sum(graph.size for graph in Bundle.open(unzipped(zipped, tmp_path / "x")).graphs.values())
    assert bytes_of_weights > 40e6
    assert zipped.stat().st_size < 0.01 * bytes_of_weights
    one, other = tmp_path / "one.zip", tmp_path / "other.zip"
    for path in (one, other):
        write_bundle(path, batches[-1:])
    assert one.read_bytes() == other.read_bytes()


PARTS = [
    BlockPart(BlockSpec(kernel=5, expanded=184, out=80, se=48, activation="hswish"), 80, 14),
    BlockPart(BlockSpec(op="sepconv", kernel=3, expanded=16, out=16, activation="relu6"), 16, 32),
    *list(parts_of(COMPARED))[:: len(COMPARED.blocks) + 1],
    NetworkPart(COMPARED),
]


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("runtime", FORMATS)
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.key.replace(" ", "_"))
def test_a_model_is_filled_with_weights_like_its_own(part: Part, runtime: str, precision: str) -> None:
    """The same bytes outside the weights; inside, the same spread, and neither zeros nor denormal numbers."""
    files = FORMATS[runtime]
    pytest.importorskip(files.module)
    graph, zeros = without_weights(part, files, precision)
    filled, original = graph.filled(zeros), files.part_file(part, precision)
    assert len(filled) == len(zeros) == len(original)
    if runtime == "onnxruntime":
        onnx.checker.check_model(onnx.load_from_string(zeros))
    assert (graph.key, graph.file) == (part.key, f"{part.key}.{files.suffix}")
    assert graph.macs == sum(layer.macs for layer in part.layers())
    places = np.ones(len(filled), bool)
    for offset, count, kind, _ in graph.weights:
        places[offset : offset + count * np.dtype(kind).itemsize] = False
    own = np.frombuffer(original, np.uint8)
    assert (own == np.frombuffer(filled, np.uint8))[places].all()
    assert (np.frombuffer(zeros, np.uint8)[~places] == 0).all()
    context = context_of(part)
    layers = [*(context.layers() if context else []), *part.layers()]
    sizes = [layer.kernel**2 * layer.in_channels // layer.groups * layer.out_channels for layer in layers]
    itemsize = 4 if precision == "float32" else 1
    assert (~places).sum() >= sum(itemsize * size for size in sizes if itemsize * size >= writing.INLINE)
    mine, theirs = (dict(files.constants_in(content)) for content in (filled, original))
    assert mine.keys() == theirs.keys()
    assert sum(values.size for values in theirs.values()) >= sum(sizes)
    for place, expected in theirs.items():
        values = mine[place]
        assert values.std() == pytest.approx(expected.std(), rel=0.1) or values.size < 1000
        assert np.isfinite(values).all()
        if values.dtype == np.float32 and values.size > 1:
            assert (np.abs(values) > np.finfo(np.float32).tiny).all()
            assert (np.sign(values) == 1).all() == (expected > 0).all()  # scales stay above zero


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.empty_folder(monkeypatch, tmp_path)
    command = ["--space", "few.py", "--bundle", "b.zip"]
    measure.main([*command, "--widths", "1", "--resolutions", "96", "--threads", "2"])
    found = Bundle.open(unzipped(Path("b.zip"), tmp_path / "x"))
    assert " --runtime onnxruntime --threads 2 --precision float32" in Path("x/README.txt").read_text(encoding="utf-8")
    assert f"b.zip: {found.rows} rows, 0." in capsys.readouterr().out
    assert found.threads == 2
    wanted = space_parts(load_space("few.py").at([(1.0, 96)]))
    assert {part.key for part in wanted} < set(found.graphs)
    assert NetworkPart(published_spec("mobilenet_v3_small")).key in found.graphs
    for flags in (
        ["--budget-ms", "3"],
        ["--check"],
        ["--table", "x.json"],
        ["--networks", "5"],
        ["--allow-other-device"],
    ):
        with pytest.raises(NasError, match=f"--bundle measures nothing here: .*--android.* only, not with {flags[0]}"):
            measure.main([*command, *flags])
    with pytest.raises(NasError, match="loads files: --runtime onnxruntime or litert, not torch"):
        measure.main([*command, "--runtime", "torch"])
    with pytest.raises(NasError, match="onnxruntime has no precision 'int4'; it has float32, int8"):
        measure.main([*command, "--precision", "int4"])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        with pytest.raises(NasError, match=r"not installed .*`uv sync --extra litert` or `pip install ai-edge-litert`"):
            measure.main([*command, "--runtime", "litert"])
    with pytest.raises(NasError, match=r"space few has no width 0\.3"):
        measure.main([*command, "--widths", "0.3"])


# Measuring --------------------------------------------------------------------------------------------


def test_the_table_is_one_of_this_package(
    machine: Machine, folder: Path, space: SearchSpace, batches: list[PlannedBatch], capsys: pytest.CaptureFixture[str]
) -> None:
    begun = datetime.now(UTC).replace(microsecond=0)
    path = runner.run(folder, ["--threads", "1"])
    table = LatencyTable.load(path)
    assert path == Path(default_path(table.device, table.runtime).name)
    table.check_device()
    assert str(table.runtime) == f"onnxruntime {onnxruntime.__version__}, 1 thread, float32"
    assert table.created.endswith("+00:00")
    assert begun <= datetime.fromisoformat(table.created) <= datetime.now(UTC)
    keys = {part.key for batch in batches for part in batch.parts}
    co_run = {NetworkPart(spec).key for batch in batches for spec in batch.co_run}
    whole = {key for key in keys if key.startswith("network ")} - {table.reference.key}
    assert set(table.rows) == {key for key in keys if not key.startswith("network ")}
    assert set(table.networks) == whole | co_run
    assert {row.session for row in table.rows.values()} == {2, 3}  # the first timed whole networks
    for network in table.networks.values():
        expected = network_ms(ArchSpec.from_dict(network.spec)) / network_ms(published_spec("mobilenet_v3_large"))
        assert network.ratio == pytest.approx(expected, abs=1e-6)
    specs = [space.sample(random.Random(seed)) for seed in range(10)]
    reference_ms = network_ms(published_spec("mobilenet_v3_large"))
    assert table.reference_ms == pytest.approx(reference_ms, abs=1e-6)
    assert table.predict_ms(specs) == pytest.approx([network_ms(s) for s in specs], abs=40e-7 * reference_ms)
    # Saved by the package itself it is the same file.
    text = path.read_text(encoding="utf-8")
    assert table.save().read_text(encoding="utf-8") == text
    assert os.listdir() == ["bundle", path.name] or os.listdir() == [path.name, "bundle"]
    out = capsys.readouterr().out
    counts = f"{len(table.rows)} rows, {len(table.networks)} networks"
    assert f"{path}: {counts}, reference mobilenet_v3_large {reference_ms:.2f} ms" in out
    assert f"next, where nas is: {table.runtime.search_command(path)}\n" in out
    with pytest.raises(NasError, match="exists already; remove it, or name another file with --out"):
        runner.run(folder, [])


def test_another_version_and_too_many_threads_are_reported(
    machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(BundleRuntime, "version", "1.20.1")
    table = LatencyTable.load(runner.run(folder, ["--threads", "3", "--out", "tables/mine.json"]))
    assert str(table.runtime) == "onnxruntime 1.20.1, 3 threads, float32"
    captured = capsys.readouterr()
    assert f"made beside onnxruntime {onnxruntime.__version__}; the table says 1.20.1" in captured.out
    assert "warning: 3 threads share 2 cores" in captured.err
    assert os.listdir("tables") == ["mine.json"]


def test_a_quota_below_the_threads_is_reported(
    machine: Machine, few_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "quota_warning", lambda threads: f"a quota stops {threads} threads")
    runner.run(few_folder, ["--threads", "3"])
    warned = capsys.readouterr().err
    assert "a quota stops 3 threads\n" in warned
    assert "share 2 cores" not in warned


def test_a_slowed_processor_is_reported_once(
    machine: Machine, few_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle has three sessions, and heat steps in during each."""
    counts = itertools.count()
    monkeypatch.setattr(Throttling, "_events", lambda self, cores: next(counts))
    runner.run(few_folder, [])
    assert capsys.readouterr().err.count("warning: the processor was slowed") == 1


def test_a_run_that_was_killed_goes_on(
    machine: Machine, few_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does so where the last line of its log is only half written, too."""
    whole = LatencyTable.load(runner.run(few_folder, ["--out", "whole.json"]))
    calls = iter(range(len(machine.compiled) - 1))

    def killed(self: BundleRuntime, model: bytes, original: Callable = BundleRuntime.load) -> TimedRun:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(BundleRuntime, "load", killed)
        with pytest.raises(KeyboardInterrupt):
            runner.run(few_folder, ["--out", "mine.json"])
    assert not Path("mine.json").exists()
    log = Path("mine.json.log")
    kept = log.read_bytes()
    head, *measured = map(json.loads, kept.splitlines())
    assert len(measured) > 1
    for cut in (0, 100, len(kept)):
        log.write_bytes(kept[: len(kept) - cut])
        left = measured if cut == 0 else measured[:-1] if cut <= 100 else []
        rows = sum(len(batch["rows"]) for batch in left)
        machine.compiled.clear()
        capsys.readouterr()
        table = LatencyTable.load(runner.run(few_folder, ["--out", "mine.json"]))
        anchors = 0 if left else 1  # the reference network, which has no row
        assert len(machine.compiled) == REFERENCE_COPIES + anchors + len(whole.rows) - rows + 1  # and its co_run
        assert table.rows.keys() == whole.rows.keys()
        assert [table.rows[key].ratio for key in table.rows] == pytest.approx([whole.rows[k].ratio for k in table.rows])
        assert table.networks.keys() == whole.networks.keys() == {NetworkPart(COMPARED).key}
        assert (table.created == head["created"]) or cut == len(kept)
        assert ("resuming mine.json.log: " in capsys.readouterr().out) == bool(left)
        assert not log.exists()
        Path("mine.json").unlink()


def interrupted(few_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the log of a run that was stopped after its first batch."""
    with monkeypatch.context() as patch:
        patch.setattr(runner, "StoppingRule", lambda *fields: next(rules))
        rules = iter([ANCHOR_RULE])
        with pytest.raises(StopIteration):
            runner.run(few_folder, ["--out", "mine.json"])
    assert len(Path("mine.json.log").read_text(encoding="utf-8").splitlines()) == 2
    return Path("mine.json.log")


def test_a_log_of_another_run_is_refused(machine: Machine, few_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, key = interrupted(few_folder, monkeypatch), NetworkPart(COMPARED).key
    text = log.read_text(encoding="utf-8")
    with pytest.raises(NasError, match=r"mine\.json\.log is of another runtime; remove it to begin anew, or name"):
        runner.run(few_folder, ["--out", "mine.json", "--threads", "2"])
    log.write_text(re.sub('"bundle": "..', '"bundle": "xx', text), encoding="utf-8")
    with pytest.raises(NasError, match="is of another bundle; remove it"):
        runner.run(few_folder, ["--out", "mine.json"])
    for damaged in (
        "[]\n",
        "{}\n",
        "x\n",
        text + "1\n",
        text + '{"rows": {}}\n',
        text + '{"reference_ms": 4.0, "networks": {}, "rows": {"a": {"ratio": -1, "quartiles": [1, 1]}}}\n',
        text + '{"reference_ms": 4.0, "networks": {"unknown": [0.5, 0.01]}, "rows": {}}\n',
        *(
            text + f'{{"reference_ms": 4.0, "networks": {{"{key}": [{ratio}, {error}]}}, "rows": {{}}}}\n'
            for ratio, error in (("-0.5", "0.01"), ("0", "0.01"), ("NaN", "0.01"), ("0.5", "-1"), ("0.5", "NaN"))
        ),
    ):
        log.write_text(damaged, encoding="utf-8")
        with pytest.raises(NasError, match="remove it to begin anew"):
            runner.run(few_folder, ["--out", "mine.json"])
    log.write_text(text, encoding="utf-8")
    assert runner.run(few_folder, ["--out", "mine.json"]).exists()


def test_a_full_disk_keeps_what_was_measured(
    machine: Machine, few_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = interrupted(few_folder, monkeypatch)
    rows = log.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            NasError, match=r"mine\.json\.log: cannot be written \(No space left on device\); what was measured is kept"
        ):
            runner.run(few_folder, ["--out", "mine.json"])
    assert log.read_bytes().startswith(rows)
    assert runner.run(few_folder, ["--out", "mine.json"]).exists()


def test_places_that_cannot_be_written_to(machine: Machine, few_folder: Path, tmp_path: Path) -> None:
    Path("file").write_text("", encoding="utf-8")
    for out in ("file/mine.json", "few"):
        with pytest.raises(NasError, match=r"cannot be made|exists already"):
            runner.run(few_folder, ["--out", out])
    assert not machine.ran


def test_bundles_that_are_not_whole(machine: Machine, few_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NasError, match=r"networks\.zip: no such file; unzip the whole bundle into one folder"):
        runner.run(tmp_path, [])
    archive = few_folder / ARCHIVE
    content = archive.read_bytes()
    archive.write_bytes(content[:-100])
    with pytest.raises(NasError, match=r"networks\.zip: cannot be read .*; unzip the bundle again"):
        runner.run(few_folder, [])
    archive.write_bytes(content[:200] + bytes(200) + content[400:])
    with pytest.raises(NasError, match=r"networks\.zip: cannot be read .*; unzip the bundle again"):
        runner.run(few_folder, [])


def test_a_line_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 11.0, 40.0])
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: next(now)))
    out = io.StringIO()
    line = ProgressLine(out)
    for share in (0.0, 0.25, 0.26, 1.0):
        line(share, "rows")
    assert out.getvalue().splitlines() == ["  0%  rows, ? s left", " 25%  rows, 30 s left", "100%  rows, 0 s left"]
    assert duration(600) == "10 min"
    line.say("a line")
    assert out.getvalue().endswith("left\na line\n")
    monkeypatch.setattr(out, "isatty", lambda: True)
    line.say("another")
    assert out.getvalue().endswith("\r\033[Kanother\n")


def test_the_program_is_the_same_bytes_and_old_pythons_read_it() -> None:
    """An old one reads far enough to say that it is too old."""
    files = FORMATS["onnxruntime"]
    assert writing.zipapp(files) == writing.zipapp(files)
    with zipfile.ZipFile(io.BytesIO(writing.zipapp(files))) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist()}
    assert json.loads(sources.pop("needed.json")) == {"numpy": "numpy", "onnxruntime": "onnxruntime"}
    assert list(sources) == ["__main__.py", *writing.FILES]
    assert list(writing.FILES) == sorted(writing.FILES)
    for name, source in sources.items():
        ast.parse(source, feature_version=(3, 4) if name == "__main__.py" else (3, 10))


# The program, on its own -------------------------------------------------------------------------------

BLOCKED = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'search_spaces', 'scipy', 'pandas']))"
# Lines of the log are flushed to the disk. The second is that of the first batch.
KILLED = f"""{BLOCKED}
import os, signal
flush, left = os.fsync, iter("1")
def fsync(descriptor):
    flush(descriptor)
    if not next(left, ""): os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync"""


def script(python: str | Path, folder: Path, *arguments: str, before: str = "") -> list[str]:
    """Return a command that runs the bundle's measure.pyz, after some statements if there are any."""
    if not before:
        return [str(python), "-I", str(folder / "measure.pyz"), *arguments]
    text = f"{before}\nimport runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return [str(python), "-I", "-c", text, str(folder / "measure.pyz"), *arguments]


def call(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def bare_python(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds numpy and a runtime, and nothing else."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    folder = tmp_path_factory.mktemp("bare") / "env"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    versions = [f"numpy=={np.__version__}", f"{FORMATS[runtime].package}=={version(FORMATS[runtime].package)}"]
    for command in (
        [uv, "venv", "-q", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "-q", "--python", str(python), *versions],
    ):
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"uv takes longer than a minute to install numpy and {runtime}")
        if result.returncode:
            pytest.skip(f"uv cannot install numpy and {runtime}: {result.stderr.strip()[-200:]}")
    return python


def test_in_an_environment_of_numpy_and_the_runtime(
    few_of_runtime: Path, runtime: str, tmp_path: Path, bare_python: Path
) -> None:
    others = ["torch", "onnx", "nas", "scipy", *(files.module for name, files in FORMATS.items() if name != runtime)]
    check = f"import importlib.util as u; print(*(n for n in {others} if u.find_spec(n)))"
    assert call([str(bare_python), "-I", "-c", check], tmp_path).stdout.strip() == ""
    folder = unzipped(few_of_runtime, tmp_path / "bundle")
    result = call(script(bare_python, folder, "--out", "mine.json"), tmp_path)
    assert result.returncode == 0, result.stderr
    table = LatencyTable.load(tmp_path / "mine.json")
    table.check_device()
    assert 0 < table.predict_ms([COMPARED])[0] < table.reference_ms
    assert (table.runtime.name, table.runtime.version) == (runtime, version(FORMATS[runtime].package))
    help_text = call(script(bare_python, folder, "--help"), tmp_path).stdout
    assert "--threads" in help_text


def test_killed_without_warning_it_goes_on(few_of_runtime: Path, tmp_path: Path) -> None:
    """It loads neither torch nor onnx, nor this package from where it is installed."""
    folder = unzipped(few_of_runtime, tmp_path / "bundle")
    command = script(sys.executable, folder, "--out", "mine.json", before=BLOCKED)
    log = tmp_path / "mine.json.log"
    killed = call(script(sys.executable, folder, "--out", "mine.json", before=KILLED), tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    head, *rows = [json.loads(line).get("rows", {}) for line in log.read_text(encoding="utf-8").splitlines()]
    assert (head, len(rows)) == ({}, 1)
    assert not (tmp_path / "mine.json").exists()
    result = call(command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "resuming mine.json.log: " in result.stdout
    table = LatencyTable.load(tmp_path / "mine.json")
    assert all(table.rows[key].ratio == row["ratio"] for batch in rows for key, row in batch.items())


def test_what_stops_the_script_is_one_line(few_of_runtime: Path, runtime: str, tmp_path: Path) -> None:
    folder, files = unzipped(few_of_runtime, tmp_path / "bundle"), FORMATS[runtime]
    for before, expected in (
        (
            f"import sys; sys.modules['{files.module}'] = None",
            f"`python -m pip install numpy {files.package}` installs the packages that it needs",
        ),
        ("import sys; sys.version_info = (3, 8, 1)", "this is Python 3.8, and it takes 3.10 or newer"),
        ("import os; os.chdir('/')", "networks.zip: cannot be read"),
    ):
        if "cannot be read" in expected:
            (folder / ARCHIVE).write_bytes(b"no zip")
        result = call(script(sys.executable, folder, before=before), tmp_path)
        assert result.returncode == 2
        assert re.fullmatch(textwrap.dedent(f"measure.pyz: error: .*{re.escape(expected)}.*\n"), result.stderr)
