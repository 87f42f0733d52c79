"""Runtimes behind one small interface: a part is compiled once, then run as often as its time is taken."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from nas.onnx_graph import INPUT, OUTPUT, part_model
from nas.parts import Part

Run = Callable[[], None]


class Runtime(Protocol):
    """What a table is measured with."""

    name: str
    version: str
    threads: int
    precision: str

    def clock(self) -> float:
        """Seconds, of the clock that a run's time is taken by."""
        ...

    def compile(self, part: Part) -> Run:
        """A call that runs the part once on data of its own, as short a way from Python as there is."""
        ...


class OnnxRuntime:
    """onnxruntime on the CPU, denormals flushed to zero, no spinning threads beside the one that is timed."""

    name = "onnxruntime"
    precision = "float32"

    def __init__(self, threads: int = 1) -> None:
        import onnxruntime

        self._onnxruntime = onnxruntime
        self.threads = threads
        # One thread works in the calling one: its processor time leaves out what other processes got meanwhile.
        # Windows counts that time in steps of 16 ms.
        own = threads == 1 and sys.platform != "win32"
        self.clock = time.thread_time if own else time.perf_counter
        self.version: str = onnxruntime.__version__

    def compile(self, part: Part) -> Run:
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        model = part_model(part).SerializeToString()
        session = self._onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        shape, out_shape = session.get_inputs()[0].shape, session.get_outputs()[0].shape
        images = np.random.default_rng(0).standard_normal(shape, np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input(INPUT, images)
        binding.bind_ortvalue_output(
            OUTPUT, self._onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(out_shape, np.float32))
        )

        def run(keep: np.ndarray = images) -> None:  # the binding does not own the images
            session.run_with_iobinding(binding)

        return run
