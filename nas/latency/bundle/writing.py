"""Write a bundle: all that a device needs to measure a table where this package cannot be installed.

A bundle is one zip of three files: a README, the timed networks as ONNX or TFLite files, and a program. The weights in
these are zeros, which the device fills with random numbers, so that a gigabyte travels as a few megabytes. The
program is a zipapp of the modules that take times here, so that times are taken there in the same way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from nas.arch.cost import NUM_CLASSES, count_cost
from nas.arch.parts import NetworkPart, Part, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Progress
from nas.files import replacing
from nas.latency.bundle.archive import ARCHIVE, INDEX, Batch, Graph
from nas.latency.bundle.formats import FileFormat, format_of
from nas.latency.bundle.runner import PROGRAM
from nas.latency.measuring import co_run_networks, iterations_of
from nas.latency.runtimes import make_runtime
from nas.latency.table import REFERENCE, space_parts
from nas.latency.table_file import RuntimeId
from nas.latency.timing import ANCHOR_RULE, ROW_RULE, StoppingRule

README = "README.txt"
NEEDED = "needed.json"  # of the program: its packages by their modules
START = "nas/latency/bundle/start.py"  # the `__main__.py` of the program
# The files of the program. Their modules import the standard library, numpy, a runtime, and each other.
FILES = (
    "nas/__init__.py",
    "nas/console.py",
    "nas/cpu.py",
    "nas/errors.py",
    "nas/files.py",
    "nas/latency/__init__.py",
    "nas/latency/arm_cores.py",
    "nas/latency/bundle/__init__.py",
    "nas/latency/bundle/archive.py",
    "nas/latency/bundle/measurement_log.py",
    "nas/latency/bundle/runner.py",
    "nas/latency/device.py",
    "nas/latency/drift.py",
    "nas/latency/rows.py",
    "nas/latency/runtimes/__init__.py",
    "nas/latency/runtimes/base.py",
    "nas/latency/runtimes/litert.py",
    "nas/latency/runtimes/onnx_runtime.py",
    "nas/latency/table_file.py",
    "nas/latency/throttling.py",
    "nas/latency/timing.py",
    "nas/latency/topology.py",
    "nas/litert.py",
    "nas/names.py",
    "nas/quiet.py",
    "nas/system_files.py",
    "nas/utf8.py",
)
BATCH_BYTES = 128 << 20  # weights of anchor networks that are in the device's memory at once
INLINE = 256  # bytes from which weights get a place in the list of those to fill


@dataclass(frozen=True)
class PlannedBatch:
    """Parts that are timed in one session, among whole networks."""

    parts: list[Part]
    co_run: list[ArchSpec]

    @property
    def stopping_rule(self) -> StoppingRule:
        """Return until when they are timed."""
        return ANCHOR_RULE if isinstance(self.parts[0], NetworkPart) else ROW_RULE


def plan_batches(
    spaces: Iterable[SearchSpace], published: Iterable[ArchSpec], compared: Iterable[ArchSpec]
) -> list[PlannedBatch]:
    """Return the parts that a search of `spaces` asks a table for, in batches, each part and context once.

    `spaces` are cut to the variants wanted. `published` networks are measured whole, `compared` ones in parts.
    """
    variants = [space.at([variant]) for space in spaces for variant in space.variants]
    anchors = [spec for at in variants for spec in (at.smallest(at.variants[0]), at.largest(at.variants[0]))]
    seen: set[str] = set()

    def new(parts: Iterable[Part]) -> list[Part]:
        found = {part.key: part for part in parts if part.key not in seen}
        seen.update(found)
        return list(found.values())

    networks = {spec.id: NetworkPart(spec) for spec in (reference_network().spec, *published, *anchors)}
    batches = [PlannedBatch(some, []) for some in _in_memory(networks.values())]
    batches += [PlannedBatch(new(_with_contexts(space_parts(at))), co_run_networks(at)) for at in variants]
    batches.append(PlannedBatch(new(_with_contexts(part for spec in compared for part in parts_of(spec))), []))
    return [batch for batch in batches if batch.parts]


def _with_contexts(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        if (context := context_of(part)) is not None:
            yield context


def _in_memory(networks: Iterable[NetworkPart]) -> Iterator[list[Part]]:
    """Yield the networks in order, each time as many as a small device holds at once."""
    some: list[Part] = []
    size = 0
    for part in networks:
        own = count_cost(part.spec, part.num_classes).param_bytes
        if some and size + own > BATCH_BYTES:
            yield some
            some, size = [], 0
        some.append(part)
        size += own
    yield some


def write_bundle(
    path: str | Path,
    batches: Sequence[PlannedBatch],
    *,
    threads: int = 1,
    runtime: str = "onnxruntime",
    precision: str = "float32",
    on_progress: Progress = lambda share, note: None,
) -> int:
    """Write the zip whole or not at all, and return its size in bytes.

    Takes 10 ms a part, 300 ms a network. Raises NasError if the file cannot be written, or if the runtime loads no
    files, is missing here or lacks the precision.
    """
    files, parts = format_of(runtime), parts_by_key(batches)
    named = RuntimeId.of(make_runtime(runtime, threads, precision))
    rows = sum(len(batch.parts) for batch in batches)
    with replacing(path) as side, zipfile.ZipFile(side, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
        networks, graphs = io.BytesIO(), []
        with zipfile.ZipFile(networks, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for done, part in enumerate(parts.values()):
                graph, zeros = without_weights(part, files, precision)
                archive.writestr(entry(graph.file), zeros)
                graphs.append(graph)
                on_progress(done / len(parts), f"{rows} rows")
            archive.writestr(entry(INDEX), _index(graphs, batches, named))
        for name, content in (
            (README, _readme(files, named).encode()),
            (PROGRAM, zipapp(files)),
            (ARCHIVE, networks.getvalue()),
        ):
            bundle.writestr(entry(name), content)
    return Path(path).stat().st_size


def reference_network() -> NetworkPart:
    """Return the reference network, whole."""
    return NetworkPart(published_spec(REFERENCE))


def parts_by_key(batches: Iterable[PlannedBatch]) -> dict[str, Part]:
    """Return the reference network, and then all parts and co-run networks in order, each once."""
    parts = (part for batch in batches for part in (*batch.parts, *map(NetworkPart, batch.co_run)))
    return {part.key: part for part in (reference_network(), *parts)}


def networks_and_reference(batches: Iterable[PlannedBatch]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what an index says of whole networks: the specs by their keys, and the reference network."""
    (reference, *others) = parts_by_key(batches).values()
    assert isinstance(reference, NetworkPart)
    networks = {part.key: part.spec.to_dict() for part in others if isinstance(part, NetworkPart)}
    return networks, {"key": reference.key, "network": REFERENCE, "spec_id": reference.spec.id}


