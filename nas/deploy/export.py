"""Export a trained network for other programs: as ONNX, as ONNX in int8, and as a `.pt2` of torch."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from nas.arch.onnx_graph import network_model
from nas.arch.operations import INPUT
from nas.deploy.onnx_file import OnnxNetwork, save_onnx
from nas.deploy.trained import TrainedNetwork
from nas.errors import NasError
from nas.files import replacing
from nas.models.mobilenet import folded_convolutions
from nas.training.evaluation import evaluate
from nas.training.images import Images, LabelledBatch

TOLERANCE = 1e-4  # largest difference of logits between torch and onnxruntime, as a share of their spread
COMPARED_IMAGES = 64
CALIBRATION_IMAGES = 512
BATCH = 64


def export_onnx(trained: TrainedNetwork, images: Images, path: str | Path) -> float:
    """Write the network in float32 with a dynamic batch, and return the largest difference of its logits from torch's.

    The logits are those of some of the validation images. The difference is a share of their spread, from the least
    logit to the greatest: rounding errors grow with it. Raises NasError, and writes no file, if the difference is above
    `TOLERANCE` or no image can be read.
    """
    resolution = trained.settings.resolution
    spec = trained.settings.spec.replace(resolution=resolution)
    model = network_model(spec, len(trained.about.classes), folded_convolutions(trained.model), batch="batch")
    compared = next(_some_batches(images, COMPARED_IMAGES, COMPARED_IMAGES, resolution), None)
    if compared is None:
        raise _unreadable()
    with tempfile.TemporaryDirectory() as folder:
        save_onnx(model, trained.about, Path(folder, "model.onnx"))
        difference = _difference(trained, OnnxNetwork.load(Path(folder, "model.onnx")), compared[0])
    if not difference <= TOLERANCE:
        raise NasError(
            f"{path}: onnxruntime's logits differ from torch's by {difference:.1e} of their spread on the validation "
            f"images, which is more than {TOLERANCE:g}; nothing was written"
        )
    save_onnx(model, trained.about, path)
    return difference


@torch.inference_mode()
def _difference(trained: TrainedNetwork, network: OnnxNetwork, images: torch.Tensor) -> float:
    """Return the largest difference of logits for one image and for all of them, as a share of their spread."""
    expected = trained.model(images).numpy()
    spread = float(np.ptp(expected)) or 1.0  # a network of one class has none on one image
    return max(
        float(np.abs(network.run(images[:count].numpy()) - expected[:count]).max()) / spread
        for count in (1, len(images))
    )


def export_int8(onnx_path: str | Path, images: Images, path: str | Path) -> None:
    """Write an exported network in int8, with scales from training images (onnxruntime's static quantisation).

    Weights are from -64 to 64. On x86 processors without VNNI onnxruntime adds each two products of uint8 and int8 in
    16 bits, which full weights overflow: 2 x 255 x 127. With these weights the file computes the same on every
    processor. The range of an activation is the mean over batches: one outlier among the images does not widen it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    network = OnnxNetwork.load(onnx_path)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        # Only the shapes are inferred: the optimiser would take each h-swish apart, which costs accuracy.
        quant_pre_process(str(onnx_path), str(prepared), skip_symbolic_shape=True, skip_optimization=True)
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
    with replacing(path) as side:
        side.write_bytes(written.getvalue())


def accuracy(network: OnnxNetwork, images: Images) -> float:
    """Return the top-1 accuracy (percent) of an exported network. Raises NasError if no image can be read."""
    batches = images.batches(BATCH, network.about.preparation.resolution)
    evaluation = evaluate(lambda batch: torch.from_numpy(network.run(batch.numpy())), batches)
    if not evaluation.images:
        raise _unreadable()
    return evaluation.top1


def _unreadable() -> NasError:
    return NasError("none of the images to validate on can be read")
