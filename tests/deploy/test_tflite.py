"""Exported TFLite files against the trained network, in LiteRT."""

import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")

from ai_edge_litert import schema_py_generated as schema

from nas import export, predict
from nas.arch.operations import INPUT, OUTPUT, SIGNATURE
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.arch.tflite_graph import FLOAT_OPERATORS, float_operators, metadata_of, network_model
from nas.deploy.about import KEY
from nas.deploy.export import TOLERANCE, accuracy, export_int8_tflite, export_tflite
from nas.deploy.network import load_network, time_networks
from nas.deploy.tflite_file import LiteRtNetwork
from nas.deploy.tflite_int8 import quantised
from nas.deploy.trained import load_trained
from nas.errors import NasError
from nas.models.heads import segmentation_model
from nas.models.mobilenet import build_model, folded_convolutions
from nas.training.data import load_data
from nas.training.images import MEAN, STD
from nas.training.tensor_images import TensorImages

EVERY_KIND = ArchSpec(
    name="every kind of block",
    resolution=32,
    stem=StemSpec(out=8, activation="relu6"),
    blocks=(
        BlockSpec(op="fused", kernel=3, expanded=16, out=8, activation="relu6"),
        BlockSpec(op="uib", start_kernel=3, kernel=5, expanded=24, out=16, stride=2, activation="hswish"),
        BlockSpec(op="uib", kernel=0, expanded=24, out=16),
        BlockSpec(kernel=5, expanded=48, out=16, se=8, gate="sigmoid", activation="relu6", activate_output=True),
        BlockSpec(kernel=3, expanded=32, out=24, stride=2, se=8, activation="hswish"),
    ),
    head=HeadSpec(conv=32, hidden=32, activation="relu", hidden_norm=True),
)


@pytest.fixture
def trained(training):
    return load_trained(training)


@pytest.fixture(scope="session")
def exported(training, few, tmp_path_factory):
    """Return the float32 and the int8 file of the training."""
    folder = tmp_path_factory.mktemp("tflite")
    paths = folder / "m.tflite", folder / "m.int8.tflite"
    export_tflite(load_trained(training), few.val, paths[0])
    export_int8_tflite(paths[0], few.train, paths[1])
    return paths


@pytest.mark.parametrize("batch", [1, 5])
def test_logits_equal_torch_s_image_by_image(trained, exported, few, batch):
    ((images, _), *_) = few.val.batches(batch, 32)
    with torch.no_grad():
        expected = trained.model(images).numpy()
    logits = LiteRtNetwork.load(exported[0]).run(images.numpy())
    assert logits.shape == (batch, 10)
    assert np.abs(logits - expected).max() < TOLERANCE * np.ptp(expected)


def test_the_file_describes_itself(trained, exported):
    for path in exported:
        about = LiteRtNetwork.load(path).about
        assert about == trained.about
        assert about.classes[:2] == ("T-shirt/top", "Trouser")
        assert (about.preparation.mean, about.preparation.std) == (MEAN, STD)


def test_both_files_have_the_same_signature_of_floats(exported):
    for path in exported:
        interpreter = LiteRtNetwork.load(path).interpreter
        assert interpreter.get_signature_list() == {SIGNATURE: {"inputs": [INPUT], "outputs": [OUTPUT]}}
        runner = interpreter.get_signature_runner(SIGNATURE)
        ends = runner.get_input_details()[INPUT], runner.get_output_details()[OUTPUT]
        assert [(end["dtype"], end["shape"].tolist()) for end in ends] == [
            (np.float32, [1, 32, 32, 3]),
            (np.float32, [1, 10]),
        ]


def test_int8_is_small_and_nearly_as_good(trained, exported, few):
    float32, int8 = map(LiteRtNetwork.load, exported)
    top1 = accuracy(float32, few.val)
    assert top1 == trained.metrics.top1 > 50
    whole = load_data(few.source).val
    assert accuracy(int8, whole) > accuracy(float32, whole) - 1
    model = exported[1].read_bytes()
    assert float_operators(model) == list(FLOAT_OPERATORS)
    tensors = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0].tensors
    # All weights are in int8, with a scale a channel; the numbers of a hard sigmoid have one scale.
    weights = [t for t in tensors if t.type == schema.TensorType.INT8 and len(t.quantization.scale) > 1]
    expected = sum(weight.size for weight, _ in folded_convolutions(trained.model))
    assert sum(int(np.prod(weight.shape)) for weight in weights) == expected


def test_every_activation_gate_and_kind_of_block_is_exported_in_int8(trained, few, tmp_path):
    """With weights that no training has seen."""
    torch.manual_seed(0)
    model = build_model(EVERY_KIND, num_classes=10).eval()
    other = replace(trained, model=model, settings=replace(trained.settings, spec=EVERY_KIND))
    assert export_tflite(other, few.val, tmp_path / "x.tflite") < TOLERANCE
    export_int8_tflite(tmp_path / "x.tflite", few.train, tmp_path / "x.int8.tflite")
    assert float_operators((tmp_path / "x.int8.tflite").read_bytes()) == list(FLOAT_OPERATORS)
    ((images, _), *_) = few.val.batches(64, 32)
    outputs = [load_network(tmp_path / name).run(images.numpy()) for name in ("x.tflite", "x.int8.tflite")]
    assert np.corrcoef(*[output.ravel() for output in outputs])[0, 1] > 0.95