def without_weights(part: Part, files: FileFormat, precision: str = "float32") -> tuple[Graph, bytes]:
    """Return a part's file with zeros for weights, and the entry of the index that fills them again."""
    content = files.part_file(part, precision)
    zeros, weights = bytearray(content), []
    for place, values in files.constants_in(content):
        # The scales of quantisation are above zero, and stay as they are.
        if values.nbytes >= INLINE and values.min() < 0:
            zeros[place : place + values.nbytes] = bytes(values.nbytes)
            weights.append((place, values.size, values.dtype.name, float(f"{values.std():.4g}")))
    macs = sum(layer.macs for layer in part.layers())
    return Graph(part.key, f"{part.key}.{files.suffix}", macs, iterations_of(part), weights), bytes(zeros)


def _index(graphs: Sequence[Graph], planned: Sequence[PlannedBatch], runtime: RuntimeId) -> str:
    """Return the text that `Bundle.open` reads."""
    batches = [
        Batch(
            [part.key for part in batch.parts],
            dataclasses.astuple(batch.stopping_rule),
            [NetworkPart(spec).key for spec in batch.co_run],
        )
        for batch in planned
    ]
    networks, reference = networks_and_reference(planned)
    content = {
        "runtime": runtime.name,
        "precision": runtime.precision,
        "num_classes": NUM_CLASSES,
        "networks": networks,
        "graphs": [dataclasses.asdict(graph) for graph in graphs],
        "batches": [dataclasses.asdict(batch) for batch in batches],
    }
    return json.dumps(
        {
            "id": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
            "runtime_version": runtime.version,
            "threads": runtime.threads,
            "reference": reference,
            **content,
        }
    )


def zipapp(files: FileFormat) -> bytes:
    """Return the program: a zip of this package's own modules that Python runs. The same code gives the same bytes."""
    needed = {"numpy": "numpy", files.module: files.package}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(entry("__main__.py"), _source(START))
        archive.writestr(entry(NEEDED), json.dumps(needed))
        for file in FILES:
            archive.writestr(entry(file), _source(file))
    return content.getvalue()


def _source(file: str) -> bytes:
    return resources.files("nas").joinpath(*file.split("/")[1:]).read_bytes()


def entry(name: str) -> zipfile.ZipInfo:
    """Return an entry of a zip without a date, so that the same parts give the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _readme(files: FileFormat, runtime: RuntimeId) -> str:
    return f"""A bundle for measuring a latency table on a device where nas itself cannot be installed.
It needs Python 3.10 or newer, numpy and {files.package}: python -m pip install numpy {files.package}
Run: python {PROGRAM} [--threads N] [--out FILE]; the same command resumes a run that was interrupted.
It writes a .json file; take that to where nas is: {runtime.search_command("FILE")}
{ARCHIVE} holds the timed networks as .{files.suffix} files, their weights left zero; {PROGRAM} fills them.
"""
