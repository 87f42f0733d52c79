"""Measures a bundle's networks on this device; needs Python 3.10, numpy and onnxruntime.

    python measure.py --threads 4

writes a latency table for `python -m nas.search --table FILE`. A run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from nas.errors import NasError
from nas.files import make_folder, write_text
from nas.latency.device import Device, allowed_cores
from nas.latency.rows import CoRun, Measurement, measure_rows
from nas.latency.runtimes.onnx_runtime import OnnxRuntime
from nas.latency.table_file import NOISY, Reference, Row, RuntimeId, date, noisy_rows, table_file, table_text
from nas.latency.timing import Bench, Effort, Program, Visit

ARCHIVE, INDEX = "networks.zip", "index.json"
COMPILING = 0.4  # of the time a batch takes
DECIMALS = 6  # of the reference's time, as tables keep it


@dataclass(frozen=True)
class Graph:
    """An ONNX file of the archive, named by its part's key.

    `weights` are the places of the file that hold zeros and are filled with random numbers before it is loaded:
    offset (bytes), count, numpy's name of their type, standard deviation.
    """

    key: str
    macs: int
    visit: tuple[int, int]  # runs that warm up, runs that count
    weights: list[tuple[int, int, str, float]]

    @property
    def file(self) -> str:
        return f"{self.key}.onnx"

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return sum(count * np.dtype(kind).itemsize for _, count, kind, _ in self.weights)

    def filled(self, zeros: bytes) -> bytes:
        """The model with weights of the spread that it was built with, so that no activation becomes denormal."""
        model, rng = bytearray(zeros), np.random.default_rng(0)
        for offset, count, kind, std in self.weights:
            values = rng.standard_normal(count, np.float32) * np.float32(std)
            if np.dtype(kind).kind == "i":
                limits = np.iinfo(kind)
                values = np.clip(np.rint(values), limits.min, limits.max)
            np.frombuffer(model, kind, count, offset)[:] = values
        return bytes(model)


@dataclass(frozen=True)
class Batch:
    """Rows that are timed in one session, and the networks among which they are timed.

    `co_runs` are keys of networks, each with the keys of the rows whose sum it is and 1 or -1 for each.
    """

    keys: list[str]
    effort: tuple[float, int, int, float]
    co_runs: list[tuple[str, list[tuple[str, int]]]]


@dataclass(frozen=True)
class Bundle:
    """What a bundle's archive says of itself."""

    archive: zipfile.ZipFile
    id: str
    runtime_version: str  # that the bundle was made beside
    threads: int
    precision: str
    num_classes: int
    reference: dict[str, str]  # key, network, spec_id
    graphs: dict[str, Graph]
    batches: list[Batch]

    @property
    def rows(self) -> int:
        return sum(len(batch.keys) for batch in self.batches)

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Raises NasError if the archive is not there or damaged."""
        path = folder / ARCHIVE
        try:
            archive = zipfile.ZipFile(path)
            index = json.loads(archive.read(INDEX))
        except FileNotFoundError:
            raise NasError(f"{path}: no such file; unzip the whole bundle into one folder") from None
        except DAMAGED as error:
            raise _damaged(path, error) from None
        graphs = [Graph(**graph) for graph in index.pop("graphs")]
        batches = [Batch(**batch) for batch in index.pop("batches")]
        return cls(archive=archive, graphs={graph.key: graph for graph in graphs}, batches=batches, **index)

    def model(self, key: str) -> bytes:
        """A part's ONNX model, filled. Raises NasError if the archive is damaged."""
        graph = self.graphs[key]
        try:
            return graph.filled(self.archive.read(graph.file))
        except DAMAGED as error:
            raise _damaged(self.archive.filename, error) from None


# What zipfile and json raise for an archive that was cut or changed.
DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError)


def _damaged(path: Path | str | None, error: Exception) -> NasError:
    return NasError(f"{path}: cannot be read ({error}); unzip the bundle again")


