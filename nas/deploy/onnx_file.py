"""Read and run exported networks without torch. Their ONNX files say how they are used::

network = OnnxNetwork.load("model.onnx")
logits = network.run(network.about.preparation.load("image.png")[None])
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nas.arch.operations import INPUT, OUTPUT
from nas.deploy.images import Preparation
from nas.errors import NasError
from nas.files import replacing

KEY = "nas"  # in the metadata of the file
TIMED_ROUNDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The description of a network in its exported file: names of the classes, and the preparation of images."""

    name: str
    spec_id: str
    classes: tuple[str, ...]
    preparation: Preparation

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> About:
        data = json.loads(text)
        preparation: dict[str, Any] = data["preparation"]
        return cls(
            name=data["name"],
            spec_id=data["spec_id"],
            classes=tuple(data["classes"]),
            preparation=Preparation(
                resolution=preparation["resolution"],
                crop=preparation["crop"],
                mean=tuple(preparation["mean"]),
                std=tuple(preparation["std"]),
            ),
        )


def save_onnx(model: onnx.ModelProto, about: About, path: str | Path) -> None:
    """Write a network with its description. The file is written whole or not at all."""
    onnx.helper.set_model_props(model, {KEY: about.to_json()})
    with replacing(path) as side:
        side.write_bytes(model.SerializeToString())


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """An exported network in onnxruntime on the CPU, in one thread."""

    about: About
    session: Any

    @classmethod
    def load(cls, path: str | Path) -> OnnxNetwork:
        """Return the network of a file. Raises NasError for one that is missing, damaged, or not of nas.export."""
        session = _session(path)
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise NasError(f"{path}: it does not name its classes; only files that nas.export wrote do")
        try:
            return cls(About.from_json(text), session)
        except (KeyError, TypeError, ValueError) as error:
            raise NasError(f"{path}: its description of classes and images cannot be read ({error})") from None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the logits (n, classes) of images (n, 3, resolution, resolution)."""
        return self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(images, np.float32)})[0]


def _session(path: str | Path) -> Any:
    import onnxruntime

    if not Path(path).is_file():
        raise NasError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        return onnxruntime.InferenceSession(Path(path).read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise NasError(f"{path}: onnxruntime cannot load it ({str(error).partition(chr(10))[0]})") from None


def time_networks(networks: Sequence[OnnxNetwork], rng: random.Random) -> list[float]:
    """Return the milliseconds that each network takes at batch 1.

    They are medians of runs in random order, so that all networks see the same disturbances. Where the system counts
    finely enough, they are processor time, which leaves out other processes.
    """
    clock = time.perf_counter if sys.platform == "win32" else time.thread_time  # the sessions have one thread
    images = [np.zeros((1, 3, *[n.about.preparation.resolution] * 2), np.float32) for n in networks]
    times: list[list[float]] = [[] for _ in networks]
    for _ in range(TIMED_ROUNDS):
        for index in rng.sample(range(len(networks)), len(networks)):
            networks[index].run(images[index])  # brings its weights back into the cache
            start = clock()
            networks[index].run(images[index])
            times[index].append(1000 * (clock() - start))
    return [float(np.median(values)) for values in times]
