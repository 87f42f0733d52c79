"""Quantise TFLite networks to int8 with ai-edge-quantizer, an optional package, without torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from nas.arch.operations import INPUT, SIGNATURE
from nas.errors import NasError
from nas.names import installed
from nas.quiet import quiet_stderr

INSTALL = "`uv sync --extra litert` or `pip install 'ai-edge-quantizer>=0.7'`"
CALIBRATED = 8  # images at a time: a batch of 64 takes gigabytes


def import_quantizer() -> ModuleType:
    """Return the module that quantises. Raises NasError if the package is not installed."""
    return installed("the quantiser of TFLite files", "ai_edge_quantizer.quantizer", INSTALL)


def quantised(model: bytes, batches: Iterable[np.ndarray]) -> bytes:
    """Return a network in int8, with scales from batches of images (n, 3, resolution, resolution).

    Weights have a scale a channel. Input and output stay float32, and so does hard swish, which LiteRT computes slowly
    in int8. The range of an activation is the mean over batches, as in `nas.deploy.export.export_int8_onnx`: the
    quantiser's own average over single images is narrower, and costs accuracy. Raises NasError if there is no image,
    and for a network with operators that the quantiser does not know.
    """
    quantizer = import_quantizer()
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe

    from nas.arch.tflite_graph import FLOAT_OPERATORS, float_operators

    made = quantizer.Quantizer(model, recipe.static_wi8_ai8())
    for name in ("INPUT", "OUTPUT", *FLOAT_OPERATORS):
        made.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName[name],
            algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
        )

    def ranges_of(images: np.ndarray) -> dict[str, Any]:
        with _silent():
            found: dict[str, Any] = made.calibrate({SIGNATURE: [{INPUT: np.ascontiguousarray(images)}]}, num_threads=1)
        return found

    ranges = []
    for batch in batches:
        images = batch.transpose(0, 2, 3, 1)
        some = [ranges_of(images[start : start + CALIBRATED]) for start in range(0, len(images), CALIBRATED)]
        ranges.append(_over(some, {"min": np.minimum.reduce, "max": np.maximum.reduce}))
    if not ranges:
        raise NasError("none of the images to calibrate int8 with can be read")
    mean = _over(ranges, {"min": _mean, "max": _mean})
    with _silent():
        result = bytes(made.quantize(mean, enable_progress_bar=False, enable_progress_report=False).quantized_model)
    if left := [name for name in float_operators(result) if name not in FLOAT_OPERATORS]:
        raise NasError(
            f"ai-edge-quantizer leaves {', '.join(left)} in float32; install its newest with {INSTALL}, or "
            "change the network"
        )
    return result


def _over(ranges: Sequence[Mapping[str, Any]], by: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """Return one range for each tensor: its ends are put together by the functions of `by`. Counts are added up."""
    return {
        tensor: {end: by.get(end, sum)([one[tensor][end] for one in ranges]) for end in ends}
        for tensor, ends in ranges[0].items()
    }


def _mean(values: Sequence[Any]) -> Any:
    return np.mean(values, axis=0)


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what the quantiser says in a `with` block: its bar of progress, and warnings of LiteRT's debugging."""
    with warnings.catch_warnings(action="ignore"), quiet_stderr():
        yield
