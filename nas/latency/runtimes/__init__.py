"""Hold runtimes behind one small interface: a part is compiled once, then runs as often as it is timed."""

from nas.latency.runtimes.base import FileRuntime, Profile, Profiler, Runtime
from nas.names import resolve

# A new runtime is a file of this folder and a line here.
RUNTIMES = {
    "onnxruntime": "nas.latency.runtimes.onnx_runtime:OnnxRuntime",
    "litert": "nas.latency.runtimes.litert:LiteRt",
    "openvino": "nas.latency.runtimes.openvino:OpenVino",
    "torch": "nas.latency.runtimes.torch_eager:TorchEager",
}

__all__ = ["RUNTIMES", "FileRuntime", "Profile", "Profiler", "Runtime", "make_runtime"]


def make_runtime(name: str, threads: int = 1, precision: str = "float32") -> Runtime:
    """Return a runtime by its name. Raises NasError if it is unknown, not installed or lacks the precision."""
    runtime: Runtime = resolve("runtime", name, RUNTIMES)(threads=threads, precision=precision)
    return runtime
