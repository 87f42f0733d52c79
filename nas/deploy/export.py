"""Export a trained network for other programs: as ONNX and as TFLite, both also in int8, and as a `.pt2` of torch."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from nas.arch.onnx_graph import network_model
from nas.arch.operations import INPUT, Weights
from nas.arch.spec import ArchSpec
from nas.deploy.about import KEY
from nas.deploy.network import ExportedNetwork, load_network
from nas.deploy.onnx_file import OnnxNetwork, save_onnx
from nas.deploy.tflite_file import LiteRtNetwork
from nas.deploy.tflite_int8 import quantised
from nas.deploy.trained import TrainedNetwork
from nas.errors import NasError
from nas.files import read_bytes, replacing
from nas.litert import import_litert
from nas.models.mobilenet import folded_convolutions
from nas.training.evaluation import evaluate
from nas.training.images import Images, LabelledBatch

TOLERANCE = 1e-4  # largest difference of logits between torch and a runtime, as a share of their spread
COMPARED_IMAGES = 64
CALIBRATION_IMAGES = 512
BATCH = 64


def export_onnx(trained: TrainedNetwork, images: Images, path: str | Path) -> float:
    """Write the network in float32 with a dynamic batch, and return the largest difference of its logits from torch's.

    The logits are those of some of the validation images. The difference is a share of their spread, from the least
    logit to the greatest: rounding errors grow with it. Raises NasError, and writes no file, if the difference is above
    `TOLERANCE` or no image can be read.
    """
    model = network_model(*_described(trained), batch="batch")
    return _write_checked(trained, images, path, lambda file: save_onnx(model, trained.about, file))


def export_tflite(trained: TrainedNetwork, images: Images, path: str | Path) -> float:
    """Write the network as TFLite in float32, of batch 1, and return the largest difference as `export_onnx` does.

    Raises NasError where `export_onnx` does, and if LiteRT is not installed.
    """
    import_litert()
    from nas.arch import tflite_graph

    model = tflite_graph.network_model(*_described(trained), metadata={KEY: trained.about.to_json()})
    return _write_checked(trained, images, path, lambda file: _save(model, file))


def _described(trained: TrainedNetwork) -> tuple[ArchSpec, int, Weights]:
    """Return what a writer of files asks for: the spec at the training's resolution, number of classes and weights."""
    spec = trained.settings.spec.replace(resolution=trained.settings.resolution)
    return spec, len(trained.about.classes), folded_convolutions(trained.model)


def _write_checked(trained: TrainedNetwork, images: Images, path: str | Path, write: Callable[[Path], None]) -> float:
    """Write the network to the side, compare its logits with torch's, and write it to `path` if they agree."""
    compared = next(_some_batches(images, COMPARED_IMAGES, COMPARED_IMAGES, trained.settings.resolution), None)
    if compared is None:
        raise _unreadable()
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder, f"model{Path(path).suffix}")
        write(beside)
        network = load_network(beside)
        difference = _difference(trained, network, compared[0])
    if not difference <= TOLERANCE:
        raise NasError(
            f"{path}: {network.runtime}'s logits differ from torch's by {difference:.1e} of their spread on the "
            f"validation images, which is more than {TOLERANCE:g}; nothing was written"
        )
    write(Path(path))
    return difference


def _save(content: bytes, path: str | Path) -> None:
    with replacing(path) as side:
        side.write_bytes(content)


@torch.inference_mode()
def _difference(trained: TrainedNetwork, network: ExportedNetwork, images: torch.Tensor) -> float:
    """Return the largest difference of logits for one image and for all of them, as a share of their spread."""
    expected = trained.model(images).numpy()
    spread = float(np.ptp(expected)) or 1.0  # a network of one class has none on one image
    return max(
        float(np.abs(network.run(images[:count].numpy()) - expected[:count]).max()) / spread
        for count in (1, len(images))
    )


def export_int8_onnx(float32_path: str | Path, images: Images, path: str | Path) -> None:
    """Write an exported network in int8, with scales from training images (onnxruntime's static quantisation).

    Weights are from -64 to 64. On x86 processors without VNNI onnxruntime adds each two products of uint8 and int8 in
    16 bits, which full weights overflow: 2 x 255 x 127. With these weights the file computes the same on every
    processor. The range of an activation is the mean over batches: one outlier among the images does not widen it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    network = OnnxNetwork.load(float32_path)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        # Only the shapes are inferred: the optimiser would take each h-swish apart, which costs accuracy.
        quant_pre_process(str(float32_path), str(prepared), skip_symbolic_shape=True, skip_optimization=True)
        quantize_static(
            str(prepared),
            str(quantised),
            _Calibration(images, network.about.preparation.resolution),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        save_onnx(onnx.load(quantised), network.about, path)


def export_int8_tflite(float32_path: str | Path, images: Images, path: str | Path) -> None:
    """Write an exported TFLite network in int8, with scales from training images. Input and output stay float32.

    Raises NasError if ai-edge-quantizer is not installed or leaves an operation in float32.
    """
    resolution = LiteRtNetwork.load(float32_path).about.preparation.resolution
    batches = _some_batches(images, CALIBRATION_IMAGES, BATCH, resolution)
    _save(quantised(read_bytes(float32_path), (batch.numpy() for batch, _ in batches)), path)


class _Calibration:
    """Batches of training images, prepared as validation images are, for onnxruntime's calibration."""

    def __init__(self, images: Images, resolution: int) -> None:
        self._batches = _some_batches(images, CALIBRATION_IMAGES, BATCH, resolution)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch[0].numpy()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.get_next, None)


def _some_batches(images: Images, count: int, batch_size: int, resolution: int) -> Iterator[LabelledBatch]:
    """Yield at most `count` of the images, drawn at random and the same each time, without augmentation."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.batches(batch_size, resolution, order[:count].tolist())


def export_program(trained: TrainedNetwork, path: str | Path) -> None:
    """Write the network as a program of torch.export, with a dynamic batch. Raises NasError if it cannot be written."""
    resolution = trained.settings.resolution
    program = torch.export.export(
        trained.model,
        (torch.zeros(2, 3, resolution, resolution),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    written = io.BytesIO()  # torch's writer would abort the process where a disk is full
    torch.export.save(program, written)
    _save(written.getvalue(), path)


def accuracy(network: ExportedNetwork, images: Images) -> float:
    """Return the top-1 accuracy (percent) of an exported network. Raises NasError if no image can be read."""
    batches = images.batches(BATCH, network.about.preparation.resolution)
    evaluation = evaluate(lambda batch: torch.from_numpy(network.run(batch.numpy())), batches)
    if not evaluation.images:
        raise _unreadable()
    return evaluation.top1


def _unreadable() -> NasError:
    return NasError("none of the images to validate on can be read")
