"""Run parts with onnxruntime, the default: MobileNets are mostly deployed with it on CPUs.

Models in files run without the rest of the package, on a device that has only numpy and onnxruntime.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.latency.runtimes.base import (
    PROFILED_ITERATIONS,
    Profile,
    by_operation,
    check_precision,
    clock_of,
    sample_images,
)
from nas.latency.timing import TimedRun
from nas.names import installed

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue, SessionOptions

    from nas.arch.parts import Part


class OnnxRuntime:
    """onnxruntime on the CPU. Denormals are flushed to zero, and no threads spin between programs."""

    name = "onnxruntime"

    def __init__(self, threads: int = 1, precision: str = "float32") -> None:
        self.precision = check_precision(self.name, precision, ("float32", "int8"))
        self._onnxruntime = installed("the runtime onnxruntime", "onnxruntime", "`pip install onnxruntime`")
        self.version: str = self._onnxruntime.__version__
        self.threads = threads
        self.clock = clock_of(threads)

    def compile(self, part: Part) -> TimedRun:
        return self.load(self._model(part))

    def load(self, model: bytes) -> TimedRun:
        """Return a call that runs an ONNX model of one input and one output once."""
        return self._bound(self._session(model, self._options()))

    def profile(self, part: Part) -> Profile:
        options = self._options()
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder, "profile"))
            session = self._session(self._model(part), options)
            run = self._bound(session)
            for _ in range(PROFILED_ITERATIONS):
                run()
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return by_operation(
            (event["args"]["op_name"], event["name"], event["dur"] / 1000)
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        )

    def _options(self) -> SessionOptions:
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        # Otherwise the threads of a program spin on while the next one is timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return options

    def _model(self, part: Part) -> bytes:
        from nas.arch.onnx_graph import part_file

        return part_file(part, self.precision)

    def _session(self, model: bytes, options: SessionOptions) -> InferenceSession:
        return self._onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _bound(self, session: InferenceSession) -> TimedRun:
        (source,), (target,) = session.get_inputs(), session.get_outputs()
        images = sample_images(source.shape)
        logits = self._onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(target.shape, np.float32))
        binding = session.io_binding()
        binding.bind_cpu_input(source.name, images)
        binding.bind_ortvalue_output(target.name, logits)

        # The binding owns neither the images nor, in onnxruntime 1.20, the memory that the logits are written to.
        def run(keep: tuple[np.ndarray, OrtValue] = (images, logits)) -> None:
            session.run_with_iobinding(binding)

        return run
