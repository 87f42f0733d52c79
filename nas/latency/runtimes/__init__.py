"""Runtimes behind one small interface: a part is compiled once, then run as often as its time is taken."""

from nas.latency.runtimes.base import Profile, Profiler, Run, Runtime

# A new runtime is a file of this folder and a line here.
RUNTIMES = {
    "onnxruntime": "nas.latency.runtimes.onnx_runtime:OnnxRuntime",
    "openvino": "nas.latency.runtimes.openvino:OpenVino",
    "torch": "nas.latency.runtimes.torch_eager:TorchEager",
}

__all__ = ["RUNTIMES", "Profile", "Profiler", "Run", "Runtime"]
