"""Run parts with torch without a compiler: the module that was trained, as it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from nas.arch.operations import random_weights
from nas.arch.parts import CONTEXT_CHANNELS, ContextPart, HeadPart, NetworkPart, Part, StemPart, context_of
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
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
    from torch import nn


class TorchEager:
    """torch in inference mode, batch norm included, with channels last: the faster layout on CPUs."""

    name = "torch"

    def __init__(self, threads: int = 1, precision: str = "float32") -> None:
        self.precision = check_precision(self.name, precision, ("float32",))
        self._torch = installed("the runtime torch", "torch", "`pip install torch torchvision`")
        self.version: str = self._torch.__version__
        self.threads = threads
        self.clock = clock_of(threads)

    def compile(self, part: Part) -> TimedRun:
        torch = self._torch
        module = part_module(part).to(memory_format=torch.channels_last)
        images = torch.from_numpy(sample_images(input_shape(part))).to(memory_format=torch.channels_last)

        def run() -> None:
            # torch has one number of threads for the whole process, and other code of it trains.
            before = torch.get_num_threads()
            torch.set_num_threads(self.threads)
            try:
                with torch.inference_mode():
                    module(images)
            finally:
                torch.set_num_threads(before)

        return run

    def profile(self, part: Part) -> Profile:
        run = self.compile(part)
        run()
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # otherwise the profiler writes to stderr
        with self._torch.autograd.profiler.profile(use_kineto=False) as profiler:
            for _ in range(PROFILED_ITERATIONS):
                run()
        events = profiler.function_events
        places = len(events) // PROFILED_ITERATIONS  # every iteration calls the same operations in the same order
        return by_operation(
            (event.name, str(index % places), event.self_cpu_time_total / 1000) for index, event in enumerate(events)
        )


def part_module(part: Part) -> nn.Module:
    """Return the module of a part: context, layers and weights are those of `nas.arch.operations.graph_of`."""
    import torch
    from torch import nn

    context = context_of(part)
    around = part if isinstance(part, ContextPart) else context
    modules: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):  # other code counts on torch's random numbers
        if around:
            modules.append(nn.Conv2d(CONTEXT_CHANNELS, around.channels, 1))
        modules += _own_modules(part)
    if not isinstance(part, HeadPart | NetworkPart):
        modules.append(nn.AdaptiveAvgPool2d(1))
    module = nn.Sequential(*modules).eval()
    layers = [*(context.layers() if context else []), *part.layers()]
    _set_weights(module, list(random_weights(layers)))
    return module


def input_shape(part: Part) -> tuple[int, int, int, int]:
    """Return the shape of a part's input, in its context."""
    if isinstance(part, NetworkPart | StemPart):
        size = part.spec.resolution if isinstance(part, NetworkPart) else part.resolution
        return 1, 3, size, size
    size = part.size if isinstance(part, ContextPart) else part.in_size
    return 1, CONTEXT_CHANNELS, size, size


def _own_modules(part: Part) -> list[nn.Module]:
    """Return the part's modules, cut out of a network in which it stands."""
    from torch import nn

    from nas.models.mobilenet import build_model

    if isinstance(part, ContextPart):
        return []
    if isinstance(part, NetworkPart):
        return [build_model(part.spec, part.num_classes)]
    channels = part.stem.out if isinstance(part, StemPart) else part.in_channels
    plain = BlockSpec(op="sepconv", kernel=3, expanded=channels, out=channels)
    spec = ArchSpec(
        name="around a part",
        resolution=32,  # no module depends on it
        stem=part.stem if isinstance(part, StemPart) else StemSpec(out=channels),
        blocks=(part.block,) if not isinstance(part, StemPart | HeadPart) else (plain,),
        head=part.head if isinstance(part, HeadPart) else HeadSpec(conv=0),
    )
    model = build_model(spec, part.num_classes if isinstance(part, HeadPart) else 1)
    if isinstance(part, HeadPart):
        return [*model.features[2:], model.avgpool, nn.Flatten(), model.classifier]
    return [model.features[0 if isinstance(part, StemPart) else 1]]


def _set_weights(module: nn.Module, weights: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Set weights and biases of the layers in order; a bias goes into the batch norm where there is one."""
    import torch
    from torch import nn

    remaining = iter(weights)
    bias = None
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                weight, bias = map(torch.from_numpy, next(remaining))
                layer.weight.copy_(weight.reshape(layer.weight.shape))
                if layer.bias is not None:
                    layer.bias.copy_(bias)
            elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert bias is not None
                # With the running mean 0 and variance 1 that it was made with, it only adds the bias.
                layer.weight.fill_((1 + layer.eps) ** 0.5)
                layer.bias.copy_(bias)