@dataclass
class Log:
    """What was measured so far: a file that grows by a line a batch, so that a run killed at any moment goes on."""

    path: Path
    head: dict[str, Any]  # what a table holds besides its rows; a run goes on only if all of it but the date agrees
    reference_ms: float = float("inf")
    rows: dict[str, Row] = field(default_factory=dict)
    calibrations: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, head: dict[str, Any]) -> Log:
        """Begins a log, or goes on with the one that is there. Raises NasError if that is of another run."""
        make_folder(path.parent)
        log = cls(path, head)
        try:
            text = path.read_bytes() if path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]  # a line without its end was cut by a kill or a full disk
            if whole != text:
                os.truncate(path, len(whole))
        except OSError as error:
            raise NasError(f"{path}: cannot be read ({error.strerror})") from None
        if whole:
            log._read(whole.decode("utf-8", "replace").splitlines())
        else:
            log._append(head)
        return log

    def _read(self, lines: Sequence[str]) -> None:
        try:
            head, *batches = map(json.loads, lines)
            for name, value in self.head.items():
                if name != "created" and head[name] != value:
                    raise NasError(f"{self.path} is of another {name}")
            self.head = head
            for batch in batches:
                rows = {key: Row.from_dict(key, row) for key, row in batch["rows"].items()}
                self._take(rows, batch["reference_ms"], batch["calibrations"])
        except NasError as error:
            raise NasError(f"{error}; remove it to begin anew, or name another table with --out") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NasError(f"{self.path} is damaged ({error}); remove it to begin anew") from None

    def add(self, measured: Measurement) -> None:
        """Keeps a batch. Raises NasError if the disk takes no more."""
        reference_ms = round(measured.reference_ms, DECIMALS)
        calibrations = [] if measured.factor == 1.0 else [measured.calibration]
        rows = {key: row.to_dict() for key, row in measured.rows.items()}
        self._append({"reference_ms": reference_ms, "calibrations": calibrations, "rows": rows})
        self._take(measured.rows, reference_ms, calibrations)

    def _take(self, rows: dict[str, Row], reference_ms: float, calibrations: list[dict[str, Any]]) -> None:
        self.rows |= rows
        self.reference_ms = min(self.reference_ms, reference_ms)
        self.calibrations += calibrations

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise NasError(
                f"{self.path}: cannot be written ({error.strerror}); mend that and run again, what was measured is kept"
            ) from None