def test_a_network_that_differs_is_not_written(trained, few, tmp_path, monkeypatch):
    wrong = [(weight, bias + 0.01) for weight, bias in folded_convolutions(trained.model)]
    monkeypatch.setattr("nas.deploy.export.folded_convolutions", lambda model: wrong)
    with pytest.raises(NasError, match=r"x\.tflite: LiteRT's logits differ from torch's by .*; nothing was written"):
        export_tflite(trained, few.val, tmp_path / "x.tflite")
    assert list(tmp_path.iterdir()) == []


def test_without_a_picture_nothing_is_written(trained, exported, few, tmp_path, monkeypatch):
    monkeypatch.setattr(TensorImages, "batches", lambda *arguments: iter(()))
    with pytest.raises(NasError, match="none of the images to validate on can be read"):
        export_tflite(trained, few.val, tmp_path / "x.tflite")
    with pytest.raises(NasError, match="none of the images to calibrate int8 with can be read"):
        export_int8_tflite(exported[0], few.train, tmp_path / "x.int8.tflite")
    assert list(tmp_path.iterdir()) == []


def test_an_operation_that_the_quantiser_leaves_alone_is_named(exported, monkeypatch):
    """An older ai-edge-quantizer does not know all operations, and writes them in float32 without a word."""
    from ai_edge_quantizer import recipe

    convolutions = recipe.static_wi8_ai8()
    convolutions[0]["operation"] = "CONV_2D"
    monkeypatch.setattr(recipe, "static_wi8_ai8", lambda: convolutions)
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    with pytest.raises(
        NasError, match=r"^ai-edge-quantizer leaves .*DEPTHWISE_CONV_2D, .* in float32; install its newest"
    ):
        quantised(exported[0].read_bytes(), [images])


def test_quantising_says_nothing(exported, few, tmp_path, capfd):
    export_int8_tflite(exported[0], few.train, tmp_path / "x.tflite")
    assert capfd.readouterr() == ("", "")


def test_networks_of_both_formats_are_timed_in_the_same_rounds(exported, few, trained, tmp_path):
    import random

    from nas.deploy.export import export_onnx

    export_onnx(trained, few.val, tmp_path / "x.onnx")
    networks = [load_network(path) for path in (tmp_path / "x.onnx", *exported)]
    assert [network.runtime for network in networks] == ["onnxruntime", "LiteRT", "LiteRT"]
    assert all(0 < ms < 100 for ms in time_networks(networks, random.Random(0)))


# The commands ---------------------------------------------------------------------------------------------


@pytest.fixture
def on_few(few, monkeypatch):
    monkeypatch.setattr("nas.training.data.load_data", lambda source, folder, loaders: few)


def rows_of(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if line.startswith("net.")]


