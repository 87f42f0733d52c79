"""A bundle: what a device needs to measure a table where this package cannot go.

One zip: the networks as ONNX files whose weights are zeros (the device fills them with random numbers, so that
a gigabyte travels as a few megabytes) and one script, put together from the modules that time here, so that a time
is taken there the same way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from onnx import numpy_helper

from nas.arch.cost import NUM_CLASSES, count_cost
from nas.arch.onnx_graph import part_model
from nas.arch.parts import NetworkPart, Part, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.files import replacing
from nas.latency.bundle.runner import ARCHIVE, INDEX, Batch, Graph
from nas.latency.measuring import co_run_networks, summands, visit_of
from nas.latency.table import REFERENCE, space_parts
from nas.latency.timing import ANCHOR, ROW, Effort

SCRIPT, README = "measure.py", "README.txt"
# The modules that go into the script, each after those it imports: the standard library, numpy, onnxruntime, and each
# other. Packages are empty there.
PACKAGES = ("nas", "nas.latency", "nas.latency.runtimes")
MODULES = (
    "nas.errors",
    "nas.files",
    "nas.latency.device",
    "nas.latency.runtimes.base",
    "nas.latency.runtimes.onnx_runtime",
    "nas.latency.timing",
    "nas.latency.table_file",
    "nas.latency.calibration",
    "nas.latency.rows",
    "nas.latency.bundle.runner",
)
BATCH_BYTES = 128 << 20  # weights of anchors that are in the device's memory at once
INLINE = 256  # bytes of weights that are worth a place in the list of what is filled


@dataclass(frozen=True)
class Rows:
    """Parts that are timed in one session, among whole networks."""

    parts: list[Part]
    among: list[ArchSpec]

    @property
    def effort(self) -> Effort:
        return ANCHOR if isinstance(self.parts[0], NetworkPart) else ROW


def bundle_rows(
    spaces: Iterable[SearchSpace], published: Iterable[ArchSpec], compared: Iterable[ArchSpec]
) -> list[Rows]:
    """What a search of `spaces` asks a table for, in sessions, each part and context once.

    `spaces` are cut to the variants wanted. `published` networks are measured whole, `compared` ones in parts.
    """
    variants = [space.at([variant]) for space in spaces for variant in space.variants]
    ends = [spec for at in variants for spec in (at.smallest(at.variants[0]), at.largest(at.variants[0]))]
    seen: set[str] = set()

    def new(parts: Iterable[Part]) -> list[Part]:
        found = {part.key: part for part in parts if part.key not in seen}
        seen.update(found)
        return list(found.values())

    networks = {spec.id: NetworkPart(spec) for spec in (published_spec(REFERENCE), *published, *ends)}
    sessions = [Rows(some, []) for some in _in_memory(networks.values())]
    sessions += [Rows(new(_with_contexts(space_parts(at))), co_run_networks(at)) for at in variants]
    sessions.append(Rows(new(_with_contexts(part for spec in compared for part in parts_of(spec))), []))
    return [session for session in sessions if session.parts]


def _with_contexts(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        if (context := context_of(part)) is not None:
            yield context


def _in_memory(networks: Iterable[NetworkPart]) -> Iterator[list[Part]]:
    """The networks in order, together as many as a small device holds at once."""
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
    sessions: Sequence[Rows],
    *,
    threads: int = 1,
    precision: str = "float32",
    on_progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Writes the zip, whole or not at all, and gives its size in bytes.

    Takes 10 ms a part, 300 ms a network. Raises NasError if the file cannot be written.
    """
    wanted = [part for session in sessions for part in (*session.parts, *map(NetworkPart, session.among))]
    parts = list({part.key: part for part in (NetworkPart(published_spec(REFERENCE)), *wanted)}.values())
    with replacing(path) as side, zipfile.ZipFile(side, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
        networks, graphs = io.BytesIO(), []
        with zipfile.ZipFile(networks, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for done, part in enumerate(parts):
                graph, zeros = emptied(part, precision)
                archive.writestr(_entry(graph.file), zeros)
                graphs.append(graph)
                on_progress(done / len(parts))
            archive.writestr(_entry(INDEX), _index(graphs, sessions, threads, precision))
        for name, text in ((README, _README), (SCRIPT, script())):
            bundle.writestr(_entry(name), text)
        bundle.writestr(_entry(ARCHIVE), networks.getvalue())
    return Path(path).stat().st_size


def emptied(part: Part, precision: str = "float32") -> tuple[Graph, bytes]:
    """A part's ONNX model with zeros for weights, and what fills them again."""
    model = part_model(part, precision)
    content = bytearray(model.SerializeToString())
    weights, position = [], 0
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        # Variants of quantisation are above zero, and stay as they are.
        if len(tensor.raw_data) >= INLINE and values.min() < 0:
            position = content.index(tensor.raw_data[:INLINE], position)
            end = position + len(tensor.raw_data)
            assert content[position:end] == tensor.raw_data
            content[position:end] = bytes(end - position)
            weights.append((position, values.size, values.dtype.name, float(f"{values.std():.4g}")))
            position = end
    macs = sum(layer.macs for layer in part.layers())
    return Graph(part.key, macs, visit_of(part), weights), bytes(content)


def _index(graphs: Sequence[Graph], sessions: Sequence[Rows], threads: int, precision: str) -> str:
    """What `Bundle.open` reads."""
    batches = [
        Batch(
            [part.key for part in session.parts],
            dataclasses.astuple(session.effort),
            [(network.key, summands(network)) for network in map(NetworkPart, session.among)],
        )
        for session in sessions
    ]
    content = {
        "precision": precision,
        "num_classes": NUM_CLASSES,
        "graphs": [dataclasses.asdict(graph) for graph in graphs],
        "batches": [dataclasses.asdict(batch) for batch in batches],
    }
    spec = published_spec(REFERENCE)
    return json.dumps(
        {
            "id": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
            "runtime_version": version("onnxruntime"),
            "threads": threads,
            "reference": {"key": NetworkPart(spec).key, "network": REFERENCE, "spec_id": spec.id},
            **content,
        }
    )


def script() -> str:
    """measure.py: the modules' own sources, and a few lines that load them."""
    sources = dict.fromkeys(PACKAGES, "") | {module: _source(module) for module in MODULES}
    assert not any("'''" in source or source.endswith("\\") for source in sources.values())
    texts = "\n".join(f"SOURCES[{name!r}] = r'''{source}'''" for name, source in sources.items())
    return _SCRIPT.replace("#SOURCES#", texts)


def _source(module: str) -> str:
    *folders, file = module.split(".")[1:]
    return resources.files("nas").joinpath(*folders, f"{file}.py").read_text(encoding="utf-8")


def _entry(name: str) -> zipfile.ZipInfo:
    """The same parts give the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


_README = f"""A bundle for measuring a latency table on a device where nas itself cannot be installed.
It needs Python 3.10 or newer, numpy and onnxruntime: python -m pip install numpy onnxruntime
Run: python {SCRIPT} [--threads N] [--out FILE]; a run that was interrupted goes on where it was.
It writes a .json file; take that to where nas is: python -m nas.search --table FILE --allow-other-device
{ARCHIVE} holds the timed networks as ONNX files, their weights left zero; {SCRIPT} fills them as it loads them.
"""

_SCRIPT = '''#!/usr/bin/env python3
"""Measures the networks of networks.zip on this device and writes a latency table; see README.txt.

    python measure.py [--threads N] [--out FILE]

Made by `python -m nas.measure --bundle`: below stand that package's own modules, then what runs them.
"""

import sys
from pathlib import Path
from types import ModuleType


def stop(text):
    print("measure.py: error: " + text, file=sys.stderr)
    sys.exit(2)


if sys.version_info < (3, 10):
    stop("this is Python %d.%d, and it takes 3.10 or newer" % sys.version_info[:2])
try:
    import numpy
    import onnxruntime
except ImportError as error:
    stop("%s; `python -m pip install numpy onnxruntime` installs what is needed" % error)

SOURCES = {}
#SOURCES#

for name, source in SOURCES.items():
    module = sys.modules[name] = ModuleType(name)
    exec(compile(source, __file__ + ", " + name, "exec"), module.__dict__)

if __name__ == "__main__":
    sys.modules["nas.latency.bundle.runner"].main(Path(__file__).resolve().parent)
'''
