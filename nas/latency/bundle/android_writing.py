"""Write a bundle for an Android phone: TFLite files, and a script that runs them over adb by `benchmark_model`.

A phone's shell has no Python, so that the files hold their weights. These repeat a few random numbers, which compress
well: the zip is small, the files in it are not.
"""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch.cost import NUM_CLASSES
from nas.arch.parts import NetworkPart
from nas.console import Progress
from nas.files import replacing
from nas.latency.bundle.formats import format_of
from nas.latency.bundle.writing import (
    README,
    PlannedBatch,
    entry,
    networks_and_reference,
    parts_by_key,
    without_weights,
)
from nas.latency.runtimes import make_runtime

RUNTIME = "litert"
SCRIPT, PLAN, INDEX, NETWORKS = "measure.sh", "plan.txt", "index.json", "networks"
FORMAT = "visits of an Android bundle, version 1"  # the index begins with it
REPEATED = 509  # random numbers; a prime, so that the rows of weights, whose lengths are even, differ
NETWORK_VISITS, ROW_VISITS = 3, 5  # of a network of a session; anchor networks need only be roughly right
BETWEEN_REFERENCES = 8  # visits: a phone that becomes warm changes its speed within seconds


def write_android_bundle(
    path: str | Path,
    batches: Sequence[PlannedBatch],
    *,
    threads: int = 1,
    precision: str = "float32",
    on_progress: Progress = lambda share, note: None,
) -> tuple[int, int]:
    """Write the zip whole or not at all. Return its size and that of the files in it, both in bytes.

    Raises NasError if the file cannot be written, or if ai-edge-litert is missing here or lacks the precision.
    """
    make_runtime(RUNTIME, threads, precision)  # raises NasError
    files, index, parts = format_of(RUNTIME), index_of(batches, threads, precision), parts_by_key(batches)
    unzipped = 0
    with replacing(path) as side, zipfile.ZipFile(side, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as bundle:
        bundle.writestr(entry(README), _README)
        script = resources.files("nas.latency.bundle").joinpath("android_measure.sh")
        bundle.writestr(entry(SCRIPT), script.read_bytes())
        bundle.writestr(entry(PLAN), _plan_text(index))
        bundle.writestr(entry(INDEX), json.dumps(index) + "\n")
        for number, key in enumerate(index["keys"]):
            graph, zeros = without_weights(parts[key], files, precision)
            content = graph.filled(zeros, _repeating())
            bundle.writestr(entry(f"{NETWORKS}/{number}.{files.suffix}"), content)
            unzipped += len(content)
            on_progress(number / len(parts), f"{len(parts)} networks")
    return Path(path).stat().st_size, unzipped


def index_of(batches: Sequence[PlannedBatch], threads: int, precision: str) -> dict[str, Any]:
    """Return what a bundle holds: the keys of its files, by their numbers, and the plan of its visits.

    A visit of the plan is a session and the number of a network. Number 0 is the reference network.
    """
    numbers = {key: number for number, key in enumerate(parts_by_key(batches))}
    plan, rng = list[tuple[int, int]](), random.Random(0)
    for session, batch in enumerate(batches):
        own = {numbers[part.key] for part in (*batch.parts, *map(NetworkPart, batch.co_run))} - {0}
        visits = NETWORK_VISITS if isinstance(batch.parts[0], NetworkPart) else ROW_VISITS
        plan += [(session, number) for number in _visits(sorted(own), visits, rng)]
    networks, reference = networks_and_reference(batches)
    content = {
        "format": FORMAT,
        "threads": threads,
        "precision": precision,
        "num_classes": NUM_CLASSES,
        "reference": reference,
        "networks": networks,
        "keys": list(numbers),
        "plan": plan,
    }
    return content | {"id": id_of(content)}


def id_of(content: dict[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with anything in an index, its own id left out."""
    rest = {key: value for key, value in content.items() if key != "id"}
    return hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:16]


def _visits(numbers: list[int], visits: int, rng: random.Random) -> list[int]:
    """Return the visits of a session in rounds of random order, with the reference network at even distances."""
    order = []
    for _ in range(visits):
        rng.shuffle(numbers)
        for place, number in enumerate(numbers):
            order += [0, number] if place % BETWEEN_REFERENCES == 0 else [number]
    return [*order, 0]


def _plan_text(index: dict[str, Any]) -> str:
    """Return the plan as the script reads it: id, threads and visits; then a line a visit, its number first."""
    plan = index["plan"]
    lines = [f"{number} {session} {network}" for number, (session, network) in enumerate(plan, 1)]
    return "\n".join([f"{index['id']} {index['threads']} {len(plan)}", *lines]) + "\n"


def _repeating() -> Callable[[int], np.ndarray]:
    """Return a call that returns so many random numbers, the same few again and again.

    A call begins where the last one stopped. Layers that begin alike would make each other's outputs grow.
    """
    numbers, begin = np.random.default_rng(0).standard_normal(REPEATED, np.float32), 0

    def take(count: int) -> np.ndarray:
        nonlocal begin
        taken = np.resize(np.roll(numbers, -begin), count)
        begin = (begin + count) % REPEATED
        return taken

    return take


_README = f"""A bundle for measuring a latency table on an Android phone that is connected to this computer.
It needs adb, and benchmark_model of LiteRT for the phone's processor; put that into this folder.
Run: sh {SCRIPT} [--benchmark_model PATH] [--mask HEX] [--results FILE]; the same command resumes after a cut.
It writes results.txt; take that to where nas is: python -m nas.measure --from results.txt
{NETWORKS}/ holds the timed networks as .tflite files with random weights; {PLAN} says in which order they are visited.
"""