def test_the_command_writes_tflite_alone(training, on_few, tmp_path, capsys):
    export.main([str(training), "--format", "tflite", "--out", str(tmp_path / "net.tflite")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.int8.tflite", "net.md", "net.tflite"]
    out = capsys.readouterr().out
    assert "(0.0001 is allowed), for batch 1" in out.replace("\n", " ")
    rows = rows_of(out)
    assert [row[:2] for row in rows] == [["net.tflite", "float32"], ["net.int8.tflite", "int8"]]
    assert float(rows[0][3]) == pytest.approx(load_trained(training).metrics.top1, abs=0.006)
    card = (tmp_path / "net.md").read_text()
    assert "(LiteRT)" in card
    assert f"signature is `{SIGNATURE}`, its input `{INPUT}` and its output `{OUTPUT}`" in card
    assert "for onnxruntime" not in card
    (line,) = [line.strip() for line in card.splitlines() if line.startswith("    network = ")]
    scope: dict[str, Any] = {}
    exec("from nas.deploy.network import load_network\n" + line, scope)
    assert isinstance(scope["network"], LiteRtNetwork)


def test_both_formats_share_a_table_and_a_card(training, on_few, tmp_path, capsys):
    export.main([str(training), "--format", "both", "--out", str(tmp_path / "net.onnx")])
    names = ["net.onnx", "net.int8.onnx", "net.tflite", "net.int8.tflite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "net.md"])
    assert [row[0] for row in rows_of(capsys.readouterr().out)] == names
    card = (tmp_path / "net.md").read_text()
    assert all(f"| `{name}` |" in card for name in names)
    assert "(onnxruntime, LiteRT)" in card
    assert "from -64 to 64" in card


@pytest.mark.parametrize(
    ("name", "format", "endings"),
    [("net.onnx", "tflite", r"\.tflite"), ("net.tflite", "onnx", r"\.onnx"), ("net.md", "both", r"\.onnx or \.tflite")],
)
def test_a_name_of_another_format_is_refused(training, tmp_path, name, format, endings):
    with pytest.raises(NasError, match=rf"--out is .*{name}; name a file that ends in {endings}, for"):
        export.main([str(training), "--format", format, "--out", str(tmp_path / name)])


@pytest.mark.parametrize(
    ("module", "what", "package"),
    [
        ("ai_edge_litert.interpreter", "the runtime litert", "ai-edge-litert"),
        ("ai_edge_quantizer.quantizer", "the quantiser of TFLite files", "'ai-edge-quantizer>=0.7'"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_written(
    training, on_few, monkeypatch, tmp_path, module, what, package
):
    monkeypatch.setitem(sys.modules, module, None)
    install = f"install it with `uv sync --extra litert` or `pip install {package}`"
    with pytest.raises(NasError, match=f"^{what} is not installed .*; {install}$") as error:
        export.main([str(training), "--format", "both", "--out", str(tmp_path / "net.onnx")])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_predicting_without_the_package_names_it(exported, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(NasError, match=r"^the runtime litert is not installed .*; install it with `uv sync --extra"):
        predict.main([str(exported[0]), str(pictures[0])])


def test_a_network_with_a_head_of_segmentation_is_refused(tmp_path):
    """Exports are classifiers, in every format."""
    model = segmentation_model(EVERY_KIND.replace(blocks=(*EVERY_KIND.blocks, EVERY_KIND.blocks[-1])))
    torch.save(model.state_dict(), tmp_path / "heads.pt")
    for format in ("onnx", "tflite"):
        with pytest.raises(NasError, match=r"heads\.pt: weights of a network with a head for segmentation"):
            export.main([str(tmp_path / "heads.pt"), "--format", format])


def test_predicts_without_torch_what_the_checkpoint_predicts(exported, training, pictures, capsys):
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnxruntime'] = None; from nas import predict\n"
        "predict.main(sys.argv[1:])"
    )
    chosen = list(map(str, pictures[:3]))
    command = [sys.executable, "-c", code, str(exported[0]), *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    predict.main([str(training), *chosen])
    assert done.stdout == capsys.readouterr().out


def test_files_that_are_no_networks_are_refused(exported, tmp_path):
    path = tmp_path / "x.tflite"
    with pytest.raises(NasError, match=r"x\.tflite: no such file"):
        LiteRtNetwork.load(path)
    for whole in exported:
        content = whole.read_bytes()
        for length in (0, 5, 1000, len(content) // 2, len(content) - 100):
            path.write_bytes(content[:length])
            with pytest.raises(NasError, match=r"^\S*x\.tflite: LiteRT cannot load it \(.+\)$"):
                LiteRtNetwork.load(path)


def test_files_of_others_are_refused_with_what_is_missing(exported, trained, tmp_path):
    path = tmp_path / "x.tflite"
    spec = trained.settings.spec
    about = metadata_of(exported[0].read_bytes())[KEY]
    for metadata, message in (
        ({}, "it does not name its classes, nor how images are prepared for it; only files that nas.export wrote do"),
        ({KEY: "{"}, "its description of classes and images cannot be read"),
        ({KEY: about.replace("crop", "crap")}, r"its description of classes and images cannot be read \('crop'\)"),
    ):
        path.write_bytes(network_model(spec, 10, metadata=metadata))
        with pytest.raises(NasError, match=message):
            LiteRtNetwork.load(path)


def test_files_that_are_not_as_they_describe_themselves_are_refused(exported, trained, tmp_path):
    path = tmp_path / "x.TFLITE"
    spec = trained.settings.spec.replace(resolution=32)
    about = metadata_of(exported[0].read_bytes())[KEY]
    path.write_bytes(network_model(spec, 9, metadata={KEY: about}))
    with pytest.raises(NasError, match=r"x\.TFLITE: its description names 10 classes, and it has 9 outputs$"):
        load_network(path)
    path.write_bytes(network_model(spec.replace(resolution=64), 10, metadata={KEY: about}))
    with pytest.raises(NasError, match=r"x\.TFLITE: LiteRT cannot run it as its description says \(.+\)$"):
        load_network(path)


def test_ranges_of_a_batch_are_those_of_its_pieces(exported, monkeypatch):
    """Few images are calibrated at a time, since many take gigabytes."""
    images = np.random.default_rng(0).standard_normal((20, 3, 32, 32), np.float32)
    models = []
    for at_once in (20, 8):
        monkeypatch.setattr("nas.deploy.tflite_int8.CALIBRATED", at_once)
        models.append(quantised(exported[0].read_bytes(), [images]))
    assert models[0] == models[1]


def test_an_ending_says_the_format(exported, pictures, tmp_path):
    shutil.copy(exported[0], tmp_path / "x.onnx")
    with pytest.raises(NasError, match=r"x\.onnx: onnxruntime cannot load it"):
        predict.main([str(tmp_path / "x.onnx"), str(pictures[0])])
