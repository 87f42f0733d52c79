"""Networks in ONNX files that say themselves how to use them; read and run without torch.

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

from nas.arch.onnx_graph import INPUT, OUTPUT
from nas.deploy.images import Preparation
from nas.errors import NasError
from nas.files import replacing

KEY = "nas"  # of the file's metadata
TIMED_ROUNDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an exported file says of itself: names of the classes, and how images are prepared."""

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
    """Writes the file whole or not at all."""
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
        """Raises NasError for a file that is missing, damaged, or not one of nas.export."""
        session = _session(path)
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise NasError(f"{path}: does not say what its classes are; only files that nas.export wrote do")
        try:
            return cls(About.from_json(text), session)
        except (KeyError, TypeError, ValueError) as error:
            raise NasError(f"{path}: what it says of its classes and images cannot be read ({error})") from None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits (n, classes) of images (n, 3, resolution, resolution)."""
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
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, of no common kind
        raise NasError(f"{path}: onnxruntime cannot load it ({str(error).partition(chr(10))[0]})") from None


def time_networks(networks: Sequence[OnnxNetwork], rng: random.Random) -> list[float]:
    """Milliseconds at batch 1 of each, the medians of runs in random order, so that all see the same disturbances.

    Of the processor, as far as the system counts finely enough: what it gives to other processes is left out.
    """
    clock = time.perf_counter if sys.platform == "win32" else time.thread_time  # the sessions have one thread
    images = [np.zeros((1, 3, *[n.about.preparation.resolution] * 2), np.float32) for n in networks]
    times: list[list[float]] = [[] for _ in networks]
    for _ in range(TIMED_ROUNDS):
        for index in rng.sample(range(len(networks)), len(networks)):
            networks[index].run(images[index])  # brings its weights back
            start = clock()
            networks[index].run(images[index])
            times[index].append(1000 * (clock() - start))
    return [float(np.median(values)) for values in times]
