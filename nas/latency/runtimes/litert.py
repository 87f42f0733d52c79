"""Run parts with LiteRT, the successor of TFLite on phones and boards.

Models in files run without the rest of the package, on a device that has only numpy and ai-edge-litert.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import NasError
from nas.latency.runtimes.base import check_precision, clock_of, sample_images
from nas.latency.timing import TimedRun
from nas.litert import import_litert, open_interpreter

if TYPE_CHECKING:
    from nas.arch.parts import Part


class LiteRt:
    """LiteRT on the CPU with XNNPACK's kernels. What these lack LiteRT's own kernels run.

    In int8 a hard swish is computed in float32 (`nas.arch.tflite_graph.FLOAT_OPERATORS`). LiteRT tells Python nothing
    of the time of its operations, so that it has no profile.
    """

    name = "litert"

    def __init__(self, threads: int = 1, precision: str = "float32") -> None:
        self.precision = check_precision(self.name, precision, ("float32", "int8"))
        import_litert()
        self.version: str = version("ai-edge-litert")
        self.threads = threads
        self.clock = clock_of(threads)

    def compile(self, part: Part) -> TimedRun:
        from nas.arch.tflite_graph import part_file

        return self.load(part_file(part, self.precision))

    def load(self, model: bytes) -> TimedRun:
        """Return a call that runs a TFLite model of one input and one output once.

        Raises NasError if no memory is left for the threads that each program starts.
        """
        try:
            interpreter = self.interpreter(model)
        except MemoryError:
            raise NasError(
                f"no memory is left for another program of {self.threads} threads on litert, where each program starts "
                "threads of its own; measure with fewer --threads"
            ) from None

        def run() -> None:
            interpreter.invoke()

        return run

    def interpreter(self, model: bytes) -> Any:
        """Return the interpreter of a model with its input set."""
        interpreter = open_interpreter(model, self.threads)
        (images,) = interpreter.get_input_details()
        batch, height, width, channels = images["shape"]
        samples = sample_images((batch, channels, height, width))  # as other runtimes get them
        interpreter.set_tensor(images["index"], np.ascontiguousarray(samples.transpose(0, 2, 3, 1)))
        return interpreter
