"""Bundles for Android: what they hold, that the script survives a cut cable, and that its results become a table."""

import itertools
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic
from support.phone import Phone
from support.synthetic import network_ms, part_ms

from nas import measure
from nas.arch.loading import load_space, load_spec
from nas.arch.parts import NetworkPart, Part, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.errors import NasError
from nas.latency.bundle import android_writing
from nas.latency.bundle.android_results import AndroidResults, Visit, microseconds, timings_of
from nas.latency.bundle.android_writing import id_of, index_of, write_android_bundle
from nas.latency.bundle.formats import FORMATS
from nas.latency.bundle.writing import PlannedBatch, plan_batches
from nas.latency.predictor import open_table
from nas.latency.runtimes.litert import LiteRt
from nas.latency.table import LatencyTable
from nas.search import __main__ as search

COMPARED = load_spec("mobilenet_v3_small", resolution=96)
REFERENCE_MS = network_ms(published_spec("mobilenet_v3_large"))
START = "begin\t{id}\t11-1\t22-2\t80"


def parts_by_key(batches: list[PlannedBatch]) -> dict[str, Part]:
    found = [part for batch in batches for part in (*batch.parts, *map(NetworkPart, batch.co_run))]
    return {part.key: part for part in found}


@pytest.fixture(scope="module")
def few_batches() -> list[PlannedBatch]:
    """The reference network, and the parts of another one in a session with that one whole."""
    anchors, rows = plan_batches([], [], [COMPARED])
    return [anchors, PlannedBatch(rows.parts, [COMPARED])]


