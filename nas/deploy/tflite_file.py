"""Run TFLite files in LiteRT, without torch. It needs the package ai-edge-litert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nas.deploy.about import KEY, About
from nas.errors import NasError
from nas.files import read_bytes
from nas.litert import import_litert, open_interpreter


@dataclass(frozen=True, slots=True)
class LiteRtNetwork:
    """An exported network in LiteRT on the CPU, in one thread.

    It takes one image at a time: XNNPACK prepares its kernels for the batch of the file.
    """

    runtime: ClassVar[str] = "LiteRT"
    about: About
    interpreter: Any

    @classmethod
    def load(cls, path: str | Path) -> LiteRtNetwork:
        """Return the network of a file.

        Raises NasError for a file that is missing, damaged, or not of nas.export, and if LiteRT is not installed.
        """
        model = read_bytes(path)
        import_litert()
        from nas.arch.tflite_graph import metadata_of

        try:
            interpreter = open_interpreter(model)  # which looks first whether the whole file is there
            text = metadata_of(model).get(KEY)
        except (ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0] if model else "it is empty"
            raise NasError(f"{path}: LiteRT cannot load it ({reason})") from None
        return cls(About.of_file(path, text), interpreter)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the logits (n, classes) of images (n, 3, resolution, resolution)."""
        (source,), (result,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        logits = np.empty((len(images), result["shape"][-1]), np.float32)
        for image, row in zip(np.asarray(images, np.float32).transpose(0, 2, 3, 1), logits, strict=True):
            self.interpreter.set_tensor(source["index"], np.ascontiguousarray(image[None]))
            self.interpreter.invoke()
            row[:] = self.interpreter.get_tensor(result["index"])[0]
        return logits

    def single_run(self) -> Callable[[], object]:
        """Return a call that runs the network once, on an image of zeros."""
        (source,) = self.interpreter.get_input_details()
        self.interpreter.set_tensor(source["index"], np.zeros(source["shape"], np.float32))
        return lambda: self.interpreter.invoke()