class ProgressLine:
    """One line on stderr that says how much is done and how long the rest takes; a line a tenth where it is no
    terminal."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._begun = time.monotonic()
        self._shown = -1

    def __call__(self, share: float, text: str) -> None:
        left = (time.monotonic() - self._begun) * (1 / share - 1) if share else float("nan")
        if self._out.isatty():
            self._out.write(f"\r{share:4.0%}  {text}, {duration(left)} left \033[K" + "\n" * (share >= 1))
        elif int(10 * share) > self._shown:
            self._shown = int(10 * share)
            self._out.write(f"{share:4.0%}  {text}, {duration(left)} left\n")
        self._out.flush()


def duration(seconds: float) -> str:
    """For people: "12 s", "3 min", "? s" where it is not known."""
    if seconds != seconds:
        return "? s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def measure(bundle: Bundle, runtime: OnnxRuntime, log: Log, progress: ProgressLine) -> None:
    """Adds to the log what it lacks of the bundle."""

    def program(key: str) -> Program:
        return Program(runtime.load(bundle.model(key)), Visit(*bundle.graphs[key].visit))

    bench = Bench.of(runtime.clock, runtime.threads, lambda: program(bundle.reference["key"]).run)
    missing = [batch for batch in bundle.batches if not log.rows.keys() >= set(batch.keys)]
    total, done = sum(work(bundle, batch) for batch in missing), 0.0
    for batch in missing:
        programs: dict[str, Program] = {}
        share_of_all, text = work(bundle, batch) / total, f"{len(log.rows)} of {bundle.rows} rows"

        def report(share: float, done: float = done, weight: float = share_of_all, text: str = text) -> None:
            progress(done + share * weight, text)

        needed = [*batch.keys, *(key for key, _ in batch.co_runs)]
        for number, key in enumerate(needed):
            programs[key] = program(key)
            report(COMPILING * (number + 1) / len(needed))
        measured = measure_rows(
            {key: programs[key] for key in batch.keys},
            bench,
            Effort(*batch.effort),
            known=log.rows,
            co_runs=[CoRun(programs[key], rows) for key, rows in batch.co_runs],
            rng=random.Random(0),
            on_progress=lambda share, report=report: report(COMPILING + (1 - COMPILING) * share),  # type: ignore[misc]
        )
        log.add(measured)
        done += share_of_all
    progress(1.0, f"{len(log.rows)} of {bundle.rows} rows")


def work(bundle: Bundle, batch: Batch) -> float:
    """About how long a batch takes to load and to time, in no unit: layers are slow beside their arithmetic."""
    _, min_rounds, *_ = batch.effort
    graphs = [bundle.graphs[key] for key in (*batch.keys, *(key for key, _ in batch.co_runs))]
    return sum(min_rounds * sum(graph.visit) / 3 * (20e6 + graph.macs) + 20 * graph.size for graph in graphs)


def run(folder: Path, argv: Sequence[str] | None = None) -> Path:
    """Measures the bundle unzipped in `folder` and gives the table's file. Raises NasError."""
    bundle = Bundle.open(folder)
    arguments = _parser(bundle).parse_args(argv)
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # looked up before onnxruntime flushes denormals to zero, which some numpy warn of
    runtime, device = OnnxRuntime(arguments.threads, bundle.precision), Device.this()
    name = RuntimeId.of(runtime)
    out = Path(arguments.out or table_file(device, name))
    if out.exists():
        raise NasError(f"{out} exists already; remove it, or name another file with --out")
    if name.version != bundle.runtime_version:
        print(f"note: the bundle was made beside onnxruntime {bundle.runtime_version}; the table says {name.version}")
    cores = len(allowed_cores()) or device.cores
    if name.threads > cores:
        print(f"warning: {name.threads} threads share {cores} cores; times will be long and restless", file=sys.stderr)
    print(f"device: {device.cpu}, {name}")
    head = {"created": date(), "bundle": bundle.id, "device": device.to_dict(), "runtime": asdict(name)}
    log = Log.open(out.with_name(f"{out.name}.log"), head)
    if log.rows:
        print(f"going on with {log.path}: {len(log.rows)} of {bundle.rows} rows")
    measure(bundle, runtime, log, ProgressLine(sys.stderr))
    text = table_text(
        created=log.head["created"],
        device=device,
        runtime=name,
        reference=Reference(bundle.reference["network"], bundle.reference["spec_id"], log.reference_ms),
        num_classes=bundle.num_classes,
        fidelity=None,
        calibrations=log.calibrations,
        rows=log.rows,
    )
    write_text(out, text)
    log.path.unlink()
    if noisy := noisy_rows(log.rows):
        print(f"{len(noisy)} rows stayed uncertain by over {NOISY:.0%}, such as {noisy[0]!r}")
    print(f"{out}: {len(log.rows)} rows, reference {bundle.reference['network']} {log.reference_ms:.2f} ms")
    return out


def main(folder: Path) -> None:
    """`run` as a command: a NasError becomes one line on stderr and status 2, Ctrl-C status 130."""
    try:
        run(folder)
    except NasError as error:
        print(f"measure.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nmeasure.py: interrupted; run it again to go on", file=sys.stderr)
        sys.exit(130)


def _parser(bundle: Bundle) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python measure.py", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=_threads, default=bundle.threads, metavar="N", help="default: %(default)s")
    parser.add_argument("--out", metavar="FILE", help="the table (default: named by this device, in this folder)")
    return parser


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