@pytest.fixture(scope="module")
def zipped(few_batches: list[PlannedBatch], tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ai_edge_litert")
    path = tmp_path_factory.mktemp("bundle") / "few.zip"
    size, unzipped = write_android_bundle(path, few_batches)
    assert size == path.stat().st_size
    assert size < 0.05 * unzipped
    return path


@pytest.fixture
def folder(zipped: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path / "the bundle")
    return tmp_path / "the bundle"


@pytest.fixture
def phone(tmp_path: Path, folder: Path, few_batches: list[PlannedBatch]) -> Phone:
    """A phone on which a part takes its time by `synthetic`."""
    phone, parts = Phone(tmp_path / "phone"), parts_by_key(few_batches)
    keys = json.loads((folder / "index.json").read_text(encoding="utf-8"))["keys"]
    phone.set_times({number: part_ms(parts[key]) for number, key in enumerate(keys)})
    return phone


# What is in it ----------------------------------------------------------------------------------------


def test_files_hold_weights_that_compress(zipped: Path, few_batches: list[PlannedBatch]) -> None:
    """They have the spread of those that the part was built with, and no two layers or channels are the same."""
    litert, parts = FORMATS["litert"], parts_by_key(few_batches)
    with zipfile.ZipFile(zipped) as archive:
        index = json.loads(archive.read("index.json"))
        networks = [f"networks/{number}.tflite" for number in range(len(index["keys"]))]
        assert archive.namelist() == ["README.txt", "measure.sh", "plan.txt", "index.json", *networks]
        assert len(archive.read("README.txt").decode().splitlines()) == 5
        for number in (0, 1, 5):
            run = LiteRt().interpreter(archive.read(f"networks/{number}.tflite"))
            run.invoke()
            outputs = run.get_tensor(run.get_output_details()[0]["index"])
            assert 0.001 < outputs.std() < 1e6
            file, part = archive.read(f"networks/{number}.tflite"), parts[index["keys"][number]]
            mine, built = dict(litert.constants_in(file)), dict(litert.constants_in(litert.part_file(part, "float32")))
            for place, values in built.items():
                assert mine[place].shape == values.shape
                assert np.isfinite(mine[place]).all()
                assert mine[place].std() == pytest.approx(values.std(), rel=0.15) or values.size < 1000
                if values.ndim == 4 and values.shape[1] == 1 and len(values) > 1:
                    rows = np.unique(mine[place].reshape(len(values), -1), axis=0)
                    assert len(rows) > 0.5 * min(android_writing.REPEATED, len(values))


def test_every_network_is_visited_in_every_round_among_the_reference(
    few_batches: list[PlannedBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of(few_batches, 1, "float32")
    assert index == index_of(few_batches, 1, "float32")
    assert index["keys"][0] == NetworkPart(published_spec("mobilenet_v3_large")).key
    (first, *_), rows = index["plan"], [network for session, network in index["plan"] if session == 1]
    assert first == (0, 0)
    counts = np.bincount(rows)
    assert set(counts[1:]) == {5}
    assert len(counts) == len(index["keys"]) == len(few_batches[1].parts) + 2
    gaps = np.diff([place for place, network in enumerate(rows) if network == 0])
    assert rows[0] == rows[-1] == 0
    assert gaps.max() == android_writing.BETWEEN_REFERENCES + 1
    others = [network for network in rows if network]
    size = len(others) // 5
    rounds = [others[start : start + size] for start in range(0, len(others), size)]
    assert all(sorted(one) == sorted(rounds[0]) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 5
    assert index_of(few_batches, 2, "float32")["id"] != index["id"] != index_of(few_batches, 1, "int8")["id"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    synthetic.empty_folder(monkeypatch, tmp_path)
    monkeypatch.setattr("nas.search.comparison.published_networks", lambda: [])
    command = ["--space", "few.py", "--widths", "1", "--resolutions", "96", "--bundle", "b.zip", "--android"]
    with pytest.raises(NasError, match="--android writes a bundle of LiteRT: it goes with --bundle"):
        measure.main(command)
    with pytest.raises(NasError, match="--android writes a bundle of LiteRT"):
        measure.main(["--android", "--runtime", "litert"])
    monkeypatch.setattr("nas.latency.bundle.writing.plan_batches", lambda *rest: plan_batches([], [], [COMPARED]))
    measure.main([*command, "--runtime", "litert", "--threads", "2", "--precision", "int8"])
    assert "MB unzipped; beside the phone unzip it and run measure.sh" in capsys.readouterr().out
    with zipfile.ZipFile("b.zip") as archive:
        index = json.loads(archive.read("index.json"))
    assert (index["threads"], index["precision"]) == (2, "int8")


# The script, on a phone that is a folder ------------------------------------------------------------------


def test_a_phone_is_measured_through_a_cable_that_is_cut(
    phone: Phone, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in the middle of a network, after the runs that warm up; what was measured is not measured again."""
    script, results = folder / "measure.sh", tmp_path / "results.txt"
    for cut in (30, 70):
        phone.write("cut", str(cut))
        stopped = phone.measure(script, cwd=tmp_path)
        assert stopped.returncode == 2
        assert "see to the phone and run the same command again" in stopped.stderr
        assert len(stopped.stderr.splitlines()) < 4
        text = results.read_text(encoding="utf-8")
        assert "9302814" not in text
        with pytest.raises(NasError, match=r"results\.txt was cut short: \d+ of \d+ visits are missing, so that "):
            AndroidResults.read(results)
        assert "no phone answers (error: no devices/emulators found)" in phone.measure(script, cwd=tmp_path).stderr
        assert results.read_text(encoding="utf-8") == text
        (phone.folder / "unplugged").unlink()
    results.write_text(text + "visit\t999\tcount=50 fir", encoding="utf-8")  # the power went, too
    done = phone.measure(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "results.txt is complete: python -m nas.measure --from results.txt" in done.stdout
    lines = results.read_text(encoding="utf-8").splitlines()
    numbers = [int(line.split("\t")[1]) for line in lines if line.startswith("visit")]
    plan = json.loads(lines[0])["plan"]
    assert [number for number in numbers if number] == list(range(1, len(plan) + 1))
    assert numbers.count(0) == 3  # at each start
    assert set((phone.folder / "masks").read_text(encoding="utf-8").split()) == {"2"}  # the faster core
    assert list((phone.folder / "tmp").iterdir()) == []
    assert "A1" not in "".join(lines[1:])  # the phone's own number
    assert "is complete" in phone.measure(script, cwd=tmp_path).stdout

    monkeypatch.chdir(tmp_path)
    measure.main(["--from", "results.txt", "--out", "phone.json"])
    out = capsys.readouterr().out
    assert "warning: the phone's speed changed" in out
    assert "--table phone.json --allow-other-device --runtime litert --threads 1 --precision float32" in out
    table = LatencyTable.load("phone.json")
    assert table.device.cpu == "Maker One 5, Cortex-A55 r2p0, Cortex-A78 r1p1"
    assert (table.device.os, table.device.governor, table.device.max_mhz) == ("Android 14", "schedutil", 2841)
    assert (table.device.cores, "asimddp" in table.device.flags) == (2, True)
    assert table.runtime.version.startswith("benchmark_model-")
    assert set(table.networks) == {NetworkPart(COMPARED).key}
    whole = network_ms(COMPARED) / REFERENCE_MS
    assert table.networks[NetworkPart(COMPARED).key].ratio == pytest.approx(whole, rel=0.01)
    for part in parts_of(COMPARED):
        assert table.rows[part.key].timed * REFERENCE_MS == pytest.approx(part_ms(part), rel=0.01)
        context = context_of(part)
        own_ms = part_ms(part) - (part_ms(context) if context else 0)
        assert table.timed_ms(part) / table.reference_ms * REFERENCE_MS == pytest.approx(own_ms, rel=0.02, abs=0.0005)
    assert table.predict_ms([COMPARED])[0] / table.reference_ms == pytest.approx(whole, rel=0.02)


def test_other_builds_of_the_program_and_older_phones(phone: Phone, folder: Path, tmp_path: Path) -> None:
    """Newer builds begin lines with INFO, and print percentiles; older phones end lines with a carriage return."""
    phone.info, phone.carriage_return = "INFO: ", "\r"
    phone.write("cut", "12")
    assert phone.measure(folder / "measure.sh", "--mask", "0X01", "--results", "mine.txt", cwd=tmp_path).returncode == 2
    text = (tmp_path / "mine.txt").read_text(encoding="utf-8")
    assert "\r" not in text
    assert " p5=" in text
    assert "INFO" not in text
    assert text.count("\nvisit\t") == 11
    assert set((phone.folder / "masks").read_text(encoding="utf-8").split()) == {"1"}


def test_the_script_refuses_what_would_mix_measurements(phone: Phone, folder: Path, tmp_path: Path) -> None:
    script = folder / "measure.sh"
    phone.write("cut", "3")
    assert phone.measure(script, cwd=tmp_path).returncode == 2
    (phone.folder / "unplugged").unlink()
    properties, program = (phone.folder / name for name in ("properties", "benchmark_model"))
    plan = folder / "plan.txt"
    for file, old, new, named in (
        (properties, "serialno=A1", "serialno=B2", "phone"),
        (program, "20.283ms", "20.284ms", "benchmark_model"),
        (plan, plan.read_text(encoding="utf-8")[:4], "aaaa", "bundle"),
    ):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        refused = phone.measure(script, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"results.txt is of another {named}; remove it to begin anew, or name another file" in refused.stderr
        file.write_text(text, encoding="utf-8")
    assert "of another mask of cores" in phone.measure(script, "--mask", "1", cwd=tmp_path).stderr
    (tmp_path / "else.txt").write_text("something\n", encoding="utf-8")
    for arguments, said in (
        (["--results", "else.txt"], "else.txt holds something else; name another file with --results"),
        (["--benchmark_model", "none"], "none: no such file; download benchmark_model for Android"),
        (["--mask"], "--mask needs a value"),
        (["--benchmark_model", ""], "--benchmark_model needs a value"),
        (["--results", "/nonexistent/r.txt"], "/nonexistent/r.txt cannot be written: its folder does not exist"),
        (["--results", "."], ". is a folder; name a file with --results"),
        (["--verbose"], "unknown argument --verbose"),
    ):
        refused = phone.measure(script, *arguments, cwd=tmp_path)
        assert (refused.returncode, said in refused.stderr, len(refused.stderr.splitlines())) == (2, True, 1)


def test_cores_that_the_phone_lacks_leave_no_results(phone: Phone, folder: Path, tmp_path: Path) -> None:
    """A mask that stood in the results would be that of every later start."""
    script = folder / "measure.sh"

    def refused(*arguments: str) -> str:
        done = phone.measure(script, *arguments, cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert not list(tmp_path.glob("results*"))
        return done.stderr

    for mask in ("zz", "0x", "-1", "0", "1;ls"):
        assert f"--mask {mask}: name cores by a number in hexadecimal, such as 80 for core 7" in refused("--mask", mask)
    assert "the phone runs nothing on the cores of mask 80 (taskset: failed to set" in refused("--mask", "80")
    plan = folder / "plan.txt"
    bundle, _, rest = plan.read_text(encoding="utf-8").split(" ", 2)
    plan.write_text(f"{bundle} 16 {rest}", encoding="utf-8")
    said = "the phone has 2 cores, and the bundle is for 16 threads; write one with --threads 2"
    assert said in refused()
    said = "the mask 80 names 1 core, and the bundle is for 16 threads; name more with --mask, or write a bundle with"
    assert said in refused("--mask", "80")
    plan.write_text(f"{bundle} 64 {rest}", encoding="utf-8")
    assert "the mask 123456789abcdef names 32 cores, and" in refused("--mask", "0x0123456789ABCDEF")
    plan.write_text(f"{bundle} 2 {rest}", encoding="utf-8")
    phone.write("cut", "3")
    phone.measure(script, cwd=tmp_path)
    assert set((phone.folder / "masks").read_text(encoding="utf-8").split()) == {"3"}


def test_the_script_does_not_go_on_after_a_lost_or_doubled_line(phone: Phone, folder: Path, tmp_path: Path) -> None:
    script, results = folder / "measure.sh", tmp_path / "results.txt"
    phone.write("cut", "12")
    phone.measure(script, cwd=tmp_path)
    (phone.folder / "unplugged").unlink()
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
    for edited in ([*lines[:-3], *lines[-2:]], [*lines, lines[-1]], [*lines[:-2], lines[-1], lines[-2]]):
        results.write_text("".join(edited), encoding="utf-8")
        done = phone.measure(script, cwd=tmp_path)
        assert "results.txt lacks lines or has them twice: it was edited; measure again into a new" in done.stderr
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_what_the_command_says_of_one_uncertain_row(
    few_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(tmp_path / "results.txt").write_text(few_text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LatencyTable, "noisy", lambda table: list(table.rows)[:1])
    measure.main(["--from", "results.txt", "--runtime", "litert", "--threads", "1"])
    out = " ".join(capsys.readouterr().out.split())
    assert "uncertain by over 10%: 1 row, for example" in out
    assert "close the phone's other apps, and measure again into a new file (--results)" in out
    assert "rows, 1 network, reference mobilenet_v3_large" in out


def test_a_network_that_does_not_run_is_named(phone: Phone, folder: Path, tmp_path: Path) -> None:
    (folder / "networks/0.tflite").write_bytes(b"")
    refused = phone.measure(folder / "measure.sh", cwd=tmp_path)
    assert refused.returncode == 2
    assert "visit 0 of " in refused.stderr
    assert "0.tflite, did not come to its end (ERROR: Benchmarking failed.); see to the phone" in refused.stderr


# Results --------------------------------------------------------------------------------------------------


def results_text(index: dict[str, Any], milliseconds: dict[str, float]) -> str:
    """Return complete results, in which each part takes its time."""
    lines = [json.dumps(index), "fact\tmodel\tTwo", "fact\tcpuinfo\tprocessor\t: 0", START.format(id=index["id"])]
    for number, (_, network) in enumerate(index["plan"], 1):
        time = 1000 * milliseconds[index["keys"][network]]
        low, high = int(time), int(time) + 1
        lines.append(f"visit\t{number}\tcount=1000 first={low} curr={low} min={low} max={high} avg={time:.6g} std=1")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def few_text(few_batches: list[PlannedBatch]) -> str:
    times = {key: part_ms(part) for key, part in parts_by_key(few_batches).items()}
    return results_text(index_of(few_batches, 1, "float32"), times)


def test_a_search_takes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert")
    synthetic.empty_folder(monkeypatch, tmp_path)
    synthetic.install(monkeypatch)
    monkeypatch.setattr("nas.report.writing.write_report", lambda path: path / "index.html")
    space: SearchSpace = load_space("few.py").at([(0.75, 96)])
    batches = plan_batches([space], [], [COMPARED])
    times = {key: part_ms(part) for key, part in parts_by_key(batches).items()}
    Path("results.txt").write_text(results_text(index_of(batches, 2, "int8"), times), encoding="utf-8")
    measure.main(["--from", "results.txt"])
    (path,) = Path("latency_tables").iterdir()
    assert path.name.endswith("litert-t2-int8.json")
    with pytest.raises(
        NasError, match=r"is of litert benchmark_model-22-2, 2 threads, int8; ask for that with --threads"
    ):
        open_table(path, "litert", 1, precision="int8", allow_other_device=True)
    with pytest.raises(NasError, match="ask for that with --precision int8"):
        open_table(path, "litert", 2, allow_other_device=True)
    with pytest.raises(NasError, match="is of another device: Two"):
        open_table(path, "litert", 2, precision="int8")
    table = open_table(path, "litert", 2, precision="int8", allow_other_device=True)
    assert table.reference_ms == pytest.approx(REFERENCE_MS, rel=0.001)
    specs = [space.sample(random.Random(seed)) for seed in range(10)]
    assert table.predict_ms(specs) == pytest.approx([network_ms(spec) for spec in specs], rel=0.01)
    command = "--large-space few.py --only large --widths 0.75 --resolutions 96 --budget-ms 0.4 --trials 4 --out run"
    table_flags = f"--table {path} --allow-other-device --runtime litert --threads 2 --precision int8"
    search.main([*command.split(), *table_flags.split()])
    assert "ms: predicted, not measured, for Two, litert benchmark_model-22-2" in capsys.readouterr().out
    with pytest.raises(NasError, match="exists already; remove it, or name another file with --out"):
        measure.main(["--from", "results.txt"])
    for flags, said in (
        (["--threads", "3"], "is of litert benchmark_model-22-2, 2 threads, int8; leave --threads 3 out"),
        (["--runtime", "torch"], "leave --runtime torch out"),
        (["--runtime", "onnxruntime"], "leave --runtime onnxruntime out"),
        (["--precision", "float32"], "leave --precision float32 out"),
        (["--networks", "5"], "--from measures nothing: it goes with --out only, not with --networks"),
        (["--allow-other-device"], "not with --allow-other-device"),
        (["--android"], "not with --android"),
        (["--check"], "--from measures nothing: it goes with --out only, not with --check"),
        (["--widths", "1"], "not with --widths"),
    ):
        with pytest.raises(NasError, match=said):
            measure.main(["--from", "results.txt", *flags])
    with pytest.raises(NasError, match="--out names the table of --from"):
        measure.main(["--out", "x.json"])


def test_files_that_are_no_whole_results_are_refused(few_text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.txt"
    head, *rest = few_text.splitlines(keepends=True)
    index = json.loads(head)
    visits = len(index["plan"])
    edited = json.dumps(index | {"threads": 4}) + "\n"
    newer = {**index, "format": "visits of an Android bundle, version 9"}
    start = START.format(id=index["id"]) + "\n"

    def line(number: int) -> str:
        return next(line for line in rest if line.startswith(f"visit\t{number}\t"))

    for text, said in (
        ("", "no results of an Android bundle; measure.sh of such a bundle writes them"),
        ("[]\n", "no results of an Android bundle"),
        ("visit\t1\tx\n", "no results of an Android bundle"),
        (head[:1000], "no results of an Android bundle"),
        (json.dumps(newer) + "\n", "and this program reads 'visits of an Android bundle, version 1'"),
        (edited + "".join(rest), "its first line does not fit its id: it was edited or cut"),
        (head, "holds no visit; connect the phone and run measure.sh"),
        (few_text[:-20], rf"was cut short: 1 of {visits} visits are missing, so that 1 of {len(index['keys'])} rows"),
        (few_text[: few_text.index("visit\t28\t")], f"was cut short: {visits - 27} of {visits} visits are missing"),
        (
            few_text + start.replace("11-1", "33-3"),
            "holds visits of more than one phone; measure each into",
        ),
        (few_text + start.replace("22-2", "33-3"), "more than one benchmark_model"),
        (few_text + start.replace("\t80", "\t40"), "more than one mask of cores"),
        (few_text.replace(start, start.replace(index["id"], "abc")), "more than one bundle"),
        (few_text.replace("avg=", "avg=x"), r"line 5 is damaged \('visit"),
        (few_text + "visit\t9999\tcount=2 curr=5(all same)\n", "is damaged"),
        (few_text + "visit\t-1\tcount=2 curr=5(all same)\n", "is damaged"),
        (few_text + "visit\t3\n", "is damaged"),
        (
            few_text + start + "visit\t3\tcount=2 curr=5(all same)\n",
            f"visit 3 comes after visit {visits}: ",
        ),
        (
            few_text.replace(line(27), 2 * line(27)),
            "visit 27 comes after visit 27: it was edited; ",
        ),
        (few_text.replace(line(27) + line(28), line(28) + line(27)), "visit 27 comes after visit 28: it was edited"),
        (few_text.replace(line(27), ""), r"the line of visit 27 is lost: it was edited; measure again into a new file"),
        (few_text[: few_text.index(line(28))] + start + line(28), "lacks visits of the reference network: it was ed"),
        (few_text + "begin\tx\n", "is damaged"),
        (few_text + "other\n", "is damaged"),
        (head + "visit\t1\tcount=2 curr=5(all same)\n", "line 2 is damaged"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(NasError, match=said) as error:
            AndroidResults.read(path)
        assert "\n" not in str(error.value)
    with pytest.raises(NasError, match="no such file"):
        AndroidResults.read(tmp_path / "none.txt")
    path.write_text(few_text + start + "visit\t0\tcount=2 curr=5(all same)\n", encoding="utf-8")
    assert len(AndroidResults.read(path).starts) == 2
    assert id_of(index) == index["id"]


def test_what_the_program_prints_of_a_networks_runs() -> None:
    """The slowest run is left out. A run is known to a microsecond, their mean to much less."""
    older = "count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732 std=1929"
    assert microseconds(older) == pytest.approx((50 * 79732 - 88213) / 49)
    assert microseconds(f"{older} p5=77500 median=79700 p95=83000") == microseconds(older)
    assert microseconds("count=50 curr=45(all same)") == 45
    assert microseconds("count=7 curr=45(all same) p5=45 median=45 p95=45") == 45
    assert microseconds("count=1 curr=45") == 45
    slow = "count=2 first=1200000 curr=1300000 min=1200000 max=1300000 avg=1.25e+06 std=50000"
    assert microseconds(slow) == 1200000
    for text in ("", "count=0", "count=50 curr=0(all same)", "count=50 first=1", "avg=3", older.replace("avg", "mean")):
        with pytest.raises(ValueError, match=r"^.*$"):
            microseconds(text)


def test_ratios_are_to_the_reference_of_that_moment() -> None:
    """The phone becomes slower from visit to visit, and is a third slower at its second start."""
    slowness = itertools.count(100)
    visits = []
    for start, factor in ((1, 1.0), (2, 1.33)):
        for network in (0, 1, 2, 0, 2, 1, 0, 1, 2):
            time = factor * (2000.0, 100.0, 500.0)[network] * next(slowness) / 100
            visits.append(Visit(start, 0, network, time))
    timings, reference_ms = timings_of(visits)
    assert timings.keys() == {1, 2}
    assert timings[1].ratio == pytest.approx(0.05, rel=0.01)
    assert timings[2].ratio == pytest.approx(0.25, rel=0.01)
    assert timings[1].count == 6
    assert 0 < timings[1].error < 0.02
    assert 2 < reference_ms < 2.4
