"""Write ONNX files, and run them in onnxruntime, without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx

from nas.arch.operations import INPUT, OUTPUT
from nas.deploy.about import KEY, About
from nas.errors import NasError
from nas.files import read_bytes, replacing


def save_onnx(model: onnx.ModelProto, about: About, path: str | Path) -> None:
    """Write a network with its description. The file is written whole or not at all."""
    onnx.helper.set_model_props(model, {KEY: about.to_json()})
    with replacing(path) as side:
        side.write_bytes(model.SerializeToString())


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """An exported network in onnxruntime on the CPU, in one thread."""

    runtime: ClassVar[str] = "onnxruntime"
    about: About
    session: Any

    @classmethod
    def load(cls, path: str | Path) -> OnnxNetwork:
        """Return the network of a file. Raises NasError for one that is missing, damaged, or not of nas.export."""
        session = _session(path)
        return cls(About.of_file(path, session.get_modelmeta().custom_metadata_map.get(KEY)), session)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the logits (n, classes) of images (n, 3, resolution, resolution)."""
        return self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(images, np.float32)})[0]

    def single_run(self) -> Callable[[], object]:
        """Return a call that runs the network once, on an image of zeros."""
        images = {INPUT: np.zeros((1, 3, *[self.about.preparation.resolution] * 2), np.float32)}
        return lambda: self.session.run([OUTPUT], images)


def _session(path: str | Path) -> Any:
    import onnxruntime

    content = read_bytes(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise NasError(f"{path}: onnxruntime cannot load it ({str(error).partition(chr(10))[0]})") from None
