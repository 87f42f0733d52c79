"""Read exported networks of any format without torch, and time them. Their files say how they are used::

network = load_network("model.onnx")
logits = network.run(network.about.preparation.load("image.png")[None])
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from nas.deploy.about import About
from nas.errors import NasError
from nas.names import resolve

# The endings of exported files, and what loads these.
FORMATS = {"onnx": "nas.deploy.onnx_file:OnnxNetwork", "tflite": "nas.deploy.tflite_file:LiteRtNetwork"}
TIMED_ROUNDS = 50


class ExportedNetwork(Protocol):
    """An exported network on the CPU, in one thread."""

    runtime: str

    @property
    def about(self) -> About: ...

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the logits (n, classes) of images (n, 3, resolution, resolution)."""

    def single_run(self) -> Callable[[], object]:
        """Return a call that runs the network once, on an image of zeros."""


def is_exported(path: str | Path) -> bool:
    """Return whether the name of a file is that of an exported network."""
    return _ending(path) in FORMATS


def load_network(path: str | Path) -> ExportedNetwork:
    """Return the network of an exported file.

    Raises NasError for a file that is missing, damaged, or not of nas.export, and for a runtime that is not installed.
    """
    network: ExportedNetwork = resolve("format", _ending(path), FORMATS).load(path)
    about = network.about
    try:
        shape = network.run(np.zeros((1, 3, *[about.preparation.resolution] * 2), np.float32)).shape
    except Exception as error:  # the exceptions of runtimes have no common base
        reason = str(error).partition("\n")[0]
        raise NasError(f"{path}: {network.runtime} cannot run it as its description says ({reason})") from None
    if shape != (1, len(about.classes)):
        raise NasError(f"{path}: its description names {len(about.classes)} classes, and it has {shape[-1]} outputs")
    return network


def _ending(path: str | Path) -> str:
    return Path(path).suffix.removeprefix(".").lower()


def time_networks(networks: Sequence[ExportedNetwork], rng: random.Random) -> list[float]:
    """Return the milliseconds that each network takes at batch 1.

    They are medians of runs in random order, so that all networks see the same disturbances. Where the system counts
    finely enough, they are processor time, which leaves out other processes.
    """
    clock = time.perf_counter if sys.platform == "win32" else time.thread_time  # the networks have one thread
    runs = [network.single_run() for network in networks]
    times: list[list[float]] = [[] for _ in networks]
    for _ in range(TIMED_ROUNDS):
        for index in rng.sample(range(len(networks)), len(networks)):
            runs[index]()  # brings its weights back into the cache
            start = clock()
            runs[index]()
            times[index].append(1000 * (clock() - start))
    return [float(np.median(values)) for values in times]
