"""Graphs in int8 against those of onnxruntime's own quantisation."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from support.onnx_sessions import session
from support.quantised_parts import QUANTISED

from nas.arch.onnx_graph import part_model
from nas.arch.operations import INPUT


class Calibration(CalibrationDataReader):
    def __init__(self, shape: list[int]) -> None:
        self.images = iter([{INPUT: np.random.default_rng(0).standard_normal(shape, np.float32)}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.images, None)


def optimised(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Return the operations that a session runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.mark.parametrize("name", QUANTISED)
def test_int8_runs_the_operations_of_onnxruntimes_own_quantisation(name: str, tmp_path: Path) -> None:
    """A timed part runs as the deployed network would."""
    plain, ours = part_model(QUANTISED[name]), part_model(QUANTISED[name], "int8")
    shape = [dimension.dim_value for dimension in plain.graph.input[0].type.tensor_type.shape.dim]
    onnx.save(plain, tmp_path / "plain.onnx")
    quantize_static(
        tmp_path / "plain.onnx",
        tmp_path / "theirs.onnx",
        Calibration(shape),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    theirs = onnx.load(tmp_path / "theirs.onnx")
    assert sorted(node.op_type for node in ours.graph.node) == sorted(node.op_type for node in theirs.graph.node)
    operations_run = optimised(ours, tmp_path)
    assert operations_run == optimised(theirs, tmp_path)
    assert "QLinearConv" in operations_run
    assert "Conv" not in operations_run


@pytest.mark.parametrize("name", [name for name in QUANTISED if name != "network"])
def test_int8_computes_roughly_the_same(name: str) -> None:
    """A scale or a zero point in the wrong place shows. The network is left out: fifty rough scales leave little."""
    outputs = []
    for precision in ("float32", "int8"):
        run = session(part_model(QUANTISED[name], precision))
        images = np.random.default_rng(0).standard_normal(run.get_inputs()[0].shape, np.float32)
        outputs.append(run.run(None, {INPUT: images})[0].ravel())
    assert np.corrcoef(*outputs)[0, 1] > 0.95
