"""Run parts with OpenVINO, from the same ONNX graphs."""

from __future__ import annotations

from typing import Any

from nas.arch.onnx_graph import part_file
from nas.arch.parts import Part
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


class OpenVino:
    """OpenVINO on the CPU: one request at a time, in the calling thread where there is one thread."""

    name = "openvino"

    def __init__(self, threads: int = 1, precision: str = "float32") -> None:
        self.precision = check_precision(self.name, precision, ("float32", "int8"))
        self._openvino = installed(
            "the runtime openvino", "openvino", "`uv sync --extra openvino` or `pip install openvino`"
        )
        self.version: str = self._openvino.__version__.partition("-")[0]  # the rest is its build
        self.threads = threads
        self.clock = clock_of(threads)
        self._core = self._openvino.Core()

    def compile(self, part: Part) -> TimedRun:
        request = self.request(part)

        def run() -> None:
            request.infer(share_outputs=True)

        return run

    def profile(self, part: Part) -> Profile:
        request = self.request(part, profiled=True)
        samples = []
        for _ in range(PROFILED_ITERATIONS):
            request.infer(share_outputs=True)
            for node in request.profiling_info:
                if node.status == node.Status.EXECUTED:
                    samples.append((node.node_type, node.node_name, 1000 * node.real_time.total_seconds()))
        return by_operation(samples)

    def request(self, part: Part, profiled: bool = False) -> Any:
        """Return a request with its input set."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",  # of what is not in int8: the default is bfloat16 where a CPU has it
            "CPU_DENORMALS_OPTIMIZATION": True,
            "ENABLE_CPU_PINNING": False,  # the timing chooses the cores
            "PERF_COUNT": profiled,
        }
        model = self._core.read_model(part_file(part, self.precision))
        request = self._core.compile_model(model, "CPU", settings).create_infer_request()
        request.set_input_tensor(self._openvino.Tensor(sample_images(model.input(0).shape)))
        return request
