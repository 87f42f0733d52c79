"""Read `networks.zip`, the archive of a bundle: model files without their weights, and an index.

This module and the others that a bundle's program consists of need only Python 3.10 and numpy.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.errors import NasError

ARCHIVE, INDEX = "networks.zip", "index.json"
# The errors of zipfile and json about an archive that was cut or changed.
DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError)


@dataclass(frozen=True)
class Graph:
    """A file of the archive, an ONNX or a TFLite model, with its part's key.

    `weights` are the places of the file that hold zeros and are filled with random numbers before it is loaded:
    offset (bytes), count, numpy's name of their type, standard deviation.
    """

    key: str
    file: str  # its name in the archive
    macs: int
    iterations: tuple[int, int]  # that warm up, that are timed
    weights: list[tuple[int, int, str, float]]

    @property
    def size(self) -> int:
        """Return the bytes of the weights."""
        return sum(count * np.dtype(kind).itemsize for _, count, kind, _ in self.weights)

    def filled(self, zeros: bytes, numbers: Callable[[int], np.ndarray] | None = None) -> bytes:
        """Return the model with random weights of the spread that it was built with: no activation becomes denormal.

        `numbers` returns so many random numbers of a standard normal distribution, float32; by default new ones.
        """
        model, rng = bytearray(zeros), np.random.default_rng(0)
        for offset, count, kind, std in self.weights:
            values = numbers(count) if numbers else rng.standard_normal(count, np.float32)
            values = values * np.float32(std)
            if np.dtype(kind).kind == "i":
                limits = np.iinfo(kind)
                values = np.clip(np.rint(values), limits.min, limits.max)
            np.frombuffer(model, kind, count, offset)[:] = values
        return bytes(model)


@dataclass(frozen=True)
class Batch:
    """Rows that are timed in one session.

    `stopping_rule` are the fields of a StoppingRule. `co_run` are the keys of the co-run networks.
    """

    keys: list[str]
    stopping_rule: tuple[float, int, int, float]
    co_run: list[str]


@dataclass(frozen=True)
class Bundle:
    """The archive of a bundle and its index."""

    archive: zipfile.ZipFile
    id: str
    runtime: str
    runtime_version: str  # beside which the bundle was made
    threads: int
    precision: str
    num_classes: int
    reference: dict[str, str]  # key, network, spec_id
    networks: dict[str, dict[str, Any]]  # the specs of all networks but the reference, in the form of JSON, by keys
    graphs: dict[str, Graph]
    batches: list[Batch]

    @property
    def rows(self) -> int:
        """Return the number of rows to measure."""
        return sum(len(batch.keys) for batch in self.batches)

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Open the archive in a folder. Raises NasError if it is missing or damaged."""
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
        """Return a part's model with its weights filled. Raises NasError if the archive is damaged."""
        graph = self.graphs[key]
        try:
            return graph.filled(self.archive.read(graph.file))
        except DAMAGED as error:
            raise _damaged(self.archive.filename, error) from None


def _damaged(path: Path | str | None, error: Exception) -> NasError:
    return NasError(f"{path}: cannot be read ({error}); unzip the bundle again")
