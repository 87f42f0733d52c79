"""Name the file formats of a bundle: what a runtime's files are, and where the constants stand in one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas.arch.parts import Part
from nas.errors import NasError


@dataclass(frozen=True)
class FileFormat:
    """The files that a runtime loads.

    `writer` is a module of two functions. `part_file(part, precision)` returns the file of a part in its context.
    `constants_in(file)` yields the place of each constant in a file (bytes from its beginning) and its values.
    """

    suffix: str
    package: str  # that holds the runtime
    module: str  # by which Python imports it
    writer: str

    def part_file(self, part: Part, precision: str) -> bytes:
        """Return the file of a part in its context, with random weights and batch 1."""
        file: bytes = importlib.import_module(self.writer).part_file(part, precision)
        return file

    def constants_in(self, file: bytes) -> Iterator[tuple[int, np.ndarray]]:
        """Yield place and values of each constant of a file whose bytes lie there raw, in no particular order."""
        yield from importlib.import_module(self.writer).constants_in(file)


FORMATS = {
    "onnxruntime": FileFormat("onnx", "onnxruntime", "onnxruntime", "nas.arch.onnx_graph"),
    "litert": FileFormat("tflite", "ai-edge-litert", "ai_edge_litert", "nas.arch.tflite_graph"),
}


def format_of(runtime: str) -> FileFormat:
    """Return the format of a runtime's files. Raises NasError if it has none."""
    if runtime not in FORMATS:
        raise NasError(f"--bundle is of a runtime that loads files: --runtime {' or '.join(FORMATS)}, not {runtime}")
    return FORMATS[runtime]
