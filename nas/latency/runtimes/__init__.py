"""Runtimes behind one small interface: a part is compiled once, then run as often as its time is taken."""

from nas.latency.runtimes.base import Profile, Profiler, Run, Runtime
from nas.latency.runtimes.onnx_runtime import OnnxRuntime
from nas.latency.runtimes.openvino import OpenVino
from nas.latency.runtimes.torch_eager import TorchEager

__all__ = ["OnnxRuntime", "OpenVino", "Profile", "Profiler", "Run", "Runtime", "TorchEager"]
